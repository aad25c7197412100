"""Channels: what goes through them, how they are waited for, and what kind of objects they are."""

import os
import signal
import sys
import threading
import weakref

import pytest

from conftest import TIMEOUT, wait_until

ECHO = "for item in channel: channel.send(item)"
WAIT = "channel.receive()"

VALUES = [
    None,
    True,
    False,
    0,
    -1,
    2**31 - 1,
    -(2**31),
    2**31,
    2**63,
    10**40,
    0.0,
    -0.0,
    1.5,
    5e-324,
    1.7976931348623157e308,
    float("inf"),
    float("-inf"),
    float("nan"),
    1 + 2j,
    complex("-0-infj"),
    "",
    "text",
    "ä€😀\0\n",
    "\x7f\x80\xff\u2028",
    b"",
    bytes(range(256)),
    (),
    (1, "a", b"b"),
    [],
    [1, [2, [3, []]]],
    {},
    {"a": 1, 2: "b", (3, 4): [5], None: True, 1.5: {}},
    set(),
    {1},
    frozenset(),
    frozenset(["x"]),
    [True, 1, 1.0, "1", b"1"],
    ({"k": [({1: None},)]}, frozenset([(1, 2)])),
]


@pytest.fixture
def echo(gw):
    return gw.remote_exec(ECHO)


# ---- items


def test_every_type_comes_back_as_it_went(echo):
    for value in VALUES:
        echo.send(value)
        back = echo.receive(TIMEOUT)
        assert (type(back), repr(back)) == (type(value), repr(value))


def test_the_far_end_gets_the_same_types(gw):
    channel = gw.remote_exec("for item in channel: channel.send((type(item).__name__, repr(item)))")
    for value in VALUES:
        channel.send(value)
        assert channel.receive(TIMEOUT) == (type(value).__name__, repr(value))


@pytest.mark.ours
def test_large_negative_numbers_can_be_sent(echo):
    for number in [-(2**31) - 1, -(2**63), -(10**40)]:
        echo.send([number])
        assert echo.receive(TIMEOUT) == [number]


def test_items_are_copies(echo):
    item = [1]
    echo.send(item)
    item.append(2)
    assert echo.receive(TIMEOUT) == [1]


def test_items_keep_their_order(echo):
    for i in range(2000):
        echo.send(i)
    assert [echo.receive(TIMEOUT) for _ in range(2000)] == list(range(2000))


def test_sizes_around_the_pipe_and_beyond(echo):
    for size in [1, 9, 65535, 65536, 65537, 1 << 20, (8 << 20) + 3]:
        item = (os.urandom(4096) * (size // 4096 + 1))[:size]
        echo.send(item)
        assert echo.receive(TIMEOUT) == item


def test_both_ends_may_send_a_lot_before_anyone_receives(gw):
    channel = gw.remote_exec(
        """
        for i in range(8):
            channel.send(bytes([i]) * 1000000)
        channel.send(sum(len(channel.receive()) for i in range(8)))
        """
    )
    for _ in range(8):
        channel.send(b"x" * 1000000)
    for i in range(8):
        assert channel.receive(TIMEOUT) == bytes([i]) * 1000000
    assert channel.receive(TIMEOUT) == 8000000


class Unknown:
    pass


class Number(int):
    pass


def test_what_cannot_be_sent_is_an_error_here_and_harms_nothing(lib, echo):
    for item in [object(), Unknown, Unknown(), len, bytearray(b"x"), range(3), Ellipsis, Number(3), [1, {2: (Unknown(),)}]]:
        with pytest.raises(lib.DumpError, match="can't serialize"):
            echo.send(item)
        echo.send("next")
        assert echo.receive(TIMEOUT) == "next"


def test_text_that_is_no_unicode_cannot_be_sent(lib, echo):
    with pytest.raises(lib.DumpError, match="strings must be utf-8 encodable"):
        echo.send("\ud800")


def test_what_the_far_end_cannot_send_is_a_remote_error(lib, gw):
    channel = gw.remote_exec("channel.send(1)\nchannel.send(object())")
    assert channel.receive(TIMEOUT) == 1
    with pytest.raises(lib.RemoteError, match="DumpError: can't serialize <class 'object'>"):
        channel.receive(TIMEOUT)


def test_threads_may_share_a_channel_to_send(gw):
    channel = gw.remote_exec("for item in channel: channel.send(item)\n")

    def send(number):
        for i in range(300):
            channel.send((number, i, b"x" * (i * 37 % 5000)))

    threads = [threading.Thread(target=send, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    seen = {number: [] for number in range(4)}
    for _ in range(4 * 300):
        number, i, data = channel.receive(TIMEOUT)
        assert data == b"x" * (i * 37 % 5000)
        seen[number].append(i)
    for thread in threads:
        thread.join(TIMEOUT)
    assert all(items == list(range(300)) for items in seen.values())


def test_threads_may_share_a_channel_to_receive(gw):
    channel = gw.remote_exec("channel.receive()\nfor i in range(400): channel.send(i)")
    seen, ends = [], []

    def receive():
        try:
            while True:
                seen.append(channel.receive(TIMEOUT))
        except EOFError:
            ends.append(1)

    threads = [threading.Thread(target=receive) for _ in range(4)]
    for thread in threads:
        thread.start()
    channel.send(None)
    for thread in threads:
        thread.join(TIMEOUT)
    assert sorted(seen) == list(range(400))
    assert len(ends) == 4


def test_threads_may_wait_on_channels_of_one_gateway_each(gw):
    channels = [gw.remote_exec("for item in channel: channel.send(-item)") for _ in range(6)]
    wrong = []

    def talk(channel):
        for i in range(200):
            channel.send(i)
            if channel.receive(TIMEOUT) != -i:
                wrong.append(channel)

    threads = [threading.Thread(target=talk, args=(channel,)) for channel in channels]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
        assert not thread.is_alive()
    assert not wrong


# ---- iteration


def test_iteration_ends_with_the_channel(gw):
    assert list(gw.remote_exec("for i in range(5): channel.send(i)")) == [0, 1, 2, 3, 4]
    assert list(gw.remote_exec("pass")) == []


def test_next_and_iter(gw):
    channel = gw.remote_exec("channel.send(1)\nchannel.send(2)\nchannel.send(3)")
    assert iter(channel) is channel
    assert next(channel) == 1
    assert channel.next() == 2
    assert next(channel) == 3
    with pytest.raises(StopIteration):
        next(channel)
    with pytest.raises(StopIteration):
        channel.next()


def test_iteration_raises_the_remote_error(lib, gw):
    channel = gw.remote_exec("channel.send(1)\nraise ValueError('over there')")
    seen = []
    with pytest.raises(lib.RemoteError, match="over there"):
        for item in channel:
            seen.append(item)
    assert seen == [1]


# ---- timeouts of receive


def test_receive_with_timeout_zero_takes_only_what_is_there(lib, gw):
    channel = gw.remote_exec("channel.receive()\nchannel.send(1)\n")
    with pytest.raises(lib.TimeoutError, match="^no item after 0 seconds$"):
        channel.receive(0)
    channel.send(None)
    channel.waitclose(TIMEOUT)
    assert channel.receive(0) == 1
    with pytest.raises(EOFError):
        channel.receive(0)


def test_receive_times_out_and_loses_nothing(lib, gw):
    channel = gw.remote_exec("for item in channel: channel.send(item)")
    for timeout in [0.01, 0.1, 1e-9, 1e-300]:
        with pytest.raises(lib.TimeoutError) as caught:
            channel.receive(timeout=timeout)
        assert str(caught.value) == f"no item after {timeout!r} seconds"
        channel.send("late")
        assert channel.receive(timeout=TIMEOUT) == "late"


def test_the_timeout_error_is_an_oserror_known_by_three_names(lib, gw):
    channel = gw.newchannel()
    assert channel.TimeoutError is lib.Channel.TimeoutError is lib.TimeoutError
    assert channel.RemoteError is lib.Channel.RemoteError is lib.RemoteError
    assert issubclass(lib.TimeoutError, OSError)
    assert not issubclass(lib.RemoteError, OSError)
    with pytest.raises(OSError):
        channel.receive(0.01)


def test_a_negative_timeout_of_receive_is_an_error(gw):
    channel = gw.remote_exec("channel.send(1)")
    for timeout in [-1, -0.001, float("-inf")]:
        with pytest.raises(ValueError, match="^'timeout' must be a non-negative number$"):
            channel.receive(timeout)
    assert channel.receive(TIMEOUT) == 1


def test_a_timeout_that_is_no_number_is_a_type_error(gw):
    channel = gw.remote_exec("channel.send(1)")
    for timeout in ["1", b"1", [1], object()]:
        with pytest.raises(TypeError):
            channel.receive(timeout)
    assert channel.receive(TIMEOUT) == 1


@pytest.mark.ours
def test_a_timeout_that_is_not_a_number_is_a_value_error(gw):
    channel = gw.remote_exec(WAIT)
    with pytest.raises(ValueError):
        channel.receive(float("nan"))
    with pytest.raises(ValueError):
        channel.waitclose(float("nan"))


@pytest.mark.ours
@pytest.mark.parametrize("timeout", [1e10, 1e300, float("inf"), 10**30, sys.maxsize])
def test_a_huge_timeout_is_as_good_as_none(gw, timeout):
    channel = gw.remote_exec("channel.send(channel.receive())")
    timer = threading.Timer(0.05, channel.send, ["came"])
    timer.start()
    assert channel.receive(timeout) == "came"
    channel.waitclose(timeout)
    timer.join(TIMEOUT)


def test_timeouts_that_do_not_matter(echo):
    for timeout in [None, 10**6, 1000.5, True]:
        echo.send(1)
        assert echo.receive(timeout) == 1
        echo.send(2)
        assert echo.receive(timeout=timeout) == 2


# ---- waitclose


def test_waitclose_waits_for_the_task_and_leaves_the_items(gw):
    channel = gw.remote_exec("channel.send(1)\nchannel.send(2)")
    channel.waitclose(TIMEOUT)
    assert channel.isclosed()
    assert repr(channel) == "<Channel id=1 closed>"
    channel.waitclose()
    assert list(channel) == [1, 2]


def test_waitclose_times_out(lib, gw):
    channel = gw.remote_exec(WAIT)
    for timeout in [0, 0.01, 0.1, -1, -0.5]:
        with pytest.raises(lib.TimeoutError) as caught:
            channel.waitclose(timeout)
        assert str(caught.value) == f"Timeout after {timeout!r} seconds"
    assert not channel.isclosed()
    channel.send(None)
    channel.waitclose(timeout=TIMEOUT)


def test_waitclose_raises_the_remote_error_once(lib, gw):
    channel = gw.remote_exec("channel.send(1)\nraise ValueError('over there')")
    with pytest.raises(lib.RemoteError, match="ValueError: over there"):
        channel.waitclose(TIMEOUT)
    assert channel.isclosed()
    channel.waitclose(TIMEOUT)
    assert channel.receive(TIMEOUT) == 1
    with pytest.raises(EOFError):
        channel.receive(TIMEOUT)


def test_receive_raises_the_remote_error_after_the_items_once(lib, gw):
    channel = gw.remote_exec("channel.send(1)\nraise ValueError('over there')")
    assert channel.receive(TIMEOUT) == 1
    with pytest.raises(lib.RemoteError, match="ValueError: over there"):
        channel.receive(TIMEOUT)
    for _ in range(2):
        with pytest.raises(EOFError):
            channel.receive(TIMEOUT)
    channel.waitclose(TIMEOUT)


def test_several_threads_may_wait_for_the_end(gw):
    channel = gw.remote_exec(WAIT)
    done = []
    threads = [threading.Thread(target=lambda: done.append(channel.waitclose(TIMEOUT))) for _ in range(3)]
    for thread in threads:
        thread.start()
    channel.send(None)
    for thread in threads:
        thread.join(TIMEOUT)
    assert done == [None] * 3


# ---- the object


def test_a_channel_knows_its_gateway_and_takes_attributes(gw):
    channel = gw.newchannel()
    assert channel.gateway is gw
    channel.note = "mine"
    assert channel.note == "mine"
    assert vars(channel)["note"] == "mine"
    del channel.note
    assert not hasattr(channel, "note")


def test_a_channel_is_hashable_and_equal_to_itself_alone(gw):
    one, two = gw.newchannel(), gw.newchannel()
    assert one == one
    assert one != two
    assert {one: 1, two: 2}[one] == 1
    assert one in [two, one]


def test_a_weak_reference_dies_with_the_channel(gw):
    channel = gw.newchannel()
    ref = weakref.ref(channel)
    assert ref() is channel
    del channel
    assert wait_until(lambda: ref() is None)


def test_repr_tells_id_and_state(gw):
    channel = gw.newchannel()
    assert repr(channel) == str(channel) == "<Channel id=1 open>"
    channel.close()
    assert repr(channel) == "<Channel id=1 closed>"


def test_sends_can_be_counted_by_patching_the_class(lib, gw, monkeypatch):
    original, sent = lib.Channel.send, []

    def send(self, item):
        sent.append((self.id, item))
        return original(self, item)

    monkeypatch.setattr(lib.Channel, "send", send)
    channel = gw.remote_exec(ECHO)
    channel.send("a")
    lib.MultiChannel([channel]).send_each("b")
    assert sent == [(1, "a"), (1, "b")]
    assert [channel.receive(TIMEOUT) for _ in range(2)] == ["a", "b"]
    monkeypatch.undo()
    channel.send("c")
    assert channel.receive(TIMEOUT) == "c"
    assert len(sent) == 2


def test_receives_can_be_watched_on_one_object(gw, echo, monkeypatch):
    original, seen = echo.receive, []

    def receive(timeout=None):
        seen.append(original(timeout))
        return seen[-1]

    monkeypatch.setattr(echo, "receive", receive)
    echo.send(1)
    assert echo.receive(TIMEOUT) == 1
    assert seen == [1]


def test_the_class_can_be_subclassed(lib):
    class Talking(lib.Channel):
        def send(self, item):
            return super().send((item, "!"))

    assert issubclass(Talking, lib.Channel)
    assert Talking.send is not lib.Channel.send
    assert Talking.receive is lib.Channel.receive


@pytest.mark.ours
def test_a_channel_can_be_made_of_a_gateway_and_an_id(lib, gw):
    channel = lib.Channel(gw, 8)
    assert (channel.gateway, channel.id, channel.isclosed()) == (gw, 8, False)
    with pytest.raises(ValueError, match="has a channel with id 8 already"):
        lib.Channel(gw, 8)
    with pytest.raises(TypeError, match="argument 1 must be"):
        lib.Channel("gw0", 10)


def test_reconfigure_leaves_todays_strings_alone(gw, echo):
    gw.reconfigure(py2str_as_py3str=False, py3str_as_py2str=False)
    echo.reconfigure(py2str_as_py3str=False)
    for item in ["text", b"bytes"]:
        echo.send(item)
        assert echo.receive(TIMEOUT) == item


def test_text_can_be_sent_as_bytes_of_python_2(gw):
    channel = gw.remote_exec("channel.send(type(channel.receive()).__name__)")
    channel.reconfigure(py2str_as_py3str=False, py3str_as_py2str=True)
    channel.send("text")
    # "bytes" as bytes: it is text of Python 3 for the receiver here too.
    assert channel.receive(TIMEOUT) == b"bytes"


# ---- signals


def test_ctrl_c_ends_a_receive_and_loses_nothing(gw):
    channel = gw.remote_exec(
        """
        import os, signal
        os.kill(channel.receive(), signal.SIGINT)
        channel.receive()
        channel.send("kept")
        """
    )
    with pytest.raises(KeyboardInterrupt):
        channel.send(os.getpid())
        channel.receive(TIMEOUT)
    channel.send(None)
    assert channel.receive(TIMEOUT) == "kept"


def test_ctrl_c_ends_a_waitclose(gw):
    channel = gw.remote_exec("import os, signal\nos.kill(channel.receive(), signal.SIGINT)\nchannel.receive()")
    with pytest.raises(KeyboardInterrupt):
        channel.send(os.getpid())
        channel.waitclose(TIMEOUT)
    channel.send(None)
    channel.waitclose(TIMEOUT)


def test_a_signal_handler_that_raises_nothing_does_not_end_a_receive(gw):
    seen = []
    before = signal.signal(signal.SIGUSR1, lambda *args: seen.append(1))
    try:
        channel = gw.remote_exec(
            """
            import os, signal, time
            pid = channel.receive()
            for _ in range(3):
                os.kill(pid, signal.SIGUSR1)
                time.sleep(0.02)
            channel.send("after the signals")
            """
        )
        channel.send(os.getpid())
        assert channel.receive(TIMEOUT) == "after the signals"
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert seen
