"""Gateways over links that delay, lose, break and heal: what is sent arrives whole, or an error says that it does not."""

import hashlib
import random
import threading
import time

import links
import pairing
import pytest

if pairing.name in ("C-Python", "Python-C"):
    pytest.skip("hosts over ssh have a core of their own: C-C and Python-Python do", allow_module_level=True)

import execnet_c
from conftest import wait_until
from gateways import group_fixture  # noqa: F401 (fixtures)
from masters import is_gone

SLOW_TIMEOUT = 90.0
SOON = 30.0

pytestmark = pytest.mark.timeout(300)

ECHO = "for item in channel: channel.send(item)"
# Both ways at once, so that each side has to read while it writes.
DIGEST = """
import hashlib
seen = hashlib.sha256()
for item in channel:
    if item is None:
        break
    seen.update(item)
    channel.send(len(item))
channel.send(seen.hexdigest())
"""


@pytest.fixture(scope="module")
def wire():
    with links.running() as link:
        yield link


@pytest.fixture
def link(wire):
    """A link that carries everything at once. What was left under way by an earlier test is gone from the far end."""
    wire.carry()
    yield wire
    wire.carry()
    assert wait_until(lambda: not wire.server.sessions()), "processes are left over there"


def pieces(total, seed=1):
    """Random bytes in pieces of many sizes."""
    chance = random.Random(seed)
    while total > 0:
        size = min(total, chance.choice([1, 7, 100, 1400, 20_000, 70_000]))
        total -= size
        yield chance.randbytes(size)


def test_the_wire_itself_delays_and_loses(link, group):
    """Or the other tests here would show nothing."""
    gateway = group.makegateway(link.spec())
    channel = gateway.remote_exec(ECHO)
    channel.send(0)
    assert channel.receive(SLOW_TIMEOUT) == 0
    link.carry(delay=0.1)
    start = time.monotonic()
    channel.send(1)
    assert channel.receive(SLOW_TIMEOUT) == 1
    assert time.monotonic() - start >= 0.2
    link.carry(loss=0.2)
    link.count()
    for _ in range(30):
        channel.send(2)
        assert channel.receive(SLOW_TIMEOUT) == 2
    passed, lost = link.count()
    assert passed and lost
    channel.close()


@pytest.mark.parametrize(
    "delay, loss, size", [(0.02, 0.01, 600_000), (0.005, 0.05, 200_000), pytest.param(0.1, 0.0, 2_000_000, marks=pytest.mark.deep)]
)
def test_what_is_sent_arrives_whole(link, group, delay, loss, size):
    link.carry(delay, loss)
    link.count()
    gateway = group.makegateway(link.spec())
    channel = gateway.remote_exec(DIGEST)
    digest, sizes = hashlib.sha256(), []
    for piece in pieces(size):
        digest.update(piece)
        sizes.append(len(piece))
        channel.send(piece)
    channel.send(None)
    assert [channel.receive(SLOW_TIMEOUT) for _ in sizes] == sizes
    assert channel.receive(SLOW_TIMEOUT) == digest.hexdigest()
    data = random.Random(2).randbytes(size)
    echo = gateway.remote_exec(ECHO)
    echo.send(data)
    assert echo.receive(SLOW_TIMEOUT) == data
    echo.close()
    if loss:
        assert link.count()[1] > 0, "nothing was lost: this has shown nothing"


def test_many_channels_over_a_slow_link(link, group):
    link.carry(delay=0.03, loss=0.01)
    gateway = group.makegateway(link.spec())
    wrong = []

    def talk(number):
        try:
            channel = gateway.remote_exec(ECHO)
            for turn in range(10):
                item = (number, turn, b"x" * (turn * 500))
                channel.send(item)
                got = channel.receive(SLOW_TIMEOUT)
                if got != item:
                    wrong.append((item, got))
            channel.close()
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=talk, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("state", ["waiting", "receiving", "sending"])
def test_a_cut_is_noticed_by_the_keepalive(link, group, state):
    gateway = group.makegateway(link.spec("keepalive=2"))
    pid = gateway.remote_exec("import os; channel.send(os.getpid())").receive(SLOW_TIMEOUT)
    piece = b"x" * 100_000
    body = {"waiting": "channel.receive()", "receiving": f"while 1: channel.send(b'x' * {len(piece)})", "sending": "list(channel)"}
    channel = gateway.remote_exec(body[state])
    if state == "receiving":
        for _ in range(3):
            assert channel.receive(SLOW_TIMEOUT) == piece
    link.cut()
    start = time.monotonic()
    with pytest.raises(execnet_c.GatewayDied) as error:
        while state == "sending" and time.monotonic() - start < SLOW_TIMEOUT:
            channel.send(piece)
        while True:
            assert channel.receive(SLOW_TIMEOUT) == piece, "whole, or not at all"
    took = time.monotonic() - start
    print(f"{took:.2f} s: {error.value}")
    assert type(error.value) is execnet_c.HostSilent, repr(error.value)
    assert error.value.host == "beyond"
    assert "beyond" in str(error.value) and "keepalive" in str(error.value)
    assert 1.0 < took < 2.0 + SOON
    link.carry()
    assert wait_until(lambda: is_gone(pid), SLOW_TIMEOUT), "the worker lives on, though the link has healed"


def test_a_near_end_leaves_a_cut_link_in_time(link):
    group = execnet_c.Group()
    gateway = group.makegateway(link.spec())
    channel = gateway.remote_exec("channel.receive()")
    link.cut()
    start = time.monotonic()
    group.terminate(timeout=2.0)
    assert time.monotonic() - start < 2.0 + SOON
    assert not gateway.hasreceiver()
    with pytest.raises(EOFError):
        channel.receive(SLOW_TIMEOUT)


@pytest.mark.parametrize("keys", [[], pytest.param(["keepalive=60"], marks=pytest.mark.deep)], ids=["", "keepalive"])
def test_a_cut_that_heals_loses_nothing(link, group, keys):
    gateway = group.makegateway(link.spec(*keys))
    channel = gateway.remote_exec("for number in range(channel.receive()): channel.send((number, b'x' * 500))")
    echo = gateway.remote_exec(ECHO)
    count = 2000
    channel.send(count)
    assert channel.receive(SLOW_TIMEOUT) == (0, b"x" * 500)
    link.cut()
    for number in range(200):
        echo.send((number, "sent into the cut"))
    with pytest.raises(echo.TimeoutError):
        echo.receive(2.0)
    link.carry()
    assert [echo.receive(SLOW_TIMEOUT) for _ in range(200)] == [(number, "sent into the cut") for number in range(200)]
    assert [channel.receive(SLOW_TIMEOUT)[0] for _ in range(1, count)] == list(range(1, count))
    assert gateway.hasreceiver()
    echo.close()


def test_cuts_again_and_again(link, group):
    gateway = group.makegateway(link.spec("keepalive=60"))
    channel = gateway.remote_exec(DIGEST)
    sent = list(pieces(300_000, seed=3))
    done = threading.Event()

    def disturb():
        while not done.wait(0.3):
            link.cut()
            done.wait(0.3)
            link.carry(0.01, 0.02)

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        digest = hashlib.sha256()
        for piece in sent:
            digest.update(piece)
            channel.send(piece)
        channel.send(None)
        got = [channel.receive(SLOW_TIMEOUT) for _ in sent]
        assert got == [len(piece) for piece in sent]
        assert channel.receive(SLOW_TIMEOUT) == digest.hexdigest()
    finally:
        done.set()
        thread.join()
