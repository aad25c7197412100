"""RSync when something goes wrong over there: with the target directories, or with far ends that answer nonsense."""

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from types import ModuleType

import pytest

import execnet_c
from conftest import TIMEOUT
from execnet_c import rsync as room
from masters import Program, is_gone, run, wait_until, worker_of
from trees import MIB, Quiet, are_complete, fill, found, send
from rsyncs import assert_free, failing, source_fixture  # noqa: F401 (fixtures)

pytestmark = pytest.mark.ours


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
