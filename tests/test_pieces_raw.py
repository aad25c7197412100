"""Long messages frame by frame: what a far end may send, and what ends the connection."""

import os
import struct
import zlib

import execnet_c
import pytest
from conftest import TIMEOUT
from execnet_c.twin import pywire
from test_core_frames import payload, reason, start  # noqa: F401 (a fixture)
from pieces import MIB, gw_fixture  # noqa: F401 (fixtures)

pytestmark = pytest.mark.ours

LONG, PIECE, DROP = 9, 10, 11


# --- raw frames -----------------------------------------------------------------------------------------------------


def frame(code, channel=0, data=b""):
    return struct.pack("!bii", code, channel, len(data)) + data


def long(number, code, channel, size):
    return frame(LONG, number, struct.pack("!biQ", code, channel, size))


MAX = 1 << 46
DATA = 4

HOSTILE = {
    "a piece of nothing": frame(PIECE, 3, b"x" * 20),
    "a piece of another one": long(1, DATA, 1, 100) + frame(PIECE, 2, b"x" * 20),
    "too large a piece": long(1, DATA, 1, 100) + frame(PIECE, 1, b"x" * 101),
    "pieces beyond the end": long(1, DATA, 1, 100) + frame(PIECE, 1, b"x" * 60) * 2,
    "a huge piece": long(1, DATA, 1, 100) + struct.pack("!bii", PIECE, 1, 0x7FFFFFFF) + b"x" * 99,
    "a piece behind the end": long(1, DATA, 7, 20) + frame(PIECE, 1, b"x" * 20) * 2,
    "the same number twice": long(1, DATA, 1, 100) * 2,
    "too many": b"".join(long(i, DATA, 1, MAX) for i in range(65)),
    "no size": long(1, DATA, 1, 0),
    "an impossible size": long(1, DATA, 1, MAX + 1),
    "the largest number": long(1, DATA, 1, (1 << 64) - 1),
    "a code that cannot be": long(1, LONG, 1, 100),
    "a piece inside": long(1, PIECE, 1, 100),
    "an unknown code inside": long(1, 77, 1, 100),
    "a short head": frame(LONG, 1, b"\x04" + bytes(11)),
    "a long head": frame(LONG, 1, b"\x04" + bytes(13)),
    "an empty head": frame(LONG, 1),
    "a drop of nothing": frame(DROP, 1),
    "a drop of what was dropped": long(1, DATA, 1, 100) + frame(DROP, 1) * 2,
    "a drop with a payload": long(1, DATA, 1, 100) + frame(DROP, 1, b"x" * 20),
    "the next code": frame(12, 1),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_frames_end_the_connection(start, name):  # noqa: F811
    """What came before them stays, and what comes behind them does not count."""
    gateway = start(
        "get_frame(); put(MARKER + before + hostile + behind); wait_end()",
        before=frame(DATA, 1, payload("before")),
        hostile=HOSTILE[name],
        behind=frame(DATA, 1, payload("behind")),
        hello=None,
    )
    channel = gateway.newchannel()
    assert channel.id == 1
    channel.send("now")
    code, detail, _ = reason(gateway)
    assert code == "XC_BAD" and detail
    with pytest.raises(EOFError):
        while True:
            assert channel.receive(TIMEOUT) == "before"


@pytest.mark.parametrize("name", ["a piece of nothing", "too large a piece", "too many", "a drop of nothing"])
def test_hostile_frames_end_a_worker(gw, name):
    channel = gw.remote_exec("channel.receive()")
    gw._write(HOSTILE[name])
    with pytest.raises((EOFError, execnet_c.RemoteError)):
        channel.receive(TIMEOUT)
    gw.join(TIMEOUT)
    assert not gw.hasreceiver()


def test_pieces_of_any_size(start):  # noqa: F811
    """Empty ones and single bytes, several messages mixed, one of them dropped, its number used again."""
    items = [b"a" * 300_000, "b" * 300_000, ["c"] * 1000, 5]
    gateway = start(
        """
        import random
        data = [b"A" + struct.pack("!i", 300000) + b"a" * 300000 + b"Q"]
        data += [b"N" + struct.pack("!i", 300000) + b"b" * 300000 + b"Q", *small]
        rand = random.Random(3)
        get(1)
        put(MARKER)
        for round in range(3):
            left = dict(enumerate(data))
            out = [struct.pack("!bii", LONG, i, 13) + struct.pack("!biQ", DATA, 1 + 2 * i, len(left[i])) for i in left]
            out.append(struct.pack("!bii", LONG, 9, 13) + struct.pack("!biQ", DATA, 1, 1 << 40))
            while left:
                i = rand.choice(list(left))
                n = min(len(left[i]), rand.choice([0, 1, 2, 5, 6, 1000, 70000, 200000]))
                out.append(struct.pack("!bii", PIECE, i, n) + left[i][:n])
                out.append(struct.pack("!bii", PIECE, 9, 1) + b"A")
                left[i] = left[i][n:]
                if not left[i]:
                    del left[i]
            put(b"".join(out) + struct.pack("!bii", DROP, 9, 0))
        put(struct.pack("!bii", DATA, 1, len(end)) + end)
        wait_end()
        """,
        small=[payload(item) for item in items[2:]],
        end=payload("end"),
        hello=None,
        LONG=LONG,
        PIECE=PIECE,
        DROP=DROP,
    )
    channels = [gateway.newchannel() for _ in items]
    gateway._write(b"!")
    for _ in range(3):
        for channel, item in zip(channels, items):
            assert channel.receive(TIMEOUT) == item
    assert channels[0].receive(TIMEOUT) == "end"


def test_what_is_announced_costs_nothing(start):  # noqa: F811
    """64 times more than the machine has: only what comes is kept, and the connection works on."""
    body = payload(b"x" * 1000)
    frames = b"".join(long(i, DATA, 1, 1 << 45) + frame(PIECE, i, body) for i in range(64))
    gateway = start(
        "put(MARKER + frames + last); wait_end()", frames=frames, last=frame(DATA, 1, payload("last")), hello=None
    )
    channel = gateway.newchannel()
    assert channel.receive(TIMEOUT) == "last"
    with open("/proc/self/statm") as file:
        assert int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") < 4 << 30


def test_what_is_sent_in_pieces_is_what_was_said(start):  # noqa: F811
    """The frames of a long item, as they stand in xc_frame.h; what is shorter is one frame, as ever."""
    gateway = start(
        """
        put(MARKER)
        import zlib
        seen, crc, size = [], 0, 0
        while True:
            code, number, data = get_frame()
            if code == 4:
                seen.append((code, len(data)))
                if len(data) < 100:
                    break
            elif code == 9:
                seen.append((code, *struct.unpack("!biQ", data)))
            else:
                assert code == 10 and 0 < len(data) <= 1 << 19
                size, crc = size + len(data), zlib.crc32(data, crc)
        text = repr((seen, size, crc)).encode()
        put(frame(HELLO, 0, b"N" + struct.pack("!i", len(text)) + text + b"Q"))
        wait_end()
        """,
        hello=None,
    )
    channel = gateway.newchannel()
    item = os.urandom(3_000_000)
    channel.send(bytes(MIB - 7))
    channel.send(item)
    channel.send("end")
    data = payload(item)
    want = [(4, MIB - 1), (9, 4, 1, len(data)), (4, 9)], len(data), zlib.crc32(data)
    assert gateway._hello(TIMEOUT) == repr(want)


@pytest.mark.any_core
@pytest.mark.parametrize(("length", "skipped"), [(b"\x7f\xff\xff\xff", 5), (b"\x80\0\0\0", 0)])
def test_a_bytes_object_of_a_negative_length_is_none(length, skipped):
    """Its opcode has a signed length. tests/c/test_scan.c has the same for the C core."""
    message = pywire.Large(DATA, 1, int.from_bytes(length, "big") + 6)
    message.choose(b"A" + length + bytes(4))
    assert message.skip == skipped
