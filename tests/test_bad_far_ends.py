"""Far ends that do not come up: each error names the real cause, comes when it is known, and leaves nothing."""

import os
import shlex
import stat
import sys
import time
import uuid

import pairing
import pytest

if pairing.name in ("C-Python", "Python-C"):
    pytest.skip("foreign far ends have a core of their own: C-C and Python-Python do", allow_module_level=True)

import execnet_c
from conftest import TIMEOUT
from execnet_c.near import bootstrap, transport
from execnet_c.far import text
from execnet_c import xspec
from far_ends import PLAIN, TOO_OLD
from masters import MARK, living, wait_until

# Errors that need no waiting come sooner than this, on a busy machine too; the far ends that hang do it for longer.
SOON = 10.0
SHORT = 1.5  # what HELLO_TIMEOUT is patched to where the far end says nothing

MARKER = b"\0execnet_c\0"


@pytest.fixture
def fails(monkeypatch):
    """A function that makes a gateway, which must fail; returns the error. Nothing may be left of it."""

    def make(command, *keys, timeout=None):
        if timeout is not None:
            monkeypatch.setattr(bootstrap, "HELLO_TIMEOUT", timeout)
        mark = uuid.uuid4().hex
        monkeypatch.setenv(MARK, mark)
        group = execnet_c.Group()
        line = shlex.join(map(str, command)) if isinstance(command, list) else str(command)
        start = time.monotonic()
        try:
            with pytest.raises(OSError) as error:
                group.makegateway("//".join(["popen", "python=" + line, *keys]))
            took = time.monotonic() - start
            assert list(group) == []
        finally:
            group.terminate(timeout=1.0)
        print(f"{took:.2f} s: {error.value}")
        assert took < SOON + (timeout or 0)
        if timeout is not None:
            assert took >= timeout
        assert wait_until(lambda: not living(mark), 5.0), "processes are left"
        return error.value

    return make


@pytest.fixture
def script(tmp_path):
    """A function that makes an executable of a shell script, or of a Python one."""

    def make(body, python=False):
        path = tmp_path / f"program{len(os.listdir(tmp_path))}"
        path.write_text(f"#!{sys.executable}\nHEAD_SIZE = {text.HEAD_SIZE}{PRELUDE}{body}\n" if python else f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
        return path

    return make


# What our Python scripts begin with. They are started with -u -c and the program behind their name, as a Python is.
PRELUDE = """
import os, struct, sys, time
def frame(code, id, payload=b"", size=None):
    return struct.pack("!bii", code, id, len(payload) if size is None else size) + payload
def text(said):
    return b"N" + struct.pack("!i", len(said)) + said + b"Q"
def read(size):
    got = b""
    while len(got) < size:
        piece = os.read(0, size - len(got))
        assert piece
        got += piece
    return got
def take_text():
    read(int(read(HEAD_SIZE).split(b"get(")[1].split(b")")[0]))
def take_hello():
    code, id, size = struct.unpack("!bii", read(9))
    assert (code, id) == (8, 0)
    read(size)
MARKER = b"\\0execnet_c\\0"
ANNOUNCEMENT = frame(8, 0, text(b"30b07f0 cpython-311".ljust(40)))
def say(what):
    while what:
        what = what[os.write(1, what):]
"""


# ---- no interpreter


@pytest.mark.parametrize("command", ["/nonexistent/python", "no-such-python-anywhere -I", "/", "/etc/passwd"])
def test_no_program(fails, command):
    error = fails(command)
    assert command.split()[0] in str(error)
    assert isinstance(error, (FileNotFoundError, PermissionError)) and error.errno


@pytest.mark.parametrize(
    "command, words",
    {
        "false": ("/bin/false", ["exit status 1"]),
        "true": ("/bin/true", ["exit status 0"]),
        "python -c pass": (shlex.join([sys.executable, "-c", "pass"]), ["exit status 0"]),
        "exit": ("sh -c 'exit 42'", ["exit status 42"]),
        "complains": ("sh -c 'echo there is no python here >&2; exit 127'", ["127", "there is no python here"]),
        "both": ("sh -c 'echo on stdout; echo on stderr >&2; exit 3'", ["exit status 3", "on stdout", "on stderr"]),
        "killed": ("sh -c 'kill -9 $$'", ["SIGKILL"]),
        "wrong option": (shlex.join([sys.executable, "--no-such-option"]), ["exit status 2", "no-such-option"]),
        "env without it": ("env no-such-python-anywhere", ["127", "no-such-python-anywhere"]),
        "a shell": ("sh", ["exit status", "sh: "]),
        "cat": ("/bin/cat", ["exit status 1", "cat: "]),  # it takes -u, and what stands behind it for files
    }.values(),
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_it_exits_at_once(fails, command, words):
    error = fails(command)
    assert isinstance(error, execnet_c.GatewayDied)
    for word in [*words, "before it could serve", shlex.split(command)[0]]:
        assert word in str(error), word


@pytest.mark.parametrize("end", TOO_OLD or [None], ids=lambda end: end.name if end else "none")
def test_too_old_a_python(fails, end):
    if end is None:
        pytest.skip("no Python older than 3.8 is found here")
    error = fails(end.command)
    number = end.name[len("cpython") :] if end.name.startswith("cpython") else ""
    assert f"Python {number}" in str(error) and "3.8" in str(error) and end.command[0] in str(error)
    # Its stdout and stderr have nothing to say: what is wrong is known.
    assert "Traceback" not in str(error) and "stdout" not in str(error)


# ---- one that says other things

HI = "echo 'Welcome to this host'"
EXEC = '\nexec "$@" '


@pytest.mark.parametrize("size", [0, 1, 9, 10, 11, 4095, 65_000, 64 * 1024])
@pytest.mark.parametrize("byte", ["x", r"\0"], ids=["text", "zeros"])
def test_noise_before_the_handshake_is_passed_over(size, byte, script):
    noise = f"head -c {size} /dev/zero" + (f" | tr '\\0' '{byte}'" if byte == "x" else "")
    group = execnet_c.Group()
    try:
        gw = group.makegateway(f"popen//python={script(noise + EXEC)} {sys.executable}")
        assert gw.remote_exec("channel.send(1)").receive(TIMEOUT) == 1
        assert gw._state()["preamble"] == byte.replace(r"\0", "\0").encode() * size
    finally:
        group.terminate(timeout=TIMEOUT)


def test_a_wrapper_or_a_site_that_prints(script, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import sys; print('a site that talks'); sys.stdout.flush()\n")
    group = execnet_c.Group()
    try:
        wrapper = ["sh", "-c", f"{HI}; exec \"$0\" \"$@\"", "env", f"PYTHONPATH={tmp_path}", sys.executable]
        gw = group.makegateway("popen//python=" + shlex.join(wrapper))
        assert gw.remote_exec("channel.send(1)").receive(TIMEOUT) == 1
        assert gw._state()["preamble"] == b"Welcome to this host\na site that talks\n"
    finally:
        group.terminate(timeout=TIMEOUT)


def test_noise_is_quoted_where_the_handshake_fails(fails, script):
    error = fails(script(f"{HI}; echo 'Your password has expired'; exit 1"))
    assert "exit status 1" in str(error) and "stdout" in str(error)
    assert "Welcome to this host\nYour password has expired" in str(error)
    error = fails(script(f"{HI}; exec sleep 100"), timeout=SHORT)
    assert "Welcome to this host" in str(error) and f"{SHORT}" in str(error)
    error = fails(script("head -c 60000 /dev/zero | tr '\\0' x; printf '\\nlast words\\n'; exit 1"))
    assert "last words" in str(error)


@pytest.mark.parametrize("how", ["endless", "a little too much, then a Python"])
def test_too_much_noise_is_an_error(fails, script, how):
    if how == "endless":
        error = fails(script("exec yes this is no far end"))
    else:
        error = fails([script('head -c 70000 /dev/zero | tr "\\0" x; exec "$@"'), sys.executable])
    assert "64 KiB of other output came first: a login or site that prints too much, or no far end of ours" in str(error)
    assert len(str(error)) < 10_000


def test_too_much_noise_is_shown_from_its_beginning(fails, script):
    error = fails([script('echo Welcome to this host; yes and news of it | head -c 3000000; exec "$@"'), sys.executable])
    assert isinstance(error, execnet_c.LinkLost)
    assert "a login or site that prints too much" in str(error)
    assert "; its stdout begins with:\nWelcome to this host\nand news of it\n" in str(error)
    assert len(str(error)) < 10_000


# ---- one that says nothing, or goes half-way


def test_it_sleeps(fails, script):
    error = fails(script("exec sleep 100"), timeout=SHORT)
    assert f"did not answer within {SHORT} seconds" in str(error)
    assert "the end of its" not in str(error), "there was nothing to hear"
    error = fails(script("echo what it complains of >&2; exec sleep 100"), timeout=SHORT)
    assert "what it complains of" in str(error)


def test_it_takes_no_signal(fails, script):
    error = fails(script("trap '' TERM INT; echo here I am; while :; do sleep 1; done"), timeout=SHORT)
    assert "here I am" in str(error)


# Well-formed items without end, which who reads them all first never comes to the end of.
FLOOD = "\nwhile True: say(frame(4, 1, b'LQ') * 5000)"


def test_it_floods(fails, script):
    error = fails(script("say(MARKER)" + FLOOD, python=True), timeout=SHORT)
    assert f"{SHORT} seconds" in str(error)


@pytest.mark.parametrize("via", ["", "//via=between"])
def test_it_ends_and_its_child_floods(script, via):
    """Others are served meanwhile."""
    path = script("say(MARKER); os.fork() == 0 or os._exit(7)" + FLOOD, python=True)
    group = execnet_c.Group()
    try:
        healthy = group.makegateway("popen//id=between")
        with pytest.raises(OSError, match="exit status 7"):
            group.makegateway(f"popen//python={path}{via}")
        channel = healthy.remote_exec("channel.send(1)")
        assert channel.receive(TIMEOUT) == 1
    finally:
        group.terminate(timeout=1.0)


@pytest.mark.parametrize("command", ["sh -c cat", "sh -c 'exec cat -'"])
def test_it_echoes(fails, command):
    error = fails(command, timeout=SHORT)
    assert f"{SHORT} seconds" in str(error) and "cat" in str(error)


# {what: (first part of a script, the rest, what the error says)}; these errors need no waiting.
AT_ONCE, ANNOUNCED = "say(MARKER); ", "say(MARKER + ANNOUNCEMENT); "
BEHIND_THE_TEXT = ANNOUNCED + "take_text(); "
HALF_WAY = {
    "garbage after the marker": (AT_ONCE, "say(b'this is no frame at all')", ["unknown message code"]),
    "random bytes after the marker": (AT_ONCE, "say(b'\\xff' + os.urandom(1000))", ["message code"]),
    "a negative length": (AT_ONCE, "say(frame(8, 0, size=-1))", ["negative"]),
    "the least length": (AT_ONCE, "say(frame(8, 0, size=-(2**31)))", ["negative"]),
    "no announcement but data": (AT_ONCE, "say(frame(4, 1, b'N')); say(frame(77, 0))", ["message code"]),
    "an announcement cut short": (AT_ONCE, "say(ANNOUNCEMENT[:20]); sys.exit(5)", ["exit status 5"]),
    "an announcement of hostile length": (AT_ONCE, "say(frame(8, 0, b'N\\x7f\\xff\\xff\\xffabcQ'))", []),
    "an announcement without an end": (AT_ONCE, "say(frame(8, 0, b'N'))", []),
    "an announcement of two words too many": (AT_ONCE, "say(frame(8, 0, text(b'a b c d')))", []),
    "an empty announcement": (AT_ONCE, "say(frame(8, 0, text(b'')))", []),
    "a version that is no number": (AT_ONCE, "say(frame(8, 0, text(b'three cpython')))", []),
    "a version beyond all bounds": (AT_ONCE, "say(frame(8, 0, text(b'-1 cpython')))", []),
    "an announcement that is None": (AT_ONCE, "say(frame(8, 0, b'LQ'))", []),
    "an announcement that is a number": (AT_ONCE, "say(frame(8, 0, b'F\\0\\0\\0\\1Q'))", []),
    "an announcement that is a dict": (AT_ONCE, "say(frame(8, 0, b'JQ'))", []),
    "an announcement that is a channel": (AT_ONCE, "say(frame(8, 0, b'B\\0\\0\\0\\1Q'))", []),
    "a flood of announcements": (AT_ONCE, "say(ANNOUNCEMENT * 100)", []),
    "a goodbye": (AT_ONCE, "say(frame(2, 0))", []),
    "a goodbye and an end": (AT_ONCE, "say(frame(2, 0)); sys.exit(5)", []),
    "dies before the text": (ANNOUNCED, "os._exit(7)", ["exit status 7"]),
    "dies at the head of the text": (ANNOUNCED, "read(20); os._exit(7)", ["exit status 7"]),
    "dies half-way through the text": (ANNOUNCED, "read(1000); os._exit(7)", ["exit status 7"]),
    "is killed half-way through the text": (ANNOUNCED, "read(999); os.kill(os.getpid(), 9)", ["SIGKILL"]),
    "dies behind the text": (BEHIND_THE_TEXT, "os._exit(7)", ["exit status 7"]),
    "dies behind the settings": (BEHIND_THE_TEXT, "take_hello(); os._exit(7)", ["exit status 7"]),
    "complains behind the settings": (
        BEHIND_THE_TEXT,
        "take_hello(); os.write(2, b'no more memory'); os._exit(7)",
        ["exit status 7", "no more memory"],
    ),
    "garbage behind the text": (BEHIND_THE_TEXT, "say(b'z' * 100)", ["message code"]),
    "an answer that is none": (BEHIND_THE_TEXT, "say(frame(8, 0, b'JQ'))", ["no worker of ours"]),
    "an answer that is a number": (BEHIND_THE_TEXT, "say(frame(8, 0, b'F\\0\\0\\0\\1Q'))", []),
    "an answer that is None": (BEHIND_THE_TEXT, "say(frame(8, 0, b'LQ'))", []),
    "an answer that is a text": (BEHIND_THE_TEXT, "say(frame(8, 0, text(b'core')))", []),
    "an answer that cannot be loaded": (BEHIND_THE_TEXT, "say(frame(8, 0, b'K\\x7f\\xff\\xff\\xff'))", []),
    "closes stdout and lives on": ("", "os.close(1)", ["closed the connection but lives on"]),
    "closes stdout behind the announcement": (ANNOUNCED, "os.close(1)", ["closed the connection but lives on"]),
}


@pytest.mark.parametrize("what", HALF_WAY)
def test_it_goes_half_way(fails, script, what):
    start, rest, words = HALF_WAY[what]
    path = script(f"{start}{rest}; time.sleep(100)", python=True)
    error = fails(path)
    for word in [*words, str(path)]:
        assert word in str(error), word


@pytest.mark.not_under("asan tsan", "it counts memory")
def test_a_hostile_length_takes_no_memory_and_is_waited_for(fails, script):
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    body = "say(MARKER + frame(4, 1, b'N' * 1000, size=2**31 - 1)); time.sleep(100)"
    error = fails(script(body, python=True), timeout=SHORT)
    assert f"{SHORT} seconds" in str(error)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 200_000, f"{grown} KB for what was only announced"


def test_it_reads_nothing_of_the_text(fails, script):
    error = fails(script("say(MARKER + ANNOUNCEMENT); time.sleep(100)", python=True), timeout=SHORT)
    assert f"{SHORT} seconds" in str(error)


def test_several_failures_are_side_by_side(monkeypatch, script):
    monkeypatch.setattr(bootstrap, "HELLO_TIMEOUT", SHORT)
    path = script("exec sleep 100")
    start = time.monotonic()
    with pytest.raises(OSError, match="did not answer"):
        execnet_c.Group([f"popen//python={path}"] * 5)
    assert time.monotonic() - start < SHORT * 4


# ---- its standard streams


@pytest.mark.parametrize(
    "redirection, words",
    [
        (">&-", ["Bad file descriptor"]),
        ("<&-", ["exit status"]),
        ("</dev/null", ["exit status 1"]),
        (">/dev/null", ["exit status 1"]),  # its end of our pipe is closed, and so is ours then
        ("<&- >&- 2>&-", ["exit status"]),
    ],
)
def test_streams_that_are_not_there(fails, script, redirection, words):
    path = script(EXEC + redirection)
    error = fails([path, sys.executable])
    for word in words:
        assert word in str(error)


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full", "2>/dev/null", "3>&- 4>&- 5>&-"])
def test_without_a_stderr_it_serves(script, redirection):
    group = execnet_c.Group()
    try:
        gw = group.makegateway(f"popen//python={script(EXEC + redirection)} {sys.executable}")
        source = """
            import os, sys
            try:
                print("to stderr", file=sys.stderr)
            except OSError:
                pass  # there is no room
            print("to stdout")
            channel.send(os.getpid())
        """
        assert gw.remote_exec(source).receive(TIMEOUT) > 0
        with pytest.raises(execnet_c.RemoteError, match="ZeroDivisionError"):
            gw.remote_exec("1/0").waitclose(TIMEOUT)
        assert gw.remote_exec("channel.send(1)").receive(TIMEOUT) == 1
    finally:
        group.terminate(timeout=TIMEOUT)


@pytest.mark.parametrize("end", PLAIN, ids=lambda end: end.name)
def test_a_python_without_zlib(fails, tmp_path, end):
    end.spec()
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['zlib'] = None\n")
    error = fails(["env", f"PYTHONPATH={tmp_path}", *end.command])
    assert isinstance(error, execnet_c.GatewayDied)
    assert "zlib" in str(error) and "exit status 1" in str(error) and "before it could serve" in str(error)


# ---- the command line

LINES = [
    "{dump}",
    "  {dump}  -x ",
    "{dump} -I -S",
    "{dump} 'one word' \"another one\"",
    "{dump} a\\ b c\\\\d",
    "{dump} '' \"\"",
    "{dump} \"it's\" 'say \"it\"'",
    "{dump} a'b'c\"d\"e",
    "{dump} $HOME `id` ~ * ; && | > x",
    "{dump} # no comment",
    "{dump} \t tabs \t too",
    "{dump} \"a\\\"b\" \"a\\$b\" 'a\\b'",
    "{dump} \xe9 \u20ac",
    "{dump} key=value",
    "'{dump}' -a",
    "env A=1 {dump} -a",
    "{spaced}",
]


@pytest.fixture
def dump(tmp_path):
    """A program that writes its argv to a file, and the function that reads it."""
    directory = tmp_path / "a directory"
    directory.mkdir()
    out = tmp_path / "argv"
    for path in (tmp_path / "dump", directory / "du mp"):
        path.write_text(f"#!{sys.executable}\nimport os, sys\nopen({str(out)!r}, 'w').write(ascii(sys.argv))\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    names = {"dump": tmp_path / "dump", "spaced": shlex.quote(str(directory / "du mp"))}

    def argv():
        found = eval(out.read_text())
        out.unlink()
        return found

    return names, argv


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("keys", ["", "//dont_write_bytecode"], ids=["", "dont_write_bytecode"])
def test_the_line_is_split_as_execnet_does(fails, dump, line, keys):
    execnet = pytest.importorskip("execnet")
    names, argv = dump
    line = line.format(**names)
    fails(line, *filter(None, [keys.lstrip("/")]))
    ours = argv()
    theirs = execnet.gateway_io.popen_args(execnet.XSpec(f"popen//python={line}{keys}"))
    start = theirs.index(str(names["dump"])) if str(names["dump"]) in theirs else 0
    assert ours[:-1] == theirs[start:-1]
    assert transport.argv_of(xspec.XSpec(f"popen//python={line}{keys}"))[:-1] == theirs[:-1]


@pytest.mark.parametrize("line", ["'", '"', "python 'x", 'python "x', "python \\", " ", "''", "'' -I", None])
def test_lines_that_are_none(line):
    group = execnet_c.Group()
    spec = "popen//python" if line is None else f"popen//python={line}"
    try:
        with pytest.raises((ValueError, OSError)) as error:
            group.makegateway(spec)
        assert "python" in str(error.value) or error.value.errno, error.value
        assert list(group) == []
    finally:
        group.terminate(timeout=1.0)


def test_an_empty_line_is_this_very_interpreter():
    """As in execnet."""
    execnet = pytest.importorskip("execnet")
    assert execnet.gateway_io.popen_args(execnet.XSpec("popen//python="))[0] == sys.executable
    group = execnet_c.Group()
    try:
        gw = group.makegateway("popen//python=")
        assert gw.remote_exec("import sys; channel.send(sys.executable)").receive(TIMEOUT) == sys.executable
    finally:
        group.terminate(timeout=TIMEOUT)
