"""`with` blocks of channels, gateways and groups."""

import os
import signal

import pytest

from conftest import TIMEOUT, wait_until
from gateways import pid_of
from masters import is_gone

pytestmark = pytest.mark.ours

# Sends what came over the channel that it is sent, and how that ended.
LISTENER = """
other, found = channel.receive(), []
try:
    for item in other:
        found.append(item)
except other.RemoteError as exc:
    found.append(str(exc))
channel.send(found)
"""
SPEAKER = """
with channel.receive() as other:
    other.send(1)
    if channel.receive():
        raise KeyError("over there")
channel.send(other.isclosed())
"""


# ---- channels


def test_a_channel_is_closed_at_the_end_of_the_block(gw):
    listener = gw.remote_exec(LISTENER)
    with gw.newchannel() as channel:
        listener.send(channel)
        channel.send(1)
        channel.send(2)
    assert channel.isclosed()
    assert listener.receive(TIMEOUT) == [1, 2]


def test_what_a_block_was_left_by_reaches_the_other_side(gw):
    listener = gw.remote_exec(LISTENER)
    with pytest.raises(KeyError, match="here"):
        with gw.newchannel() as channel:
            listener.send(channel)
            channel.send(1)
            raise KeyError("here")
    assert channel.isclosed()
    item, error = listener.receive(TIMEOUT)
    assert item == 1
    assert error.startswith("Traceback ") and error.strip().endswith("KeyError: 'here'")


@pytest.mark.parametrize("fails", [False, True])
def test_a_block_at_the_far_end(lib, gw, fails):
    speaker, channel = gw.remote_exec(SPEAKER), gw.newchannel()
    speaker.send(channel)
    speaker.send(fails)
    assert channel.receive(TIMEOUT) == 1
    if not fails:
        channel.waitclose(TIMEOUT)
        assert speaker.receive(TIMEOUT) is True
        return
    for ended in (channel, speaker):
        with pytest.raises(lib.RemoteError, match="KeyError: 'over there'"):
            ended.waitclose(TIMEOUT)


def test_the_channel_of_a_task_is_closed_by_the_task_s_end(gw):
    channel = gw.remote_exec("with channel as same:\n    channel.send(same is channel)\nchannel.send(2)")
    assert [channel.receive(TIMEOUT), channel.receive(TIMEOUT)] == [True, 2]
    channel.waitclose(TIMEOUT)


def test_closed_within_the_block(gw):
    with gw.newchannel() as channel:
        channel.close()
    assert channel.isclosed()


def test_a_close_of_the_program_s_own_is_used(gw):
    closed, channel = [], gw.newchannel()
    channel.close = lambda *args: closed.append(args)
    with channel:
        pass
    with pytest.raises(KeyError):
        with channel:
            raise KeyError
    del channel.close
    assert closed[0] in ((), (None,)) and "KeyError" in closed[1][0][0]


def test_a_far_end_that_died_does_not_hide_the_block_s_own_exception(lib, gw):
    with pytest.raises(KeyError):
        with gw.newchannel() as channel:
            os.kill(pid_of(gw), signal.SIGKILL)
            with pytest.raises(lib.GatewayDied):
                channel.receive(TIMEOUT)
            raise KeyError
    assert channel.isclosed()


# ---- gateways and groups


def test_a_gateway_is_exited_at_the_end_of_the_block(group):
    with group.makegateway("popen") as gw:
        assert gw in group
        pid = pid_of(gw)
    assert gw not in group
    with pytest.raises(OSError):
        gw.remote_exec("pass")
    assert wait_until(lambda: is_gone(pid))
    with pytest.raises(KeyError):
        with group.makegateway("popen") as gw:
            raise KeyError
    assert gw not in group
    with group.makegateway("popen") as gw:
        gw.exit()


@pytest.mark.parametrize("how", ["normally", "by an exception"])
def test_a_group_is_terminated_at_the_end_of_the_block(lib, how):
    try:
        with lib.Group(["popen"] * 2) as group:
            assert len(group) == 2
            pids = [pid_of(gw) for gw in group]
            if how != "normally":
                raise KeyError
    except KeyError:
        assert how != "normally"
    assert len(group) == 0
    assert all(map(is_gone, pids))
    with group:
        pids = [pid_of(group.makegateway("popen"))]
    assert all(map(is_gone, pids))
