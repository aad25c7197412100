"""Nothing grows, however often it is done."""

import atexit
import ctypes
import gc
import io
import os
import sys
import threading

import execnet_c
import pytest
from conftest import TIMEOUT, Footprint, wait_until
from gateways import group_fixture  # noqa: F401 (fixtures)

pytestmark = pytest.mark.not_under("asan tsan", "it counts memory")

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


LIBC = ctypes.CDLL(None)  # once: in a free-threaded Python 3.13 each one stays


def malloced():
    """Bytes that malloc has given out: what the core holds, and large objects. 0 where malloc does not tell."""
    try:
        mallinfo2 = LIBC.mallinfo2
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
