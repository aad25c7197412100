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

import execnet_c
import pairing
import pytest
from conftest import TIMEOUT, wait_until
from pairing import module as core

STATUS, RECONFIGURE, TERMINATE, EXEC, DATA, CLOSE, CLOSE_ERROR, LAST_MESSAGE, HELLO, LONG, PIECE, DROP = range(12)


def payload(item):
    """What `dumps` gives, but for the version in front."""
    return execnet_c.dumps(item)[1:]


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


@pytest.fixture
def near():
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


# --- a worker --------------------------------------------------------------------------------------------------------


@pytest.fixture
def worker():
    """A peer whose other end is a worker with the far end's core; its hello has been answered."""
    env = {**os.environ, "EXECNET_C_PURE": "" if pairing.far == "C" else "1"}
    command = [sys.executable, "-c", "from execnet_c.worker import main; main()"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env)
    out, into = process.stdout.fileno(), process.stdin.fileno()
    peer = Peer(lambda n: os.read(out, n), lambda data: os.write(into, data))
    assert peer._bytes(len(core.MARKER)) == core.MARKER
    peer.put(frame(HELLO, 0, payload({"version": execnet_c.__version__, "id": "gw0", "execmodel": "thread"})))
    code, _, answer = peer.get()
    assert code == HELLO and core.loads(b"\x02" + answer)["pid"] == process.pid
    yield peer
    process.stdin.close()
    process.stdout.close()
    process.wait(TIMEOUT)


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
