"""Callbacks of channels: what they get, what they may do, and what happens when they fail."""

import os
import queue
import threading

import pytest

from conftest import TIMEOUT, wait_until
from callbacks import Seen, seen_fixture  # noqa: F401 (fixtures)


# ---- what a callback gets


def test_a_callback_gets_the_items_in_order(gw, seen):
    channel = gw.remote_exec("channel.receive()\nfor i in range(500): channel.send(i)")
    assert channel.setcallback(seen) is None
    channel.send(None)
    channel.waitclose(TIMEOUT)
    assert seen == list(range(500))


def test_the_endmarker_comes_last(gw, seen):
    channel = gw.remote_exec("channel.receive()\nchannel.send(1)\nchannel.send(2)")
    channel.setcallback(seen, endmarker="end")
    channel.send(None)
    channel.waitclose(TIMEOUT)
    assert seen == [1, 2, "end"]


def test_any_object_is_an_endmarker(gw):
    for marker in [None, False, 0, -1, (), "", object()]:
        seen = Seen()
        channel = gw.remote_exec("pass")
        channel.setcallback(seen, endmarker=marker)
        channel.waitclose(TIMEOUT)
        assert seen.wait_for(1) == [marker]
        assert seen[0] is marker


def test_items_of_every_type_reach_a_callback(gw, seen):
    items = [None, True, 1, 10**30, 1.5, 1j, "ä", b"\0", (), [1, [2]], {"k": {1: 2}}, {1}, frozenset([2])]
    channel = gw.remote_exec("for item in channel.receive(): channel.send(item)")
    channel.setcallback(seen, endmarker="end")
    channel.send(items)
    channel.waitclose(TIMEOUT)
    assert seen == [*items, "end"]
    assert list(map(type, seen)) == list(map(type, [*items, "end"]))


def test_items_that_are_already_there_are_handed_over_at_once(gw, seen):
    channel = gw.remote_exec(
        """
        sent = channel.receive()
        for i in range(5):
            channel.send(i)
        sent.send(True)
        channel.receive()
        channel.send("last")
        """
    )
    sent = gw.newchannel()
    channel.send(sent)
    assert sent.receive(TIMEOUT)
    assert channel.receive(TIMEOUT) == 0
    channel.setcallback(seen, endmarker="end")
    assert seen == [1, 2, 3, 4]
    channel.send(None)
    channel.waitclose(TIMEOUT)
    assert seen == [1, 2, 3, 4, "last", "end"]


def test_a_callback_for_a_closed_channel_gets_its_items_and_the_endmarker(gw, seen):
    channel = gw.remote_exec("channel.send(1)\nchannel.send(2)")
    channel.waitclose(TIMEOUT)
    channel.setcallback(seen, endmarker=-1)
    assert seen == [1, 2, -1]


def test_without_endmarker_a_closed_channel_hands_over_its_items_only(gw, seen):
    channel = gw.remote_exec("channel.send(1)")
    channel.waitclose(TIMEOUT)
    channel.setcallback(seen)
    assert seen == [1]
    nothing = Seen()
    closed = gw.newchannel()
    closed.close()
    closed.setcallback(nothing)
    assert nothing == []


def test_closing_here_calls_with_the_endmarker(gw, seen):
    channel = gw.newchannel()
    channel.setcallback(seen, endmarker="end")
    channel.close()
    assert seen.wait_for(1) == ["end"]
    channel.close()
    assert seen == ["end"]


def test_an_error_over_there_still_brings_the_endmarker(lib, gw, seen):
    channel = gw.remote_exec("channel.receive()\nchannel.send(1)\nraise ValueError('over there')")
    channel.setcallback(seen, endmarker="end")
    channel.send(None)
    with pytest.raises(lib.RemoteError, match="ValueError: over there"):
        channel.waitclose(TIMEOUT)
    assert seen == [1, "end"]


def test_a_callback_may_be_any_callable(gw):
    got = queue.Queue()
    channel = gw.remote_exec("channel.receive()\nchannel.send(1)")
    channel.setcallback(callback=got.put, endmarker=None)
    channel.send(None)
    assert got.get(timeout=TIMEOUT) == 1
    assert got.get(timeout=TIMEOUT) is None


def test_channels_reach_a_callback(gw, seen):
    channel = gw.remote_exec(
        """
        channel.receive()
        other = channel.gateway.newchannel()
        channel.send({"other": other})
        other.send(other.receive() + 1)
        """
    )
    channel.setcallback(seen)
    channel.send(None)
    [item] = seen.wait_for(1)
    item["other"].send(1)
    assert item["other"].receive(TIMEOUT) == 2


def test_two_channels_may_share_a_callback(gw, seen):
    channels = [gw.remote_exec("channel.receive()\nfor i in range(10): channel.send((channel.id, i))") for _ in range(2)]
    for channel in channels:
        channel.setcallback(seen)
        channel.send(None)
    for channel in channels:
        channel.waitclose(TIMEOUT)
    for channel in channels:
        assert [i for id, i in seen if id == channel.id] == list(range(10))


def test_callbacks_over_there(gw):
    channel = gw.remote_exec(
        """
        import threading
        ended = threading.Event()
        other = channel.receive()
        def callback(item):
            if item is None:
                ended.set()
            else:
                channel.send(item * 2)
        other.setcallback(callback, endmarker=None)
        ended.wait(30)
        channel.send("end")
        """
    )
    other = gw.newchannel()
    channel.send(other)
    for i in range(10):
        other.send(i)
    other.close()
    assert list(channel) == [2 * i for i in range(10)] + ["end"]


# ---- what else a channel with a callback does


def test_a_second_callback_is_an_error(gw, seen):
    channel = gw.newchannel()
    channel.setcallback(seen)
    with pytest.raises(OSError, match="^<Channel id=1 open> has callback already registered$"):
        channel.setcallback(seen)
    channel.close()
    with pytest.raises(OSError, match="^<Channel id=1 closed> has callback already registered$"):
        channel.setcallback(seen)


def test_receive_beside_a_callback_is_an_error(gw, seen):
    channel = gw.remote_exec("channel.receive()")
    channel.setcallback(seen)
    for timeout in [None, 0, 0.01]:
        with pytest.raises(OSError, match=r"^cannot receive\(\), channel has receiver callback$"):
            channel.receive(timeout)
    with pytest.raises(OSError, match="cannot receive"):
        next(channel)
    channel.send(None)
    channel.waitclose(TIMEOUT)
    with pytest.raises(OSError, match="cannot receive"):
        channel.receive()


def test_sending_goes_on_beside_a_callback(gw, seen):
    channel = gw.remote_exec("for item in channel: channel.send(item + 1)")
    channel.setcallback(seen)
    for i in range(100):
        channel.send(i)
    assert seen.wait_for(100) == list(range(1, 101))


def test_a_callback_outlives_its_channel_object(gw, seen):
    channel = gw.remote_exec("other = channel.receive()\nchannel.receive()\nfor i in range(3): other.send(i)")
    other = gw.newchannel()
    other.setcallback(seen, endmarker="end")
    channel.send(other)
    del other
    channel.send(None)
    channel.waitclose(TIMEOUT)
    assert seen.wait_for(3)[:3] == [0, 1, 2]
    # execnet's far end takes the channel for gone and does not say when it is done with it; the gateway's end does.
    gw.exit()
    gw.join(TIMEOUT)
    assert seen.wait_for(4) == [0, 1, 2, "end"]


# ---- from within a callback


def test_a_callback_may_send(gw, seen):
    channel = gw.remote_exec("for item in channel: channel.send(item + 1)")

    def callback(item):
        if item < 50:
            channel.send(item + 1)
        else:
            seen(item)

    channel.setcallback(callback)
    channel.send(0)
    assert seen.wait_for(1)[0] >= 50


def test_a_callback_may_set_a_callback(gw, seen):
    channel = gw.remote_exec(
        """
        channel.receive()
        for i in range(3):
            other = channel.gateway.newchannel()
            channel.send(other)
            for k in range(5):
                other.send((i, k))
            other.close()
        """
    )
    kept = []

    def callback(other):
        kept.append(other)  # one that is forgotten before it is closed over there hears no more of it
        other.setcallback(seen, endmarker="end")

    channel.setcallback(callback)
    channel.send(None)
    channel.waitclose(TIMEOUT)
    assert seen.wait_for(18) == [item for i in range(3) for item in [*((i, k) for k in range(5)), "end"]]


def test_a_callback_may_start_a_task_and_close_channels(gw, seen):
    other = gw.newchannel()
    channel = gw.remote_exec("channel.receive()\nchannel.send(5)")

    def callback(item):
        task = gw.remote_exec("channel.send(channel.receive() + 1)")
        task.setcallback(seen)
        task.send(item)
        other.close()

    channel.setcallback(callback)
    channel.send(None)
    assert seen.wait_for(1) == [6]
    assert other.isclosed()


# ---- failing callbacks

# execnet trips over the error that it kept here when the channel goes.
quiet = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@quiet
def test_a_callback_that_raises_ends_the_channel_with_its_traceback_over_there(gw):
    channel = gw.remote_exec(
        """
        other = channel.receive()
        other.send("bad")
        try:
            other.receive()
        except other.RemoteError as error:
            channel.send(str(error))
        other.waitclose()
        channel.send(other.isclosed())
        """
    )
    other = gw.newchannel()

    def callback(item):
        raise LookupError("no use for " + item)

    other.setcallback(callback)
    channel.send(other)
    text = channel.receive(TIMEOUT)
    assert text.startswith("Traceback (most recent call last):\n")
    assert f'File "{os.path.abspath(__file__)}", line {callback.__code__.co_firstlineno + 1}, in callback\n' in text
    assert text.endswith("LookupError: no use for bad\n")
    assert channel.receive(TIMEOUT) is True
    assert wait_until(other.isclosed)


@pytest.mark.ours
def test_a_callback_that_raises_is_an_error_of_waitclose(lib, gw, seen):
    channel = gw.remote_exec("channel.receive()\nchannel.send(1)\nchannel.send(2)\nchannel.receive()")

    def callback(item):
        seen(item)
        if item != "end":
            raise LookupError("no use for it")

    channel.setcallback(callback, endmarker="end")
    channel.send(None)
    with pytest.raises(lib.RemoteError, match="LookupError: no use for it"):
        channel.waitclose(TIMEOUT)
    assert seen == [1, "end"]
    assert channel.isclosed()


@quiet
def test_a_callback_that_raises_harms_no_other_channel(gw, seen):
    channel = gw.remote_exec("bad, good = channel.receive()\nbad.send(1)\ngood.send(3)")
    bad, good = gw.newchannel(), gw.newchannel()
    bad.setcallback(lambda item: 1 / 0)
    good.setcallback(seen)
    channel.send((bad, good))
    assert seen.wait_for(1) == [3]
    channel.waitclose(TIMEOUT)
    assert gw.remote_exec("channel.send(4)").receive(TIMEOUT) == 4


def test_a_callback_that_raises_over_there_is_a_remote_error_here(lib, gw):
    channel = gw.remote_exec(
        """
        other = channel.receive()
        def callback(item):
            raise LookupError(item)
        other.setcallback(callback)
        channel.send("ready")
        channel.receive()
        """
    )
    other = gw.newchannel()
    channel.send(other)
    assert channel.receive(TIMEOUT) == "ready"
    other.send("from here")
    with pytest.raises(lib.RemoteError, match="LookupError: from here") as caught:
        other.receive(TIMEOUT)
    assert 'File "<remote exec>", line 4, in callback' in str(caught.value)
    assert other.isclosed()
    channel.send(None)


def test_a_callback_that_raises_for_an_item_that_is_there_raises_here(gw):
    channel = gw.remote_exec("channel.send(1)\nchannel.send(2)")
    channel.waitclose(TIMEOUT)

    def callback(item):
        raise LookupError(item)

    with pytest.raises(LookupError, match="1"):
        channel.setcallback(callback, endmarker="end")


# ---- the gateway ends


def test_the_end_of_the_gateway_brings_the_endmarker(gw, seen):
    channel = gw.remote_exec("channel.send(1)\nchannel.receive()")
    assert channel.receive(TIMEOUT) == 1
    other = gw.newchannel()
    channel.setcallback(seen, endmarker="task")
    other.setcallback(seen, endmarker="other")
    gw.exit()
    gw.join(TIMEOUT)
    assert sorted(seen.wait_for(2)) == ["other", "task"]


def test_the_death_of_the_worker_brings_the_endmarker(gw, seen):
    channel = gw.remote_exec("import os\nchannel.receive()\nchannel.send(1)\nos._exit(1)")
    channel.setcallback(seen, endmarker="end")
    channel.send(None)
    with pytest.raises(EOFError):
        channel.waitclose(TIMEOUT)
    assert seen.wait_for(2) == [1, "end"]


def test_a_gateway_may_end_while_a_callback_runs(group):
    gw = group.makegateway("popen")
    started, release, ended = threading.Event(), threading.Event(), threading.Event()

    def callback(item):
        started.set()
        assert release.wait(TIMEOUT)
        ended.set()

    channel = gw.remote_exec("channel.receive()\nchannel.send(1)\nchannel.receive()")
    channel.setcallback(callback)
    channel.send(None)
    assert started.wait(TIMEOUT)
    gw.exit()
    release.set()
    assert ended.wait(TIMEOUT)
    gw.join(TIMEOUT)


def test_a_callback_may_end_its_gateway(group, seen):
    gw = group.makegateway("popen")
    channel = gw.remote_exec("channel.receive()\nchannel.send(1)\nchannel.receive()")

    def callback(item):
        if item == 1:
            gw.exit()
        seen(item)

    channel.setcallback(callback, endmarker="end")
    channel.send(None)
    assert seen.wait_for(2) == [1, "end"]
    gw.join(TIMEOUT)
    assert len(group) == 0
