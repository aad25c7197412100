"""The core's Gateway over a far end that is played by a small script: what comes before the first frame, raw bytes and
hellos, and what becomes of a connection whose far end does not keep to the rules.
"""

import os
import sys
import textwrap
import time

import execnet_c
import pytest
from conftest import TIMEOUT, wait_until
from execnet_c import _core

MARKER = b"\0execnet_c\0"
NOISE_MAX = 64 * 1024

HEAD = """
import os, struct, sys, time

MARKER = b"\\0execnet_c\\0"
DATA, CLOSE, HELLO = 4, 5, 8

def put(data):
    while data:
        data = data[os.write(1, data):]

def get(n):
    data = b""
    while len(data) < n:
        more = os.read(0, n - len(data))
        if not more:
            sys.exit(0)
        data += more
    return data

def frame(code, channel=0, payload=b""):
    return struct.pack("!bii", code, channel, len(payload)) + payload

def get_frame():
    code, channel, n = struct.unpack("!bii", get(9))
    return code, channel, get(n)

def wait_end():
    while os.read(0, 65536):
        pass

"""


def payload(item):
    return execnet_c.dumps(item)[1:]


@pytest.fixture
def start():
    """start(body, hello, **names): a gateway whose far end runs `body`, with those names."""
    started = []

    def start(body, hello="hello", **names):
        values = "".join(f"{name} = {value!r}\n" for name, value in names.items())
        gateway = _core.Gateway()
        gateway._start([sys.executable, "-I", "-S", "-c", HEAD + values + textwrap.dedent(body)], hello)
        started.append(gateway)
        return gateway

    yield start
    for gateway in started:
        gateway._goodbye()
        gateway._signal(9)
        assert gateway._wait_gone(TIMEOUT)
        gateway.join(TIMEOUT)
    started.clear()


def reason(gateway):
    gateway.join(TIMEOUT)
    state = gateway._state()
    assert state["fin"]
    return state["reason"], state["detail"], state["noise"]


# --- the marker -----------------------------------------------------------------------------------------------------


def test_the_marker_is_told():
    assert _core.MARKER == MARKER


NOISES = [
    b"",
    b"Welcome to a machine\r\nlast login: never\n",
    b"\0",
    b"\0\0execnet_\0execnet_\0",
    bytes(range(1, 256)) * 3,
    b"x" * NOISE_MAX,
]


@pytest.mark.parametrize("noise", NOISES, ids=range(len(NOISES)))
def test_what_comes_before_the_marker_is_passed_over_and_kept(start, noise):
    gateway = start("put(noise + MARKER + frame(HELLO, 0, answer)); wait_end()", noise=noise, answer=payload("here"))
    assert gateway._hello(TIMEOUT) == "here"
    state = gateway._state()
    assert state["noise"] == noise and state["greeted"] and not state["fin"]


def test_a_marker_in_pieces(start):
    gateway = start(
        """
        for i in range(len(MARKER)):
            put(MARKER[i:i + 1])
            get(1)
        put(frame(HELLO, 0, answer))
        wait_end()
        """,
        hello="a hello of more than eleven bytes",
        answer=payload([1, None]),
    )
    assert gateway._hello(TIMEOUT) == [1, None]
    assert gateway._state()["noise"] == b""


def test_frames_without_a_marker_are_noise(start):
    sent = b"\x08" + bytes(8)
    gateway = start("put(sent)", sent=sent)
    assert gateway._hello(TIMEOUT) is None
    assert reason(gateway) == ("XC_EOF", "", sent)
    assert not gateway._state()["greeted"]


@pytest.mark.parametrize("said", [b"", b"sh: no such thing\n", b"so far \0execnet_"])
def test_an_end_before_the_marker(start, said):
    gateway = start("put(said); sys.exit(3)", said=said)
    channel = gateway.newchannel()
    with pytest.raises(EOFError):
        channel.receive(TIMEOUT)
    assert reason(gateway) == ("XC_EOF", "", said)
    assert gateway._wait_gone(TIMEOUT) and gateway._state()["status"] == 3


@pytest.mark.parametrize("behind", [b"", MARKER])
def test_endless_noise_ends_the_connection(start, behind):
    gateway = start("put(b'y' * (64 * 1024 + 1) + behind); wait_end()", behind=behind)
    assert gateway._hello(TIMEOUT) is None
    code, detail, noise = reason(gateway)
    assert code == "XC_BAD"
    assert detail.endswith("64 KiB arrived, and no far end of ours")
    assert noise == b"y" * NOISE_MAX
    with pytest.raises(OSError):
        gateway._send(_core.STATUS, 1)


def test_a_marker_among_frames_is_no_second_one(start):
    gateway = start("put(MARKER + frame(HELLO, 0, answer) + b'!' + MARKER); wait_end()", answer=payload(1))
    assert gateway._hello(TIMEOUT) == 1
    assert reason(gateway)[0] == "XC_BAD"
    assert gateway._state()["noise"] == b""


def test_a_login_banner_before_a_worker():
    """The package's own worker, where a start-up file prints."""
    place = os.path.dirname(os.path.dirname(execnet_c.__file__))
    banner = "print('You have mail.', flush=True)\n"
    code = f"import sys; sys.path.insert(0, {place!r}); {banner}from execnet_c.worker import main; main()"
    gateway = _core.Gateway()
    settings = {"version": execnet_c.__version__, "id": "gw", "chdir": None, "nice": 0, "env": {}}
    gateway._start([sys.executable, "-c", code], settings)
    answer = gateway._hello(TIMEOUT)
    assert answer["version"] == execnet_c.__version__
    assert gateway._state()["noise"] == b"You have mail.\n"
    channel = gateway.newchannel()
    gateway._send(_core.EXEC, channel.id, ("channel.send(6 * 7)", None, None, {}))
    assert channel.receive(TIMEOUT) == 42
    gateway._goodbye()
    assert gateway._wait_gone(TIMEOUT)
    gateway.join(TIMEOUT)
