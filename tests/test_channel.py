"""Channels: what goes through them, how they are waited for, and how they end."""

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
    for i in range(8):
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


# ---- close


def test_close_here_ends_the_iteration_over_there(gw):
    channel = gw.remote_exec(
        """
        other = channel.receive()
        channel.send(list(other))
        other.waitclose()
        channel.send(other.isclosed())
        """
    )
    other = gw.newchannel()
    channel.send(other)
    other.send(1)
    other.send(2)
    assert not other.isclosed()
    other.close()
    assert other.isclosed()
    assert channel.receive(TIMEOUT) == [1, 2]
    assert channel.receive(TIMEOUT) is True


def test_close_over_there_ends_the_channel_here(gw):
    channel = gw.remote_exec(
        """
        other = channel.receive()
        other.send(1)
        other.close()
        other.close()
        channel.send(other.isclosed())
        """
    )
    other = gw.newchannel()
    channel.send(other)
    other.waitclose(TIMEOUT)
    assert other.isclosed()
    assert list(other) == [1]
    assert channel.receive(TIMEOUT) is True


def test_close_here_with_an_error_is_a_remote_error_over_there(gw):
    channel = gw.remote_exec(
        """
        other = channel.receive()
        channel.send(other.receive())
        for wait in (other.receive, other.receive, other.waitclose):
            try:
                channel.send(wait())
            except other.RemoteError as error:
                channel.send(("RemoteError", str(error), error.formatted, repr(error)))
            except EOFError as error:
                channel.send(("EOFError", str(error)))
        """
    )
    other = gw.newchannel()
    channel.send(other)
    other.send("first")
    other.close("what went wrong")
    assert list(channel) == [
        "first",
        ("RemoteError", "what went wrong", "what went wrong", "RemoteError: what went wrong"),
        ("EOFError", ""),
        None,
    ]
    other.waitclose(TIMEOUT)


def test_close_over_there_with_an_error_is_a_remote_error_here(lib, gw):
    channel = gw.remote_exec("other = channel.receive()\nother.send(1)\nother.close('what went wrong')")
    other = gw.newchannel()
    channel.send(other)
    assert other.receive(TIMEOUT) == 1
    with pytest.raises(lib.RemoteError) as caught:
        other.receive(TIMEOUT)
    assert str(caught.value) == caught.value.formatted == "what went wrong"
    assert repr(caught.value) == "RemoteError: what went wrong"
    channel.waitclose(TIMEOUT)


def test_closing_twice_is_fine(gw):
    channel = gw.newchannel()
    channel.close()
    channel.close()
    channel.close("too late")
    channel.waitclose(TIMEOUT)
    with pytest.raises(EOFError):
        channel.receive(TIMEOUT)
    ended = gw.remote_exec("pass")
    ended.waitclose(TIMEOUT)
    ended.close()
    assert ended.isclosed()


def test_close_wakes_a_waiting_receive(gw):
    channel = gw.newchannel()
    ends = []

    def receive():
        try:
            channel.receive(TIMEOUT)
        except EOFError:
            ends.append("receive")

    def wait():
        channel.waitclose(TIMEOUT)
        ends.append("waitclose")

    threads = [threading.Thread(target=receive), threading.Thread(target=receive), threading.Thread(target=wait)]
    for thread in threads:
        thread.start()
    channel.close()
    for thread in threads:
        thread.join(TIMEOUT)
    assert sorted(ends) == ["receive", "receive", "waitclose"]


def test_send_on_a_closed_channel_is_an_error(gw):
    channel = gw.newchannel()
    channel.close()
    with pytest.raises(OSError, match="^cannot send to <Channel id=1 closed>$"):
        channel.send(1)
    ended = gw.remote_exec("pass")
    ended.waitclose(TIMEOUT)
    with pytest.raises(OSError, match="^cannot send to <Channel id=3 closed>$"):
        ended.send(1)


def test_send_to_a_closed_channel_over_there_is_an_error_too(gw):
    channel = gw.remote_exec(
        """
        other = channel.receive()
        other.waitclose()
        try:
            other.send(1)
        except OSError as error:
            channel.send(str(error))
        """
    )
    other = gw.newchannel()
    channel.send(other)
    other.close()
    assert channel.receive(TIMEOUT) == "cannot send to <Channel id=3 closed>"


def test_a_task_cannot_close_its_own_channel(gw):
    channel = gw.remote_exec(
        """
        try:
            channel.close()
        except OSError as error:
            channel.send(str(error))
        channel.send("still open")
        """
    )
    assert channel.receive(TIMEOUT) == "cannot explicitly close channel within remote_exec"
    assert channel.receive(TIMEOUT) == "still open"


def test_closing_the_channel_of_a_running_task_wakes_it(gw):
    report = gw.newchannel()
    channel = gw.remote_exec(
        """
        report = channel.receive()
        report.send("waiting")
        try:
            channel.receive()
        except EOFError:
            report.send("ended")
        """
    )
    channel.send(report)
    assert report.receive(TIMEOUT) == "waiting"
    channel.close()
    assert report.receive(TIMEOUT) == "ended"


# ---- half closed


def test_a_collected_channel_with_a_callback_stays_open_for_sending(gw):
    channel = gw.remote_exec(
        """
        other = channel.receive()
        other.setcallback(channel.send)
        other.send(1)
        other.send(2)
        del other
        channel.receive()
        """
    )
    other = gw.newchannel()
    channel.send(other)
    other.waitclose(TIMEOUT)
    assert not other.isclosed()
    assert repr(other) == "<Channel id=3 open>"
    other.send("a")
    assert channel.receive(TIMEOUT) == "a"
    assert list(other) == [1, 2]
    with pytest.raises(EOFError):
        other.receive(TIMEOUT)
    other.send("b")
    assert channel.receive(TIMEOUT) == "b"
    assert not other.isclosed()
    other.close()
    assert other.isclosed()
    with pytest.raises(OSError, match="cannot send to <Channel id=3 closed>"):
        other.send("c")
    channel.send(None)
    channel.waitclose(TIMEOUT)


def test_the_same_with_the_callback_here(gw):
    channel = gw.remote_exec(
        """
        other = channel.receive()
        try:
            channel.send(other.receive())
        except EOFError:
            channel.send("no more")
        channel.send(other.isclosed())
        other.send("for the callback")
        other.close()
        channel.send(other.isclosed())
        """
    )
    other = gw.newchannel()
    seen, came = [], threading.Event()

    def callback(item):
        seen.append(item)
        came.set()

    channel.send(other)
    other.setcallback(callback)
    del other
    assert channel.receive(TIMEOUT) == "no more"
    assert channel.receive(TIMEOUT) is False
    assert came.wait(TIMEOUT)
    assert channel.receive(TIMEOUT) is True
    assert seen == ["for the callback"]


def test_collecting_a_channel_here_closes_it_over_there(gw):
    channel = gw.remote_exec(
        """
        other = channel.receive()
        channel.send(list(other))
        other.waitclose()
        channel.send(other.isclosed())
        """
    )
    other = gw.newchannel()
    channel.send(other)
    other.send(1)
    del other
    assert channel.receive(TIMEOUT) == [1]
    assert channel.receive(TIMEOUT) is True


def test_collecting_a_channel_over_there_closes_it_here(gw):
    channel = gw.remote_exec(
        """
        other = channel.gateway.newchannel()
        channel.send(other)
        other.send(1)
        del other
        channel.receive()
        """
    )
    other = channel.receive(TIMEOUT)
    other.waitclose(TIMEOUT)
    assert other.isclosed()
    assert list(other) == [1]
    channel.send(None)
    channel.waitclose(TIMEOUT)


def test_the_channel_of_a_task_can_be_dropped_while_it_runs(gw):
    report = gw.newchannel()
    channel = gw.remote_exec(
        """
        report = channel.receive()
        report.send("running")
        try:
            channel.receive()
        except EOFError:
            report.send("dropped")
        """
    )
    channel.send(report)
    assert report.receive(TIMEOUT) == "running"
    del channel
    assert report.receive(TIMEOUT) == "dropped"


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
