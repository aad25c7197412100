"""Nothing breaks when memory runs out at any point."""

import subprocess
import sys

import pairing
import pytest

# `act` is done again and again with the interpreter's allocator failing at its 1st, 2nd, 3rd allocation (alone, and
# from that one on), until it gets through. Nothing but MemoryError may come of it; afterwards all must work as before.
STARVE = """
import faulthandler, gc, os, sys, time
import execnet_c
from _testcapi import set_nomemory, remove_mem_hooks

faulthandler.dump_traceback_later(100, exit=True)
prepare = settle = lambda: None
value = [("word", "tag"), {"a": 1.5, "b": [None, True, 2**70, -(2**40)]}, {1, 2}, frozenset([3]), b"bytes", 1j, "\\xfc"]
data = execnet_c.dumps(value)
#SUBJECT#

def attempt(first, last):
    prepare()
    failed = False
    set_nomemory(first, last)
    try:
        act()
    except MemoryError:
        failed = True
    finally:
        remove_mem_hooks()
    settle()
    return failed

def starve(alone):
    for first in range(5000):
        if not attempt(first, first + 1 if alone else 0) and (not alone or first > enough):
            return first
    sys.exit("it never gets through")

def target_of(fd):
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except FileNotFoundError:
        return None  # just closed

def footprint():
    gc.collect()
    folder = "/proc/self/fd"
    fds = [*filter(None, map(target_of, os.listdir(folder)))]
    threads = len(os.listdir("/proc/self/task"))
    # A thread gets an eventfd when it first sleeps while another reads, which may be late; and the pump has one.
    fds = len(fds) - min(fds.count("anon_inode:[eventfd]"), threads + 1)
    return sys.getallocatedblocks(), fds, threads

attempt(10**6, 0)
enough = starve(False)
if not enough:
    sys.exit(print("nothing was allocated, nothing refused"))

def starve_often():
    for _ in range(10):
        starve(False)
        starve(True)

starve_often()  # the interpreter's free lists fill up
before = footprint()
starve_often()
after = footprint()
assert after[0] - before[0] < enough * 5 + 50 and after[1:] == before[1:], (before, after)
attempt(10**6, 0)
print("good", enough)
"""

GATEWAY = """
gateway = execnet_c.makegateway("popen")
channel = gateway.remote_exec("for item in channel: channel.send(item)")

def drain():
    channel.send(None)
    while channel.receive(30) is not None:
        pass

def check():
    drain()
    channel.send(value)
    assert channel.receive(30) == value
    # The far end may still be putting away the last task's channel.
    deadline = time.monotonic() + 30
    while gateway.remote_status().numchannels > 2:
        assert time.monotonic() < deadline

settle = check
"""

SUBJECTS = {
    "dumps": "act = lambda: execnet_c.dumps(value)",
    "dumps of much": "much = [value] * 100\nact = lambda: execnet_c.dumps(much)",
    "dumps in vain": """
bad = [value, {"key": (1, object())}]
def act():
    try:
        execnet_c.dumps(bad)
    except execnet_c.DumpError:
        pass
""",
    "loads": "act = lambda: execnet_c.loads(data)",
    "loads in vain": """
bad = data[:-3]
def act():
    try:
        execnet_c.loads(bad)
    except execnet_c.LoadError:
        pass
""",
    "dump": """
class File:
    def write(self, data):
        pass
file = File()
act = lambda: execnet_c.dump(file, value)
""",
    "load": """
import io
file = io.BytesIO(data)
prepare = lambda: file.seek(0)
act = lambda: execnet_c.load(file)
""",
    "send": GATEWAY + "act = lambda: channel.send(value)",
    "send of much": GATEWAY + """
much = b"x" * 1_000_000
many = [much] * 10
act = lambda: channel.send(many)
""",
    "receive": GATEWAY + """
def prepare():
    channel.send(value)
act = lambda: channel.receive(30)
""",
    "receive of much": GATEWAY + """
much = b"x" * 1_000_000
def prepare():
    channel.send(much)
act = lambda: channel.receive(30)
""",
    "receive in vain": GATEWAY + """
def act():
    try:
        channel.receive(0)
    except channel.TimeoutError:
        pass
""",
    "receive of an error": GATEWAY + """
def prepare():
    global failing
    failing = gateway.remote_exec("1 / 0")
    assert gateway.remote_status()
def act():
    try:
        failing.receive(30)
    except failing.RemoteError:
        pass
def settle():
    try:
        failing.waitclose(30)  # so that no error stays unheard
    except failing.RemoteError:
        pass
    check()
""",
    "newchannel": GATEWAY + "act = lambda: gateway.newchannel().close()",
    "setcallback": GATEWAY + """
items = []
def prepare():
    global quiet
    quiet = gateway.newchannel()
act = lambda: quiet.setcallback(items.append)
def settle():
    quiet.close()
    check()
""",
    "remote_exec": GATEWAY + """
act = lambda: gateway.remote_exec("channel.receive()").close()
""",
    "start": """
from execnet_c.cores import module
def prepare():
    global gateway, fds
    gateway, fds = module.Gateway(), footprint()[1]
act = lambda: gateway._start(["true", "argument"], None)
def settle():
    global gateway
    try:
        gateway._wait_gone(30)
    except OSError:
        pass  # it was not started
    gateway, deadline = None, time.monotonic() + 30
    while footprint()[1] > fds:
        assert time.monotonic() < deadline
""",
}


@pytest.mark.skipif("t" in sys.abiflags, reason="without a GIL Python itself crashes where memory lacks")
@pytest.mark.c_interface("near")
@pytest.mark.parametrize("subject", SUBJECTS)
def test_want_of_memory(subject):
    testcapi = pytest.importorskip("_testcapi", reason="this Python was built without _testcapi")
    if not hasattr(testcapi, "set_nomemory"):
        pytest.skip("this Python's _testcapi has no set_nomemory")
    done = subprocess.run(
        [sys.executable, "-c", pairing.HEAD + STARVE.replace("#SUBJECT#", SUBJECTS[subject])],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=110,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr[-3000:]
    if done.stdout.startswith("nothing"):
        pytest.skip(f"{done.stdout.rstrip()}, on this Python")
    assert done.stdout.startswith("good")
