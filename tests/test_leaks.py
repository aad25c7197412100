"""Nothing grows, however often it is done; and nothing breaks when memory runs out at any point."""

import atexit
import ctypes
import gc
import io
import os
import subprocess
import sys
import threading

import execnet_c
import pairing
import pytest
from conftest import TIMEOUT, Footprint, wait_until

PAGE = os.sysconf("SC_PAGE_SIZE")
MIB = 1024 * 1024


def rss():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * PAGE


class MallocInfo(ctypes.Structure):
    """glibc's struct mallinfo2."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
    ]


def malloced():
    """Bytes that malloc has given out: what the core holds, and large objects. 0 where malloc does not tell."""
    try:
        mallinfo2 = ctypes.CDLL(None).mallinfo2
    except AttributeError:
        return 0
    mallinfo2.restype = MallocInfo
    info = mallinfo2()
    return info.uordblks + info.hblkhd


class Memory:
    def __init__(self):
        for _ in range(4):  # each lets go of one more level of nested tuples: those are no news
            gc.collect()
        self.objects = len(gc.get_objects())
        self.blocks = sys.getallocatedblocks()
        self.malloced = malloced()
        self.rss = rss()


def grown(before):
    """What of the system there is more of."""
    after = Footprint()
    kinds = ("fds", "tasks", "threads", "children")
    return {kind: len(getattr(after, kind)) for kind in kinds if len(getattr(after, kind)) > len(getattr(before, kind))}


def assert_steady(function, warm_up, times, megabytes=4):
    """`function` is called again and again: after the first `warm_up` calls, nothing grows any more.

    What grows with `times` calls, and again with as many, and so on, is a leak; what grows once is a cache of the
    interpreter's. An object or 32 bytes that are lost in each call are beyond the bounds.
    """
    for _ in range(warm_up):
        function()
    footprint = Footprint()
    bounds = {
        "objects": max(times // 2, 10),
        "blocks": times // 2 + 100,
        "malloced": times * 32 + 50_000,
        "rss": megabytes * MIB,
    }
    for _ in range(4):
        before = Memory()
        for _ in range(times):
            function()
        assert wait_until(lambda: grown(footprint) == {}, 10.0), grown(footprint)

        def excess():
            after = Memory()
            more = {name: getattr(after, name) - getattr(before, name) for name in bounds}
            return {name: number for name, number in more.items() if number >= bounds[name]}

        # Threads that are done may still be letting go of what they held.
        if wait_until(lambda: not excess(), 1.0):
            return
    assert not excess()


@pytest.fixture
def group():
    group = execnet_c.Group()
    yield group
    group.terminate(timeout=2.0)


@pytest.fixture
def gw(group):
    return group.makegateway("popen")


def channels_left(gw, at_most):
    """No more channels than these are left at the far end, once it has put away what it is done with."""
    return wait_until(lambda: gw.remote_status().numchannels <= at_most)


# --- the check itself -----------------------------------------------------------------------------------------------


def keep_objects(kept=[]):  # noqa: B006
    kept.append([])


def keep_memory(kept=[]):  # noqa: B006
    kept.append(b"x" * MIB)


def keep_malloced(kept=[]):  # noqa: B006
    kept.append(bytes(20_000))


def keep_numbers(kept=[]):  # noqa: B006
    kept += [float(len(kept)) for _ in range(12)]


def keep_an_fd(kept=[]):  # noqa: B006
    kept.append(open(os.devnull))


@pytest.mark.deep
@pytest.mark.parametrize("leak", [keep_objects, keep_numbers, keep_malloced, keep_memory, keep_an_fd])
def test_the_check_sees_a_leak(leak, monkeypatch):
    monkeypatch.setitem(globals(), "wait_until", lambda condition, timeout: condition())
    try:
        with pytest.raises(AssertionError):
            assert_steady(leak, 5, 20)
    finally:
        leak.__defaults__[0].clear()


# --- gateways -------------------------------------------------------------------------------------------------------


def test_gateways_come_and_go():
    def live():
        group = execnet_c.Group()
        channel = group.makegateway("popen").remote_exec("channel.send(channel.receive())")
        channel.send(1)
        assert channel.receive(TIMEOUT) == 1
        group.terminate(timeout=5.0)
        atexit.unregister(group._cleanup_atexit)  # it keeps the group until the program ends, as in execnet

    assert_steady(live, 3, 20)


def test_gateways_that_die():
    def live():
        group = execnet_c.Group()
        gateway = group.makegateway("popen")
        channel = gateway.remote_exec("import os; os._exit(3)")
        with pytest.raises(execnet_c.GatewayDied):
            channel.receive(TIMEOUT)
        group.terminate(timeout=5.0)
        atexit.unregister(group._cleanup_atexit)

    assert_steady(live, 3, 10)


def test_gateways_that_cannot_start(group):
    def fail():
        with pytest.raises(ValueError):
            group.makegateway("no=such//kind=1")
        with pytest.raises(execnet_c.RemoteError):
            group.makegateway("popen//chdir=/dev/null/nowhere")

    assert_steady(fail, 2, 6)
    assert len(group) == 0


def test_gateways_through_another_one(group):
    group.makegateway("popen//id=outer")

    def one():
        inner = group.makegateway("popen//via=outer")
        assert inner.remote_exec("channel.send(1)").receive(TIMEOUT) == 1
        inner.exit()
        assert inner._wait_gone(TIMEOUT)
        inner.join(TIMEOUT)
        group._reap([inner], TIMEOUT)

    assert_steady(one, 3, 10)


# --- channels -------------------------------------------------------------------------------------------------------


def test_channels_open_and_close(gw):
    def open_and_close():
        gw.newchannel().close()

    assert_steady(open_and_close, 100, 2000)
    assert channels_left(gw, 1)


def test_with_blocks(gw):
    def leave():
        with gw.newchannel():
            pass
        with pytest.raises(KeyError):
            with gw.newchannel() as channel:
                raise KeyError
        with pytest.raises(TypeError):
            channel.__exit__()

    assert_steady(leave, 100, 1000)
    assert channels_left(gw, 1)


def test_files(gw):
    def make():
        channel = gw.newchannel()
        channel.makefile(proxyclose=True).write("text")
        channel.makefile("r", True).close()
        with pytest.raises(ValueError):
            channel.makefile("x")
        with pytest.raises(TypeError):
            channel.makefile(x=1)

    assert_steady(make, 100, 1000)
    assert channels_left(gw, 1)


def test_channels_forgotten(gw):
    """Never closed, with items that nobody received, in a cycle."""

    def forget():
        channel = gw.newchannel()
        channel.itself = channel
        channel.send("unheard")

    assert_steady(forget, 200, 2000)
    gc.collect()
    assert channels_left(gw, 1)


def test_tasks(gw):
    def run():
        channel = gw.remote_exec("channel.send(channel.receive()); channel.send('unheard')")
        channel.send(1)
        assert channel.receive(TIMEOUT) == 1
        channel.waitclose(TIMEOUT)

    assert_steady(run, 50, 300)


def test_callbacks(gw):
    def listen():
        items = []
        channel = gw.remote_exec("channel.send(1)")
        channel.setcallback(items.append, endmarker=None)
        channel.waitclose(TIMEOUT)
        assert wait_until(lambda: items == [1, None])

    assert_steady(listen, 20, 200)


def test_callbacks_that_raise(gw):
    def listen():
        channel = gw.remote_exec("channel.receive(); channel.send(1); channel.receive()")
        channel.setcallback(lambda item: 1 / 0)
        channel.send(None)
        with pytest.raises(channel.RemoteError):
            channel.waitclose(TIMEOUT)

    assert_steady(listen, 300, 300)


def test_remote_errors(gw):
    def fail():
        channel = gw.remote_exec("1 / 0")
        with pytest.raises(channel.RemoteError, match="ZeroDivisionError"):
            channel.receive(TIMEOUT)

    assert_steady(fail, 20, 200)


def test_timeouts(gw):
    channel = gw.newchannel()

    def wait():
        with pytest.raises(channel.TimeoutError):
            channel.receive(0)
        with pytest.raises(channel.TimeoutError):
            channel.waitclose(0)
        with pytest.raises(channel.TimeoutError):
            channel.receive(0.0005)
        with pytest.raises(channel.TimeoutError):
            channel._await_item(0.0005)

    assert_steady(wait, 50, 500)


def test_large_payloads(gw):
    channel = gw.remote_exec("for item in channel: channel.send(item)")
    data = os.urandom(MIB) * 8

    def echo():
        channel.send(data)
        assert len(channel.receive(TIMEOUT)) == len(data)

    assert_steady(echo, 5, 40, megabytes=32)


def test_large_payloads_that_nobody_takes(gw):
    def forget():
        channel = gw.remote_exec("channel.send(b'x' * 4_000_000)")
        channel.waitclose(TIMEOUT)

    assert_steady(forget, 5, 40, megabytes=32)


def test_nested_values(gw):
    channel = gw.remote_exec("for item in channel: channel.send(item)")
    value = {"key": [("word", "tag", i, 1.5, None) for i in range(50)], (1, 2): {3, 4}, "inner": {"b": b"bytes"}}

    def echo():
        channel.send(value)
        assert channel.receive(TIMEOUT) == value

    assert_steady(echo, 50, 500)


def test_channels_in_values(gw):
    outer = gw.remote_exec("for inner in channel: inner.send(1); inner.close(); del inner; channel.send(None)")

    def pass_on():
        inner = gw.newchannel()
        outer.send(inner)
        assert outer.receive(TIMEOUT) is None
        assert inner.receive(TIMEOUT) == 1

    assert_steady(pass_on, 50, 500)
    assert channels_left(gw, 3)


def test_what_cannot_be_sent(gw):
    channel = gw.newchannel()

    def fail():
        with pytest.raises(execnet_c.DumpError):
            channel.send([1, ("x" * 100, object())])
        with pytest.raises(execnet_c.DumpError):
            channel.send({"x": [object], b"large": b"x" * 100_000})

    assert_steady(fail, 50, 300)


def test_threads_that_end(gw):
    channel = gw.remote_exec("for item in channel: channel.send(item)")

    def converse():
        channel.send(1)
        assert channel.receive(TIMEOUT) == 1

    def in_thread():
        thread = threading.Thread(target=converse)
        thread.start()
        thread.join(TIMEOUT)

    assert_steady(in_thread, 20, 200)


# --- serializer -----------------------------------------------------------------------------------------------------


def test_serializer():
    value = [("word", "tag"), {"a": 1.5, "b": [None, True, 2**70, -(2**40)]}, {1}, frozenset([3]), b"bytes", 1j, "ü"]
    data = execnet_c.dumps(value)

    def there_and_back():
        assert execnet_c.loads(execnet_c.dumps(value)) == value
        file = io.BytesIO()
        execnet_c.dump(file, value)
        file.seek(0)
        assert execnet_c.load(file) == value
        for end in range(0, len(data), 7):
            with pytest.raises(execnet_c.LoadError):
                execnet_c.loads(data[:end])
        for place in range(0, len(data), 5):
            try:
                execnet_c.loads(data[:place] + b"\xff" + data[place + 1 :])
            except execnet_c.LoadError:
                pass
        for bad in (object(), [[object()]], {1: object()}, (1, {2: [print]}), {"x": ["\ud800"]}):
            with pytest.raises(execnet_c.DumpError):
                execnet_c.dumps(bad)

    assert_steady(there_and_back, 20, 200)


# --- want of memory -------------------------------------------------------------------------------------------------

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
assert enough > 0, "nothing was allocated, nothing refused"

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
    assert done.stdout.startswith("good")
