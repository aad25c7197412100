"""bytes and str of 2 GiB and more: the opcodes that only messages have, and such items themselves."""

import fcntl
import os
import struct
import tempfile
import textwrap
import threading

import pairing
import pytest
from conftest import TIMEOUT
from masters import run
from pairing import module as core
from test_conformance import DATA, PIECE, frame, long_frame, near_fixture, payload  # noqa: F401 (a fixture)

pytestmark = pytest.mark.ours

GIB = 1 << 30


# --- the opcodes, with short texts ------------------------------------------------------------------------------------


def huge(op, data, n=None):
    return op + struct.pack("!Q", len(data) if n is None else n) + data


def int4(op, n):
    return op + struct.pack("!i", n)


B, S = huge(b"U", b"abc"), huge(b"V", "aä€".encode())
END = frame(DATA, 1, payload("end"))
LARGE = bytes(range(250)) * 1200  # memory is lent for it

GOOD = {
    "bytes": (B, b"abc"),
    "str": (S, "aä€"),
    "ascii": (huge(b"V", b"abc"), "abc"),
    "nothing": (huge(b"V", b"") + huge(b"U", b"") + int4(b"@", 2), ("", b"")),
    "list": (int4(b"K", 2) + int4(b"F", 0) + B + b"P" + int4(b"F", 1) + S + b"P", [b"abc", "aä€"]),
    "dict": (b"J" + S + B + b"P", {"aä€": b"abc"}),
    "opcodes inside": (huge(b"U", b"BBBBBQUV") + int4(b"@", 1), (b"BBBBBQUV",)),
    "large bytes": (huge(b"U", LARGE), LARGE),
    "large str": (huge(b"V", b"x" * 300_000), "x" * 300_000),
    "large bytes inside": (huge(b"U", LARGE) + int4(b"@", 1), (LARGE,)),
}

# What is wrong with it, as an error says it.
BAD = {
    "input ends at offset 13, within what begins at offset 0": huge(b"U", b"abc", 5) + b"Q",
    "input ends at offset 14, within what begins at offset 0": huge(b"V", b"abcd", 1 << 40) + b"Q",
    "input ends at offset 15, within what begins at offset 0": huge(b"U", b"abcde", (1 << 64) - 1) + b"Q",
    "input ends at offset 5, within what begins at offset 0": b"U\0\0\0\0",
    "bad UTF-8 at offset 0: ": huge(b"V", b"\xff") + b"Q",
    "no STOP behind a bytes object of 300000 bytes": huge(b"U", LARGE) + b"R",
    "no STOP behind a bytes object of 300001 bytes": int4(b"A", 300_001) + LARGE + b"xR",
}


def received(near, *frames):
    """receive() of a channel, to which the frames are sent meanwhile."""
    gateway, peer = near
    channel = gateway.newchannel()
    thread = threading.Thread(target=peer.put, args=frames)
    thread.start()
    yield from iter(lambda: channel.receive(TIMEOUT), "end")
    thread.join()


def in_pieces(data, size):
    """A long message, of which the first pieces have this size."""
    pieces = [*(data[i : i + size] for i in range(0, 4 * size, size)), data[4 * size :]]
    return [long_frame(1, 1, len(data)), *(frame(PIECE, 1, piece) for piece in pieces if piece)]


@pytest.mark.parametrize("size", [None, 3, 70_000])
def test_messages_may_have_them(near, size):
    frames = []
    for data, _ in GOOD.values():
        frames += [frame(DATA, 1, data + b"Q")] if size is None else in_pieces(data + b"Q", size)
    items = received(near, *frames, END)
    for (name, (_, item)), got in zip(GOOD.items(), items):
        assert got == item and type(got) is type(item), name
    assert [*items] == []


def test_a_channel_behind_one(near):
    """The ids in a message are found without loading it."""
    item = huge(b"U", b"B" * 20) + int4(b"B", 8) + int4(b"@", 2) + b"Q"
    [(text, channel)] = received(near, frame(DATA, 1, item), frame(DATA, 8, payload("for the channel")), END)
    assert text == b"B" * 20
    assert channel.receive(TIMEOUT) == "for the channel"


def test_a_str_becomes_bytes_where_that_was_asked_for(near):
    gateway, peer = near
    channel = gateway.newchannel()
    channel.reconfigure(py3str_as_py2str=True)
    peer.put(frame(DATA, 1, S + B + int4(b"@", 2) + b"Q"))
    assert channel.receive(TIMEOUT) == ("aä€".encode(), b"abc")


@pytest.mark.parametrize("text", BAD)
def test_a_wrong_one_fails_where_it_is_received(near, text):
    """Nothing is allocated for a length that is not there, and what comes behind it is fine."""
    gateway, peer = near
    other = gateway.newchannel()
    with pytest.raises(core.LoadError) as failed:
        next(received(near, frame(DATA, 3, BAD[text])))
    peer.put(frame(DATA, 1, payload("more")))
    assert other.receive(TIMEOUT) == "more"
    if "STOP" in text and str(failed.value).startswith("input ends"):  # the I/O thread has read it, into other memory
        text = f"input ends at offset {len(BAD[text])}, without STOP"
    assert str(failed.value).startswith(text)


# --- items of 2 GiB and more ------------------------------------------------------------------------------------------


def available():
    with open("/proc/meminfo") as file:
        return int(file.read().split("MemAvailable:")[1].split()[0]) << 10


def run_with(gib, code, *arguments):
    """Run a program that takes so much memory; one at a time."""
    with open(os.path.join(tempfile.gettempdir(), f"execnet_c-huge-{os.getuid()}"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if available() < gib * GIB:
            pytest.skip(f"it takes {gib} GiB of memory")
        run(COMMON + textwrap.dedent(code), *arguments, limit=400.0)


COMMON = """
import threading
GIB = 1 << 30
group = execnet_c.Group()
gateway = group.makegateway(sys.argv[1])
ECHO = "for item in channel: channel.send(item)"
FACTS = "lambda item: (type(item).__name__, len(item), item.find(item[-1:]), set(item[:: 1 << 20]))"

def beside(thread, n=0):
    "Round trips of another channel until the thread has ended."
    other = gateway.remote_exec(ECHO)
    other.send(0)
    assert other.receive(100) == 0
    thread.start()
    while thread.is_alive():
        n += 1
        other.send(n)
        assert other.receive(100) == n
    return n
"""


@pytest.mark.deep
@pytest.mark.timeout(900)  # most of it is waiting for others that need much memory
@pytest.mark.parametrize(
    "spec, sender, letters",
    [
        ("popen", "near", "b'xe'"),
        ("popen", "far", "'xe'"),
        ("popen//transport=pipe", "near", "'xe'"),
        ("popen//transport=pipe", "far", "b'xe'"),
    ],
)
def test_one_of_2_gib(spec, sender, letters):
    """It arrives whole, and other channels get through meanwhile."""
    run_with(
        14,
        """
        sender, letters = sys.argv[2:]
        MAKE = f"{letters}[1:].rjust(2 * GIB + 1, {letters}[:1])"
        error = raises(execnet_c.DumpError, execnet_c.dumps, bytes(2 * GIB))
        assert "string is too long" in str(error)
        facts = []
        if sender == "near":
            channel = gateway.remote_exec(f"channel.send(({FACTS})(channel.receive()))")
            long = threading.Thread(target=lambda: channel.send(eval(MAKE)))
            n = beside(long)
            facts.append(channel.receive(100))
        else:
            channel = gateway.remote_exec(f"GIB = 1 << 30; item = {MAKE}; channel.send(len(item)); channel.send(item)")
            assert channel.receive(100) == 2 * GIB + 1
            long = threading.Thread(target=lambda: facts.append(eval(FACTS)(channel.receive(100))))
            n = beside(long)
            long.join()
        letters = eval(letters)
        assert facts == [(type(letters).__name__, 2 * GIB + 1, 2 * GIB, set(letters))], facts
        print(n, "round trips of another channel meanwhile")
        assert n >= 20
        """,
        spec,
        sender,
        letters,
    )


@pytest.mark.skipif(pairing.near != pairing.far, reason="C-C and Python-Python have each core at both ends")
@pytest.mark.deep
@pytest.mark.timeout(900)
@pytest.mark.parametrize("spec", ["popen", "popen//transport=pipe"])
def test_a_message_of_5_gib(spec):
    run_with(
        16,
        """
        channel = gateway.remote_exec(f'''
            items = channel.receive()
            channel.send([({FACTS})(item) for item in items])
        ''')
        huge, large = b"e".rjust(2 * GIB + 1, b"x"), "y" * (GIB // 2)
        long = threading.Thread(target=channel.send, args=([huge, large, huge, large],))
        n = beside(long)
        of_huge, of_large = ("bytes", 2 * GIB + 1, 2 * GIB, set(b"xe")), ("str", GIB // 2, 0, {"y"})
        assert channel.receive(200) == [of_huge, of_large] * 2
        print(n, "round trips of another channel meanwhile")
        assert n >= 20
        """,
        spec,
    )
