"""A far end that has used up its memory: what failed is told, whole, and the rest goes on."""

import inspect
import sys
import textwrap

import pairing
import pytest
from conftest import TIMEOUT
from far_ends import PLAIN

FAR_ENDS = [None, *[end for end in PLAIN if end.name.startswith(("cpython3.8", "cpython3.9", "cpython3.13"))]]

pytestmark = [
    pytest.mark.ours,
    pytest.mark.not_under("asan tsan", "it limits memory"),
    pytest.mark.parametrize("far", FAR_ENDS, ids=lambda end: end.name if end else "popen"),
]


@pytest.fixture
def limited(group, far, monkeypatch):
    """The limit of a far end's memory is that much above what it has: limited(MiB) is its gateway. It starts
    no threads for tasks: each wants 8 more."""
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")  # no room that is there already
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "131072")

    def start(room):
        gw = group.makegateway((far.spec() if far else "popen") + "//execmodel=main_thread_only")
        gw.remote_exec(_limit_memory, room=room << 20).waitclose(TIMEOUT)
        return gw

    return start


def _limit_memory(channel, room):
    import resource

    with open("/proc/self/statm") as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + room, -1))


def _count(channel, items):
    channel.send(len(items))


def test_a_task_or_an_item_of_many_small_objects(limited, far):
    """What was half loaded is gone when the words for that are made."""
    if "3.13" in far.name if far else "t" in sys.abiflags or pairing.far == "Python" and sys.version_info >= (3, 10):
        pytest.skip("its allocator asks the system twice for each object")
    gw, items = limited(16), list(range(600_000))
    channel = gw.remote_exec(_count, items=items)
    with pytest.raises(channel.RemoteError, match="MemoryError: no memory for a task of 66[0-9]{5} bytes"):
        channel.receive(TIMEOUT)
    channel = gw.remote_exec("channel.send(len(channel.receive()))")
    channel.send(items)
    with pytest.raises(channel.RemoteError, match="MemoryError"):
        channel.receive(TIMEOUT)
    assert gw.remote_exec(_count, items=items[:10]).receive(TIMEOUT) == 10


def _take(channel, texts, other):
    channel.send(len(texts))


@pytest.mark.parametrize("what", ["a task", "an item"])
def test_what_is_refused_leaves_nobody_waiting_for_the_channel_that_it_carries(limited, what):
    gw = limited(16)
    other, texts = gw.newchannel(), ["xB" * 200] * 100_000
    if what == "an item":
        channel = gw.remote_exec("channel.send(len(channel.receive()))")
        channel.send((texts, other))
    else:
        channel = gw.remote_exec(_take, texts=texts, other=other)
    with pytest.raises(channel.RemoteError, match="MemoryError"):
        channel.receive(TIMEOUT)
    with pytest.raises(EOFError):
        other.receive(TIMEOUT)
    assert gw.remote_exec(_count, items=[1] * 10).receive(TIMEOUT) == 10


def _fill(channel):
    held = []
    try:
        while True:
            held.append(bytearray(1 << 16))
    except MemoryError:
        pass
    while True:
        held.append([None])


FILL = textwrap.dedent("".join(inspect.getsourcelines(_fill)[0][1:]))


@pytest.mark.parametrize("task", [_fill, FILL], ids=["function", "text"])
def test_a_task_that_takes_it_all(limited, task):
    """What its variables hold is gone when its end is told, or there is memory put by for that."""
    gw = limited(24)
    for _ in range(2):
        channel = gw.remote_exec(task)
        with pytest.raises(channel.RemoteError, match="MemoryError") as caught:
            channel.receive(TIMEOUT)
        assert caught.value.remote_type == "MemoryError"
        assert gw.remote_exec(_count, items=[1] * 10).receive(TIMEOUT) == 10


def _drop_with_full_memory(channel):
    dropped = channel.gateway.newchannel()
    channel.send(dropped)
    channel.receive()
    held = []
    for size in (1 << 16, 1 << 12, 1 << 10, 400):
        try:
            while True:
                held.append(bytes(size))
        except MemoryError:
            pass
    del dropped
    del held


def test_a_channel_that_goes_while_there_is_no_memory_is_closed_later(limited, capfd):
    channel = limited(24).remote_exec(_drop_with_full_memory)
    dropped = channel.receive(TIMEOUT)
    channel.send(1)
    channel.waitclose(TIMEOUT)
    dropped.waitclose(TIMEOUT / 6)
    assert capfd.readouterr().err == ""
