"""Whose pickles are loaded, and whose are not: by spec, by group, with a hostile far end; and those that are not well
formed."""

import os
import pickle
import random
import re
import socket
import struct
import threading

import execnet_c
import picklable
import pytest
from conftest import TIMEOUT
from gateways import group_fixture, inner_fixture, outer_fixture  # noqa: F401
from pairing import module as core
from picklable import START, Array, Colour, Point

pytestmark = pytest.mark.timeout(120)

DATA, EXEC = 4, 3
REFUSED = r"a pickle, which this side does not load from this far end \(payload=pickle in the gateway's spec allows it\) at offset "
SENDS = START + "channel.send(picklable.Point(1, picklable.Colour.RED))"
SENDS_PICKLED = SENDS.replace("send(", "send_pickled(")


def operand(pickled, *buffers, lengths=None):
    """What stands behind W, at offset 6 of a payload."""
    lengths = [len(pickled), *map(len, buffers)] if lengths is None else lengths
    data = (
        struct.pack("!QI", lengths[0], len(lengths) - 1)
        + b"".join(struct.pack("!Q", n) for n in lengths[1:])
        + pickled
    )
    for buffer in buffers:
        data += b"\7" * (-(len(data) + 6) % 64) + buffer
    return data


def payload(*args, **kwargs):
    return b"@\0\0\0\0W" + operand(*args, **kwargs) + b"Q"


class Peer:
    """A far end that is this test."""

    def __init__(self, trusted):
        self.socket, theirs = socket.socketpair()
        self.gateway = core.Gateway()
        self.gateway._pickles = trusted
        self.gateway._start_on(theirs.detach())
        self.channel = self.gateway.newchannel()
        self.socket.sendall(core.MARKER)

    def says(self, data, code=DATA):
        """What receive() makes of this payload."""
        self.socket.sendall(
            struct.pack("!bii", code, self.channel.id, len(data)) + data
        )
        return self.channel.receive(TIMEOUT)


@pytest.fixture(name="peer", params=[False, True], ids=["stranger", "trusted"])
def peer_fixture(request):
    peer = Peer(request.param)
    peer.trusted = request.param
    yield peer
    peer.gateway._goodbye()
    peer.socket.close()
    peer.gateway.join(TIMEOUT)


@pytest.fixture(name="trusted")
def trusted_fixture():
    peer = Peer(True)
    yield peer
    peer.gateway._goodbye()
    peer.socket.close()
    peer.gateway.join(TIMEOUT)


# --- who loads whose --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 100, 100_000, 2_000_000])
def test_a_hostile_far_end_runs_nothing_here(peer, tmp_path, size):
    trace = tmp_path / "trace"
    evil = pickle.dumps([picklable.Runs(os.mkdir, str(trace)), "x" * size], 5)
    if peer.trusted:
        assert peer.says(payload(evil)) == [None, "x" * size]
    else:
        with pytest.raises(execnet_c.LoadError, match=REFUSED + "5$"):
            peer.says(payload(evil))
    assert trace.exists() == peer.trusted
    with pytest.raises(
        execnet_c.LoadError
    ):  # as an item of two, and behind something else
        peer.says(payload(evil)[:-1] + b"K\0\0\0\0Q")
    with pytest.raises(execnet_c.LoadError):
        peer.says(b"L" + payload(evil))
    assert peer.says(b"F\0\0\0\5Q") == 5


@pytest.mark.parametrize("code", [6, 8])
def test_nor_by_other_frames(group, tmp_path, code):
    peer, trace = Peer(False), tmp_path / "trace"
    data = payload(pickle.dumps(picklable.Runs(os.mkdir, str(trace)), 5))
    if code == 6:
        with pytest.raises(execnet_c.RemoteError, match="that cannot be read"):
            peer.says(data, code)
    else:
        peer.socket.sendall(struct.pack("!bii", code, 0, len(data)) + data)
        with pytest.raises(execnet_c.LoadError, match=REFUSED):
            peer.gateway._hello(TIMEOUT)
    assert not trace.exists()
    peer.gateway._goodbye()
    peer.socket.close()
    peer.gateway.join(TIMEOUT)


def test_neither_loads_nor_dumps_know_pickles():
    data = b"\2" + payload(pickle.dumps(1))
    with pytest.raises(execnet_c.LoadError, match="unknown opcode b'W' at offset 6"):
        core.loads(data)
    with pytest.raises(execnet_c.DumpError):
        core.dumps(Point(1, 2))


def test_without_payload_pickle_only_the_worker_loads(group):
    channel = group.makegateway("popen").remote_exec(
        START + "channel.send(repr(channel.receive()))\n" + SENDS_PICKLED + "\n" + SENDS
    )
    with pytest.raises(
        execnet_c.DumpError, match="can't serialize <class 'picklable.Point'>"
    ):
        channel.send(Point(1, 2))
    channel.send_pickled(Point(1, 2))
    assert channel.receive(TIMEOUT) == "Point(x=1, y=2)"
    with pytest.raises(execnet_c.LoadError, match=REFUSED + "5$"):
        channel.receive(TIMEOUT)
    with pytest.raises(
        execnet_c.RemoteError,
        match="DumpError: can't serialize <class 'picklable.Point'>",
    ):
        channel.receive(TIMEOUT)


@pytest.mark.parametrize(
    "of_spec, of_group, pickles",
    [
        ("", None, False),
        ("//payload=pickle", None, True),
        ("//payload=plain", None, False),
    ]
    + [
        ("", "pickle", True),
        ("//payload=plain", "pickle", False),
        ("//payload=pickle", "plain", True),
        ("", "plain", False),
    ],
)
def test_the_spec_says_so_or_else_the_group(of_spec, of_group, pickles):
    with execnet_c.Group(payload=of_group) as group:
        spec = execnet_c.XSpec("popen" + of_spec)
        channel = group.makegateway(spec).remote_exec(
            SENDS + "\nchannel.send(repr(channel.receive()))"
        )
        assert spec.payload == (
            of_spec.partition("=")[2] or None
        )  # another group may be asked with it
        if pickles:
            assert channel.receive(TIMEOUT) == Point(1, Colour.RED)
            channel.send(Colour.BLUE)
            assert channel.receive(TIMEOUT) == "<Colour.BLUE: 'b'>"
        else:
            with pytest.raises(execnet_c.RemoteError, match="DumpError"):
                channel.receive(TIMEOUT)


@pytest.mark.parametrize(
    "text, value", [("", True), ("=", ""), ("=yes", "yes"), ("=Pickle", "Pickle")]
)
def test_a_wrong_payload(group, text, value):
    with pytest.raises(
        ValueError, match='payload must be "pickle" or "plain", not '
    ) as error:
        group.makegateway("popen//payload" + text)
    assert str(error.value).startswith(f"spec {'popen//payload' + text!r}: ") and str(
        error.value
    ).endswith(repr(value))
    assert len(group) == 0
    with pytest.raises(
        ValueError, match='payload of a group must be "pickle" or "plain", not True'
    ):
        execnet_c.Group(payload=True)


def test_a_gateway_in_between_changes_nothing(group, outer, inner):
    """Neither is the inner far end trusted, nor is the outer one because of the inner one."""
    channel = inner.remote_exec(SENDS_PICKLED)
    with pytest.raises(execnet_c.LoadError, match=REFUSED):
        channel.receive(TIMEOUT)
    third = group.makegateway("popen//via=outer//payload=pickle")
    assert third.remote_exec(SENDS).receive(TIMEOUT) == Point(1, Colour.RED)
    with pytest.raises(execnet_c.LoadError, match=REFUSED):
        outer.remote_exec(SENDS_PICKLED).receive(TIMEOUT)


def test_what_the_serializer_carries_goes_as_before(group):
    """To the letter: a far end that does not load pickles gets it."""
    gateway, peer = group.makegateway("popen//payload=pickle"), Peer(True)
    for item in (None, [1, (2.5, {"a": {3}})], "ä" * 100, b"x" * 100_000):
        peer.channel.send(item)
        data = core.dumps(item)[1:]
        got = b""
        while len(got) < len(data) + 9:
            got += peer.socket.recv(65536)
        assert got == struct.pack("!bii", DATA, peer.channel.id, len(data)) + data
        assert gateway.remote_exec("channel.send(channel.receive())").gateway is gateway
    peer.gateway._goodbye()
    peer.socket.close()
    peer.gateway.join(TIMEOUT)


def test_a_far_end_of_another_version(group, monkeypatch):
    from execnet_c.near import gateway as near

    plain, pickles = (
        group.makegateway("popen//id=a"),
        group.makegateway("popen//id=b//payload=pickle"),
    )
    monkeypatch.setattr(near, "__version__", "99.0")
    for gateway, send in (
        (plain, "send_pickled"),
        (pickles, "send"),
        (pickles, "send_pickled"),
    ):
        channel = gateway.remote_exec("channel.send(channel.receive())")
        text = f"gateway '{gateway.id}': its far end has execnet_c {execnet_c.__version__}, and only one of this version, 99.0"
        with pytest.raises(execnet_c.DumpError, match=text):
            getattr(channel, send)(Point(1, 2))
        channel.send("plain")
        assert channel.receive(TIMEOUT) == "plain"


@pytest.mark.parametrize("early", [True, False])
def test_a_far_end_that_is_gone(group, early):
    gateway = group.makegateway("popen")
    channel = gateway.newchannel()
    if not early:
        gateway.remote_status()  # the hello was answered
    gateway.exit()
    with pytest.raises(OSError, match="already closed"):
        channel.send_pickled(Point(1, 2))


# --- keyword arguments of tasks ---------------------------------------------------------------------------------------


def answers(channel, point, data=None, back=None):
    (back or channel).send(repr((point, data and len(data.data))))


def test_arguments_of_a_task(group):
    gateway = group.makegateway("popen//payload=pickle")
    start = gateway.remote_exec(START + "channel.send(1)")
    assert start.receive(TIMEOUT) == 1
    assert (
        gateway.remote_exec(answers, point=Point(1, Colour.RED)).receive(TIMEOUT)
        == "(Point(x=1, y=<Colour.RED: 1>), None)"
    )
    for size in (10, 100_000, 3_000_000):
        back = gateway.newchannel()
        gateway.remote_exec(
            answers, point=Colour.BLUE, data=Array(bytearray(size)), back=back
        )
        assert back.receive(TIMEOUT) == f"(<Colour.BLUE: 'b'>, {size})"
    with pytest.raises(
        execnet_c.DumpError,
        match="keyword argument 'point': can't pickle <class '_thread.lock'>: TypeError",
    ):
        gateway.remote_exec(answers, data=Array(b""), point=threading.Lock())


def test_arguments_that_cannot_be_loaded_fail_their_task(group, tmp_path):
    gateway = group.makegateway(f"popen//payload=pickle//chdir={tmp_path}")
    channel = gateway.remote_exec(
        answers, point=Point(1, Colour.RED)
    )  # nobody has told it where picklable is
    with pytest.raises(
        execnet_c.RemoteError,
        match="LoadError: a pickled item cannot be loaded: ModuleNotFoundError: No module named 'picklable'",
    ):
        channel.receive(TIMEOUT)
    assert gateway.remote_exec("channel.send(1)").receive(TIMEOUT) == 1


def test_arguments_without_payload_pickle(group):
    with pytest.raises(
        execnet_c.DumpError,
        match="keyword argument 'point': can't serialize <enum 'Colour'>",
    ):
        group.makegateway("popen").remote_exec(answers, point=Colour.RED)


# --- not well formed --------------------------------------------------------------------------------------------------

GOOD = pickle.dumps([1, 2], 5)
WITH_BUFFERS = pickle.dumps(
    Array(bytearray(10)), 5, buffer_callback=lambda buffer: None
)


def test_padding_is_ignored(trusted):
    assert trusted.says(payload(GOOD)) == [1, 2]
    got = trusted.says(payload(WITH_BUFFERS, b"abc"))
    assert bytes(got.data) == b"abc" and b"\7\7\7" in payload(WITH_BUFFERS, b"abc")
    assert (
        bytes(
            trusted.says(payload(WITH_BUFFERS, b"abc", b"more than is asked for")).data
        )
        == b"abc"
    )


TRUNCATED = "input ends at offset {}, within what begins at offset 5"
NO_PICKLE = "a pickled item cannot be loaded: "
BAD = {  # the payload, and how the error's text begins
    "no channels": (
        b"W" + operand(GOOD) + b"Q",
        "a pickle without its channels at offset 0",
    ),
    "a list of channels": (
        b"K\0\0\0\0W" + operand(GOOD) + b"Q",
        "a pickle without its channels at offset 5",
    ),
    "one object too many": (
        b"L" + payload(GOOD),
        "a pickle without its channels at offset 6",
    ),
    "no STOP": (payload(GOOD)[:-1], "no STOP behind the pickle at offset 5"),
    "another opcode behind": (
        payload(GOOD)[:-1] + b"LQ",
        "no STOP behind the pickle at offset 5",
    ),
    "nothing behind W": (b"@\0\0\0\0W", TRUNCATED),
    "too few numbers": (b"@\0\0\0\0W" + bytes(11), TRUNCATED),
    "a length that is too large": (payload(GOOD, lengths=[len(GOOD) + 2]), TRUNCATED),
    "a length of 2**63": (payload(GOOD, lengths=[1 << 63]), TRUNCATED),
    "a length of 2**64 - 1": (payload(GOOD, lengths=[(1 << 64) - 1]), TRUNCATED),
    "as many buffers as there can be": (
        b"@\0\0\0\0W" + struct.pack("!QI", 0, 0xFFFFFFFF) + bytes(1000) + b"Q",
        TRUNCATED,
    ),
    "a buffer that is too large": (
        payload(WITH_BUFFERS, b"abc", lengths=[len(WITH_BUFFERS), 5]),
        TRUNCATED,
    ),
    "a buffer of 2**64 - 1": (
        payload(WITH_BUFFERS, b"abc", lengths=[len(WITH_BUFFERS), (1 << 64) - 1]),
        TRUNCATED,
    ),
    "buffers that make 2**64": (
        payload(
            WITH_BUFFERS, b"abc", lengths=[len(WITH_BUFFERS), (1 << 63), (1 << 63)]
        ),
        TRUNCATED,
    ),
    "a buffer behind the end": (
        payload(WITH_BUFFERS, lengths=[len(WITH_BUFFERS), 0]),
        TRUNCATED,
    ),
    "a pickle that is none": (
        payload(b"not a pickle"),
        NO_PICKLE + "UnpicklingError: ",
    ),
    "an empty pickle": (payload(b""), NO_PICKLE + "EOFError: "),
    "a pickle that ends early": (payload(GOOD[:-2]), NO_PICKLE),
    "fewer buffers than it asks for": (
        payload(WITH_BUFFERS),
        NO_PICKLE + "UnpicklingError: not enough out-of-band buffers",
    ),
    "a channel that is not there": (
        payload(b"\x80\x05K\x00Q."),
        NO_PICKLE + "UnpicklingError: ",
    ),
}


@pytest.mark.parametrize("data, text", BAD.values(), ids=BAD)
def test_what_is_not_well_formed(peer, data, text):
    with pytest.raises(execnet_c.LoadError) as error:
        peer.says(data)
    if text.startswith(NO_PICKLE) and not peer.trusted:
        assert re.match(REFUSED + "5$", str(error.value))
    else:
        assert str(error.value).startswith(text.format(len(data)))
    assert isinstance(error.value, EOFError) == (text is TRUNCATED)
    assert peer.says(b"F\0\0\0\5Q") == 5


@pytest.mark.parametrize("size", [200, 300_000])
def test_each_beginning_of_one_is_refused(trusted, size):
    data = payload(WITH_BUFFERS, bytes(size))
    for n in [*range(140), len(data) - 2, len(data) - 1]:
        with pytest.raises(execnet_c.LoadError):
            trusted.says(data[:n])
    assert len(trusted.says(data).data) == size


def test_random_changes(peer):
    """Of the numbers alone: a changed pickle may do anything."""
    data, head = payload(WITH_BUFFERS, b"abc" * 100, b"", b"x"), 6 + 12 + 24
    random.seed(20)
    for _ in range(400):
        changed = bytearray(data)
        for _ in range(random.randint(1, 3)):
            changed[random.randrange(5, head)] = random.choice(
                [0, 1, 2, 64, 127, 128, 255, random.randrange(256)]
            )
        try:
            peer.says(bytes(changed))
        except execnet_c.LoadError:
            pass
    assert peer.says(b"F\0\0\0\5Q") == 5
