"""What the tests of gateways share."""

import pytest

import execnet_c
from conftest import TIMEOUT

PID = "import os\nchannel.send(os.getpid())"


@pytest.fixture(name="group")
def group_fixture():
    """A group of execnet_c, for tests that do not run against execnet."""
    group = execnet_c.Group()
    yield group
    group.terminate(timeout=2.0)


@pytest.fixture(name="outer")
def outer_fixture(group):
    return group.makegateway("popen//id=outer")


@pytest.fixture(name="inner")
def inner_fixture(group, outer):
    """A gateway through that one."""
    return group.makegateway("popen//via=outer//id=inner")


@pytest.fixture(name="gw", params=["popen", "transport=pipe", "via"])
def gw_fixture(request, group):
    """A gateway over each kind of stream."""
    if request.param == "via":
        group.makegateway("popen//id=outer")
        return group.makegateway("popen//via=outer")
    return group.makegateway("popen//transport=pipe" if request.param == "transport=pipe" else "popen")


def pid_of(gw):
    return gw.remote_exec(PID).receive(TIMEOUT)


def evaluate(gateway, expression):
    return gateway.remote_exec(f"import os, sys\nchannel.send({expression})").receive(2 * TIMEOUT)


def add(channel, a, b=2, *, c=3):
    channel.send((a, b, c))
