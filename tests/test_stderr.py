"""What workers write to their stderr: passed through to ours, or line by line to a handler; never at the I/O thread's
expense, whoever does not read."""

import os
import pty
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import pairing
import pytest
from conftest import TIMEOUT, stderr_has, wait_until

pytestmark = pytest.mark.ours

MIB = 1 << 20


class Lines:
    """A handler that keeps what it gets."""

    def __init__(self):
        self.calls = []
        self.threads = set()

    def __call__(self, gateway, text):
        self.threads.add(threading.get_ident())
        self.calls.append((gateway, text))

    def of(self, gateway):
        return [text for other, text in list(self.calls) if other is gateway]

    def await_last(self, gateway, text):
        assert wait_until(lambda: self.of(gateway)[-1:] == [text]), self.of(gateway)[-3:]


@pytest.fixture
def lines(group):
    lines = Lines()
    group.set_stderr_handler(lines)
    return lines


def write(gw, data):
    """Have the worker write these bytes to its stderr."""
    channel = gw.remote_exec("import os\ndata = channel.receive()\nwhile data: data = data[os.write(2, data):]")
    channel.send(data)
    return channel


# --- the handler ------------------------------------------------------------------------------------------------------


def test_a_handler_gets_whole_lines(group, lines, capfd):
    gw = group.makegateway("popen")
    write(gw, b"one\ntw").waitclose(TIMEOUT)
    lines.await_last(gw, "one")
    write(gw, b"o\n\n three \r\n").waitclose(TIMEOUT)
    lines.await_last(gw, " three \r")
    write(gw, "\u20ac\n".encode() + b"\xff\xfe!\n" + "\u20ac".encode()[:2] + b"\n").waitclose(TIMEOUT)
    lines.await_last(gw, "\ufffd")
    assert lines.of(gw) == ["one", "two", "", " three \r", "\u20ac", "\ufffd\ufffd!", "\ufffd"]
    assert capfd.readouterr().err == ""
    assert threading.get_ident() not in lines.threads


def test_each_gateway_has_its_own(group, lines):
    gateways = [group.makegateway("popen") for _ in range(3)]
    for gw in gateways:
        write(gw, f"{gw.id} one\n".encode() * 100 + f"{gw.id} last\n".encode())
    for gw in gateways:
        lines.await_last(gw, f"{gw.id} last")
        assert lines.of(gw) == [f"{gw.id} one"] * 100 + [f"{gw.id} last"]
    assert len(lines.threads) == 3


def test_what_was_said_until_the_end_is_delivered(lib, group, lines):
    gw = group.makegateway("popen")
    channel = gw.remote_exec("import os; os.write(2, b'x\\n' * 1000 + b'last words'); os._exit(3)")
    with pytest.raises(lib.GatewayDied, match="last words") as error:
        channel.receive(TIMEOUT)
    assert error.value.stderr.endswith("x\nlast words")
    group.terminate(timeout=TIMEOUT)
    assert lines.of(gw) == ["x"] * 1000 + ["last words"]


def test_a_far_end_that_does_not_come_up_is_heard_too(lib, group, lines):
    with pytest.raises(lib.GatewayDied, match="broken"):
        group.makegateway("popen//python=sh -c 'echo this is broken >&2; exit 1'")
    assert [text for _, text in lines.calls] == ["this is broken"]
    with pytest.raises(OSError):
        group.makegateway("popen//python=/no/such/python")
    assert len(lines.calls) == 1


def test_it_is_for_gateways_made_afterwards(group, capfd):
    before = group.makegateway("popen")
    lines = Lines()
    group.set_stderr_handler(lines)
    during = group.makegateway("popen")
    group.set_stderr_handler(None)
    after = group.makegateway("popen")
    for gw in (before, during, after):
        write(gw, f"{gw.id} speaks\n".encode()).waitclose(TIMEOUT)
    lines.await_last(during, f"{during.id} speaks")
    said = [f"{gw.id} speaks\n" for gw in (before, after)]
    assert stderr_has(sum(map(len, said)))
    assert sorted(capfd.readouterr().err.splitlines(True)) == said
    assert [gw for gw, _ in lines.calls] == [during]


def test_the_default_group_has_it_as_a_function(lib):
    assert lib.set_stderr_handler == lib.default_group.set_stderr_handler


@pytest.mark.parametrize("handler", [3, "print"])
def test_what_is_no_handler(group, handler):
    with pytest.raises(TypeError, match="handler must be callable or None"):
        group.set_stderr_handler(handler)


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
def test_a_handler_that_raises_goes_on(group, monkeypatch, error):
    raised, lines = [], Lines()

    def handler(gateway, text):
        lines(gateway, text)
        raise error(text)

    monkeypatch.setattr(sys, "excepthook", lambda *exc: raised.append(exc))
    group.set_stderr_handler(handler)
    gw = group.makegateway("popen")
    write(gw, b"one\ntwo\n")
    lines.await_last(gw, "two")
    assert wait_until(lambda: len(raised) == 2)
    assert [(kind, str(value)) for kind, value, _ in raised] == [(error, "one"), (error, "two")]


def test_a_slow_handler_holds_up_nobody_and_is_told_what_it_lost(group):
    lines, called, go_on = Lines(), threading.Event(), threading.Event()

    def handler(gateway, text):
        called.set()
        assert go_on.wait(4 * TIMEOUT)
        lines(gateway, text)

    group.set_stderr_handler(handler)
    gw, other = group.makegateway("popen"), group.makegateway("popen")
    count = 400_000
    data = b"".join(b"%09d\n" % n for n in range(count))
    assert len(data) > 3 * MIB
    try:
        write(gw, data[:10]).waitclose(TIMEOUT)
        assert called.wait(TIMEOUT)
        write(gw, data[10:]).waitclose(TIMEOUT)  # the worker does not wait either
        for gateway in (gw, other):
            assert gateway.remote_exec("channel.send(channel.receive())").isclosed() is False
            assert gateway.remote_exec("channel.send(5)").receive(TIMEOUT) == 5
        gw.exit()
        assert gw._wait_gone(TIMEOUT)
    finally:
        go_on.set()
    lines.await_last(gw, "%09d" % (count - 1))
    told = lines.of(gw)
    notices = [n for n, text in enumerate(told) if text.startswith("[")]
    lost = sum(int(re.fullmatch(r"\[(\d+) bytes of stderr are lost here: its handler was too slow\]", told[n])[1]) for n in notices)
    assert len(notices) == 1
    numbers = [text for text in told if re.fullmatch(r"\d{9}", text)]
    assert numbers == sorted(numbers)
    # What is cut in two by the gap comes as two lines.
    said = "\n".join(told[: notices[0]]), "\n".join(told[notices[0] + 1 :]) + "\n"
    assert len(said[0]) + len(said[1]) + lost in (len(data), len(data) - 1)
    assert MIB <= len(said[1]) <= MIB + 10 and len(said[0]) <= 2 * 65536 + 10
    assert data.decode().startswith(said[0]) and data.decode().endswith(said[1])


def test_signals_lose_nothing(group, lines):
    gw = group.makegateway("popen")
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    try:
        write(gw, b"first\n")
        lines.await_last(gw, "first")
        (listener,) = lines.threads
        channel = gw.remote_exec("import os\nfor n in range(20000): os.write(2, b'%07d\\n' % n)")
        while not channel.isclosed():
            signal.pthread_kill(listener, signal.SIGUSR1)
        lines.await_last(gw, "0019999")
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert lines.of(gw)[1:] == ["%07d" % n for n in range(20000)]


def test_a_line_without_an_end_comes_in_pieces(group, lines):
    gw = group.makegateway("popen")
    for told in (1, 2, 3):  # no more than is kept for a handler that the machine does not let run
        write(gw, b"x" * MIB)
        assert wait_until(lambda: len(lines.of(gw)) == told)
    write(gw, b"x\nend\n")
    lines.await_last(gw, "end")
    assert lines.of(gw) == ["x" * MIB] * 3 + ["x", "end"]


def test_a_handler_may_end_its_group(group):
    done = threading.Event()

    def handler(gateway, text):
        if text == "end it":
            group.terminate(timeout=TIMEOUT)
            done.set()

    group.set_stderr_handler(handler)
    gw = group.makegateway("popen")
    write(gw, b"end it\n")
    assert done.wait(TIMEOUT)
    assert not gw.hasreceiver()


@pytest.mark.parametrize("ends", ["terminate", "dies"])
@pytest.mark.parametrize("heard", [True, False])
def test_a_grandchild_that_holds_stderr_delays_nothing(lib, group, capfd, heard, ends):
    lines = Lines()
    if heard:
        group.set_stderr_handler(lines)
    gw = group.makegateway("popen")
    ear, mouth = os.pipe()
    task = (
        "import os, subprocess, sys\n"
        f"child = 'import os; ear = os.open(\"/proc/{os.getpid()}/fd/{ear}\", 0); os.write(2, b\"here\\\\n\"); os.read(ear, 1); '\n"
        "child += 'os.write(2, b\"gone\\\\n\")'\n"
        "child = subprocess.Popen([sys.executable, '-c', child], start_new_session=True)\n"
        "channel.send(child.pid)\n"
        "channel.receive()\n"
        "os._exit(3)"
    )
    seen = []

    def said(text):
        if os.fstat(2).st_size:  # a whole line, and nobody writes another one now
            seen.append(capfd.readouterr().err)
        return text in (lines.of(gw) if heard else "".join(seen).splitlines())

    channel = gw.remote_exec(task)
    grandchild = channel.receive(TIMEOUT)
    try:
        assert wait_until(lambda: said("here"))
        began = time.monotonic()
        if ends == "dies":
            channel.send(None)
            with pytest.raises(lib.GatewayDied, match="exit status 3"):
                channel.receive(TIMEOUT)
        group.terminate(timeout=TIMEOUT if ends == "dies" else 0.5)
        assert time.monotonic() - began < TIMEOUT / 2
        assert os.path.exists(f"/proc/{grandchild}")
    finally:
        os.close(ear)
        os.close(mouth)
    assert wait_until(lambda: said("gone"))  # what it says later still comes
    assert wait_until(lambda: not os.path.exists(f"/proc/{grandchild}"))


# --- passing through --------------------------------------------------------------------------------------------------

# What a program does whose stderr takes nothing. Each step says so on stdout.
PROGRAM = pairing.HEAD + """
import os, sys, threading
import execnet_c
def say(text):
    os.write(1, text.encode() + b"\\n")
if sys.argv[1] == "others write":  # and use up the room that there was a moment ago
    def noise():
        while True:
            os.write(2, b"-" * 512)
    threading.Thread(target=noise, daemon=True).start()
group = execnet_c.Group()
noisy, quiet = group.makegateway("popen"), group.makegateway("popen")
channel = noisy.remote_exec("import os\\ndata = bytes(65536)\\nfor n in range(64): os.write(2, data)")
for n in range(200):
    for gw in (noisy, quiet):
        echo = gw.remote_exec("channel.send(channel.receive())")
        echo.send(n)
        assert echo.receive(60) == n
say("talks")
last = group.makegateway("popen")
try:
    last.remote_exec("import os; os.write(2, b'last words\\\\n'); os._exit(4)").receive(60)
except execnet_c.GatewayDied as exc:
    assert exc.status == 4 and exc.stderr == "last words\\n", (exc.status, exc.stderr)
    say("knows")
group.terminate(timeout=1)
say("ends")
os._exit(0)
"""


def fill(fd):
    """Until nothing more goes in; fd is non-blocking."""
    for size in (4096, 1):
        try:
            while True:
                os.write(fd, b"." * size)
        except BlockingIOError:
            pass


def open_socket():
    ends = socket.socketpair()
    return ends[0].detach(), ends[1].detach()


# The reading end first.
KINDS = {"pipe": os.pipe, "terminal": pty.openpty, "socket": open_socket}


@pytest.mark.parametrize("argument", ["", "others write"])
@pytest.mark.parametrize("room", [0, 700])
@pytest.mark.parametrize("kind", KINDS)
def test_a_stderr_that_takes_nothing_more_holds_up_nobody(kind, room, argument):
    """Or takes a little, less than there is to say."""
    reads, writes = KINDS[kind]()
    filler = os.open(f"/proc/self/fd/{writes}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY) if kind != "socket" else writes
    os.set_blocking(filler, False)
    fill(filler)
    for _ in range(0, room, 100):
        os.read(reads, 100)
    os.set_blocking(filler, True)  # a socket's is the program's own
    program = subprocess.Popen([sys.executable, "-c", PROGRAM, argument], stdout=subprocess.PIPE, stderr=writes)
    try:
        assert program.stdout.read() == b"talks\nknows\nends\n"
        assert program.wait(TIMEOUT) == 0
    finally:
        program.kill()
        program.wait()
        program.stdout.close()
        for fd in {reads, writes, filler}:
            os.close(fd)


@pytest.mark.parametrize("kind", KINDS)
def test_what_waited_comes_when_somebody_reads(kind):
    reads, writes = KINDS[kind]()
    text = pairing.HEAD + (
        "import execnet_c, sys\n"
        "group = execnet_c.Group()\n"
        "gw = group.makegateway('popen')\n"
        "gw.remote_exec('import os\\nfor n in range(30000): os.write(2, b\"%d\\\\n\" % n)').waitclose()\n"
        "gw.remote_exec('channel.send(1)').receive()\n"
        "sys.stdin.read()\n"  # of a worker that ends, what has no room is lost
        "group.terminate(60)\n"
    )
    program = subprocess.Popen([sys.executable, "-c", text], stdin=subprocess.PIPE, stderr=writes)
    os.close(writes)
    time.sleep(1.0)  # it runs into the end of the room
    got = b""
    try:
        while not got.rstrip().endswith(b"\n29999"):
            data = os.read(reads, 65536)
            assert data, got[-100:]
            got += data.replace(b"\r", b"")
        assert got.split() == [b"%d" % n for n in range(30000)]
        program.stdin.close()
        assert program.wait(TIMEOUT) == 0
    finally:
        program.kill()
        program.wait()
        program.stdin.close()
        os.close(reads)


def test_our_stderr_stays_as_it_is(group, capfd):
    """Others share it: it must not become non-blocking, nor its offset move backwards where it is a file."""
    before = os.get_blocking(2)
    gw = group.makegateway("popen")
    os.write(2, b"first\n")
    write(gw, b"second\n").waitclose(TIMEOUT)
    assert stderr_has(len("first\nsecond\n"))
    os.write(2, b"third\n")
    assert capfd.readouterr().err == "first\nsecond\nthird\n"
    assert os.get_blocking(2) == before
