"""Callbacks of channels: in which order they are called."""

import threading

from conftest import TIMEOUT, wait_until
from callbacks import Seen, seen_fixture  # noqa: F401 (fixtures)


def test_nothing_overtakes_a_callback(lib, gw, tmp_path):
    """Items that came after one with a callback wait until the callback is done, whoever asks for them."""
    path = tmp_path / "all is sent"
    channel = gw.remote_exec(
        """
        one, two, path = channel.receive()
        one.send("first")
        two.send("second")
        open(path, "w").close()
        channel.receive()
        """
    )
    one, two = gw.newchannel(), gw.newchannel()
    seen = []

    def callback(item):
        seen.append(item)
        seen.append(wait_until(path.exists))
        try:
            seen.append(two.receive(timeout=0.2))
        except lib.TimeoutError:
            seen.append("nothing yet")

    one.setcallback(callback)
    channel.send((one, two, str(path)))
    assert two.receive(TIMEOUT) == "second"
    assert seen == ["first", True, "nothing yet"]
    channel.send(None)
    channel.waitclose(TIMEOUT)


def test_items_of_two_callbacks_come_in_the_order_they_were_sent(gw, seen):
    channel = gw.remote_exec(
        """
        one, two = channel.receive()
        for i in range(200):
            one.send(2 * i)
            two.send(2 * i + 1)
        """
    )
    one, two = gw.newchannel(), gw.newchannel()
    one.setcallback(seen)
    two.setcallback(seen)
    channel.send((one, two))
    channel.waitclose(TIMEOUT)
    assert seen.wait_for(400) == list(range(400))


def test_callbacks_of_a_gateway_do_not_run_at_the_same_time(gw):
    inside, most, ended = [], [], threading.Event()
    channel = gw.remote_exec(
        """
        others = channel.receive()
        for i in range(50):
            for other in others:
                other.send(i)
        others[0].send("end")
        """
    )

    def callback(item):
        inside.append(1)
        most.append(len(inside))
        inside.pop()
        if item == "end":
            ended.set()

    others = [gw.newchannel() for _ in range(4)]
    for other in others:
        other.setcallback(callback)
    channel.send(others)
    assert ended.wait(TIMEOUT)
    assert set(most) == {1}


def test_waitclose_returns_after_the_last_callback_and_the_endmarker(gw):
    done = []
    channel = gw.remote_exec("channel.receive()\nfor i in range(3): channel.send(i)")

    def slow(item):
        threading.Event().wait(0.05)
        done.append(item)

    channel.setcallback(slow, endmarker="end")
    channel.send(None)
    channel.waitclose(TIMEOUT)
    assert done == [0, 1, 2, "end"]


def test_a_slow_callback_delays_no_other_gateway(group):
    slow, quick = group.makegateway("popen"), group.makegateway("popen")
    started, release, ended = threading.Event(), threading.Event(), threading.Event()

    def callback(item):
        started.set()
        assert release.wait(TIMEOUT)
        ended.set()

    channel = slow.remote_exec("channel.receive()\nchannel.send(1)")
    channel.setcallback(callback)
    channel.send(None)
    assert started.wait(TIMEOUT)
    echo = quick.remote_exec("for item in channel: channel.send(item)")
    for i in range(50):
        echo.send(i)
        assert echo.receive(TIMEOUT) == i
    also = Seen()
    other = quick.remote_exec("channel.receive()\nchannel.send(2)")
    other.setcallback(also)
    other.send(None)
    assert also.wait_for(1) == [2]
    assert not ended.is_set()
    release.set()
    channel.waitclose(TIMEOUT)
    assert ended.is_set()


def test_sending_to_a_gateway_goes_on_during_its_callback(gw):
    started, release = threading.Event(), threading.Event()

    def callback(item):
        started.set()
        assert release.wait(TIMEOUT)

    channel = gw.remote_exec("channel.receive()\nchannel.send(1)")
    channel.setcallback(callback)
    other = gw.remote_exec("channel.send([channel.receive() for _ in range(3)])")
    channel.send(None)
    assert started.wait(TIMEOUT)
    for i in range(3):
        other.send(i)
    release.set()
    assert other.receive(TIMEOUT) == [0, 1, 2]


def test_a_slow_callback_does_not_stop_the_far_end_from_sending(gw):
    """What a callback is too slow for is kept here: the far end's task is not held up for ever."""
    release = threading.Event()
    total = []

    def callback(data):
        assert release.wait(TIMEOUT)
        total.append(len(data))

    channel = gw.remote_exec("channel.receive()\nfor i in range(20): channel.send(b'x' * 100000)")
    channel.setcallback(callback)
    channel.send(None)
    release.set()
    channel.waitclose(TIMEOUT)
    assert total == [100000] * 20
