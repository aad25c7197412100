"""Sends that do not wait: channel._send_soon(). What the connection does not take goes out later, in its turn; with an fd nothing
is sent beyond the channel's limit, nor while much waits to be written, and the fd tells when to try again."""

import gc
import os
import signal
import threading
from contextlib import contextmanager, suppress

import pytest

import execnet_c
import masters
from gateways import group_fixture, gw_fixture, pid_of  # noqa: F401  (fixtures)
from masters import TIMEOUT, wait_until
from test_channel_notify import ECHO, numbers, pipe_fixture  # noqa: F401  (a fixture)

pytestmark = pytest.mark.ours

EXEC, STATUS = 3, 0  # codes of frames
LARGE = bytes(3 << 20)


@contextmanager
def stopped(pid):
    masters.stop_process(pid)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def refuses(gw):
    """Whether it takes nothing more."""
    try:
        gw._send_soon(STATUS, 0, ())
    except OSError:
        return True
    return False


def test_a_stopped_far_end_holds_nobody_up_and_the_order_stays(gw):
    pid = pid_of(gw)
    channel = gw.remote_exec("for item in channel: channel.send(item if isinstance(item, int) else len(item))")
    channel.send(0)
    assert channel.receive(TIMEOUT) == 0
    with stopped(pid):
        for n in range(1, 6):
            assert channel._send_soon(n) is None
            assert channel._send_soon(LARGE) is None
        thread = threading.Thread(target=channel.send, args=[6])
        thread.start()
        channel._send_soon([])  # it may overtake the thread's, which has not returned
    thread.join(TIMEOUT)
    channel.send(7)
    got = [channel.receive(TIMEOUT) for _ in range(13)]
    assert [item for item in got if item not in (6, 0)] == [1, len(LARGE), 2, len(LARGE), 3, len(LARGE), 4, len(LARGE), 5, len(LARGE), 7]


def test_many_small_ones_and_ordinary_ones_come_in_order(gw):
    channel = gw.remote_exec(ECHO)
    for n in range(0, 3000, 2):
        channel._send_soon(n)
        channel.send(n + 1)
    assert [channel.receive(TIMEOUT) for _ in range(3000)] == [*range(3000)]


def test_what_is_kept_is_the_item_as_it_was(group):
    gw = group.makegateway("popen//transport=pipe//payload=pickle")
    pid = pid_of(gw)
    channel = gw.remote_exec("for item in channel: channel.send(bytes(item))")
    data = bytearray(b"a" * len(LARGE))
    with stopped(pid):
        channel._send_soon(LARGE)
        channel._send_soon(data)
        data[:] = b"b" * len(data)
    assert channel.receive(TIMEOUT) == LARGE
    assert channel.receive(TIMEOUT) == b"a" * len(LARGE)


def test_a_task_is_sent_soon_too(gw):
    pid = pid_of(gw)
    with stopped(pid):
        channel = gw.newchannel()
        gw._send_soon(EXEC, channel.id, ("channel.send(%r)" % ("x" * (3 << 20)), None, "", {}))
        other = gw.newchannel()
        gw._send_soon(EXEC, other.id, ("channel.send(2)", None, "", {}))
    assert len(channel.receive(TIMEOUT)) == 3 << 20
    assert other.receive(TIMEOUT) == 2


def test_a_channel_in_it_is_one_over_there(gw):
    channel, other = gw.remote_exec("other = channel.receive(); other.send(other.receive() + 1)"), gw.newchannel()
    channel._send_soon(other)
    other._send_soon(4)
    assert other.receive(TIMEOUT) == 5


def test_what_cannot_be_sent_is_refused(gw, pipe):
    channel = gw.remote_exec(ECHO)
    for more in ((), (pipe[1], 1)):
        with pytest.raises(execnet_c.DumpError):
            channel._send_soon(object(), *more)
    channel.close()
    for more in ((), (pipe[1], 1)):
        with pytest.raises(OSError, match="cannot send to"):
            channel._send_soon(1, *more)


def test_a_death_is_raised(gw, pipe):
    channel = gw.remote_exec(ECHO)
    os.kill(pid_of(gw), signal.SIGKILL)
    gw.join(TIMEOUT)
    for more in ((), (pipe[1], 1)):
        with pytest.raises(OSError):
            channel._send_soon(1, *more)
        with pytest.raises(OSError):
            gw._send_soon(EXEC, 1, (), *more)


# ---- with an fd


def test_within_the_limit_it_is_sent_at_once(gw, pipe):
    channel = gw.remote_exec(ECHO)
    for n in range(100):
        assert channel._send_soon(n, pipe[1], n) is None
    assert [channel.receive(TIMEOUT) for _ in range(100)] == [*range(100)]
    assert numbers(pipe[0], 0) == []


LIMITED = """
channel.set_limit(1000)
channel.send(None)
go = channel.receive()
while go.receive():
    go.send(channel.receive())
"""


def limited_channel(gw):
    """A channel of which the far end takes an item when asked through the other one."""
    channel, go = gw.remote_exec(LIMITED), gw.newchannel()
    channel.receive(TIMEOUT)
    channel.send(go)
    go.send(True)
    channel.send(b"first")
    assert go.receive(TIMEOUT) == b"first"
    return channel, go


@pytest.fixture
def limited(gw):
    return limited_channel(gw)


def take(go):
    go.send(True)
    return go.receive(TIMEOUT)


def test_beyond_the_limit_it_is_told_when_there_is_room(limited, pipe):
    channel, go = limited
    assert channel._send_soon(bytes(700), pipe[1], 1) is None
    sending = channel._send_soon(b"second" * 100, pipe[1], 2)
    assert not sending.over and not sending.again()
    assert numbers(pipe[0], 0.05) == []
    assert take(go) == bytes(700)
    assert numbers(pipe[0]) == [2]
    assert sending.over and sending.again() and sending.again()
    assert take(go) == b"second" * 100


def test_without_an_fd_the_limit_is_not_looked_at_but_it_counts(limited):
    channel, go = limited
    for n in range(5):
        channel._send_soon(bytes([n]) * 800)
    with pytest.raises(channel.TimeoutError):
        channel.send(b"last", timeout=0)
    assert [take(go)[0] for _ in range(5)] == [*range(5)]
    channel.send(b"last", timeout=TIMEOUT)
    assert take(go) == b"last"


def test_it_stands_in_the_line_with_those_who_wait_in_send(limited, pipe):
    channel, go = limited
    channel.send(bytes(900))
    sending = channel._send_soon(b"A" * 900, pipe[1], 1)
    thread = threading.Thread(target=channel.send, args=[b"B" * 10])
    thread.start()
    assert wait_until(lambda: channel.gateway.stats()["channels"][channel.id]["sent"]["waits"] is not None)
    last = channel._send_soon(b"C" * 10, pipe[1], 3)
    assert take(go) == bytes(900)
    assert numbers(pipe[0]) == [1]
    assert thread.is_alive() and not last.again()
    assert sending.again()
    assert take(go) == b"A" * 900
    thread.join(TIMEOUT)
    assert numbers(pipe[0]) == [3] and last.again()
    assert sorted([take(go), take(go)]) == [b"B" * 10, b"C" * 10]


def test_one_that_is_dropped_sends_nothing_and_lets_the_next_one_go(limited, pipe):
    channel, go = limited
    channel.send(bytes(500))
    first = channel._send_soon(b"A" * 900, pipe[1], 1)
    second = channel._send_soon(b"B", pipe[1], 2)
    assert first is not None and not second.again()
    del first
    gc.collect()
    assert numbers(pipe[0]) == [2] and second.again()
    assert [take(go), take(go)] == [bytes(500), b"B"]


def test_the_end_of_the_channel_and_of_the_gateway_end_the_wait(gw, pipe):
    channels = [gw.remote_exec("import time; channel.set_limit(100); channel.send(1); time.sleep(60)") for _ in range(2)]
    sendings = []
    for n, channel in enumerate(channels):
        channel.receive(TIMEOUT)
        channel.send(bytes(100))
        sendings.append(channel._send_soon(bytes(100), pipe[1], n))
    pid = pid_of(gw)
    channels[0].close()
    with pytest.raises(OSError, match="cannot send to"):
        sendings[0].again()
    os.kill(pid, signal.SIGKILL)
    while 1 not in (told := numbers(pipe[0])):
        assert told
    assert wait_until(lambda: refuses(gw))  # a moment before that, what is sent is lost as in a pipe
    with pytest.raises(OSError):
        sendings[1].again()


def test_while_much_waits_to_be_written_it_is_told_when_that_is_out(gw, pipe):
    pid = pid_of(gw)
    channel, other = gw.remote_exec("for item in channel: channel.send(len(item))"), gw.remote_exec(ECHO)
    with stopped(pid):
        for _ in range(3):
            channel._send_soon(LARGE)
        waits = [one._send_soon(bytes(n), pipe[1], n) for n, one in enumerate([channel, other, channel], 1)]
        assert not any(wait.over or wait.again() for wait in waits)
        dropped, waits[2] = waits[2], None
        del dropped
        gc.collect()
        assert numbers(pipe[0], 0.05) == []
    told = []
    while len(told) < 2:
        told += numbers(pipe[0]) or ["nothing"]
    assert sorted(told) == [1, 2]
    for wait in waits[:2]:
        assert wait.over and wait.again()
    assert [channel.receive(TIMEOUT) for _ in range(4)] == [len(LARGE)] * 3 + [1]
    assert other.receive(TIMEOUT) == bytes(2)


def test_a_death_ends_a_wait_for_room(gw, pipe):
    pid = pid_of(gw)
    channel = gw.remote_exec(ECHO)
    with stopped(pid):
        channel._send_soon(LARGE)
        channel._send_soon(LARGE)
        wait = channel._send_soon(1, pipe[1], 1)
        os.kill(pid, signal.SIGKILL)
    assert numbers(pipe[0]) == [1]
    assert wait.over
    assert wait_until(lambda: refuses(gw))
    with pytest.raises(OSError):
        wait.again()


def test_a_wait_that_its_channel_holds_is_collected(gw, pipe):
    channel, go = limited_channel(gw)
    channel.send(bytes(500))
    channel.wait = channel._send_soon(bytes(900), pipe[1], 1)
    id = channel.id
    del channel
    gc.collect()
    assert wait_until(lambda: id not in gw.stats()["channels"])


def test_a_forked_child_lets_go_of_it():
    masters.run(
        """
if True:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    group = execnet_c.Group()
    channel = group.makegateway().remote_exec("import time; channel.set_limit(100); channel.send(1); time.sleep(60)")
    channel.receive(30)
    channel.send(bytes(10))
    waits = [channel._send_soon(bytes(90), writer, 1)]
    pid = os.fork()
    if not pid:
        for call in waits[0].again, lambda: channel._send_soon(1), lambda: channel._send_soon(1, writer, 2):
            try:
                call()
            except OSError as exc:
                assert "belongs to the parent process" in str(exc), exc
            else:
                os._exit(1)
        waits.clear()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    group.terminate(timeout=2.0)
""",
        env={"PYTHONWARNINGS": "ignore:This process:DeprecationWarning"},
    )
