"""EXECNET_DEBUG: where its lines go, and that they tell of the same frames as execnet's do."""

import os
import re
import subprocess
import sys
from collections import Counter

import execnet_c
import pairing
import pytest
from conftest import TIMEOUT
from pairing import module as core

PROGRAM = """
import os, {lib} as lib
gateway = lib.makegateway("popen")
channel = gateway.remote_exec("import os; channel.send(os.getpid()); channel.send(channel.receive() * 2)")
far = channel.receive()
channel.send("ab")
assert channel.receive() == "abab"
channel.waitclose()
print(os.getpid(), far, flush=True)
{more}
lib.default_group.terminate()
"""


class Done:
    def __init__(self, out, err, folder):
        self.near, self.far = map(int, out.split()[:2])
        self.out = out
        self.err = err
        self.files = {name: (folder / name).read_text() for name in os.listdir(folder)}


@pytest.fixture
def run(tmp_path):
    """run(value, lib): the program with EXECNET_DEBUG=value (None: unset) and a directory for temporary files of its own."""

    def run(value, lib="execnet_c", more="", before=""):
        env = {**os.environ, "TMPDIR": str(tmp_path)}
        env.pop("EXECNET_DEBUG", None)
        if value is not None:
            env["EXECNET_DEBUG"] = value
        head = pairing.HEAD if lib == "execnet_c" else ""
        done = subprocess.run(
            [sys.executable, "-c", before + head + PROGRAM.format(lib=lib, more=more)],
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            timeout=TIMEOUT,
        )
        assert done.returncode == 0, done.stderr
        return Done(done.stdout, done.stderr, tmp_path)

    return run


# A frame as one of the two writes it.
FRAMES = {
    "execnet": re.compile(r"(sent|received) <Message (?:CHANNEL|GATEWAY)_(\w+) channel=(-?\d+) lendata=(\d+)>$"),
    "execnet_c": re.compile(r"(sent|received) (\w+) channel (-?\d+) (\d+) bytes$"),
}


def frames(lib, lines):
    """Those that both have, counted. The size only where it must be the same: of items."""
    found = Counter()
    for line in lines:
        match = FRAMES[lib].search(line)
        if match and match[2] != "HELLO":
            found[match[1], match[2], int(match[3]), int(match[4]) if match[2] == "DATA" else None] += 1
    return found


def expected():
    there = [("EXEC", 1, None), ("DATA", 1, 8), ("TERMINATE", 0, None)]
    back = [("DATA", 1, 6), ("DATA", 1, 10), ("CLOSE", 1, None)]
    near = Counter([("sent", *one) for one in there] + [("received", *one) for one in back])
    far = Counter([("received", *one) for one in there] + [("sent", *one) for one in back])
    return near, far


def test_2_has_the_lines_on_stderr(lib, run):
    name = lib.__name__
    done = run("2", name)
    assert done.files == {}
    by_pid = {done.near: [], done.far: []}
    for line in done.err.splitlines():
        pid, text = re.fullmatch(r"\[(\d+)\] (.+)", line).groups()
        by_pid[int(pid)].append(text)
    assert (frames(name, by_pid[done.near]), frames(name, by_pid[done.far])) == expected()


@pytest.mark.parametrize("value", ["1", "0", "anything"])
def test_any_other_value_has_them_in_a_file_for_each_process(lib, run, value):
    name = lib.__name__
    done = run(value, name)
    assert done.err == ""
    near, far = (done.files.pop(f"execnet-debug-{pid}").splitlines() for pid in (done.near, done.far))
    assert done.files == {}
    assert (frames(name, near), frames(name, far)) == expected()


@pytest.mark.parametrize("value", ["", None])
def test_without_a_value_there_is_nothing(lib, run, value):
    done = run(value, lib.__name__)
    assert (done.err, done.files) == ("", {})


def test_processes_and_ends_of_connections(run):
    done = run("1")
    near, far = (done.files[f"execnet-debug-{pid}"] for pid in (done.near, done.far))
    assert f"[{done.near}] started process {done.far}: {sys.executable}\n" in near
    assert f"[{done.near}] process {done.far} ended: 0\n" in near
    assert f"[{done.near}] connection ended: XC_EOF" in near
    assert f"[{done.far}] connection ended: XC_CLOSED" in far


def test_nobody_else_can_read_the_file(run):
    done = run("1", more="print(oct(os.stat(os.environ['TMPDIR'] + f'/execnet-debug-{far}').st_mode & 0o777))")
    assert done.out.split()[-1] == "0o600"


def test_a_link_in_the_place_of_the_file_is_not_followed(run, tmp_path):
    """The program works all the same, and says why there are no lines."""
    before = "import os; os.symlink('victim', os.environ['TMPDIR'] + f'/execnet-debug-{os.getpid()}')\n"
    (tmp_path / "victim").write_text("untouched")
    done = run("1", before=before)
    assert done.files["victim"] == "untouched"
    assert done.files[f"execnet-debug-{done.far}"]
    [said] = done.err.splitlines()
    assert "no trace" in said and f"execnet-debug-{done.near}" in said


def test_a_leftover_of_another_process_with_that_number_is_forgotten(run):
    before = "import os; open(os.environ['TMPDIR'] + f'/execnet-debug-{os.getpid()}', 'w').write('leftover')\n"
    done = run("1", before=before)
    assert done.files[f"execnet-debug-{done.near}"].startswith(f"[{done.near}] ")


def test_a_forked_child_writes_on_under_its_own_number(run):
    more = """
from execnet_c.cores import module as core
child = os.fork()
if child == 0:
    core._trace("in the child")
    os._exit(0)
os.waitpid(child, 0)
print(child)
"""
    done = run("1", more=more)
    child = int(done.out.split()[-1])
    assert f"[{child}] in the child\n" in done.files[f"execnet-debug-{done.near}"]


@pytest.mark.skipif(pairing.name != pairing.DEFAULT, reason="only the C core loses lines rather than wait")
def test_a_full_stderr_loses_lines_and_holds_up_nothing():
    program = pairing.HEAD + PROGRAM.format(
        lib="execnet_c",
        more="""
channel = gateway.remote_exec("for item in channel: channel.send(item)")
for i in range(10000):
    channel.send(i)
    assert channel.receive() == i
print("through", flush=True)
""",
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "EXECNET_DEBUG": "2"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    with process:
        try:
            assert process.stdout.readline().split()[0] == str(process.pid)
            assert process.stdout.readline() == "through\n"  # nobody has read stderr so far
            assert process.wait(TIMEOUT) == 0
        finally:
            process.kill()
        said = process.stderr.read()
    lines = said.splitlines()
    assert 100 < len(lines) < 40000
    assert f"[{process.pid}] sent EXEC channel 1 " in said


# --- the core's part ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", autouse=True)
def kept_fd(floor):
    """From its first line on the core keeps one fd for good: have it before fds are counted."""
    fd = os.open(os.devnull, os.O_WRONLY)
    core._trace_to(fd)
    core._trace_to(-1)
    os.close(fd)


@pytest.fixture
def traced(tmp_path):
    path = tmp_path / "trace"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    core._trace_to(fd)
    yield path.read_text
    core._trace_to(-1)
    os.close(fd)


def test_lines_from_python(traced):
    for text in ("one", "gr\xfc\xdfe \u20ac \U0001f40d", "half \udc80 a pair"):
        core._trace(text)
    core._trace_to(-1)
    core._trace("too late")
    assert traced() == "".join(f"[{os.getpid()}] {text}\n" for text in ("one", "gr\xfc\xdfe \u20ac \U0001f40d", "half ? a pair"))


@pytest.mark.c_interface("near")
def test_a_line_is_one_line(traced):
    core._trace("two\nlines\rand\0more")
    core._trace("x" * 5000)
    core._trace("last")
    first, second, last = traced().splitlines()
    assert first.endswith("] two?lines?and")
    assert set(second.partition("] ")[2]) == {"x"} and len(second) == 999
    assert last.endswith("] last")


@pytest.mark.c_interface("near")
def test_wrong_arguments(traced):
    with pytest.raises(TypeError):
        core._trace(b"bytes")
    with pytest.raises(TypeError):
        core._trace_to("2")
    with pytest.raises(OSError):
        core._trace_to(10**6)
    core._trace("as before")
    assert traced().endswith("] as before\n")


def test_the_frames_of_this_process(traced):
    gateway = execnet_c.makegateway("popen")
    gateway.remote_exec("channel.send(1)").receive(TIMEOUT)
    channel = gateway.newchannel()
    gateway._send(core.STATUS, channel.id)
    channel.receive(TIMEOUT)
    channel.waitclose(TIMEOUT)
    gateway.exit()
    gateway.join(TIMEOUT)
    said = traced()
    for line in (
        r"sent EXEC channel 1 \d+ bytes",
        "received DATA channel 1 6 bytes",
        "sent STATUS channel 3 0 bytes",
        r"received DATA channel 3 \d+ bytes",
        "received CLOSE channel 3 0 bytes",
        "sent TERMINATE channel 0 0 bytes",
        "connection ended: XC_EOF",
    ):
        assert re.search(rf"^\[{os.getpid()}\] {line} *$", said, re.MULTILINE), (line, said)
    execnet_c.default_group.terminate(timeout=TIMEOUT)
