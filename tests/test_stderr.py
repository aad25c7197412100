"""What workers write to their stderr: passed through to ours, or line by line to a handler; never at the I/O thread's
expense, whoever does not read."""

import os
import pty
import re
import signal
import socket
import subprocess
import sys
import textwrap
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
noisy, quiet = group.makegateway("popen//stderr=capture"), group.makegateway("popen//stderr=capture")
channel = noisy.remote_exec("import os\\ndata = bytes(65536)\\nfor n in range(64): os.write(2, data)")
for n in range(200):
    for gw in (noisy, quiet):
        echo = gw.remote_exec("channel.send(channel.receive())")
        echo.send(n)
        assert echo.receive(60) == n
say("talks")
last = group.makegateway("popen//stderr=capture")
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


@pytest.mark.parametrize(
    "room, argument",
    [
        *((0, ""), (700, "others write")),
        *(pytest.param(*both, marks=pytest.mark.deep) for both in ((0, "others write"), (700, ""))),
    ],
)
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
        "gw = group.makegateway('popen//stderr=capture')\n"
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


# --- workers of this machine have our own -----------------------------------------------------------------------------

SITE = "import os\nos.write(2, b'early\\n' * {})\n"
# Each way to start one; {python} is this interpreter.
WORKERS = {
    "popen": "popen",
    "pipes": "popen//transport=pipe",
    "settings": "popen//nice=0//chdir=.//env:X=1",
    "python": "popen//python={python}",
    "twin": "popen//python=env EXECNET_C_PURE=1 {python}",
}
HEAD = pairing.HEAD + "import os, sys\nimport execnet_c\ngroup = execnet_c.Group()\n"


@pytest.fixture(params=WORKERS)
def worker_spec(request):
    return WORKERS[request.param].format(python=sys.executable)


def program(text, *args, **options):
    """Run it, with `group`; what it and its workers have said on stderr."""
    done = subprocess.run(
        [sys.executable, "-c", HEAD + textwrap.dedent(text) + "\ngroup.terminate(60)\n", *map(str, args)],
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "timeout": 4 * TIMEOUT, **options},
    )
    assert done.returncode == 0, (done.stdout, done.stderr)
    return done.stderr.decode() if done.stderr is not None else None


ALTERNATE = """
channel = group.makegateway(sys.argv[1]).remote_exec('''
import os, sys
for n in channel:
    print(n, "there", file=sys.stderr, flush=True)
    channel.send(n)
''')
for n in range(300):
    os.write(2, b"%d here\\n" % n)
    channel.send(n)
    assert channel.receive(60) == n
"""
ALTERNATED = "".join(f"{n} here\n{n} there\n" for n in range(300))


def test_lines_of_both_ends_stand_in_their_order(worker_spec):
    assert program(ALTERNATE, worker_spec) == ALTERNATED


@pytest.mark.parametrize("kind", ["file", "file to append to", "socket"])
def test_whatever_our_stderr_is(kind, tmp_path):
    if kind == "socket":
        ends, got = socket.socketpair(), []
        reader = threading.Thread(target=lambda: got.extend(iter(lambda: ends[0].recv(4096), b"")))
        reader.start()
        program(ALTERNATE, "popen", stderr=ends[1])
        ends[1].close()
        reader.join(TIMEOUT)
        ends[0].close()
        assert b"".join(got).decode() == ALTERNATED
        return
    with open(tmp_path / "log", "ab" if "append" in kind else "wb") as file:
        program(ALTERNATE, "popen", stderr=file)
    assert (tmp_path / "log").read_text() == ALTERNATED


@pytest.mark.parametrize("count", [1, 12_000])  # more than a pipe holds
def test_what_a_start_says_stands_in_front(worker_spec, count, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(SITE.format(count))
    said = program(
        """
        os.environ["PYTHONPATH"] = sys.argv[2]
        gw = group.makegateway(sys.argv[1])
        gw.remote_exec("import os; os.write(2, b'late\\\\n')").waitclose(60)
        os.write(2, b"last\\n")
        """,
        worker_spec,
        tmp_path,
    )
    assert said == "early\n" * count + "late\nlast\n"


@pytest.mark.parametrize("spec", ["popen", "popen//transport=pipe", "popen//python={python}", "popen//nice=0"])
def test_a_start_that_fails_says_why_and_where_it_always_did(spec, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import os\nif 'X' in os.environ:\n os.write(2, b'it is broken\\n')\n os._exit(5)\n")
    said = program(
        """
        os.environ["PYTHONPATH"] = sys.argv[2]
        os.environ["X"] = "1"
        try:
            group.makegateway(sys.argv[1]).remote_exec("pass").waitclose(60)
        except execnet_c.GatewayDied as exc:
            assert exc.status == 5 and "the end of its stderr:\\nit is broken" in str(exc), exc
            assert exc.stderr == "it is broken\\n"
            sys.exit(group.terminate(60))
        """,
        spec.format(python=sys.executable),
        tmp_path,
    )
    assert said == "it is broken\n"


def test_where_our_stderr_is_closed_nothing_else_gets_its_number(worker_spec):
    """Not the first file that a task opens."""
    program(
        """
        os.close(2)
        channel = group.makegateway(sys.argv[1]).remote_exec(
            "import os, sys; print('x', file=sys.stderr, flush=True); channel.send(os.readlink('/proc/self/fd/2'))"
        )
        assert channel.receive(60) == "/dev/null"
        """,
        worker_spec,
    )


@pytest.mark.parametrize("spec", ["popen", "popen//python={python}"])
def test_a_site_that_sends_stderr_elsewhere_has_its_way(spec, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import os\nif 'X' in os.environ: os.dup2(os.open(os.environ['X'], os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)\n"
    )
    said = program(
        """
        os.environ["PYTHONPATH"], os.environ["X"] = sys.argv[2], sys.argv[2] + "/log"
        group.makegateway(sys.argv[1]).remote_exec("import os; os.write(2, b'hello\\\\n')").waitclose(60)
        """,
        spec.format(python=sys.executable),
        tmp_path,
    )
    assert said == "" and (tmp_path / "log").read_text() == "hello\n"


BETWEEN = {
    "closes": "os.closerange(3, 99)",
    "has others": "[os.dup2(0, fd) for fd in range(3, 99)]",
}


@pytest.mark.parametrize("between", BETWEEN)
def test_a_command_that_lets_no_fds_through_is_read_as_before(lib, group, between, capfd):
    """sudo is one."""
    command = f"import os, sys; {BETWEEN[between]}; os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    gw = group.makegateway(f"""popen//python={sys.executable} -c '{command}'""")
    assert gw.remote_exec("import os; channel.send(os.readlink('/proc/self/fd/2'))").receive(TIMEOUT).startswith("pipe:")
    channel = gw.remote_exec("import os; os.write(2, b'last words\\n'); os._exit(4)")
    with pytest.raises(lib.GatewayDied, match="the end of its stderr:\nlast words") as error:
        channel.receive(TIMEOUT)
    assert error.value.stderr == "last words\n"
    assert stderr_has(len("last words\n"))
    assert capfd.readouterr().err == "last words\n"


def test_a_spec_may_ask_for_the_end_of_all_that_it_says(lib, group, worker_spec, capfd):
    gw = group.makegateway(worker_spec + "//stderr=capture")
    assert gw.remote_exec("import os; channel.send(os.readlink('/proc/self/fd/2'))").receive(TIMEOUT).startswith("pipe:")
    channel = gw.remote_exec("import os; os.write(2, b'last words\\n'); os._exit(4)")
    with pytest.raises(lib.GatewayDied, match="the end of its stderr:\nlast words"):
        channel.receive(TIMEOUT)
    assert capfd.readouterr().err == "last words\n"


@pytest.mark.parametrize("spec", ["popen//stderr=file", "popen//stderr", "ssh=nowhere//stderr=inherit"])
def test_nothing_else_can_be_asked_for(group, spec):
    with pytest.raises(ValueError, match="stderr may be capture"):
        group.makegateway(spec)


def test_a_gateway_takes_three_fds(group, worker_spec):
    """With the C core here; the plain-Python one has the file for last words open, too."""

    def fds_of(n):
        gateways = [group.makegateway(worker_spec) for _ in range(n)]
        for gw in gateways:
            gw.remote_exec("pass").waitclose(TIMEOUT)
        return len(os.listdir("/proc/self/fd"))

    first = fds_of(1)  # and those of the process
    most = 3 if pairing.near == "C" else 4
    assert wait_until(lambda: len(os.listdir("/proc/self/fd")) <= first)
    first = len(os.listdir("/proc/self/fd"))
    fds_of(4)
    assert wait_until(lambda: len(os.listdir("/proc/self/fd")) - first <= 4 * most)
