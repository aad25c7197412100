"""Channels in items: how they are made and sent, and those that come after the end of the connection."""

import gc
import os
import queue
import struct
import threading
import weakref

import pytest

from conftest import TIMEOUT, wait_until


# ---- channels through channels


def test_ids_are_odd_here_and_even_over_there(gw):
    channel = gw.remote_exec(
        """
        made = [channel.gateway.newchannel() for _ in range(3)]
        channel.send((channel.id, [other.id for other in made]))
        """
    )
    assert channel.id == 1
    assert [gw.newchannel().id for _ in range(3)] == [3, 5, 7]
    assert channel.receive(TIMEOUT) == (1, [2, 4, 6])
    assert gw.remote_exec("pass").id == 9


@pytest.mark.ours
@pytest.mark.parametrize("how", ["for a channel that nobody has", "too many channels", "a task of too many"])
def test_a_channel_in_what_nobody_gets_is_closed(gw, how):
    other, task = gw.newchannel(), gw.newchannel()
    if how == "for a channel that nobody has":
        gw._send(4, 9001, other)
    else:
        ids = b"".join(b"B" + struct.pack("!i", 100_000 + 2 * i) for i in range(65_536))
        payload = ids + b"B" + struct.pack("!i", other.id) + b"@" + struct.pack("!i", 65_537) + b"Q"
        code, id = (4, gw.remote_exec("channel.receive()").id) if how == "too many channels" else (3, task.id)
        gw._write(struct.pack("!bii", code, id, len(payload)) + payload)
    with pytest.raises(EOFError):
        other.receive(TIMEOUT)
    if how == "a task of too many":
        with pytest.raises(task.RemoteError, match="too many tasks wait|65536 channels"):
            task.receive(TIMEOUT)
    assert gw.remote_exec("channel.send(1)").receive(TIMEOUT) == 1


@pytest.fixture
def keep(gw):
    """An echo that keeps what it got: a channel that it dropped would be closed here."""
    return gw.remote_exec("kept = []\nfor item in channel:\n    kept.append(item)\n    channel.send(item)")


def test_a_channel_comes_back_as_the_same_object(gw, keep):
    other = gw.newchannel()
    keep.send(other)
    assert keep.receive(TIMEOUT) is other
    keep.send(keep)
    assert keep.receive(TIMEOUT) is keep
    keep.send([other, other])
    first, second = keep.receive(TIMEOUT)
    assert first is second is other


def test_channels_nest_in_any_structure(gw, keep):
    one, two, three = (gw.newchannel() for _ in range(3))
    item = {"list": [one, [two]], "tuple": (three, {"deep": one}), 5: frozenset([1])}
    keep.send(item)
    back = keep.receive(TIMEOUT)
    assert back == item
    assert back["list"][0] is back["tuple"][1]["deep"] is one
    assert back["list"][1][0] is two
    assert back["tuple"][0] is three


def test_a_channel_sent_over_is_connected(gw):
    channel = gw.remote_exec(
        """
        box = channel.receive()
        for other in box["channels"]:
            other.send(other.receive() * 2)
        """
    )
    others = [gw.newchannel() for _ in range(100)]
    channel.send({"channels": others})
    for i, other in enumerate(others):
        other.send(i)
    assert [other.receive(TIMEOUT) for other in others] == [2 * i for i in range(100)]
    channel.waitclose(TIMEOUT)


def test_a_channel_made_over_there_is_connected(gw):
    channel = gw.remote_exec(
        """
        others = [channel.gateway.newchannel() for _ in range(100)]
        channel.send((others, len(others)))
        for other in others:
            channel.send(other.receive())
            other.send(other.id)
        """
    )
    others, count = channel.receive(TIMEOUT)
    assert count == len({other.id for other in others}) == 100
    for other in others:
        other.send(-other.id)
    assert [channel.receive(TIMEOUT) for _ in others] == [-other.id for other in others]
    assert [other.receive(TIMEOUT) for other in others] == [other.id for other in others]
    assert all(other.gateway is gw for other in others)


def test_data_may_come_before_the_item_with_its_channel_is_received(gw):
    channel = gw.remote_exec(
        """
        other = channel.gateway.newchannel()
        channel.send([other])
        for i in range(100):
            other.send(i)
        other.close()
        """
    )
    channel.waitclose(TIMEOUT)
    [other] = channel.receive(TIMEOUT)
    assert list(other) == list(range(100))
    assert other.isclosed()


def test_data_may_be_sent_before_the_item_with_its_channel_is_received_over_there(gw):
    channel = gw.remote_exec(
        """
        channel.receive()
        box = channel.receive()
        channel.send(list(box[0]))
        """
    )
    other = gw.newchannel()
    channel.send("wait for the next")
    channel.send([other])
    for i in range(100):
        other.send(i)
    other.close()
    assert channel.receive(TIMEOUT) == list(range(100))


def _echo_one(channel, others):
    channel.send(others[0].receive())


@pytest.mark.ours  # execnet loses it
@pytest.mark.parametrize("model", ["thread", "main_thread_only"])
def test_data_may_be_sent_before_the_task_with_its_channel_has_begun(group, model):
    gw = group.makegateway(f"popen//execmodel={model}")
    other = gw.newchannel()
    busy = gw.remote_exec("channel.receive()")
    channel = gw.remote_exec(_echo_one, others=[other])
    other.send(42)
    busy.send(None)
    assert channel.receive(TIMEOUT) == 42


def test_a_channel_may_be_the_only_way_back(gw):
    def task(channel):
        back = channel.receive()
        for number in channel:
            back.send(number**2)
        back.close()

    back = gw.newchannel()
    channel = gw.remote_exec(task)
    channel.send(back)
    for i in range(10):
        channel.send(i)
    channel.close()
    assert list(back) == [i**2 for i in range(10)]


# ---- channels in items that are received after the end of the connection


def by_receive(lib, channel):
    return lambda: channel.receive(TIMEOUT)


def by_iteration(lib, channel):
    return lambda: next(iter(channel))


def by_callback(lib, channel):
    came = queue.Queue()
    channel.setcallback(came.put)
    return lambda: came.get(True, TIMEOUT)


def by_late_callback(lib, channel):
    def get():
        came = []
        channel.setcallback(came.append)
        return came[0] if came or wait_until(lambda: came) else None

    return get


def by_receive_queue(lib, channel):
    came = lib.MultiChannel([channel]).make_receive_queue()
    return lambda: came.get(True, TIMEOUT)[1]


@pytest.mark.parametrize("how", [by_receive, by_iteration, by_callback, by_late_callback, by_receive_queue])
def test_an_item_with_channels_outlives_the_connection(lib, gw, how):
    """It waits behind a callback, and the worker dies meanwhile."""
    gate = threading.Event()
    items, known, dropped = gw.newchannel(), gw.newchannel(), gw.newchannel()
    channel = gw.remote_exec(
        """
        import os
        items, known, dropped = channel.receive()
        channel.send(os.getpid())
        channel.receive()
        made = channel.gateway.newchannel()
        channel.send("for the callback")
        items.send([known, (made, {"dropped": dropped})])
        made.send("on the way")
        os.kill(os.getpid(), 9)
        """
    )
    channel.send((items, known, dropped))
    pid = channel.receive(TIMEOUT)
    number = dropped.id
    del dropped
    get = how(lib, items)
    held = threading.Event()
    channel.setcallback(lambda item: held.set() or gate.wait(TIMEOUT))
    channel.send(None)
    assert held.wait(TIMEOUT)
    if lib.__name__ == "execnet_c":
        assert wait_until(lambda: gw._state()["reason"] != "XC_OK")
    else:
        assert wait_until(lambda: not os.path.exists(f"/proc/{pid}/exe"))
    gate.set()
    first, (made, rest) = get()
    gw.join(TIMEOUT)
    assert first is known
    assert rest["dropped"].id == number
    assert made.id == 2
    assert made.receive(TIMEOUT) == "on the way"
    for other in (known, made, rest["dropped"]):
        with pytest.raises(OSError):
            other.send(1)
        with pytest.raises(EOFError):
            other.receive(TIMEOUT)
        with pytest.raises(EOFError):
            other.waitclose(TIMEOUT)


@pytest.mark.ours  # it looks at the worker's insides to know when
def test_an_item_with_channels_outlives_the_connection_over_there(gw, tmp_path):
    """The same where the near end is gone, and a task still reads what had arrived."""
    path = tmp_path / "said"
    channel = gw.remote_exec(
        """
        import os, threading, time
        path, items, known = channel.receive()
        held = threading.Event()

        def wait_for_the_end(item):
            held.set()
            while not channel.gateway._state()["heard_goodbye"]:
                time.sleep(0.01)

        channel.setcallback(wait_for_the_end)
        channel.send("ready")
        held.wait()
        first, (made,) = items.receive()
        said = [str(first is known)]
        for other in (first, made):
            try:
                other.receive()
            except EOFError:
                said.append("end")
        with open(path + ".new", "w") as file:
            file.write(", ".join(said))
        os.rename(path + ".new", path)
        """
    )
    items, known, made = gw.newchannel(), gw.newchannel(), gw.newchannel()
    channel.send((str(path), items, known))
    assert channel.receive(TIMEOUT) == "ready"
    channel.send("for the callback")
    items.send([known, (made,)])
    gw.exit()
    assert wait_until(path.exists)
    assert path.read_text() == "True, end, end"


# With the plain-Python core an item that waits holds the object.
AT_ONCE = pytest.param("at once", marks=pytest.mark.c_interface("near"))


@pytest.mark.ours
@pytest.mark.parametrize("how", [AT_ONCE, "by the collector"])
def test_a_channel_has_one_object_also_while_that_is_being_freed(gw, how):
    """What is called when a weak reference ends receives the channel once more."""
    echo = gw.remote_exec(
        """
        kept = channel.receive()
        for n in channel:
            for _ in range(n):
                channel.send(kept)
            kept.send(n)
        """
    )
    other = gw.newchannel()
    echo.send(other)
    got = []

    def again(gone):
        echo.send(1)
        got.append(echo.receive(TIMEOUT))

    watched = weakref.ref(other, again)
    if how == "at once":
        echo.send(2)
        first = echo.receive(TIMEOUT)
        assert first is other
        assert other.receive(TIMEOUT) == 2
        del first, other
    else:
        other.itself = other
        del other
        gc.collect()
    assert len(got) == 1 and watched() is None
    echo.send(1)
    assert echo.receive(TIMEOUT) is got[0]
    gc.collect()
    assert not got[0].isclosed()
    while got[0].receive(TIMEOUT) != 1:
        pass
    echo.send(3)
    while got[0].receive(TIMEOUT) != 3:
        pass


def test_an_error_that_nobody_saw_is_written_to_stderr(gw, capsys):
    channel = gw.remote_exec("raise ValueError('seen by nobody')")
    assert wait_until(channel.isclosed)
    assert capsys.readouterr().err == ""
    del channel
    assert wait_until(lambda: gw.remote_status().numexecuting == 0)
    err = capsys.readouterr().err
    assert err.startswith(f"[{os.getpid()}] Warning: unhandled RemoteError: Traceback")
    assert err.endswith("ValueError: seen by nobody\n\n")


def test_an_error_that_was_seen_is_not_written(lib, gw, capsys):
    channel = gw.remote_exec("raise ValueError('seen')")
    with pytest.raises(lib.RemoteError):
        channel.receive(TIMEOUT)
    del channel
    gw.remote_status()
    assert capsys.readouterr().err == ""
