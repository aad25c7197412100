"""RSync: what arrives, what is told meanwhile, and what happens when something goes wrong.

What it has in common with execnet's is compared by scripts/rsync.py, run with both; here is what is execnet_c's own.
"""

import os
import shutil
import stat
import subprocess
import sys
import tempfile

import pairing
import pytest

import execnet_c
from conftest import TIMEOUT
from execnet_c import rsync as room
from far_ends import FAR_ENDS
from masters import Program, run
from trees import MIB, Quiet, fill, found, send
from rsyncs import failing, source_fixture  # noqa: F401 (fixtures)

pytestmark = pytest.mark.ours

ODD_NAMES = [b"two\nlines", b"\xff\xfe", "ä€\U0001f40d".encode(), b" ", b"'\"\\ $(x)\t*", b"-rf", b"U", b"x" * 255]


# --- what arrives -----------------------------------------------------------------------------------------------------


def test_any_name_goes_through(gw, source, tmp_path):
    for name in ODD_NAMES:
        directory = os.path.join(os.fsencode(source), b"in " + name[:200])
        os.mkdir(directory)
        for inside in (os.fsencode(source), directory):
            with open(os.path.join(inside, name), "wb") as file:
                file.write(name)
        os.symlink(name, os.path.join(directory, b"link"))
    destination = tmp_path / os.fsdecode(b"to \xff")
    sent = send(source, (gw, destination))
    assert len(sent) == 2 * len(ODD_NAMES) + 2
    assert found(destination) == found(source)
    assert send(source, (gw, destination)) == []


def test_times_are_exact_and_so_are_modes(gw, source, tmp_path):
    path = source / "a"
    os.utime(path, ns=(1, 1234567890_123456789))
    send(source, (gw, tmp_path / "there"))
    there = tmp_path / "there" / "a"
    assert there.stat().st_mtime_ns == 1234567890_123456789
    for mode in (0o4755, 0o604, 0o444):
        path.chmod(mode)
        assert send(source, (gw, tmp_path / "there")) == []
        assert stat.S_IMODE(there.stat().st_mode) == mode


def test_sizes_around_those_of_the_items(gw, source, tmp_path):
    edges = (room.SMALL, room.PIECE, 2 * room.PIECE)
    for size in sorted({0, 1, *[edge + d for edge in edges for d in (-1, 0, 1)]}):
        (source / str(size)).write_bytes(os.urandom(size))
    send(source, (gw, tmp_path / "there"))
    assert found(tmp_path / "there") == found(source)


def test_a_wide_directory(gw, source, tmp_path):
    (source / "wide").mkdir()
    for i in range(3000):
        (source / "wide" / f"{i:0100}").touch()
    assert len(send(source, (gw, tmp_path / "there"))) == 3002
    assert found(tmp_path / "there") == found(source)


def test_targets_that_share_a_directory(group, source, tmp_path):
    for i in range(500):
        fill(source / f"{i}", 1, 4)
        (source / f"{i}" / "link").symlink_to("file 0")
    send(source, *[(group.makegateway("popen"), tmp_path / "there") for _ in range(2)])
    assert found(tmp_path / "there") == found(source)


def test_a_tree_that_is_deeper_than_calls_may_be(gw):
    top = tempfile.mkdtemp(dir="/tmp")  # the whole path must be below 4096 bytes
    try:
        deepest = f"{top}/s" + "/d" * 1100
        os.makedirs(f"{top}/s" + "/d" * 500)
        os.makedirs(deepest)
        with open(f"{deepest}/file", "w"):
            pass
        assert send(f"{top}/s", (gw, f"{top}/t"), delete=True) == [("gw0", "d/" * 1100 + "file")]
        assert os.path.exists(f"{top}/t" + "/d" * 1100 + "/file")
        assert send(f"{top}/s", (gw, f"{top}/t"), delete=True) == []
    finally:
        subprocess.run(["rm", "-rf", top], check=True)


def test_a_link_below_the_source_is_one_below_a_relative_destination(group, source, tmp_path):
    (tmp_path / "home").mkdir()
    gw = group.makegateway(f"popen//chdir={tmp_path / 'home'}")
    (source / "sub" / "link").symlink_to(source / "a")
    send(source, (gw, "there/below"))
    assert (tmp_path / "home" / "there" / "below" / "sub" / "link").read_bytes() == b"content of a"


def test_a_relative_link_stays_one_wherever_the_program_is(gw, source, tmp_path, monkeypatch):
    (source / "sub" / "link").symlink_to("b")
    monkeypatch.chdir(source)
    send(".", (gw, tmp_path / "there"))
    assert os.readlink(tmp_path / "there" / "sub" / "link") == "b"


def test_the_source_may_be_a_link(gw, source, tmp_path):
    (tmp_path / "link").symlink_to(source)
    send(tmp_path / "link", (gw, tmp_path / "there"))
    assert found(tmp_path / "there") == found(source)


def test_a_file_is_replaced_at_once_not_written_to(gw, source, tmp_path):
    send(source, (gw, tmp_path / "there"))
    before = os.open(tmp_path / "there" / "a", os.O_RDONLY)
    try:
        (source / "a").write_bytes(b"another content")
        send(source, (gw, tmp_path / "there"))
        assert os.read(before, 100) == b"content of a"
    finally:
        os.close(before)
    assert found(tmp_path / "there") == found(source)


def test_as_test_runners_do(group, tmp_path, source, capsys):
    """A subclass with its own __init__, filter and report, and targets below the gateways' own directories."""

    class HostRSync(execnet_c.RSync):
        def __init__(self, sourcedir, *, ignores=(), **kwargs):
            self._ignores = ignores
            super().__init__(sourcedir=sourcedir, **kwargs)

        def filter(self, path):
            return os.path.basename(path) not in self._ignores

        def add_target_host(self, gateway, finished=None):
            super().add_target(gateway, os.path.basename(self._sourcedir), finishedcallback=finished, delete=True)

        def _report_send_file(self, gateway, path):
            if self._verbose > 0:
                print(f"{gateway.spec.chdir}:{os.path.basename(self._sourcedir)}/{path}")

    (source / "left out").write_bytes(b"")
    homes = [tmp_path / name for name in ("one", "two")]
    finished = []
    rsync = HostRSync(source, ignores=["left out"], verbose=1)
    for home in homes:
        home.mkdir()
        rsync.add_target_host(group.makegateway(f"popen//chdir={home}"), lambda: finished.append(1))
    rsync.send()
    (source / "left out").unlink()
    assert [found(home / "source") for home in homes] == [found(source)] * 2
    assert finished == [1, 1]
    lines = [f"{home}:source/{name}" for home in homes for name in ("a", "sub/b")]
    assert sorted(capsys.readouterr().out.splitlines()) == sorted(lines)


@pytest.mark.parametrize("verbose", [True, False])
def test_each_file_is_printed(gw, source, tmp_path, capsys, verbose):
    (source / os.fsdecode(b"\xff")).write_bytes(b"")
    rsync = execnet_c.RSync(source, verbose=verbose)
    rsync.add_target(gw, tmp_path / "there")
    rsync.send()
    lines = [line.split("> <= ") for line in capsys.readouterr().out.splitlines()]
    assert sorted(name for _, name in lines) == (["\\udcff", "a", "sub/b"] if verbose else [])
    assert all(line[0].startswith("<Gateway id='gw0'") for line in lines)


def test_what_the_callback_is_told(group, source, tmp_path):
    fill(source, 400, 3000)
    told, finished = {}, []
    rsync = Quiet(source, lambda what, size, channel: told.setdefault(channel.gateway.id, []).append((what, size)))
    for _ in range(3):
        gw = group.makegateway("popen")
        rsync.add_target(gw, tmp_path / gw.id, lambda id=gw.id: finished.append(id))
    rsync.send()
    sizes = [1000, 12, *[3000] * 400]
    assert sorted(finished) == sorted(told) == ["gw0", "gw1", "gw2"]
    for events in told.values():
        assert events[0] == ("list", sum(sizes))
        assert sorted(events[1:]) == sorted(("ack", size) for size in sizes)
    told.clear()
    rsync = Quiet(source, lambda what, size, channel: told.setdefault(what, size))
    rsync.add_target(group["gw0"], tmp_path / "gw0")
    rsync.send()
    assert told == {"list": 0} and rsync.sent == []


# --- a progress bar ---------------------------------------------------------------------------------------------------


def test_a_bar(source, tmp_path):
    """In a program of its own: tqdm keeps a thread."""
    pytest.importorskip("tqdm")
    fill(source, 3, MIB)
    with Program(
        """
        group = execnet_c.Group(["popen"] * 2)
        rsync = execnet_c.RSync(sys.argv[1], progress=True)
        for gateway in group:
            rsync.add_target(gateway, sys.argv[2] + gateway.id)
        rsync.send()
        group.terminate(5)
        """,
        source,
        tmp_path / "there",
    ) as program:
        lines, err = program.finish(0, None)
    assert "source: 100%" in err and "6.29M/6.29M" in err
    assert len([line for line in lines if "> <= file " in line]) == 6


def test_no_bar_without_tqdm(source, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with pytest.raises(ImportError, match="with tqdm, which is not installed: pip install tqdm"):
        execnet_c.RSync(source, progress=True)
    execnet_c.RSync(source)


# --- memory, and targets that are slow --------------------------------------------------------------------------------

MEMORY = "open('/proc/self/status').read().split('VmHWM:')[1].split()[0]"


@pytest.mark.not_under("asan tsan", "it counts memory")
def test_a_large_file_takes_little_memory_at_both_ends_and_a_stopped_target_holds_up_no_other(tmp_path):
    """The stopped one goes on when the others are done."""
    os.mkdir(tmp_path / "source")
    with open(tmp_path / "source" / "large", "wb") as file:
        for at in range(0, 200 * MIB, 10 * MIB):
            file.seek(at)
            file.write(os.urandom(100_000))
        file.truncate(200 * MIB + 1)
    run(
        f"""
        top = sys.argv[1]
        def peaks(group):
            there = [gw.remote_exec("channel.send({MEMORY})").receive(30) for gw in group]
            return [int(kib) // 1024 for kib in [{MEMORY}, *there]]

        group = execnet_c.Group(["popen"] * 3)
        stopped = worker_of(group[0])
        small = os.path.join(top, "small")
        os.mkdir(small)
        rsync = execnet_c.RSync(small)
        for gw in group:
            rsync.add_target(gw, top + "/nothing")
        rsync.send()
        before = peaks(group)
        done = []

        def finished(name):
            done.append(name)
            if len(done) == 2:
                os.kill(stopped, signal.SIGCONT)

        def tell(what, size, channel):
            if what == "list" and channel.gateway is group[0]:
                os.kill(stopped, signal.SIGSTOP)

        rsync = execnet_c.RSync(top + "/source", tell, verbose=False)
        for gw in group:
            rsync.add_target(gw, top + "/" + gw.id, lambda name=gw.id: finished(name))
        rsync.send()
        assert sorted(done[:2]) == ["gw1", "gw2"] and done[2] == "gw0", done
        more = [after - start for after, start in zip(peaks(group), before)]
        print("MiB more than before:", more)
        assert max(more) < 40, more
        group.terminate(5)
        """,
        tmp_path,
        limit=110,
    )
    for name in ("gw0", "gw1", "gw2"):
        assert found(tmp_path / name) == found(tmp_path / "source")
        shutil.rmtree(tmp_path / name)


@pytest.mark.not_under("asan tsan", "it counts memory")
def test_many_files_take_little_memory_where_they_are_awaited(group, tmp_path):
    """The far end is as slow as its disk: what it has not taken yet stays here."""
    fill(tmp_path / "source", 60, MIB)
    gw = group.makegateway("popen")
    ask = f"channel.send(int({MEMORY}))"
    before = gw.remote_exec(ask).receive(TIMEOUT)
    delay = "import os, time; rename = os.rename; os.rename = lambda *names: [time.sleep(0.03), rename(*names)]"
    gw.remote_exec(delay).waitclose(TIMEOUT)
    send(tmp_path / "source", (gw, tmp_path / "there"))
    assert found(tmp_path / "there") == found(tmp_path / "source")
    assert (gw.remote_exec(ask).receive(TIMEOUT) - before) / 1024 < 35


# --- far ends in other Pythons ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", FAR_ENDS, ids=lambda end: end.name)
@pytest.mark.skipif(pairing.name in ("C-Python", "Python-C"), reason="foreign far ends have a core of their own")
def test_far_ends(group, source, end):
    gw = group.makegateway(end.spec())
    fill(source, 20, 40_000)
    (source / "large").write_bytes(os.urandom(MIB))
    for name in ODD_NAMES:
        with open(os.path.join(os.fsencode(source), name), "wb") as file:
            file.write(name)
    (source / "sub" / "link").symlink_to("b")
    directory = end.directory()
    try:
        there = end.there(directory) + "/new"
        if end.read_only:
            failing(source, [(gw, there)], [], "Read-only file system")
            return
        send(source, (gw, there))
        assert found(directory + "/new") == found(source)
        (source / "a").unlink()
        (source / "file 1").write_bytes(b"another one")
        os.utime(source / "file 2", (5, 5))
        assert send(source, (gw, there), delete=True) == [("gw0", "file 1")]
        assert found(directory + "/new") == found(source)
    finally:
        shutil.rmtree(directory)
