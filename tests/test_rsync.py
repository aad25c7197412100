"""RSync: what arrives, what is told meanwhile, and what happens when something goes wrong.

What it has in common with execnet's is compared by scripts/rsync.py, run with both; here is what is execnet_c's own.
"""

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType

import pairing
import pytest

import execnet_c
from conftest import TIMEOUT
from execnet_c import rsync as room
from far_ends import FAR_ENDS
from masters import Program, is_gone, run, wait_until, worker_of
from trees import MIB, Quiet, are_complete, fill, found, send

pytestmark = pytest.mark.ours

ODD_NAMES = [b"two\nlines", b"\xff\xfe", "ä€\U0001f40d".encode(), b" ", b"'\"\\ $(x)\t*", b"-rf", b"U", b"x" * 255]


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "source"
    (path / "sub").mkdir(parents=True)
    (path / "a").write_bytes(b"content of a")
    (path / "sub" / "b").write_bytes(b"b" * 1000)
    return path


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


# --- what goes wrong here ---------------------------------------------------------------------------------------------


def assert_free(gateway):
    """Nothing runs there any more."""
    assert wait_until(lambda: gateway.remote_status().numexecuting == 0, TIMEOUT)


def test_a_source_that_is_not_there(gw, tmp_path):
    rsync = Quiet(tmp_path / "nowhere")
    rsync.add_target(gw, tmp_path / "there")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        rsync.send()
    assert_free(gw)
    assert not (tmp_path / "there").exists()


def test_a_source_with_what_cannot_be_sent(gw, source, tmp_path):
    os.mkfifo(source / "sub" / "fifo")
    with pytest.raises(ValueError, match="cannot sync .*/sub/fifo"):
        send(source, (gw, tmp_path / "there"))
    assert_free(gw)
    assert not (tmp_path / "there").exists(), "nothing is half done"


@pytest.mark.parametrize("where", ["filter", "_report_send_file", "callback", "finishedcallback"])
def test_what_a_program_s_own_part_raises(gw, source, tmp_path, where):
    def fail(*args):
        raise FileNotFoundError("mine")

    rsync = Quiet(source, fail if where == "callback" else None)
    if where in ("filter", "_report_send_file"):
        setattr(rsync, where, fail)
    rsync.add_target(gw, tmp_path / "there", fail if where == "finishedcallback" else None)
    with pytest.raises(FileNotFoundError, match="^mine$"):
        rsync.send()
    assert_free(gw)
    with pytest.raises(OSError, match="no targets available"):
        rsync.send()


def test_calls_that_mean_nothing(gw, source):
    with pytest.raises(TypeError, match="callback must be callable, not int"):
        execnet_c.RSync(source, callback=5)
    rsync = execnet_c.RSync(source)
    with pytest.raises(TypeError, match="unexpected option 'remove'; there is delete"):
        rsync.add_target(gw, "there", remove=True)
    with pytest.raises(ValueError, match="destdir is empty"):
        rsync.add_target(gw, "")
    assert_free(gw)


def test_targets_that_are_never_sent_to(gw, source, tmp_path):
    rsync = execnet_c.RSync(source)
    rsync.add_target(gw, tmp_path / "there")
    del rsync
    assert_free(gw)


def test_a_file_that_vanishes_is_none_to_send(group, source, tmp_path, monkeypatch):
    look, pieces = room._Source.look, room._Source.pieces

    def vanish_then_look(self, rel, checksum):
        if rel == b"a" and (source / "a").exists():
            (source / "a").unlink()
        return look(self, rel, checksum)

    def vanish_then_read(self, rel):
        if rel == b"sub/b" and (source / "sub" / "b").exists():
            (source / "sub" / "b").unlink()
        return pieces(self, rel)

    (source / "c").write_bytes(b"c")
    monkeypatch.setattr(room._Source, "look", vanish_then_look)
    monkeypatch.setattr(room._Source, "pieces", vanish_then_read)
    gateways = [group.makegateway("popen") for _ in range(2)]
    send(source, *[(gw, tmp_path / gw.id) for gw in gateways])
    assert [sorted(found(tmp_path / gw.id)) for gw in gateways] == [[b"c", b"sub"]] * 2


@pytest.mark.parametrize("how", ["link", "fifo", "directory"])
def test_a_file_that_has_become_something_else(gw, source, tmp_path, monkeypatch, how):
    (tmp_path / "secret").write_bytes(b"secret")
    look = room._Source.look

    def change_then_look(self, rel, checksum):
        if rel == b"a":
            (source / "a").unlink()
            make = {"link": lambda: (source / "a").symlink_to(tmp_path / "secret"), "directory": (source / "a").mkdir}
            make.get(how, lambda: os.mkfifo(source / "a"))()
        return look(self, rel, checksum)

    monkeypatch.setattr(room._Source, "look", change_then_look)
    with pytest.raises(execnet_c.RSyncError, match="'a' here: OSError: "):
        send(source, (gw, tmp_path / "there"))
    assert sorted(found(tmp_path / "there")) == [b"sub", b"sub/b"]


def at_first_read(monkeypatch, path, change):
    """Have `change` called when the first piece of that file has been read."""
    pread, changed = os.pread, []

    def read_then_change(fd, size, at):
        data = pread(fd, size, at)
        if not changed and os.path.samestat(os.fstat(fd), before):
            changed.append(1)
            change()
        return data

    before = path.stat()
    monkeypatch.setattr(room.os, "pread", read_then_change)


def test_a_file_that_grows_arrives_as_it_was(gw, source, tmp_path, monkeypatch):
    content = os.urandom(2 * MIB)
    (source / "large").write_bytes(content)

    def grow():
        with open(source / "large", "ab") as file:
            file.write(b"more")

    at_first_read(monkeypatch, source / "large", grow)
    send(source, (gw, tmp_path / "there"))
    assert (tmp_path / "there" / "large").read_bytes() == content
    assert send(source, (gw, tmp_path / "there")) == [("gw0", "large")]
    assert found(tmp_path / "there") == found(source)


def test_a_file_that_becomes_shorter_is_left_out_and_named(group, source, tmp_path, monkeypatch):
    gateways = [group.makegateway("popen") for _ in range(2)]
    targets = [(gw, tmp_path / gw.id) for gw in gateways]
    (source / "large").write_bytes(b"old")
    send(source, *targets)
    (source / "large").write_bytes(os.urandom(2 * MIB))
    (source / "z").write_bytes(b"behind it")
    at_first_read(monkeypatch, source / "large", lambda: os.truncate(source / "large", 1000))
    with pytest.raises(execnet_c.RSyncError, match="failed for some files:\n  'large' here: .*became shorter") as error:
        send(source, *targets)
    assert [(gw, path) for gw, path, _ in error.value.failures] == [(None, "large")]
    for gw in gateways:
        there = tmp_path / gw.id
        assert sorted(found(there)) == [b"a", b"large", b"sub", b"sub/b", b"z"]
        assert (there / "z").read_bytes() == b"behind it"
        assert (there / "large").read_bytes() in (b"old", (source / "large").read_bytes())
    assert b"old" in [(tmp_path / gw.id / "large").read_bytes() for gw in gateways]


def test_a_file_that_cannot_be_read_is_named(gw, source, tmp_path, monkeypatch):
    """Over there it stays as it was, with the time that it had: the next send() does not take it for the right one."""
    send(source, (gw, tmp_path / "there"))
    before = found(tmp_path / "there")
    (source / "a").write_bytes(b"new content")
    (source / "new").write_bytes(b"new")
    real = os.open

    def refuse(path, *args, **kwargs):
        if path == os.fsencode(source / "a"):
            raise PermissionError(13, "Permission denied", path)
        return real(path, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(room.os, "open", refuse)
        with pytest.raises(execnet_c.RSyncError, match="'a' here: PermissionError") as error:
            send(source, (gw, tmp_path / "there"))
    assert isinstance(error.value.__cause__, PermissionError)
    now = found(tmp_path / "there")
    assert now[b"a"] == before[b"a"] and sorted(now) == [b"a", b"new", b"sub", b"sub/b"]
    assert send(source, (gw, tmp_path / "there")) == [("gw0", "a")]
    assert found(tmp_path / "there") == found(source)


def test_ctrl_c_ends_it_also_while_a_target_does_not_listen(source, tmp_path):
    fill(source, 30, MIB)
    run(
        """
        top = sys.argv[1]
        group = execnet_c.Group(["popen"] * 2)
        stopped = worker_of(group[0])
        sent = []

        def tell(what, size, channel):
            if what == "list" and channel.gateway is group[0]:
                os.kill(stopped, signal.SIGSTOP)

        def interrupt():
            time.sleep(0.3)
            sent.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGINT)

        thread = threading.Thread(target=interrupt)
        rsync = execnet_c.RSync(top + "/source", tell, verbose=False)
        rsync.add_target(group[0], top + "/0")
        rsync.add_target(group[1], top + "/1", thread.start)
        raises(KeyboardInterrupt, rsync.send)
        assert time.monotonic() - sent[0] < PROMPT
        thread.join()
        os.kill(stopped, signal.SIGCONT)
        assert wait_until(lambda: all(gw.remote_status().numexecuting == 0 for gw in group))
        assert wait_until(lambda: not [t for t in threading.enumerate() if "rsync" in t.name])
        group.terminate(5)
        """,
        tmp_path,
    )
    assert found(tmp_path / "1") == found(source)
    assert are_complete(tmp_path / "0", source)
    assert len(found(tmp_path / "0")) < len(found(source)), "it was sent everything nevertheless"


# --- what goes wrong over there ---------------------------------------------------------------------------------------


def failing(source, targets, finished, *words):
    """Send; returns the RSyncError, which holds those words."""
    rsync = Quiet(source)
    for gateway, directory in targets:
        rsync.add_target(gateway, directory, lambda id=gateway.id: finished.append(id))
    with pytest.raises(execnet_c.RSyncError) as error:
        rsync.send()
    for word in words:
        assert word in str(error.value), str(error.value)
    return error.value


def test_one_of_three_dies(group, source, tmp_path):
    fill(source, 40, MIB)
    gateways = [group.makegateway("popen") for _ in range(3)]
    doomed = worker_of(gateways[1])
    finished = []

    def tell(what, size, channel):
        if what == "list" and channel.gateway is gateways[1]:
            os.kill(doomed, signal.SIGKILL)

    rsync = Quiet(source, tell)
    for gw in gateways:
        rsync.add_target(gw, tmp_path / gw.id, lambda id=gw.id: finished.append(id))
    with pytest.raises(execnet_c.RSyncError) as error:
        rsync.send()
    ((gateway, path, why),) = error.value.failures
    assert gateway is gateways[1] and path == str(tmp_path / "gw1")
    assert type(why) is execnet_c.WorkerKilled and error.value.__cause__ is why
    for words in ("failed for 1 of 3 targets", "gw1 (popen", str(tmp_path / "gw1"), "killed by SIGKILL"):
        assert words in str(error.value)
    assert isinstance(error.value, OSError) and isinstance(error.value, EOFError)
    assert isinstance(error.value, execnet_c.RemoteError)
    assert sorted(finished) == ["gw0", "gw2"]
    assert [found(tmp_path / id) for id in finished] == [found(source)] * 2
    theirs = found(tmp_path / "gw1")
    named = {name: fact for name, fact in theirs.items() if not os.path.basename(name).startswith(b".execnet_c-")}
    assert named.items() <= found(source).items(), "no half file under its name"
    assert len(theirs) - len(named) <= 1


def test_dead_before_it_is_sent_to(group, source, tmp_path):
    gateways = [group.makegateway("popen") for _ in range(2)]
    pid = worker_of(gateways[0])
    finished = []
    rsync = Quiet(source)
    for gw in gateways:
        rsync.add_target(gw, tmp_path / gw.id, lambda id=gw.id: finished.append(id))
    os.kill(pid, signal.SIGKILL)
    assert wait_until(lambda: is_gone(pid))
    with pytest.raises(execnet_c.RSyncError, match="gw0 .*killed by SIGKILL"):
        rsync.send()
    assert finished == ["gw1"] and found(tmp_path / "gw1") == found(source)


def test_the_cause_is_told_also_where_sending_fails(gw, source, tmp_path, monkeypatch):
    failed = ModuleType("failed")
    failed.__file__ = str(tmp_path / "failed.py")
    (tmp_path / "failed.py").write_text("raise ValueError('over there')")
    monkeypatch.setattr(room, "rsync_remote", failed)
    channel, remote_exec = [], gw.remote_exec

    class Waiting:
        """A gateway whose target has failed when send() begins."""

        def remote_exec(self, source):
            channel.append(remote_exec(source))
            return channel[0]

    rsync = Quiet(source)
    rsync.add_target(Waiting(), tmp_path / "there")
    assert wait_until(channel[0].isclosed, TIMEOUT)
    with pytest.raises(execnet_c.RSyncError, match="gw0 .*ValueError: over there") as error:
        rsync.send()
    assert isinstance(error.value.__cause__, execnet_c.RemoteError)


def test_the_sender_dies(source, tmp_path):
    """The far end removes what it has of the file that it was at."""
    fill(source, 40, MIB)
    with Program(
        """
        def tell(what, size, channel):
            if what == "ack":
                os.kill(os.getpid(), signal.SIGKILL)

        gateway = execnet_c.makegateway()
        rsync = execnet_c.RSync(sys.argv[1], tell, verbose=False)
        rsync.add_target(gateway, sys.argv[2])
        rsync.send()
        """,
        source,
        tmp_path / "there",
    ) as program:
        program.finish(-signal.SIGKILL, None)
        assert wait_until(lambda: not program.family(), TIMEOUT)
    assert 0 < len(found(tmp_path / "there"))
    assert are_complete(tmp_path / "there", source)


def test_an_interrupt_while_it_removes_what_it_has(gw, source, tmp_path):
    (source / "a").write_bytes(os.urandom(3 * MIB))
    gw.remote_exec(
        """
        import os, resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, -1))
        unlink = os.unlink
        def interrupted(*args, **kwargs):
            os.unlink = unlink
            raise KeyboardInterrupt
        os.unlink = interrupted
        """
    ).waitclose(TIMEOUT)
    failing(source, [(gw, tmp_path / "there")], [], "KeyboardInterrupt")
    assert sorted(found(tmp_path / "there")) in ([b"sub"], [b"sub", b"sub/b"])


def test_a_full_disk(group, source, tmp_path):
    """As far as a process is concerned: it may not write files of more than 1 MiB."""
    fill(source, 2, 100_000)
    (source / "z").write_bytes(os.urandom(3 * MIB))
    full, good = (group.makegateway("popen") for _ in range(2))
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, -1))"
    full.remote_exec(limit).waitclose(TIMEOUT)
    finished = []
    there = tmp_path / "full"
    targets = [(full, there), (good, tmp_path / "good")]
    error = failing(source, targets, finished, "gw0 (popen", "File too large", f"{there}/z")
    assert isinstance(error.__cause__, execnet_c.RemoteError)
    assert finished == ["gw1"] and found(tmp_path / "good") == found(source)
    assert are_complete(there, source) and b"z" not in found(there)
    full.remote_exec(limit.replace("1 << 20", "-1")).waitclose(TIMEOUT)
    send(source, (full, there))
    assert found(there) == found(source)


@pytest.fixture
def small_disk(tmp_path):
    path = tmp_path / "disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(path)]
    done = subprocess.run(mount, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8")
    if done.returncode:
        pytest.skip(f"cannot mount a small disk: {done.stderr.strip()}")
    yield path
    subprocess.run(["umount", str(path)], stdin=subprocess.DEVNULL, check=True)


def test_a_disk_that_is_full(gw, source, small_disk):
    (source / "z").write_bytes(os.urandom(3 * MIB))
    failing(source, [(gw, small_disk / "there")], [], "No space left on device", f"{small_disk}/there/z")
    assert are_complete(small_disk / "there", source) and b"z" not in found(small_disk / "there")


@pytest.fixture
def humble(gw):
    """A gateway to somebody who may not write everywhere."""
    gw.remote_exec("import os; os.geteuid() or [os.setegid(65534), os.seteuid(65534)]").waitclose(TIMEOUT)
    return gw


@pytest.fixture
def open_path(tmp_path):
    """A directory that anybody can reach and write to, made and removed by hand: tmp_path is its owner's alone."""
    path = tempfile.mkdtemp(dir="/tmp")
    os.chmod(path, 0o777)
    yield path
    shutil.rmtree(path)


def test_without_permission(humble, source, open_path):
    os.mkdir(f"{open_path}/theirs", 0o555)
    os.mkdir(f"{open_path}/theirs/below", 0o555)
    why = f"PermissionError: [Errno 13] Permission denied: '{open_path}/theirs/new'"
    failing(source, [(humble, f"{open_path}/theirs/new")], [], why)
    send(source, (humble, f"{open_path}/ours"))
    assert found(f"{open_path}/ours") == found(source)


def test_what_cannot_be_removed_is_told_when_all_is_done(humble, source, open_path):
    if os.geteuid():
        pytest.skip("needs a file of another user's")
    there = f"{open_path}/there"
    send(source, (humble, there))
    os.makedirs(f"{there}/theirs/below")
    with open(f"{there}/theirs/below/file", "w"):
        pass
    os.makedirs(f"{there}/gone/with")
    os.symlink("with", f"{there}/gone/link")
    with open(f"{there}/gone/with/file", "w"):
        pass
    for path in ("gone", "gone/with"):
        os.chown(f"{there}/{path}", 65534, 65534)
    (source / "new").write_bytes(b"new")
    rsync = Quiet(source)
    rsync.add_target(humble, there, delete=True)
    with pytest.raises(execnet_c.RSyncError, match=f"not removed: PermissionError: .*'{there}/theirs/below/file'"):
        rsync.send()
    assert os.path.exists(f"{there}/theirs") and not os.path.exists(f"{there}/gone")
    assert found(source).items() <= found(there).items()


@pytest.mark.parametrize(
    "what, make, error",
    [
        ("source", Path.touch, NotADirectoryError),
        ("source", os.mkfifo, NotADirectoryError),
        ("source/a", Path.mkdir, IsADirectoryError),
        ("source/a", os.mkfifo, FileExistsError),
    ],
)
def test_what_is_of_another_kind_stays_and_the_others_are_served(group, tmp_path, what, make, error):
    os.mkdir(tmp_path / "source")
    (tmp_path / "source" / "a").write_text("text")
    gateways = [group.makegateway("popen") for _ in range(2)]
    there = [tmp_path / "taken", tmp_path / "free"]
    make(there[0])
    before = os.stat(there[0])
    rsync = execnet_c.RSync(tmp_path / what, verbose=False)
    for gateway, destination in zip(gateways, there):
        rsync.add_target(gateway, destination)
    with pytest.raises(execnet_c.RSyncError, match=error.__name__) as failed:
        rsync.send()
    [(gateway, path, _)] = failed.value.failures
    assert (gateway, path) == (gateways[0], str(there[0])) and gateways[0].id in str(failed.value)
    assert os.path.samestat(os.stat(there[0]), before)
    assert (there[1] / "a" if what == "source" else there[1]).read_text() == "text"


def test_a_destination_below_a_file_and_one_that_leads_nowhere(gw, source, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "dangling").symlink_to("nowhere")
    failing(source, [(gw, tmp_path / "file" / "there")], [], "NotADirectoryError", f"'{tmp_path}/file/there'")
    send(source, (gw, tmp_path / "dangling"))
    assert found(tmp_path / "dangling") == found(source)


def test_a_far_end_gets_no_file_that_is_none_of_the_tree(gw, source, tmp_path, monkeypatch):
    """Whatever it asks for."""
    asking = ModuleType("asking")
    asking.__file__ = str(tmp_path / "asking.py")
    monkeypatch.setattr(room, "rsync_remote", asking)
    for asked in ("2", "-1", "10**30", "b'../secret'", "None"):
        with open(asking.__file__, "w") as file:
            file.write("channel.receive()\nwhile not channel.receive().endswith(b'.'):\n    pass\n")
            file.write(f"channel.send(('send', [(0, None), ({asked}, None)]))\nchannel.receive()")
        with pytest.raises(execnet_c.RSyncError, match="DataFormatError: the far end answered 'send' with what cannot be"):
            send(source, (gw, tmp_path / "there"))
        assert_free(gw)


NAN = "float('nan')"
ALL = "('send', [(0, None), (1, None)]), ('list',), "
NONSENSE = {
    "means nothing": ["None", "7", "()", "'send'", "[1]", "('what',)", "(None,)", f"({NAN}, 1)", "(('ack',), 1, 1, 1)"],
    "'send' with what cannot be": [
        *("('send',)", "('send', None)", "('send', 1)", "('send', [1])", "('send', [(0,)])", "('send', [(0, 1, 2)])"),
        *("('send', [(True, None)])", "('send', [(1.0, None)])", f"('send', [({NAN}, None)])", "('send', ['ab'])"),
        *("('send', [(1, None), (0, None)])", "('send', [(0, None)] * 2)", ALL + "('send', [])", "('send', [], 1)"),
    ],
    "'list' with what cannot be": ["('list', 1)", "('list',), ('list',)", ALL + "('ack', 1, 0, 10**30), ('list',)"],
    "'ack' with what cannot be": [
        *("('ack',)", "('ack', 1, 0)", "('ack', 1, 0, 0, 0)", "('ack', None, 0, 0)", "('ack', -1, 0, 0)"),
        *(f"('ack', {NAN}, 0, 0)", "('ack', 1 << 70, 0, 0)", "('ack', 0.5, 0, 0)", "('ack', 1, 1, 0)", "('ack', 1, -1, 0)"),
        *(f"('ack', 1, {NAN}, 0)", ALL + "('ack', 1, 'a', 0)", ALL + f"('ack', 1, 0, {NAN})", ALL + "('ack', 1, 0, -1)"),
        *(ALL + "('ack', 1, 0, 'many')", ALL + "('ack', 1, 0, None)", ALL + "('ack', 1, 3, 0)"),
    ],
    "'done' with what cannot be": [
        *("('done',)", "('done', [])", "('list',), ('done', None)", "('list',), ('done', 1)", ALL + "('done', [])"),
        *("('list',), ('done', [1])", "('list',), ('done', 'text')", "('list',), ('done', [], [])"),
    ],
    "the far end stopped before it had everything": ["", "('send', [(0, None)]), ('list',)", "('list',)"],
}


@pytest.fixture
def answering(tmp_path, monkeypatch):
    """Add a target whose far end, once it has the tree, gives these answers."""
    ours, theirs = room.rsync_remote, ModuleType("answering")
    theirs.__file__ = str(tmp_path / "answering.py")

    def add(rsync, gateway, answers, then):
        with open(theirs.__file__, "w") as file:
            file.write("channel.receive()\nwhile not channel.receive().endswith(b'.'):\n    pass\n")
            file.write(f"for answer in [{answers}]:\n    channel.send(answer)\n{then}")
        monkeypatch.setattr(room, "rsync_remote", theirs)
        rsync.add_target(gateway, tmp_path / f"bad {gateway.id}")
        monkeypatch.setattr(room, "rsync_remote", ours)

    return add


@pytest.mark.parametrize("why", NONSENSE)
def test_a_target_that_answers_nonsense_fails_alone(group, source, tmp_path, answering, why):
    """Its error names it, and the other one is served."""
    bad, good = group.makegateway("popen//id=bad"), group.makegateway("popen//id=good")
    for answers in NONSENSE[why]:
        rsync = Quiet(source, callback=lambda *told: None)
        answering(rsync, bad, answers, "" if "stopped" in why else "for item in channel:\n    pass\n")
        rsync.add_target(good, tmp_path / "there", delete=True)
        with pytest.raises(execnet_c.RSyncError, match=f"failed for 1 of 2 targets:\n  bad .*(Format|EOF)Error: .*({why})"):
            rsync.send()
        assert found(tmp_path / "there") == found(source)
        shutil.rmtree(tmp_path / "there")
    assert_free(bad)


def test_a_bar_that_breaks_keeps_no_lock(source, tmp_path):
    """Whatever a target answers breaks none; where stderr does, later bars of other threads still come to an end."""
    pytest.importorskip("tqdm")
    theirs = tmp_path / "answering.py"
    theirs.write_text(
        "channel.receive()\nwhile not channel.receive().endswith(b'.'):\n    pass\n"
        "for answer in ('send', [(0, None)]), ('list',), ('ack', 1, 0, float('nan')):\n    channel.send(answer)\n"
        "for item in channel:\n    pass\n"
    )
    run(
        """
        from types import ModuleType
        from tqdm import tqdm
        from execnet_c import rsync as room
        ours, theirs = room.rsync_remote, ModuleType("answering")
        source, there, theirs.__file__ = sys.argv[1:]
        group = execnet_c.Group(["popen"] * 2)

        class Broken:
            def write(self, text):
                raise BrokenPipeError("broken")
            def flush(self):
                pass

        def make():
            rsync = execnet_c.RSync(source, verbose=False, progress=True)
            for gateway in group:
                rsync.add_target(gateway, there + gateway.id)
                room.rsync_remote = ours
            return rsync

        def show():
            for _ in tqdm(range(3)):
                pass
            shown.append(True)

        room.rsync_remote, stderr = theirs, sys.stderr
        error = raises(execnet_c.RSyncError, make().send)
        assert "failed for 1 of 2" in str(error) and "'ack' with what cannot be" in str(error), error
        sys.stderr = Broken()
        raises(BrokenPipeError, make().send)
        sys.stderr = stderr
        for _ in range(2):
            shown = []
            thread = threading.Thread(target=show, daemon=True)
            thread.start()
            thread.join(20)
            assert shown
        group.terminate(5)
        """,
        source,
        str(tmp_path / "there"),
        theirs,
        stderr=None,
    )


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
