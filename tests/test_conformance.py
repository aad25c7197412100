"""The rules of the wire and of order, each once: what the core of this pairing sends and does, frame by frame.

The other end of the connection is this test, which writes and reads the frames itself. What the near end's core does
over a socket stands first, then what a worker does that is sent its first frames.
"""

import os
import socket
import struct
import subprocess
import sys
import threading
from contextlib import contextmanager

import execnet_c
import pairing
import pytest
from conftest import TIMEOUT, wait_until
from pairing import module as core

STATUS, RECONFIGURE, TERMINATE, EXEC, DATA, CLOSE, CLOSE_ERROR, LAST_MESSAGE, HELLO, LONG, PIECE, DROP = range(12)
CREDIT, WAITS = 13, 14
NO_LIMIT = (1 << 64) - 1


def payload(item):
    """What `dumps` gives, but for the version in front."""
    return execnet_c.dumps(item)[1:]


def credit(channel, consumed, limit):
    return frame(CREDIT, channel, struct.pack("!QQ", consumed, limit))


def frame(code, channel=0, data=b""):
    return struct.pack("!bii", code, channel, len(data)) + data


class Peer:
    """The other end: reads and writes frames."""

    def __init__(self, read, write):
        self._read, self._write = read, write

    def put(self, *frames):
        data = b"".join(frames)
        while data:
            data = data[self._write(data) :]

    def _bytes(self, n):
        data = b""
        while len(data) < n:
            more = self._read(n - len(data))
            assert more, "the connection ended"
            data += more
        return data

    def get(self):
        """(code, channel, payload) of the next frame."""
        code, channel, n = struct.unpack("!bii", self._bytes(9))
        return code, channel, self._bytes(n)

    def ended(self):
        """Reads on until the other side has ended the connection."""
        while self._read(65536):
            pass
        return True


@pytest.fixture(name="near")
def near_fixture():
    """(gateway, peer): a gateway of the near end's core, whose far end is the test."""
    mine, theirs = socket.socketpair()
    mine.settimeout(TIMEOUT)
    gateway = core.Gateway()
    gateway._start_on(theirs.detach())
    peer = Peer(mine.recv, mine.send)
    peer.put(core.MARKER)
    yield gateway, peer
    gateway._goodbye()
    mine.close()
    gateway.join(TIMEOUT)


# --- what is sent ----------------------------------------------------------------------------------------------------


def test_an_item_is_one_frame_with_its_channel_and_what_dumps_gives(near):
    gateway, peer = near
    channel = gateway.newchannel()
    for item in (None, 1, "text", b"bytes", [1, (2, {"a": {3}})]):
        channel.send(item)
        assert peer.get() == (DATA, channel.id, payload(item))


def test_the_near_end_s_channels_are_odd_and_count_upwards(near):
    gateway, _ = near
    assert [gateway.newchannel().id for _ in range(4)] == [1, 3, 5, 7]


def test_what_several_threads_send_is_whole_frames_and_each_thread_s_in_order(near):
    gateway, peer = near
    channels = [gateway.newchannel() for _ in range(3)]

    def send(channel):
        for number in range(100):
            channel.send([number, "x" * 3000])

    threads = [threading.Thread(target=send, args=(channel,)) for channel in channels]
    for thread in threads:
        thread.start()
    came = {channel.id: [] for channel in channels}
    for _ in range(300):
        code, number, data = peer.get()
        assert code == DATA
        came[number].append(core.loads(b"\x02" + data)[0])
    for thread in threads:
        thread.join(TIMEOUT)
    assert came == {channel.id: list(range(100)) for channel in channels}


def test_a_close_is_told_once(near):
    gateway, peer = near
    channel = gateway.newchannel()
    channel.close()
    channel.close()
    assert peer.get() == (CLOSE, channel.id, b"")
    other = gateway.newchannel()
    other.send(1)
    assert peer.get()[0] == DATA, "and nothing in between"


def test_a_close_with_an_error_tells_its_text(near):
    gateway, peer = near
    channel = gateway.newchannel()
    channel.close("it went wrong")
    assert peer.get() == (CLOSE_ERROR, channel.id, payload("it went wrong"))


def test_a_channel_that_nobody_holds_is_closed(near):
    gateway, peer = near
    number = gateway.newchannel().id
    assert peer.get() == (CLOSE, number, b"")


def test_a_channel_that_only_a_callback_listens_to_says_that_nothing_more_is_sent(near):
    gateway, peer = near
    seen = []
    channel = gateway.newchannel()
    number = channel.id
    channel.setcallback(seen.append)
    del channel
    assert peer.get() == (LAST_MESSAGE, number, b"")
    peer.put(frame(DATA, number, payload(1)), frame(DATA, number, payload(2)))
    assert wait_until(lambda: seen == [1, 2])


def test_reconfigure_tells_the_channel_or_all_of_them(near):
    gateway, peer = near
    channel = gateway.newchannel()
    channel.reconfigure(False, True)
    assert peer.get() == (RECONFIGURE, channel.id, payload((False, True)))


# --- what comes ------------------------------------------------------------------------------------------------------


def test_frames_may_come_in_any_pieces(near):
    gateway, peer = near
    channel = gateway.newchannel()
    data = b"".join(frame(DATA, channel.id, payload([number, "x" * number])) for number in range(20))
    for at in range(0, len(data), 7):
        peer.put(data[at : at + 7])
    assert [channel.receive(TIMEOUT)[0] for _ in range(20)] == list(range(20))


@pytest.mark.parametrize("items", [0, 3])
def test_items_come_before_the_close(near, items):
    gateway, peer = near
    channel = gateway.newchannel()
    peer.put(*[frame(DATA, channel.id, payload(number)) for number in range(items)], frame(CLOSE, channel.id))
    channel.waitclose(TIMEOUT)
    assert list(channel) == list(range(items))
    with pytest.raises(EOFError):
        channel.receive(TIMEOUT)
    with pytest.raises(OSError):
        channel.send(1)


def test_items_come_before_the_error(near):
    gateway, peer = near
    channel = gateway.newchannel()
    peer.put(frame(DATA, channel.id, payload(1)), frame(CLOSE_ERROR, channel.id, payload("over there")))
    assert channel.receive(TIMEOUT) == 1
    with pytest.raises(channel.RemoteError, match="over there"):
        channel.receive(TIMEOUT)


def test_after_the_last_message_there_is_an_end_and_sending_goes_on(near):
    gateway, peer = near
    channel = gateway.newchannel()
    peer.put(frame(DATA, channel.id, payload(1)), frame(LAST_MESSAGE, channel.id))
    assert list(channel) == [1]
    channel.send(2)
    assert peer.get() == (DATA, channel.id, payload(2))


def test_what_comes_for_a_channel_that_is_closed_or_unknown_is_dropped(near):
    gateway, peer = near
    closed, channel = gateway.newchannel(), gateway.newchannel()
    closed.close()
    assert peer.get()[0] == CLOSE
    peer.put(frame(DATA, closed.id, payload(1)), frame(DATA, 4711, payload(2)), frame(CLOSE, 4713))
    peer.put(frame(DATA, channel.id, payload(3)))
    assert channel.receive(TIMEOUT) == 3


def test_a_malformed_item_fails_where_it_is_received_and_nowhere_else(near):
    gateway, peer = near
    channel = gateway.newchannel()
    peer.put(frame(DATA, channel.id, b"?"), frame(DATA, channel.id, payload(2)))
    with pytest.raises(core.LoadError):
        channel.receive(TIMEOUT)
    assert channel.receive(TIMEOUT) == 2


def test_a_callback_s_items_come_in_order_before_what_came_behind_them(near):
    gateway, peer = near
    first, second = gateway.newchannel(), gateway.newchannel()
    seen, go_on = [], threading.Event()

    def callback(item):
        assert go_on.wait(TIMEOUT)
        seen.append(item)

    first.setcallback(callback, endmarker="end")
    peer.put(*[frame(DATA, first.id, payload(number)) for number in range(5)], frame(DATA, second.id, payload("behind")))
    with pytest.raises(execnet_c.TimeoutError):
        second.receive(0.2)
    go_on.set()
    assert second.receive(TIMEOUT) == "behind"
    assert seen == list(range(5))
    peer.put(frame(DATA, first.id, payload(5)), frame(CLOSE, first.id))
    first.waitclose(TIMEOUT)
    assert seen == [0, 1, 2, 3, 4, 5, "end"], "waitclose() returns behind the end marker"


def test_a_goodbye_ends_all_channels_and_what_comes_behind_it_is_not_read(near):
    gateway, peer = near
    channel = gateway.newchannel()
    peer.put(frame(DATA, channel.id, payload(1)), frame(TERMINATE), frame(DATA, channel.id, payload(2)))
    assert channel.receive(TIMEOUT) == 1
    with pytest.raises(EOFError):
        channel.receive(TIMEOUT)
    gateway.join(TIMEOUT)


@pytest.mark.parametrize(
    "wrong",
    [struct.pack("!bii", 99, 1, 0), struct.pack("!bii", -1, 1, 0), struct.pack("!bii", DATA, 1, -1), frame(PIECE, 3, b"x")],
    ids=["an unknown code", "a negative code", "a negative length", "a piece of nothing"],
)
def test_a_frame_that_cannot_be_ends_the_connection(near, wrong):
    gateway, peer = near
    channel = gateway.newchannel()
    peer.put(frame(DATA, channel.id, payload(1)), wrong)
    assert channel.receive(TIMEOUT) == 1, "what came before it is had"
    with pytest.raises(EOFError):
        channel.receive(TIMEOUT)
    gateway.join(TIMEOUT)
    assert gateway._state()["reason"] == "XC_BAD"


def long_frame(number, channel, size):
    return frame(LONG, number, struct.pack("!biQ", DATA, channel, size))


def test_pieces_of_a_long_message_are_one_item_and_others_pass_between_them(near):
    gateway, peer = near
    channel, other = gateway.newchannel(), gateway.newchannel()
    data = payload(b"x" * 3000)
    peer.put(long_frame(7, channel.id, len(data)), frame(PIECE, 7, data[:1000]))
    peer.put(frame(DATA, other.id, payload("between")))
    assert other.receive(TIMEOUT) == "between"
    peer.put(frame(PIECE, 7, data[1000:]))
    assert channel.receive(TIMEOUT) == b"x" * 3000


def test_a_long_message_that_is_dropped_never_comes(near):
    gateway, peer = near
    channel = gateway.newchannel()
    peer.put(long_frame(7, channel.id, 3000), frame(PIECE, 7, b"x"), frame(DROP, 7), frame(DATA, channel.id, payload(1)))
    assert channel.receive(TIMEOUT) == 1


# --- flow control ----------------------------------------------------------------------------------------------------

ITEM = b"x" * 30  # 36 bytes as an item; it counts 100


def test_a_limit_is_told_with_what_was_received_before(near):
    gateway, peer = near
    channel = gateway.newchannel()
    peer.put(*[frame(DATA, channel.id, payload(ITEM))] * 3)
    assert [channel.receive(TIMEOUT) for _ in range(2)] == [ITEM] * 2
    for limit, told in ((1000, 1000), (None, NO_LIMIT), (5, 5), (sys.maxsize, sys.maxsize)):
        channel.set_limit(limit)
        assert peer.get() == (CREDIT, channel.id, struct.pack("!QQ", 200, told))


def test_what_is_sent_behind_set_limit_comes_behind_it(near):
    gateway, peer = near
    channel = gateway.newchannel()
    for limit in range(1, 301):
        channel.set_limit(limit)
        channel.send(limit)
        assert peer.get() == (CREDIT, channel.id, struct.pack("!QQ", 0, limit))
        assert peer.get() == (DATA, channel.id, payload(limit))


def test_credit_is_given_when_half_of_the_limit_was_received(near):
    gateway, peer = near
    channel = gateway.newchannel()
    channel.set_limit(1000)
    assert peer.get() == (CREDIT, channel.id, struct.pack("!QQ", 0, 1000))
    peer.put(*[frame(DATA, channel.id, payload(ITEM))] * 12)
    for received in range(1, 13):
        channel.receive(TIMEOUT)
        if received % 5 == 0:
            assert peer.get() == (CREDIT, channel.id, struct.pack("!QQ", received * 100, 1000))
        else:
            channel.send("nothing else comes")
            assert peer.get() == (DATA, channel.id, payload("nothing else comes"))


def test_credit_for_who_waits_is_given_when_nothing_is_left_to_receive(near):
    gateway, peer = near
    channel = gateway.newchannel()
    channel.set_limit(1000)
    peer.get()
    peer.put(*[frame(DATA, channel.id, payload(ITEM))] * 3, frame(WAITS, channel.id))
    assert wait_until(lambda: gateway._stats()[0][0][4] is not None)
    channel.receive(TIMEOUT)
    channel.send("before")
    assert peer.get() == (DATA, channel.id, payload("before"))
    for _ in range(2):
        channel.receive(TIMEOUT)
    assert peer.get() == (CREDIT, channel.id, struct.pack("!QQ", 300, 1000))
    peer.put(frame(DATA, channel.id, payload(ITEM)))
    channel.receive(TIMEOUT)
    peer.put(frame(WAITS, channel.id))
    assert peer.get() == (CREDIT, channel.id, struct.pack("!QQ", 400, 1000)), "at once: all was received"


def test_a_sender_asks_once_and_waits_for_credit(near):
    gateway, peer = near
    channel = gateway.newchannel()
    peer.put(credit(channel.id, 0, 250))
    assert wait_until(lambda: gateway._stats()[0][0][6] == 250)
    sender = threading.Thread(target=lambda: [channel.send(ITEM) for _ in range(5)])
    sender.start()
    for _ in range(2):
        assert peer.get() == (DATA, channel.id, payload(ITEM))
    assert peer.get() == (WAITS, channel.id, b"")
    peer.put(credit(channel.id, 0, 250))
    assert peer.get() == (WAITS, channel.id, b""), "that was no room: it still waits, and says so"
    peer.put(credit(channel.id, 100, 250))
    assert peer.get() == (DATA, channel.id, payload(ITEM))
    assert peer.get() == (WAITS, channel.id, b"")
    peer.put(credit(channel.id, 300, 250))
    for _ in range(2):
        assert peer.get() == (DATA, channel.id, payload(ITEM))
    sender.join(TIMEOUT)
    assert gateway._stats()[0][0][5:] == (200, 250, None)
    with pytest.raises(execnet_c.TimeoutError):
        channel.send(ITEM, timeout=0)
    peer.put(credit(channel.id, 300, NO_LIMIT))
    channel.send(ITEM, timeout=TIMEOUT)


def test_a_large_item_goes_when_nothing_else_counts(near):
    gateway, peer = near
    channel = gateway.newchannel()
    peer.put(credit(channel.id, 0, 100))
    assert wait_until(lambda: gateway._stats()[0][0][6] == 100)
    channel.send(ITEM)
    large = threading.Thread(target=channel.send, args=(ITEM * 100,))
    large.start()
    assert peer.get() == (DATA, channel.id, payload(ITEM))
    assert peer.get() == (WAITS, channel.id, b"")
    peer.put(credit(channel.id, 100, 100))
    assert peer.get() == (DATA, channel.id, payload(ITEM * 100))
    large.join(TIMEOUT)


def test_an_item_that_is_not_well_formed_counts_too(near):
    gateway, peer = near
    channel = gateway.newchannel()
    channel.set_limit(1)
    peer.get()
    peer.put(frame(DATA, channel.id, b"?" * 36))
    with pytest.raises(core.LoadError):
        channel.receive(TIMEOUT)
    assert peer.get() == (CREDIT, channel.id, struct.pack("!QQ", 100, 1))


IMPOSSIBLE = {
    "more than was sent": (lambda id: credit(id, 101, 500), "credit for bytes that were never sent"),
    "as much as a number can be": (lambda id: credit(id, NO_LIMIT, 500), "credit for bytes that were never sent"),
    "less than before": (lambda id: credit(id, 100, 500) + credit(id, 99, 500), "credit for fewer bytes than before"),
    "too short": (lambda id: frame(CREDIT, id, bytes(15)), "wrong payload length"),
    "too long": (lambda id: frame(CREDIT, id, bytes(17)), "wrong payload length"),
    "huge": (lambda id: struct.pack("!bii", CREDIT, id, (1 << 31) - 1), "wrong payload length"),
    "negative": (lambda id: struct.pack("!bii", CREDIT, id, -1), "negative payload length"),
    "WAITS with a payload": (lambda id: frame(WAITS, id, b"x"), "wrong payload length"),
    "a code beyond": (lambda id: frame(16, id), "unknown message code"),
}


@pytest.mark.parametrize("what", IMPOSSIBLE)
def test_credit_that_cannot_be_ends_the_connection(near, what):
    gateway, peer = near
    channel = gateway.newchannel()
    channel.send(ITEM)
    frames, words = IMPOSSIBLE[what]
    peer.put(frames(channel.id))
    with pytest.raises(EOFError):
        channel.receive(TIMEOUT)
    gateway.join(TIMEOUT)
    assert gateway._state()["reason"] == "XC_BAD" and words in gateway._state()["detail"]


@pytest.mark.parametrize("consumed", [0, 1, NO_LIMIT])
def test_credit_for_a_channel_that_nobody_knows_is_ignored_and_who_waits_there_may_send(near, consumed):
    gateway, peer = near
    closed, channel = gateway.newchannel(), gateway.newchannel()
    closed.close()
    assert peer.get()[0] == CLOSE
    for number in (closed.id, 4711, 0, -1):
        peer.put(credit(number, consumed, 1), frame(WAITS, number))
        assert peer.get() == (CREDIT, number, struct.pack("!QQ", 0, NO_LIMIT))
    channel.send(1)
    assert peer.get() == (DATA, channel.id, payload(1))


def test_credit_that_does_not_fit_a_channel_which_may_have_lived_before_lifts_its_limit(near):
    """One that an item has carried here: one side may have let it go, and began to count anew."""
    gateway, peer = near
    channel = gateway.newchannel()
    peer.put(frame(DATA, channel.id, b"B" + struct.pack("!i", 8) + b"Q"))
    carried = channel.receive(TIMEOUT)
    assert carried.id == 8
    peer.put(credit(8, 0, 10))
    assert wait_until(lambda: gateway._stats()[0][1][6] == 10)
    carried.send(ITEM)
    assert peer.get() == (DATA, 8, payload(ITEM))
    peer.put(credit(8, 5000, 10))
    assert wait_until(lambda: gateway._stats()[0][1][6] is None)
    carried.send(ITEM, timeout=TIMEOUT)
    assert peer.get() == (DATA, 8, payload(ITEM))


def test_credit_reaches_a_channel_at_which_nothing_more_arrives(near):
    gateway, peer = near
    channel = gateway.newchannel()
    peer.put(credit(channel.id, 0, 150), frame(LAST_MESSAGE, channel.id))
    channel.waitclose(TIMEOUT)
    sender = threading.Thread(target=lambda: [channel.send(ITEM) for _ in range(3)])
    sender.start()
    for n in range(3):
        assert peer.get() == (DATA, channel.id, payload(ITEM))
        if n < 2:
            assert peer.get() == (WAITS, channel.id, b"")
            peer.put(credit(channel.id, (n + 1) * 100, 150))
    sender.join(TIMEOUT)


@pytest.mark.parametrize("last", ["credit", "close", "half, then close"])
def test_credit_and_the_end_do_not_wait_for_a_callback_that_waits_for_them(near, last):
    gateway, peer = near
    channel, other = gateway.newchannel(), gateway.newchannel()
    done = threading.Event()

    def callback(item):
        other.send(ITEM)
        other.send(ITEM)
        done.set()

    if last == "half, then close":
        peer.put(frame(LAST_MESSAGE, other.id))
        other.waitclose(TIMEOUT)
    channel.setcallback(callback)
    peer.put(credit(other.id, 0, 1), frame(DATA, channel.id, payload(1)))
    assert peer.get() == (DATA, other.id, payload(ITEM))
    assert peer.get() == (WAITS, other.id, b"")
    peer.put(credit(other.id, 100, 1) if last == "credit" else frame(CLOSE, other.id))
    assert peer.get() == (DATA, other.id, payload(ITEM))
    assert done.wait(TIMEOUT)


def test_any_number_of_credits_and_questions_are_taken(near):
    gateway, peer = near
    channel = gateway.newchannel()
    for _ in range(200):
        peer.put((credit(channel.id, 0, 5000) + frame(WAITS, channel.id) + credit(4711, 7, 7)) * 100)
    peer.put(frame(DATA, channel.id, payload(1)))
    assert channel.receive(TIMEOUT) == 1


# --- a worker --------------------------------------------------------------------------------------------------------


@contextmanager
def worker_with(**settings):
    """A peer whose other end is a worker with the far end's core; its hello has been answered."""
    env = {**os.environ, "EXECNET_C_PURE": "" if pairing.far == "C" else "1"}
    command = [sys.executable, "-c", "from execnet_c.worker import main; main()"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env)
    out, into = process.stdout.fileno(), process.stdin.fileno()
    peer = Peer(lambda n: os.read(out, n), lambda data: os.write(into, data))
    assert peer._bytes(len(core.MARKER)) == core.MARKER
    peer.put(frame(HELLO, 0, payload({"version": execnet_c.__version__, "id": "gw0", "execmodel": "thread", **settings})))
    code, _, answer = peer.get()
    assert code == HELLO and core.loads(b"\x02" + answer)["pid"] == process.pid
    yield peer
    process.stdin.close()
    process.stdout.close()
    process.wait(TIMEOUT)


@pytest.fixture
def worker():
    with worker_with() as peer:
        yield peer


def task(channel, source, name=None, **kwargs):
    return frame(EXEC, channel, payload((source, None, name, kwargs)))


def test_a_task_s_items_and_its_end_come_in_order(worker):
    worker.put(task(1, "for n in range(3): channel.send(n)"))
    assert [worker.get() for _ in range(4)] == [*[(DATA, 1, payload(n)) for n in range(3)], (CLOSE, 1, b"")]


def test_a_task_that_fails_ends_with_its_traceback_its_type_and_its_words(worker):
    worker.put(task(1, "raise ValueError('no')"))
    code, channel, data = worker.get()
    text, name, words = core.loads(b"\x02" + data)
    assert (code, channel, name, words) == (CLOSE_ERROR, 1, "ValueError", "no")
    assert text.startswith("Traceback") and text.endswith("ValueError: no\n")


def test_items_that_come_with_a_task_wait_for_it(worker):
    worker.put(task(1, "channel.send(channel.receive() + channel.receive())"), *[frame(DATA, 1, payload(n)) for n in (1, 2)])
    assert worker.get() == (DATA, 1, payload(3))


def test_the_far_end_s_channels_are_even(worker):
    worker.put(task(1, "c = channel.gateway.newchannel(); channel.send(c.id); c.send('x'); c.receive()"))
    number = core.loads(b"\x02" + worker.get()[2])
    assert number % 2 == 0 and number > 0
    assert worker.get() == (DATA, number, payload("x"))


def test_a_status_request_is_answered_whatever_the_tasks_do(worker):
    worker.put(task(1, "channel.send(1); channel.receive()"), frame(STATUS, 3))
    answers = {worker.get() for _ in range(3)}
    assert (DATA, 1, payload(1)) in answers and (CLOSE, 3, b"") in answers
    [status] = [core.loads(b"\x02" + data) for code, channel, data in answers if (code, channel) == (DATA, 3)]
    assert set(status) >= {"numchannels", "numexecuting", "execmodel"}


def test_a_worker_ends_after_a_goodbye_when_its_tasks_have(worker):
    worker.put(task(1, "channel.send(1)"), frame(TERMINATE))
    assert [worker.get()[0] for _ in range(2)] == [DATA, CLOSE]
    assert worker.ended()


def test_a_task_has_the_limit_that_comes_with_it(worker):
    """Before the hello's settings, the task and the limit have taken effect one after the other."""
    worker.put(task(1, "channel.receive()\nfor n in range(5): channel.send(bytes(30))"), credit(1, 0, 250), frame(DATA, 1, payload(0)))
    for _ in range(2):
        assert worker.get() == (DATA, 1, payload(bytes(30)))
    assert worker.get() == (WAITS, 1, b"")
    worker.put(credit(1, 200, NO_LIMIT))
    assert [worker.get()[0] for _ in range(4)] == [DATA, DATA, DATA, CLOSE]


def test_a_worker_sets_limits_for_all_channels_that_the_hello_says():
    with worker_with(maxqueue=250) as peer:
        peer.put(task(1, "channel.receive()\nfor n in range(5): channel.send(bytes(30))"))
        peer.put(frame(DATA, 1, payload(bytes(30))), frame(DATA, 3, payload(1)))
        for _ in range(2):
            assert peer.get() == (DATA, 1, payload(bytes(30)))
        assert peer.get() == (WAITS, 1, b"")
        peer.put(frame(WAITS, 1))
        assert peer.get() == (CREDIT, 1, struct.pack("!QQ", 100, 250))
        peer.put(credit(1, 200, 1000))
        assert [peer.get()[0] for _ in range(4)] == [DATA, DATA, DATA, CLOSE]
