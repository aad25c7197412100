"""The core's Gateway over a far end that is played by a small script: what comes before the first frame, raw bytes and
hellos, and what becomes of a connection whose far end does not keep to the rules.
"""

import os
import signal
import struct
import sys
import textwrap
import zlib
from concurrent.futures import ThreadPoolExecutor

import execnet_c
import pytest
from conftest import TIMEOUT, wait_until
from pairing import module as _core
from test_leaks import assert_steady

MARKER = b"\0execnet_c\0"
PREAMBLE_MAX = 64 * 1024

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


def test_that_only_a_callback_listens_is_told_once(start):
    gateway = start(
        """
        put(MARKER)
        put(b"".join(frame(DATA, 1, b"LQ") for _ in range(1000)) + frame(0, 5))
        n = 0
        while True:
            code, channel, _ = get_frame()
            if code == CLOSE and channel == 5:
                break
            n += code == 7
        put(frame(HELLO, 0, b"F" + struct.pack("!i", n) + b"Q"))
        wait_end()
        """,
        None,
    )
    seen = []
    gateway.newchannel().setcallback(seen.append)
    assert gateway._hello(TIMEOUT) == 1
    assert len(seen) == 1000


def reason(gateway):
    gateway.join(TIMEOUT)
    state = gateway._state()
    assert state["fin"]
    return state["reason"], state["detail"], state["preamble"]


# --- the marker -----------------------------------------------------------------------------------------------------


def test_the_marker_is_told():
    assert _core.MARKER == MARKER


PREAMBLES = [
    b"",
    b"Welcome to a machine\r\nlast login: never\n",
    b"\0",
    b"\0\0execnet_\0execnet_\0",
    bytes(range(1, 256)) * 3,
    b"x" * PREAMBLE_MAX,
]


@pytest.mark.parametrize("preamble", PREAMBLES, ids=range(len(PREAMBLES)))
def test_what_comes_before_the_marker_is_passed_over_and_kept(start, preamble):
    gateway = start("put(preamble + MARKER + frame(HELLO, 0, answer)); wait_end()", preamble=preamble, answer=payload("here"))
    assert gateway._hello(TIMEOUT) == "here"
    state = gateway._state()
    assert state["preamble"] == preamble and state["greeted"] and not state["fin"]


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
    assert gateway._state()["preamble"] == b""


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


def test_endless_noise_ends_the_connection(start):
    gateway = start("put(b'y' * (64 * 1024 + 100)); wait_end()")
    assert gateway._hello(TIMEOUT) is None
    code, detail, preamble = reason(gateway)
    assert code == "XC_BAD"
    assert detail.endswith("64 KiB of other output came first: a login or site that prints too much, or no far end of ours")
    assert len(preamble) == PREAMBLE_MAX and set(preamble) == set(b"y")  # not compared: pytest would explain a difference for long
    with pytest.raises(OSError):
        gateway._send(_core.STATUS, 1)


def test_a_marker_among_frames_is_no_second_one(start):
    gateway = start("put(MARKER + frame(HELLO, 0, answer) + b'!' + MARKER); wait_end()", answer=payload(1))
    assert gateway._hello(TIMEOUT) == 1
    assert reason(gateway)[0] == "XC_BAD"
    assert gateway._state()["preamble"] == b""


def test_a_login_banner_before_a_worker():
    """The package's own worker, where a start-up file prints."""
    place = os.path.dirname(os.path.dirname(execnet_c.__file__))
    banner = "print('You have mail.', flush=True)\n"
    code = f"import sys; sys.path.insert(0, {place!r}); {banner}from execnet_c.worker import main; main()"
    gateway = _core.Gateway()
    settings = {"version": execnet_c.__version__, "id": "gw", "execmodel": "thread", "chdir": None, "nice": 0, "env": {}}
    gateway._start([sys.executable, "-c", code], settings)
    answer = gateway._hello(TIMEOUT)
    assert answer["version"] == execnet_c.__version__
    assert gateway._state()["preamble"] == b"You have mail.\n"
    channel = gateway.newchannel()
    gateway._send(_core.EXEC, channel.id, ("channel.send(6 * 7)", None, None, {}))
    assert channel.receive(TIMEOUT) == 42
    gateway._goodbye()
    assert gateway._wait_gone(TIMEOUT)
    gateway.join(TIMEOUT)


@pytest.mark.parametrize("words, said", [("1 / 0", None), ("return ''", ""), ("return 'why'", "why")], ids=["fails", "empty", "why"])
def test_a_setting_that_fails_is_told_and_ends_the_worker(words, said):
    """Also one with an error whose own text fails."""
    place = os.path.dirname(os.path.dirname(execnet_c.__file__))
    code = f"import sys; sys.path.insert(0, {place!r}); from execnet_c.worker import main; main()"
    settings = {"version": execnet_c.__version__, "id": "gw", "execmodel": "thread", "chdir": None, "nice": 0, "env": {}}
    settings["start"] = f"class Odd(Exception):\n    def __str__(self):\n        {words}\nraise Odd"
    gateway = _core.Gateway()
    gateway._start([sys.executable, "-c", code], settings)
    text, kind, message = gateway._hello(TIMEOUT)["error"]
    assert (kind.rpartition(".")[2], message) == ("Odd", said)
    assert gateway._wait_gone(TIMEOUT)
    state = gateway._state()
    assert state["status"] == 1 and state["stderr"].decode().strip() == (said or kind)
    gateway.join(TIMEOUT)


@pytest.mark.ours
def test_what_is_no_task_is_an_error_of_its_channel(gw):
    for data in (b"\xff", b"Q", payload("no task"), payload(("pass", None, None))):
        channel = gw.newchannel()
        gw._write(struct.pack("!bii", _core.EXEC, channel.id, len(data)) + data)
        with pytest.raises(channel.RemoteError, match="LoadError|ValueError"):
            channel.receive(TIMEOUT)
    assert gw.remote_exec("channel.send(1)").receive(TIMEOUT) == 1
    assert wait_until(lambda: gw.remote_status().numexecuting == 0)


# --- hellos ---------------------------------------------------------------------------------------------------------

ECHO = """
put(MARKER)
while True:
    code, channel, data = get_frame()
    if code == 2:
        break
    put(frame(code, channel, data))
"""


def test_a_hello_is_sent_unless_it_is_none(start):
    for hello in ([1, 2], False, 0):
        assert start(ECHO, hello=hello)._hello(TIMEOUT) == hello
    gateway = start(ECHO, hello=None)
    gateway._send(_core.HELLO, 0, "first")
    assert gateway._hello(TIMEOUT) == "first"


def test_each_call_returns_the_next_hello(start):
    gateway = start(ECHO, hello=0)
    for i in range(1, 4):
        gateway._send(_core.HELLO, 0, i)
    assert [gateway._hello(TIMEOUT) for i in range(4)] == [0, 1, 2, 3]
    assert gateway._hello(0) is None
    for i in range(20):
        gateway._send(_core.HELLO, 0, i)
        assert gateway._hello(TIMEOUT) == i
    assert gateway._hello(0.01) is None
    gateway._goodbye()
    assert gateway._hello(TIMEOUT) is None


def test_hellos_that_came_before_the_end_are_still_to_be_had(start):
    gateway = start("put(MARKER + b''.join(frame(HELLO, 0, one) for one in hellos))", hellos=[payload(i) for i in range(4)])
    gateway.join(TIMEOUT)
    assert [gateway._hello(TIMEOUT) for i in range(6)] == [0, 1, 2, 3, None, None]
    assert gateway._state()["reason"] == "XC_EOF"


def test_a_fifth_hello_that_nobody_takes_ends_the_connection(start):
    gateway = start("put(MARKER + frame(HELLO, 0, one) * 5); wait_end()", one=payload("hi"))
    code, detail, preamble = reason(gateway)
    assert (code, preamble) == ("XC_BAD", b"") and "hello" in detail
    assert [gateway._hello(TIMEOUT) for i in range(5)] == ["hi"] * 4 + [None]


@pytest.mark.parametrize("how", ["a frame", "a long message"])
def test_a_hello_has_a_limit(start, how):
    """It is refused by its size, before there is memory for it."""
    gateway = start(
        """
        put(MARKER + frame(HELLO, 0, b"A" + struct.pack("!i", most - 6) + bytes(most - 6) + b"Q"))
        put(struct.pack("!bii", HELLO, 0, size) if how == "a frame" else frame(9, 5, struct.pack("!biq", HELLO, 0, size)))
        wait_end()
        """,
        most=1 << 20,
        size=(1 << 20) + 1,
        how=how,
    )
    assert reason(gateway)[:2] == ("XC_BAD", f"a hello of {(1 << 20) + 1} bytes, and {1 << 20} may be")
    assert gateway._hello(TIMEOUT) == bytes((1 << 20) - 6) and gateway._hello(TIMEOUT) is None


def test_two_threads_get_a_hello_each(start):
    gateway = start(ECHO, hello=None)
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(gateway._hello, TIMEOUT) for i in range(2)]
        gateway._send(_core.HELLO, 0, 1)
        assert wait_until(lambda: any(one.done() for one in both))
        gateway._send(_core.HELLO, 0, 2)
        assert sorted(one.result() for one in both) == [1, 2]


# --- raw bytes ------------------------------------------------------------------------------------------------------

# Answers with the length and a checksum of `size` bytes.
SUM = """
import zlib
put(MARKER)
n, crc = 0, 0
while n < size:
    data = os.read(0, min(65536, size - n))
    if not data:
        break
    n, crc = n + len(data), zlib.crc32(data, crc)
put(frame(HELLO, 0, b"N" + struct.pack("!i", 16) + b"%08x%08x" % (n, crc) + b"Q"))
wait_end()
"""


@pytest.mark.parametrize("size", [1, 9, 16 * 1024, 16 * 1024 + 1, 5_000_000])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_raw_bytes_arrive_as_they_are(start, size, kind):
    data = (bytes(range(251)) * (size // 251 + 1))[:size]
    gateway = start(SUM, hello=None, size=size)
    gateway._write(kind(b""))
    gateway._write(kind(data))
    assert gateway._hello(TIMEOUT) == f"{size:08x}{zlib.crc32(data):08x}"


def test_raw_bytes_take_their_turn_among_frames(start):
    """From several threads: each write and each frame comes out whole."""
    gateway = start(ECHO, hello=None)
    channel = gateway.newchannel()
    item = b"x" * 300_000
    raw = bytes([4]) + channel.id.to_bytes(4, "big") + len(payload(item)).to_bytes(4, "big") + payload(item)
    with ThreadPoolExecutor(5) as pool:
        futures = [pool.submit(gateway._write, raw) for i in range(20)]
        futures += [pool.submit(channel.send, item) for i in range(20)]
        assert [channel.receive(TIMEOUT) for i in range(40)] == [item] * 40
        assert [future.result() for future in futures] == [None] * 40


@pytest.mark.c_interface("near")
@pytest.mark.parametrize("wrong", [None, 1, "text", [b"x"]])
def test_only_bytes_can_be_written(start, wrong):
    gateway = start(ECHO)
    with pytest.raises(TypeError):
        gateway._write(wrong)
    assert gateway._hello(TIMEOUT) == "hello"


def test_writing_after_the_end(start):
    gateway = start("put(MARKER); get_frame()")
    gateway.join(TIMEOUT)
    with pytest.raises(OSError) as raw:
        gateway._write(b"too late")
    with pytest.raises(OSError) as framed:
        gateway._send(_core.HELLO, 0, "too late")
    assert str(raw.value) == str(framed.value)
    gateway._goodbye()
    with pytest.raises(OSError):
        gateway._write(b"")


def test_writing_without_a_connection():
    with pytest.raises(OSError, match="was not started"):
        _core.Gateway()._write(b"x")


class Interrupted(Exception):
    pass


def test_an_interrupted_write_is_written_to_its_end(start, tmp_path):
    """By whoever comes next: nothing is torn."""
    gate = tmp_path / "gate"
    data = b"0123456789" * 2_000_000
    gateway = start(
        "while not os.path.exists(gate): time.sleep(0.01)\n" + SUM, hello=None, size=len(data) + 3, gate=str(gate)
    )

    def handle(number, frame):
        raise Interrupted

    before = signal.signal(signal.SIGALRM, handle)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(Interrupted):
            gateway._write(data)  # more than a pipe holds
    finally:
        signal.signal(signal.SIGALRM, before)
    gate.touch()
    gateway._write(b"end")
    assert gateway._hello(TIMEOUT) == f"{len(data) + 3:08x}{zlib.crc32(data + b'end'):08x}"


# --- tasks ----------------------------------------------------------------------------------------------------------


def test_a_task_whose_end_nobody_tells_is_an_error(start):
    gateway = serve(start, "take = gateway._next_task; gateway._next_task = lambda *args: (take(True, []), take(True, []))")
    channel = gateway.newchannel()
    gateway._send(_core.EXEC, channel.id, ("pass", None, None, {}))
    with pytest.raises(_core.RemoteError, match="how the task ended could not be told"):
        channel.waitclose(TIMEOUT)


# --- facts ----------------------------------------------------------------------------------------------------------

PLACE = os.path.dirname(os.path.dirname(execnet_c.__file__))

# A far end over the core itself, that does `body` and then waits for tasks that never come.
WORKER = """
import os, sys
sys.path.insert(0, place)
from execnet_c.cores import module as _core
fds = os.dup(0), os.dup(1)
os.write(fds[1], _core.MARKER)
gateway = _core.Gateway()
gateway._serve(*fds)
{body}
gateway._send(_core.HELLO, 0, "ready")
gateway._next_task(True, [])
"""


def serve(start, body="", **names):
    gateway = start(WORKER.format(body=textwrap.dedent(body)), hello=None, place=PLACE, **names)
    assert gateway._hello(TIMEOUT) == "ready"
    return gateway


def ask(gateway, *items):
    channel = gateway.newchannel()
    gateway._send(_core.STATUS, channel.id, *items)
    answer = channel.receive(TIMEOUT)
    channel.waitclose(TIMEOUT)
    return answer


FACTS = {"executable": "/py", "version_info": (3, 11, 7, "final", 0), "pid": 7, "platform": "x\xfc", "more": [None, 1.5]}


def test_facts_are_given_to_who_asks_for_them(start):
    gateway = serve(start, "os.chdir('/'); gateway._set_facts(facts)", facts=FACTS)
    status = {"numchannels": 0, "numexecuting": 0, "execmodel": "thread"}
    assert ask(gateway) == status
    for item in ("facts", None, 0):
        assert ask(gateway, item) == {**FACTS, "cwd": "/"}
    assert ask(gateway) == status


def test_without_facts_it_is_a_status_request(start):
    assert set(ask(serve(start), "facts")) == {"numchannels", "numexecuting", "execmodel"}


def test_facts_set_again_and_large_ones(start):
    large = "{i: 'x' * 1000 for i in range(1000)}"
    gateway = serve(start, f"os.chdir('/'); gateway._set_facts({{'a': 1}}); gateway._set_facts({large})")
    for _ in range(3):
        assert ask(gateway, True) == {**eval(large), "cwd": "/"}
    gateway = serve(start, "os.chdir('/'); gateway._set_facts({})")
    assert ask(gateway, True) == {"cwd": "/"}


@pytest.mark.parametrize("name", [b"gr\xc3\xbc\xc3\x9fe", b"latin-\xfc\xff", b"\xe2\x82cut", b"\xed\xb3\xbc"])
def test_the_current_directory_whatever_its_name(start, tmp_path, name):
    place = os.path.join(os.fsencode(tmp_path), name)
    os.mkdir(place)
    gateway = serve(start, "gateway._set_facts({'cwd': 0}); os.chdir(place_of_work)", place_of_work=place)
    told = place.decode("utf-8", "surrogateescape").encode("utf-8", "backslashreplace").decode()
    assert ask(gateway, True) == {"cwd": told}
    os.rmdir(place)
    assert ask(gateway, True) == {"cwd": None}


@pytest.mark.c_interface("far")
def test_facts_while_the_far_end_computes(start):
    """It holds its GIL for seconds, and answers all the same."""
    gateway = start(
        WORKER.format(
            body="import ctypes; gateway._set_facts({'a': 1}); gateway._send(_core.HELLO, 0, 'busy'); "
            "ctypes.PyDLL(None).sleep(3)"
        ),
        hello=None,
        place=PLACE,
    )
    assert gateway._hello(TIMEOUT) == "busy"
    assert ask(gateway, True)["a"] == 1
    assert gateway._hello(0) is None
    assert gateway._hello(TIMEOUT) == "ready"


WRONG_FACTS = """
gateway._set_facts({'a': 1})
for wrong in (None, [], {'a': object()}):
    try:
        gateway._set_facts(wrong)
    except Exception as exc:
        gateway._send(_core.HELLO, 0, type(exc).__name__)
"""


@pytest.mark.c_interface("far")
def test_facts_that_cannot_be_sent(start):
    gateway = start(WORKER.format(body=WRONG_FACTS), hello=None, place=PLACE)
    assert [gateway._hello(TIMEOUT) for _ in range(4)] == ["TypeError", "TypeError", "DumpError", "ready"]
    assert ask(gateway, True)["a"] == 1


# --- nothing is kept ------------------------------------------------------------------------------------------------


def test_what_is_written_is_let_go(start):
    """A bytearray can grow again: nobody holds its memory, whether the write came to its end or not."""
    gateway = start(ECHO)
    data = bytearray(frame_of(_core.HELLO, payload("raw")))
    gateway._write(data)
    data.append(0)
    gateway._goodbye()
    with pytest.raises(OSError):
        gateway._write(data)
    data.append(0)


def frame_of(code, data):
    return bytes([code]) + bytes(4) + len(data).to_bytes(4, "big") + data


@pytest.mark.c_interface("near")
def test_hellos_raw_bytes_and_facts_leave_nothing_behind(start):
    gateway = start(ECHO.replace("put(MARKER)", "put(b'preamble' * 100 + MARKER)"), hello=None)
    raw = frame_of(_core.HELLO, payload(["raw", 1.5]))
    facts = {str(i): [i] for i in range(50)}

    def once():
        gateway._write(raw)
        assert gateway._hello(TIMEOUT) == ["raw", 1.5]
        assert gateway._state()["preamble"] == b"preamble" * 100
        gateway._set_facts(facts)
        for wrong in ("no dict", {"x": {1: object()}}):
            with pytest.raises((TypeError, execnet_c.DumpError)):
                gateway._set_facts(wrong)
        with pytest.raises(TypeError):
            gateway._write("no bytes")
        _core._trace("nobody wants it")

    assert_steady(once, 200, 500)
