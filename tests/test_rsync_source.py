"""RSync when something goes wrong at this side: with the directory that is sent, the program or its handlers."""

import os

import pytest

import execnet_c
from execnet_c import rsync as room
from masters import run
from trees import MIB, Quiet, are_complete, fill, found, send
from rsyncs import assert_free, source_fixture  # noqa: F401 (fixtures)

pytestmark = pytest.mark.ours


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
