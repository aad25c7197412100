"""Waiting for channels without a thread: Channel._notify() has a number written to an fd when there is something to receive."""

import gc
import os
import select
import sys

import pytest

import execnet_c
import masters
from gateways import group_fixture, gw_fixture, inner_fixture, outer_fixture, pid_of  # noqa: F401  (fixtures)
from masters import TIMEOUT, wait_until

ECHO = "for item in channel: channel.send(item)"


@pytest.fixture(name="pipe")
def pipe_fixture():
    fds = os.pipe()
    for fd in fds:
        os.set_blocking(fd, False)
    yield fds
    for fd in fds:
        os.close(fd)


def numbers(fd, seconds=TIMEOUT):
    """The numbers that come within that time, at least one; [] if none does."""
    if not select.select([fd], [], [], seconds)[0]:
        return []
    data = os.read(fd, 65536)
    return [int.from_bytes(data[at : at + 8], sys.byteorder) for at in range(0, len(data), 8)]


def test_an_item_that_is_here_is_told_at_once(gw, pipe):
    channel = gw.remote_exec(ECHO)
    channel.send(1)
    assert channel._await_item(TIMEOUT)
    assert channel._notify(pipe[1], 7).over
    assert channel.receive(0) == 1
    assert numbers(pipe[0], 0) == []


def test_an_item_that_comes_later_is_written(gw, pipe):
    channel = gw.remote_exec(ECHO)
    for number in (0, 5, 2**64 - 1):
        registration = channel._notify(pipe[1], number)
        assert not registration.over
        channel.send(number % 1000)
        assert numbers(pipe[0]) == [number]
        assert registration.over
        assert channel.receive(0) == number % 1000


def test_each_of_many_channels_has_its_number(group, pipe):
    gateways = [group.makegateway() for _ in range(3)]
    channels = [gateways[i % 3].remote_exec(ECHO) for i in range(60)]
    registrations = {i: channel._notify(pipe[1], i) for i, channel in enumerate(channels)}
    for channel in channels:
        channel.send(channel.id)
    told = []
    while len(told) < 60:
        new = numbers(pipe[0])
        assert new, f"only {sorted(told)} were told"
        told += new
    assert sorted(told) == list(range(60))
    assert all(registration.over for registration in registrations.values())
    assert [channel.receive(0) for channel in channels] == [channel.id for channel in channels]


def test_the_end_of_a_task_is_told(gw, pipe):
    channel = gw.remote_exec("channel.receive()")
    registration = channel._notify(pipe[1], 3)
    channel.send(None)
    assert numbers(pipe[0]) == [3]
    assert registration.over
    with pytest.raises(EOFError):
        channel.receive(0)
    assert channel._notify(pipe[1], 3).over


def test_a_failure_is_told(gw, pipe):
    channel = gw.remote_exec("channel.receive(); 1 / 0")
    registration = channel._notify(pipe[1], 3)
    channel.send(None)
    assert numbers(pipe[0]) == [3]
    assert registration.over
    with pytest.raises(execnet_c.RemoteError, match="ZeroDivisionError"):
        channel.receive(0)


def test_a_death_is_told(gw, pipe):
    pid = pid_of(gw)
    channel = gw.remote_exec("channel.receive()")
    registration = channel._notify(pipe[1], 3)
    os.kill(pid, 9)
    assert numbers(pipe[0]) == [3]
    assert registration.over
    with pytest.raises(execnet_c.GatewayDied):
        channel.receive(TIMEOUT)
    assert channel._notify(pipe[1], 3).over


def test_after_an_exit_it_is_over(gw, pipe):
    channel = gw.remote_exec("channel.receive()")
    registration = channel._notify(pipe[1], 3)
    gw.exit()
    assert numbers(pipe[0]) == [3]
    assert registration.over


def test_a_thread_that_waits_at_the_same_link_reads_for_it(group, pipe):
    gw = group.makegateway()
    channel, other = gw.remote_exec(ECHO), gw.remote_exec(ECHO)
    registration = channel._notify(pipe[1], 1)
    channel.send("for the registration")
    other.send("for the thread")
    assert other.receive(TIMEOUT) == "for the thread"
    assert numbers(pipe[0]) == [1]
    assert registration.over and channel.receive(0) == "for the registration"


def test_it_keeps_its_channel(gw, pipe):
    channel = gw.remote_exec(ECHO)
    channel.send("one")
    registration = channel._notify(pipe[1], 1)
    id = channel.id
    del channel
    gc.collect()
    assert registration.over or numbers(pipe[0]) == [1]
    assert id in gw.stats()["channels"]
    del registration
    gc.collect()
    assert wait_until(lambda: id not in gw.stats()["channels"])


def test_a_wait_that_was_dropped_writes_nothing(gw, pipe):
    channel = gw.remote_exec(ECHO)
    channel._notify(pipe[1], 1)
    last = channel._notify(pipe[1], 2)
    gc.collect()
    channel.send("one")
    assert numbers(pipe[0]) == [2]
    assert last.over and numbers(pipe[0], 0) == []


def test_a_channel_that_holds_its_own_wait_is_collected(gw, pipe):
    channel = gw.remote_exec(ECHO)
    channel.wait = channel._notify(pipe[1], 1)
    id = channel.id
    del channel
    gc.collect()
    assert wait_until(lambda: id not in gw.stats()["channels"])


def test_a_closed_fd_harms_nothing(gw):
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    channel = gw.remote_exec(ECHO)
    registration = channel._notify(writer, 1)
    os.close(reader)
    os.close(writer)
    channel.send("one")
    assert wait_until(lambda: registration.over)
    assert channel.receive(0) == "one"
    channel.send("two")
    assert channel.receive(TIMEOUT) == "two"


def test_a_full_pipe_holds_nobody_up(gw, pipe):
    with pytest.raises(BlockingIOError):
        while True:
            os.write(pipe[1], bytes(4096))
    channel = gw.remote_exec(ECHO)
    registration = channel._notify(pipe[1], 1)
    channel.send("one")
    assert wait_until(lambda: registration.over)
    assert channel.receive(0) == "one"


def test_a_channel_with_a_callback_is_refused(gw, pipe):
    channel = gw.remote_exec(ECHO)
    channel.setcallback(print)
    with pytest.raises(OSError, match="channel has receiver callback"):
        channel._notify(pipe[1], 1)


@pytest.mark.parametrize(
    "fd, number, error", [(-1, 0, OSError), (1, -1, OverflowError), (1, 2**64, OverflowError), ("1", 0, TypeError)]
)
def test_what_cannot_be_is_refused(group, fd, number, error):
    channel = group.makegateway().remote_exec(ECHO)
    with pytest.raises(error):
        channel._notify(fd, number)
    channel.send("fine")
    assert channel.receive(TIMEOUT) == "fine"


def test_a_task_can_wait_like_that_too(gw):
    channel = gw.remote_exec(
        """
import os, select, sys
reader, writer = os.pipe()
os.set_blocking(writer, False)
wait = channel._notify(writer, 12)
channel.send(wait.over)
select.select([reader], [], [], 30)
channel.send(int.from_bytes(os.read(reader, 8), sys.byteorder))
channel.send((wait.over, channel.receive(0)))
"""
    )
    assert channel.receive(TIMEOUT) is False
    channel.send("item")
    assert channel.receive(TIMEOUT) == 12
    assert channel.receive(TIMEOUT) == (True, "item")


def test_a_forked_child_lets_go_of_it():
    masters.run(
        """
if True:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    group = execnet_c.Group()
    channel = group.makegateway().remote_exec("for item in channel: channel.send(item)")
    waits = [channel._notify(writer, 1)]
    pid = os.fork()
    if not pid:
        try:
            channel._notify(writer, 2)
        except OSError as exc:
            assert "belongs to the parent process" in str(exc), exc
            waits.clear()
            os._exit(0)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    channel.send("one")
    assert int.from_bytes(os.read(reader, 8), sys.byteorder) == 1
    assert waits[0].over and channel.receive(0) == "one"
    group.terminate(timeout=2.0)
""",
        env={"PYTHONWARNINGS": "ignore:This process:DeprecationWarning"},
    )
