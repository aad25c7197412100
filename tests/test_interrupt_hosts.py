"""Channel.interrupt() where the process of this side is none of Python, or there is none: ssh, sockets; and in greenlets."""

import importlib.util

import pairing
import pytest

import execnet_c
from conftest import TIMEOUT
from gateways import group_fixture  # noqa: F401  (a fixture)
from ssh_hosts import server_fixture  # noqa: F401  (a fixture)
from test_interrupt import HOLD, STUBBORN, begun, check_interrupts, interrupted, let_go

if pairing.near != pairing.far:
    pytest.skip("hosts over ssh have a core of their own: C-C and Python-Python do", allow_module_level=True)

ENDED = r"a task went on for 0.2 seconds after its interrupt, so this side ended its worker"


def test_over_ssh(group, server):
    gw = group.makegateway(server.spec("h1"))
    check_interrupts(gw, None)
    channel = begun(gw, STUBBORN)
    channel.interrupt(kill_after=0.2)
    with pytest.raises(execnet_c.LinkLost, match=ENDED):
        channel.receive(TIMEOUT)


def test_over_a_socket(group):
    group.makegateway("popen//id=outer")
    gw = group.makegateway("socket//installvia=outer")
    check_interrupts(gw, None)
    channel = begun(gw, STUBBORN)
    channel.interrupt(kill_after=0.2)
    with pytest.raises(execnet_c.GatewayDied, match=ENDED):
        channel.receive(TIMEOUT)


@pytest.mark.parametrize("library", ["gevent", "eventlet"])
def test_a_greenlet(group, library):
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is missing")
    gw = group.makegateway(f"popen//execmodel={library}")
    other, channel = begun(gw, HOLD), begun(gw, f"import {library}\nchannel.send('here')\n{library}.sleep(1000)")
    channel.interrupt()
    assert interrupted(channel)
    channel = begun(gw, STUBBORN)
    channel.interrupt()
    assert gw.remote_exec("channel.send(1)").receive(TIMEOUT) == 1
    let_go(other)
    channel.interrupt(kill_after=0.2)
    with pytest.raises(execnet_c.GatewayDied, match=ENDED):
        channel.receive(TIMEOUT)
