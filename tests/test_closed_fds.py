"""A program that closes every fd of its process, as daemons do, and goes on: other files get our numbers."""

import subprocess
import sys

import pairing
import pytest

import execnet_c
from conftest import TIMEOUT
from far_ends import PLAIN

pytestmark = pytest.mark.ours

# What the connection had written to, read from or closed shows in the files that got its numbers.
PROGRAM = pairing.HEAD + """
import asyncio, os, signal, sys, tempfile, threading, time
import execnet_c

spec, takes, first = sys.argv[1:]
group = execnet_c.Group()
idle = group.makegateway(spec)
idle.remote_exec("channel.send(1)").receive(60)
gateway = group.makegateway(spec)
channel = gateway.remote_exec("import os; channel.send(os.getpid())\\nfor item in channel: channel.send(item)")
pid = channel.receive(60)
channel.send(1)
assert channel.receive(60) == 1
if first == "wait":
    told = []
    def wait():
        try:
            told.append(channel.receive())
        except BaseException as exc:
            told.append(exc)
    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.2)  # it sleeps
    os.kill(pid, signal.SIGSTOP)  # so that nothing more comes
if takes == "copies":  # nothing hangs up: who sleeps on what was there sleeps on
    for fd in map(int, os.listdir("/proc/self/fd")):
        try:
            os.dup2(fd, 500 + fd, False)
        except OSError:
            pass
os.closerange(3, 256)
if takes == "asyncio":
    loops = [asyncio.new_event_loop() for number in range(10)]
files = []
for number in range(60 if takes == "files" else 0):
    file = tempfile.TemporaryFile(buffering=0)
    file.write(b"its owner's")
    file.seek(0)
    files.append(file)

def check(where):
    for file in files:
        about = os.fstat(file.fileno()).st_size, file.tell()
        assert about == (11, 0), (where, file.fileno(), about, file.read())

def fails(act):
    try:
        result = act()
    except execnet_c.GatewayDied as exc:
        assert "closed" in str(exc), exc
    else:
        raise AssertionError(f"nothing failed: {result}")

if first == "wait":
    os.kill(pid, signal.SIGKILL)
    thread.join(60)
    assert [type(exc) for exc in told] == [execnet_c.LinkLost] and "closed" in str(told[0]), told
    check("wait")
def send():
    while True:  # what is sent through memory may have been taken
        channel.send(b"x" * 100)
        time.sleep(0.01)

def receive():
    while True:
        channel.receive(60)

acts = {"send": send, "receive": receive}
for act in sorted(acts, key=lambda act: act != first):
    fails(acts[act])
    check(act)
for loop in loops if takes == "asyncio" else ():
    assert loop.run_until_complete(loop.run_in_executor(None, lambda: 7)) == 7
    loop.close()
try:
    result = idle.remote_exec("channel.send(1)").receive(60)
    assert result == 1 and "pipe" not in spec, result  # memory carries it, until the I/O thread sees to the fds
except execnet_c.GatewayDied as exc:
    assert "closed" in str(exc), exc
check("the other")
for file in files[30:]:
    file.close()
del files[30:]
fresh = group.makegateway(spec)
assert fresh.remote_exec("channel.send(2)").receive(60) == 2
group.terminate(1 if takes == "copies" else 10)  # with copies they are not hung up on, and are killed
check("the end")
print("good")
"""


@pytest.mark.parametrize("first", ["send", "receive", "wait"])
@pytest.mark.parametrize("takes", ["files", "asyncio", "nobody", "copies"])
@pytest.mark.parametrize("spec", ["popen", "popen//transport=pipe"])
def test_a_program_that_closes_them_all(spec, takes, first):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, spec, takes, first], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=2 * TIMEOUT
    )
    assert (done.stdout, done.stderr, done.returncode) == ("good\n", "", 0)


def close_all_and_go_on(channel, place, act):
    import os
    import signal
    import sys
    import time

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the end of the connection is to leave it alone for a while
    os.closerange(3, 256)
    files = [os.open(f"{place}/{number}", os.O_RDWR | os.O_CREAT) for number in range(20)]
    for file in files:
        os.write(file, b"its owner's")
    time.sleep(0.01)
    if act == "raise":
        raise ValueError("of the task")
    if act == "fork":
        pid = os.fork()
        if not pid:
            for file in files:
                os.write(file, b" child's")
            os._exit(0)
        os.waitpid(pid, 0)
    for _ in range(100 if act == "print" else 0):
        print("a word", file=sys.stderr)
        time.sleep(0.005)


@pytest.mark.parametrize("act", ["raise", "end", "fork", "print"])
@pytest.mark.parametrize("spec", ["popen", "popen//transport=pipe", *PLAIN[:1]], ids=["popen", "pipe", "bare"])
def test_a_task_that_closes_them_all(group, tmp_path, spec, act):
    """Not even the words with which the worker's connection breaks go to files of the task."""
    gw = group.makegateway(spec if isinstance(spec, str) else spec.spec())
    channel = gw.remote_exec(close_all_and_go_on, place=str(tmp_path), act=act)
    with pytest.raises(execnet_c.GatewayDied):
        channel.waitclose(TIMEOUT)
    assert gw._wait_gone(TIMEOUT)
    wanted = b"its owner's child's" if act == "fork" else b"its owner's"
    assert [file.read_bytes() for file in tmp_path.iterdir()] == 20 * [wanted]


# What one connection writes to is replaced while another one is busy.
ONE_OF_TWO = pairing.HEAD + """
import fcntl, os, sys, tempfile, time
import execnet_c

group = execnet_c.Group()
ECHO = "for item in channel: channel.send(item)"
busy = group.makegateway("popen").remote_exec(ECHO)
before = {*os.listdir("/proc/self/fd")}
channel = group.makegateway("popen//transport=pipe").remote_exec(ECHO)
channel.send(1)
assert channel.receive(60) == 1
file = tempfile.TemporaryFile(buffering=0)
for fd in map(int, {*os.listdir("/proc/self/fd")} - before):
    try:
        if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY:
            if sys.argv[1] == "copy":  # the far end sees no end
                os.dup(fd)
            os.dup2(file.fileno(), fd)
    except OSError:
        pass  # it was listdir's
time.sleep(0.01)
try:
    for _ in range(500):
        busy.send(1)
        channel.send(2)
        assert busy.receive(60) == 1
except execnet_c.GatewayDied as exc:
    assert "closed" in str(exc), exc
else:
    raise AssertionError("nothing failed")
assert file.tell() == os.fstat(file.fileno()).st_size == 0
group.terminate(1)
print("good")
"""


@pytest.mark.parametrize("keeps", ["copy", "nothing"])
def test_what_is_behind_a_connection_s_fds_is_seen_whatever_others_do(keeps):
    done = subprocess.run(
        [sys.executable, "-c", ONE_OF_TWO, keeps], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=2 * TIMEOUT
    )
    assert (done.stdout, done.stderr, done.returncode) == ("good\n", "", 0)
