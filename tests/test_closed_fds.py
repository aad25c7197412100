"""A program that closes every fd of its process, as daemons do, and goes on: other files get our numbers."""

import subprocess
import sys

import pairing
import pytest

from conftest import TIMEOUT

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
fails(lambda: idle.remote_exec("channel.send(1)").receive(60))
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
