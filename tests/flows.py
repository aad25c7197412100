"""What the tests of flow control share."""

import threading

import pytest

import pairing
from conftest import TIMEOUT, wait_until
from far_ends import PLAIN

HERE = [end for end in PLAIN if not end.missing]
SAME = pairing.near == pairing.far  # else foreign far ends have a core of their own

BYTES = b"x" * 994  # 1000 bytes as an item, and 64 more
COST = 1064
LIMIT = 100_000
FIT = LIMIT // COST

# Tasks of the far end.
IDLE = "channel.gateway.newchannel().receive()"
SENDS = """
def send(channel, count, size=994):
    for n in range(count):
        channel.send((b"%d " % n).ljust(size, b"x"))
"""
RECEIVES = """
def receive(channel, go, count):
    for n in range(count):
        go.receive()
        item = channel.receive()
        go.send((bytes(item[:8]).split()[0], *channel.gateway._stats()[0]))
    channel.send("received")
"""


def numbered(n, size=994):
    return (b"%d " % n).ljust(size, b"x")


def received(channel):
    return channel.gateway.stats()["channels"][channel.id]["received"]


def sent(channel):
    return channel.gateway.stats()["channels"][channel.id]["sent"]


def waits(channel):
    """Wait until a sender waits at this end of the channel."""
    assert wait_until(lambda: sent(channel)["waits"] is not None)


def sender_waits(channel):
    """Wait until a sender waits at the other end of the channel."""
    assert wait_until(lambda: received(channel)["sender_waits"] is not None)


class Sender(threading.Thread):
    """Sends these items from a thread; `done` has those that were sent, `error` what send() raised."""

    error = None

    def __init__(self, channel, items):
        super().__init__()
        self.channel, self.items, self.done = channel, items, []
        self.start()

    def run(self):
        try:
            for item in self.items:
                self.channel.send(item)
                self.done.append(item)
        except Exception as exc:
            self.error = exc

    def end(self):
        """Wait for its end; return what send() raised."""
        self.join(TIMEOUT)
        assert not self.is_alive()
        return self.error


WAYS = ["rings", "pipes", "foreign", "via", "socket"]


@pytest.fixture(name="gateway", params=WAYS)
def gateway_fixture(request, group):
    """A gateway whose channels have the limit LIMIT, over each transport."""
    keys = f"//maxqueue={LIMIT}"
    if request.param == "rings":
        return group.makegateway("popen" + keys)
    if request.param == "pipes":
        return group.makegateway("popen//transport=pipe" + keys)
    if request.param == "via":
        group.makegateway("popen//id=outer")
        return group.makegateway("popen//via=outer" + keys)
    if not SAME:
        pytest.skip("foreign far ends have a core of their own: C-C and Python-Python do")
    if request.param == "foreign":
        if not HERE:
            pytest.skip("no Python without execnet_c here")
        return group.makegateway(HERE[0].spec() + keys)
    from socket_servers import our_server

    server = our_server()
    address = server.__enter__().address
    request.addfinalizer(lambda: (group.terminate(timeout=2.0), server.__exit__(None, None, None)))
    return group.makegateway(f"socket={address}{keys}")


@pytest.fixture(name="gw")
def gw_fixture(group):
    return group.makegateway(f"popen//maxqueue={LIMIT}")
