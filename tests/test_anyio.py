"""execnet_c.anyio: channels and streams in programs on anyio, on asyncio and on trio. Each test would hang, were an end forgotten."""

import contextlib
import os
import threading
import time

import anyio
import pytest

import execnet_c
import pooled
from execnet_c import anyio as ours
from gateways import gw_fixture, group_fixture, inner_fixture, outer_fixture, pid_of  # noqa: F401  (fixtures)
from masters import TIMEOUT, is_gone, wait_until

pytestmark = pytest.mark.ours

ECHO = "for item in channel: channel.send(item)"


@pytest.fixture(params=["asyncio", "trio"])
def run(request, monkeypatch):
    if request.param == "trio":
        caches = pytest.importorskip("trio._core._thread_cache")
        monkeypatch.setattr(caches, "IDLE_TIMEOUT", 0.1)  # seconds for which trio keeps a thread, else 10

    def run(function):
        async def limited():
            with anyio.fail_after(TIMEOUT):
                return await function()

        return anyio.run(limited, backend=request.param)

    yield run
    ours._close_bells()


def test_items_come_and_go(gw, run):
    async def main():
        channel = await ours.remote_exec(gw, ECHO)
        for item in (1, "two", [3.0, None], bytes(3 << 20)):
            await ours.send(channel, item)
            assert await ours.receive(channel) == item
        with pytest.raises(TypeError):
            await ours.remote_exec(gw, "0", a=1)

    run(main)


def test_a_loop_gets_all_and_ends(gw, run):
    async def main():
        channel = await ours.remote_exec(gw, "for n in range(1000): channel.send(n)")
        return [item async for item in ours.items(channel)]

    assert run(main) == list(range(1000))


def test_a_wait_ends_in_time(gw, run):
    channel = gw.remote_exec(ECHO)

    async def main():
        for timeout in (0, 0.05):
            with pytest.raises(channel.TimeoutError, match=f"no item after {timeout} seconds"):
                await ours.receive(channel, timeout)
        channel.send(1)
        assert await ours.receive(channel, TIMEOUT) == 1

    run(main)


def test_one_that_is_cancelled_has_taken_nothing(gw, run):
    channel = gw.remote_exec(ECHO)

    async def main():
        seen = []
        for n in range(200):
            with anyio.move_on_after(0.0001 * (n % 7)):
                channel.send(n)
                seen.append(await ours.receive(channel))
        channel.send(None)
        while (item := await ours.receive(channel)) is not None:
            seen.append(item)
        return seen

    assert run(main) == list(range(200))


def test_a_send_that_is_cancelled_has_sent_nothing(gw, run):
    """Where the far end does not take it: the channel has a limit."""
    channel = gw.remote_exec("channel.set_limit(1000)\nchannel.send('set')\nwhile channel.receive() != 0: pass\nchannel.send('end')")

    async def main():
        assert await ours.receive(channel) == "set"
        task = gw.remote_exec("import time; channel.receive()")  # the main thread of a far end with one thread is busy now
        sent = 0
        for _ in range(200):
            with anyio.move_on_after(0.001):
                await ours.send(channel, b"x" * 900)
                sent += 1
        await ours.send(channel, 0)
        assert await ours.receive(channel) == "end"
        task.close()
        return sent

    assert 0 < run(main) <= 200


def test_many_wait_at_once_on_one_thread(gw, run):
    async def main():
        channels = [gw.remote_exec(ECHO) for _ in range(50)]
        before = threading.active_count()
        got = []

        async def one(channel):
            got.append(await ours.receive(channel))

        async with anyio.create_task_group() as tasks:
            for channel in channels:
                tasks.start_soon(one, channel)
            await anyio.sleep(0.1)
            assert threading.active_count() == before
            for n, channel in enumerate(channels):
                channel.send(n)
        assert sorted(got) == list(range(50))

    run(main)


def test_an_error_and_a_death_have_their_causes(group, run):
    gateway = group.makegateway()

    async def main():
        channel = gateway.remote_exec("1 / 0")
        with pytest.raises(execnet_c.RemoteError, match="ZeroDivisionError"):
            await ours.receive(channel)
        channel = gateway.remote_exec("import os; channel.receive(); os.kill(os.getpid(), 9)")
        await ours.send(channel, 1)
        with pytest.raises(execnet_c.GatewayDied, match="SIGKILL"):
            async for _ in ours.items(channel):
                pass

    run(main)


def test_a_stream_comes_in_order_and_others_go_on(run):
    async def main():
        ticks = []

        async def tick():
            while True:
                await anyio.sleep(0.01)
                ticks.append(1)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(tick)
            results = [result async for result in ours.pipe(pooled.square, iter(range(300)), max_workers=2)]
            async with contextlib.aclosing(ours.pipe(pooled.sleep, [0.3], max_workers=1)) as more:
                assert [result async for result in more] == [0.3]
            tasks.cancel_scope.cancel()
        assert len(ticks) > 5
        return results

    assert run(main) == [n * n for n in range(300)]


def test_a_stream_that_is_cancelled_ends_its_workers(group, run):
    gateway = group.makegateway()
    pid = pid_of(gateway)

    async def main():
        async with contextlib.aclosing(ours.pipe(pooled.deaf, [0, (600,)], group=[gateway], batch_size=1)) as results:
            assert await results.__anext__() == 0
            begin = time.monotonic()
            with anyio.move_on_after(0.3):
                await results.__anext__()
        assert time.monotonic() - begin < 10

    run(main)
    assert wait_until(lambda: is_gone(pid))
    assert list(group.pipe(pooled.square, [3])) == [9]


def test_a_forked_child_leaves_the_parents_waits_alone(group, run):
    channel = group.makegateway().remote_exec(ECHO)

    async def main():
        with pytest.raises(channel.TimeoutError):
            await ours.receive(channel, 0.05)
        pid = os.fork()
        if not pid:
            os._exit(len(ours._bells))
        assert os.waitpid(pid, 0)[1] == 0
        channel.send(1)
        assert await ours.receive(channel, TIMEOUT) == 1

    run(main)
