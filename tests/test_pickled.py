"""Items that only pickle can carry: what arrives, how, and what it takes. Whom pickles are loaded of is in
test_pickled_trust.py."""

import ctypes  # noqa: F401  (libffi may open a file, which stays: before fds are counted)
import array
import importlib.util
import os
import signal
import subprocess
import sys
import threading

import execnet_c
import pairing
import picklable
import pytest
from conftest import TIMEOUT
from far_ends import PLAIN
from gateways import group_fixture  # noqa: F401
from picklable import START, Array, Colour, Failure, Level, Point, Text

pytestmark = pytest.mark.timeout(180)

ECHO = START + "for item in channel: channel.send_pickled(item)"
KEYS = "//payload=pickle"


@pytest.fixture(name="echo")
def echo_fixture(group):
    return group.makegateway("popen" + KEYS).remote_exec(ECHO)


def back(channel, item):
    channel.send_pickled(item)
    return channel.receive(TIMEOUT)


ITEMS = {
    "a dataclass": Point(1, [2.5, None]),
    "an enum": [Colour.RED, {Colour.BLUE: Level.HIGH}],
    "an exception": Failure("why", 7),
    "a str of a class of its own": Text("text"),
    "what needs no pickle": [1, (2, {"a": {3}}), "ä", b"bytes", 1 << 70, 1.5j],
    "nothing": None,
    "an array": array.array("d", [1.5, -2.0] * 1000),
    "a function by its name": picklable.refused,
    "an empty buffer": Array(bytearray()),
    "some buffers": [
        Array(bytearray(b"x" * n))
        for n in (0, 1, 63, 64, 65, 4096, 65535, 65536, 65537, 300_000)
    ],
    "a large buffer": Array(bytearray(range(256)) * 20_000),
    "a large pickle": Point("x" * 3_000_000, [*range(1000)]),
}


@pytest.mark.parametrize("item", ITEMS.values(), ids=ITEMS)
def test_what_arrives_is_equal(echo, item):
    assert back(echo, item) == item
    got = back(echo, item)
    assert type(got) is type(item) and got == item  # the connection is in step


@pytest.mark.parametrize(
    "transport", ["//transport=pipe", "//via=outer", "//python=" + sys.executable]
)
def test_on_every_stream(group, transport):
    group.makegateway("popen//id=outer")
    channel = group.makegateway("popen" + transport + KEYS).remote_exec(ECHO)
    for name, item in ITEMS.items():
        assert back(channel, item) == item, name


@pytest.mark.skipif(
    pairing.near != pairing.far, reason="foreign far ends have a core of their own"
)
@pytest.mark.parametrize("end", PLAIN, ids=lambda end: end.name)
def test_other_pythons(group, end):
    channel = group.makegateway(end.spec("payload=pickle")).remote_exec(ECHO)
    for name, item in ITEMS.items():
        assert back(channel, item) == item, name


@pytest.mark.skipif(
    pairing.near != pairing.far, reason="foreign far ends have a core of their own"
)
@pytest.mark.parametrize("library", ["gevent", "eventlet"])
def test_greenlets(group, library):
    pytest.importorskip(library)
    group.set_execmodel("thread", library)
    channel = group.makegateway("popen" + KEYS).remote_exec(ECHO)
    for name, item in ITEMS.items():
        assert back(channel, item) == item, name


NUMPY = (
    pairing.HEAD
    + f"""
import execnet_c, numpy
gateway = execnet_c.makegateway("popen{KEYS}")
channel = gateway.remote_exec("for item in channel: channel.send_pickled([item, type(item).__name__])")
for shape in ((), (0,), (3, 4), (1000, 1000)):
    for order in "CF":
        sent = numpy.full(shape, 2.5, order=order)
        for flag in (True, False):
            sent.flags.writeable = flag
            channel.send_pickled(sent)
            got, name = channel.receive()
            assert name == "ndarray" and numpy.array_equal(got, sent) and got.dtype == sent.dtype
            assert got.flags.writeable == flag and got.flags.f_contiguous == sent.flags.f_contiguous
channel.send_pickled(dict(part=numpy.arange(100)[::3], whole=numpy.float32(1.5), record=numpy.zeros(3, "i4,f8")))
got = channel.receive()[0]
assert got["part"].tolist() == [*range(0, 100, 3)] and got["whole"] == 1.5 and got["record"].dtype.names
print("good")
"""
)


def test_numpy():
    if importlib.util.find_spec("numpy") is None:
        pytest.skip("numpy is not installed")
    env = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", NUMPY],
        capture_output=True,
        text=True,
        timeout=120,
        env=env,
    )
    assert (done.returncode, done.stdout) == (0, "good\n"), done.stderr


def test_writable_stays_so_and_so_does_read_only(echo):
    for size in (1, 1000, 100_000, 3_000_000):
        got = back(echo, [Array(bytearray(size)), Array(bytes(size))])
        writable, not_so = [memoryview(each.data) for each in got]
        assert not writable.readonly and not_so.readonly
        writable[0] = 7
        assert writable[0] == 7 and not_so[0] == 0


@pytest.mark.skipif(pairing.near != "C", reason="the twin aligns large ones alone")
def test_buffers_begin_at_multiples_of_64(echo):
    for size in (1, 100, 5000, 100_000, 2_000_000):
        got = back(echo, ["x" * 5, *[Array(bytearray(size + n)) for n in range(5)]])
        assert [picklable.address_of(each.data) % 64 for each in got[1:]] == [0] * 5


def test_large_buffers_begin_at_multiples_of_64_in_the_twin_too(echo):
    got = back(echo, [Array(bytearray(2_000_000 + n)) for n in range(5)])
    assert [picklable.address_of(each.data) % 64 for each in got] == [0] * 5


def test_one_object_twice_is_one_object(echo):
    inner = Point(1, Array(bytearray(100)))
    got = back(echo, [inner, {"again": inner}, inner.y])
    assert got[1]["again"] is got[0] and got[2] is got[0].y


def test_an_object_that_contains_itself(echo):
    point = Point(None, 2)
    point.x = [point]
    got = back(echo, point)
    assert got.x[0] is got


def test_many_buffers(echo):
    got = back(echo, [Array(bytearray(b"%05d" % n)) for n in range(100_000)])
    assert len(got) == 100_000
    assert b"".join(bytes(each.data) for each in got) == b"".join(
        b"%05d" % n for n in range(100_000)
    )


def test_channels_inside(group):
    gateway = group.makegateway("popen" + KEYS)
    echo, one, two = (
        gateway.remote_exec(ECHO),
        gateway.newchannel(),
        gateway.newchannel(),
    )
    for size in (10, 2_000_000):
        got = back(echo, [one, Point(two, one), Array(bytearray(size))])
        assert (
            got[0] is one
            and got[1].x is two
            and got[1].y is one
            and len(got[2].data) == size
        )
    far = gateway.remote_exec(
        START + "channel.send_pickled(picklable.Point(channel.gateway.newchannel(), 1))"
    ).receive(TIMEOUT)
    assert far.x.gateway is gateway and far.x.id % 2 == 0


def test_channels_inside_are_dropped_while_the_buffers_live(group):
    """The memory is that of the message; the channels in it are not held by that."""
    gateway = group.makegateway("popen" + KEYS)
    channel = gateway.remote_exec(
        START + "new = channel.gateway.newchannel()\n"
        "channel.send_pickled([picklable.Array(bytearray(1000000)), new])\nnew.waitclose()\nchannel.send('closed')"
    )
    got = channel.receive(TIMEOUT)
    kept = got[0]
    del got
    assert channel.receive(TIMEOUT) == "closed"
    assert bytes(kept.data[:2]) == b"\0\0"


def test_the_buffers_outlive_channel_and_gateway(group):
    got = back(
        group.makegateway("popen" + KEYS).remote_exec(ECHO),
        [Array(bytearray(b"ab" * 500_000)), Array(bytearray(b"c"))],
    )
    group.terminate(5)
    got[0].data[0] = 0
    assert bytes(got[0].data[:3]) == b"\0ba" and bytes(got[1].data) == b"c"


def test_callbacks_get_them(group):
    channel, got, over = (
        group.makegateway("popen" + KEYS).remote_exec(ECHO),
        [],
        threading.Event(),
    )
    channel.send_pickled(Point(0, 0))
    while not got:  # one is here before the callback is, the others come later
        got.append(channel.receive(TIMEOUT))
    channel.setcallback(lambda item: (got.append(item), len(got) == 5 and over.set()))
    for n in range(1, 5):
        channel.send_pickled(Point(n, Array(bytearray(n * 100_000))))
    assert over.wait(TIMEOUT)
    assert [item.x for item in got] == [0, 1, 2, 3, 4]


def test_flow_control_counts_them(group):
    gateway = group.makegateway("popen//maxqueue=100000" + KEYS)
    channel, gate = (
        gateway.remote_exec(
            START
            + "channel.receive().receive()\nfor item in channel: channel.send(len(item.data))"
        ),
        gateway.newchannel(),
    )
    channel.send(gate)
    channel.send_pickled(Array(bytearray(60_000)))
    with pytest.raises(
        channel.TimeoutError, match="no room for the item after 0.1 seconds"
    ):
        channel.send_pickled(Array(bytearray(60_000)), timeout=0.1)
    assert 60_064 < gateway.stats()["channels"][channel.id]["sent"]["bytes"] < 60_500
    gate.send(None)
    channel.send_pickled(Array(bytearray(60_000)))
    assert [channel.receive(TIMEOUT) for _ in range(2)] == [60_000, 60_000]


def test_between_two_pieces_others_get_through(group):
    gateway = group.makegateway("popen//transport=pipe" + KEYS)
    large, small = (
        gateway.remote_exec(
            START + "channel.receive()\nchannel.send(len(channel.receive().data))"
        ),
        gateway.remote_exec(ECHO),
    )
    sender = threading.Thread(
        target=large.send_pickled, args=(Array(bytearray(30_000_000)),)
    )
    sender.start()
    assert [back(small, Point(n, n)).x for n in range(50)] == [*range(50)]
    large.send(None)
    sender.join(TIMEOUT)
    assert not sender.is_alive()


def test_a_changed_buffer_changes_nothing_that_was_sent(group):
    gateway = group.makegateway("popen" + KEYS)
    channel = gateway.remote_exec(ECHO)
    data = bytearray(b"a" * 2_000_000)
    channel.send_pickled(Array(data))
    data[:] = b"b" * len(data)  # send_pickled() has let go of it
    data.clear()
    assert bytes(channel.receive(TIMEOUT).data) == b"a" * 2_000_000


# --- what cannot be ---------------------------------------------------------------------------------------------------


def test_what_cannot_be_pickled(echo):
    for item, why in (
        (lambda: 1, "PicklingError|AttributeError"),
        (threading.Lock(), "TypeError: cannot pickle '_thread.lock' object"),
        (
            [1, Point(threading.Lock(), 2)],
            "TypeError: cannot pickle '_thread.lock' object",
        ),
    ):
        with pytest.raises(
            execnet_c.DumpError, match=f"can't pickle {type(item)!r}: .*({why})"
        ) as error:
            echo.send_pickled(item)
        assert error.value.__cause__ is not None
    not_contiguous = Array(memoryview(bytearray(100))[::2])
    with pytest.raises(execnet_c.DumpError, match="non-contiguous"):
        echo.send_pickled(not_contiguous)
    assert back(echo, Point(1, 2)) == Point(1, 2)


def test_what_cannot_be_loaded(group):
    channel = group.makegateway("popen" + KEYS).remote_exec(
        START + "import types, sys\n"
        "there = sys.modules['only_there'] = types.ModuleType('only_there')\n"
        "exec('class Own: pass\\nOwn.__module__ = \"only_there\"', vars(there))\n"
        "channel.send_pickled(there.Own())\nchannel.send_pickled(picklable.Runs(picklable.refused))\nchannel.send('next')"
    )
    with pytest.raises(
        execnet_c.LoadError,
        match="cannot be loaded: ModuleNotFoundError: No module named 'only_there' .*importable",
    ) as error:
        channel.receive(TIMEOUT)
    assert isinstance(error.value.__cause__, ModuleNotFoundError)
    with pytest.raises(
        execnet_c.LoadError, match="a pickled item cannot be loaded: Failure: "
    ) as error:
        channel.receive(TIMEOUT)
    assert error.value.__cause__ == Failure("not loaded", 3)
    assert channel.receive(TIMEOUT) == "next"


def test_an_interrupt_while_it_is_loaded_loses_no_item(group, monkeypatch):
    channel = group.makegateway("popen//maxqueue=1000000" + KEYS).remote_exec(ECHO)
    calls = []

    def interrupted(*args):
        calls.append(args)
        if len(calls) == 1:
            signal.raise_signal(signal.SIGINT)
        return args

    monkeypatch.setattr(picklable, "refused", interrupted)
    interrupted.__module__, interrupted.__qualname__ = "picklable", "refused"
    sender = group.makegateway("popen" + KEYS)
    other = sender.remote_exec(
        START
        + "new = channel.gateway.newchannel()\nchannel.send_pickled([picklable.Runs(picklable.refused, 5), "
        "picklable.Array(bytearray(b'abc')), new])\nchannel.send('next')\nnew.send('carried')"
    )
    with pytest.raises(KeyboardInterrupt):
        other.receive(TIMEOUT)
    got, data, carried = other.receive(TIMEOUT)
    assert got == (5,) and len(calls) == 2 and bytes(data.data) == b"abc"
    assert other.receive(TIMEOUT) == "next" and carried.receive(TIMEOUT) == "carried"
    assert back(channel, Point(1, 2)) == Point(1, 2)


# --- memory -----------------------------------------------------------------------------------------------------------

SIZE = 256 * 1024 * 1024
PEAK = "int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0]) * 1024"
TAKES = f"""
item = channel.receive()
assert len(item.data) == {SIZE} and item.data[-1] == 7
channel.send({PEAK})
"""
SENDS = f"""
import execnet_c
channel = execnet_c.makegateway("popen%s").remote_exec({START + TAKES!r})
data = bytearray({SIZE})
data[-1] = 7
channel.send_pickled(picklable.Array(data))
there = channel.receive()
print({PEAK}, there)
"""


@pytest.mark.parametrize("transport", ["", "//transport=pipe"])
def test_a_large_array_is_in_memory_once_at_each_end(transport):
    done = subprocess.run(
        [sys.executable, "-c", pairing.HEAD + START + SENDS % transport],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    here, there = map(int, done.stdout.split())
    assert here <= 1.1 * SIZE and there <= 1.1 * SIZE, (here / SIZE, there / SIZE)
