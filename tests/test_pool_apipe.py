"""apipe(): what pipe() does, in an event loop that goes on meanwhile. Each test would hang, were an end forgotten."""

import asyncio
import os
import signal
import threading
import time

import pytest

import execnet_c
import pooled
from execnet_c import apipe
from gateways import group_fixture, pid_of  # noqa: F401  (a fixture)
from masters import TIMEOUT, is_gone, wait_until

pytestmark = pytest.mark.ours


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, TIMEOUT))


async def drawn(results):
    return [result async for result in results]


class Numbers:
    """An asynchronous source, which knows what was drawn and whether it was closed."""

    def __init__(self, end, pause=0.0):
        self.end, self.pause, self.closed = end, pause, False
        self.number = 0

    async def __aiter__(self):
        try:
            while self.number != self.end:
                await asyncio.sleep(self.pause)
                self.number += 1
                yield self.number - 1
        finally:
            self.closed = True


@pytest.mark.parametrize("kind", [range, Numbers, lambda end: (n for n in range(end))], ids=["range", "async", "generator"])
def test_results_come_in_order(kind):
    assert run(drawn(apipe(pooled.square, kind(500), max_workers=2))) == [n * n for n in range(500)]


def test_an_empty_stream_has_no_results():
    assert run(drawn(apipe(pooled.square, [], max_workers=1))) == []
    assert run(drawn(apipe(pooled.square, Numbers(0), max_workers=1))) == []


def test_groups_and_gateways(group):
    gateway = group.makegateway()
    group.makegateway()

    async def main():
        assert await drawn(group.apipe(pooled.square, range(10))) == [n * n for n in range(10)]
        assert await drawn(gateway.apipe(pooled.pid, range(4))) == [pid_of(gateway)] * 4

    run(main())


def test_the_loop_goes_on_meanwhile():
    async def main():
        ticks, over = 0, False

        async def tick():
            nonlocal ticks
            while not over:
                ticks += 1
                await asyncio.sleep(0.01)

        ticking = asyncio.create_task(tick())
        assert await drawn(apipe(pooled.sleep, [0.5], max_workers=1)) == [0.5]
        over = True
        await ticking
        return ticks

    assert run(main()) > 10


def test_many_streams_at_once_in_one_loop(group):
    group.makegateway()

    async def main():
        streams = [drawn(group.apipe(pooled.square, range(50))) for _ in range(10)]
        assert await asyncio.gather(*streams) == [[n * n for n in range(50)]] * 10

    run(main())


def test_no_thread_for_a_stream_that_runs(group):
    group.makegateway()

    async def main():
        names = set()
        async for _ in group.apipe(pooled.square, Numbers(200, 0.001), batch_size=1):
            names |= {thread.name for thread in threading.enumerate()}
        assert not [name for name in names if name.startswith(("execnet_c-feeder", "execnet_c-executor"))], names

    run(main())


def test_the_source_is_drawn_no_further_than_the_buffer():
    async def main():
        numbers = Numbers(-1)
        async with apipe(pooled.same, numbers, max_workers=1, buffersize=10) as results:
            async for number in results:
                await asyncio.sleep(0)
                assert numbers.number <= number + 1 + 10 + 1
                if number == 200:
                    break
        assert numbers.closed

    run(main())


def test_results_come_while_the_source_waits():
    async def main():
        more = asyncio.Event()

        async def source():
            yield 1
            await more.wait()
            yield 2

        results = apipe(pooled.square, source(), max_workers=1)
        assert await results.__anext__() == 1
        more.set()
        assert await drawn(results) == [4]

    run(main())


def test_what_the_source_raises_comes_behind_its_items():
    async def source():
        for n in range(3):
            yield n
        raise LookupError("no more")

    async def main():
        seen = []
        with pytest.raises(LookupError, match="no more"):
            async for result in apipe(pooled.square, source(), max_workers=1):
                seen.append(result)
        assert seen == [0, 1, 4]

    run(main())


def test_what_the_function_raises_comes_at_its_place():
    async def main():
        seen = []
        with pytest.raises(ZeroDivisionError) as raised:
            async for result in apipe(pooled.divide, [1, 2, 0, 4], max_workers=1):
                seen.append(result)
        assert seen == [100, 50]
        assert "item 2" in str(raised.value.__cause__) + str(getattr(raised.value, "__notes__", ""))

    run(main())


def test_a_worker_that_dies_is_replaced(tmp_path):
    items = [str(tmp_path / "died") if n == 20 else n for n in range(60)]

    async def main():
        return await drawn(apipe(pooled.die_once, items, max_workers=2, batch_size=2))

    assert run(main()) == [*range(20), "survived", *range(21, 60)]


def test_one_that_is_cancelled_ends_its_workers():
    async def main():
        results = apipe(pooled.deaf, [0, (600,)], max_workers=1, batch_size=1)
        assert await results.__anext__() == 0
        pids = [gateway_pid(results)]
        waiting = asyncio.ensure_future(results.__anext__())
        await asyncio.sleep(0.1)
        waiting.cancel()
        begin = time.monotonic()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert time.monotonic() - begin < 10
        await results.aclose()
        return pids

    [pid] = run(main())
    assert wait_until(lambda: is_gone(pid))


def gateway_pid(results):
    [worker] = results._pipe._stream.crew.workers.values()
    return pid_of(worker.gateway)


def test_a_cancelled_start_leaves_nothing():
    async def main():
        before = {gateway.id for gateway in execnet_c.default_group}
        results = apipe(pooled.square, range(10), max_workers=2)
        starting = asyncio.ensure_future(results.__anext__())
        await asyncio.sleep(0.001)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        await results.aclose()
        assert {gateway.id for gateway in execnet_c.default_group} == before

    run(main())


def test_a_stream_that_was_not_begun_is_closed():
    async def main():
        async with apipe(pooled.square, Numbers(5), max_workers=1):
            pass

    run(main())


def test_a_loop_that_ends_in_the_middle():
    async def main():
        results = apipe(pooled.square, Numbers(-1), max_workers=1)
        assert await results.__anext__() == 0
        return gateway_pid(results)

    pid = run(main())
    assert wait_until(lambda: is_gone(pid))


def test_stages(group):
    group.makegateway()

    async def main():
        inner = apipe(pooled.square, Numbers(50), max_workers=1)
        return await drawn(group.apipe(pooled.square, inner))

    assert run(main()) == [n**4 for n in range(50)]


@pytest.mark.parametrize("how", ["raises", "goes on"])
def test_a_source_that_does_not_close_leaves_no_worker(how, monkeypatch):
    monkeypatch.setattr("execnet_c.pool.astream.JOIN", 0.2)
    over = False

    async def source():
        try:
            for n in range(10**9):
                await asyncio.sleep(0)
                yield n
        finally:
            if how == "raises":
                raise LookupError("the source")

    class Deaf:
        given = 0

        def __aiter__(self):
            return self

        async def __anext__(self):
            self.given += 1
            while not over:
                try:
                    return await asyncio.sleep(0.01 if self.given == 1 else 1000, 1)
                except asyncio.CancelledError:
                    while not over:
                        try:
                            await asyncio.sleep(0.01)
                        except asyncio.CancelledError:
                            pass
            raise StopAsyncIteration

    async def main():
        nonlocal over
        results = apipe(pooled.square, source() if how == "raises" else Deaf(), max_workers=1, buffersize=2)
        await results.__anext__()
        await asyncio.sleep(0.3)  # the buffer is full, and the source at rest
        pid = gateway_pid(results)
        with pytest.raises(LookupError if how == "raises" else RuntimeError, match="the source|goes on"):
            await results.aclose()
        over = True
        await asyncio.sleep(0.1)
        return pid

    pid = run(main())
    assert wait_until(lambda: is_gone(pid))


def test_bad_input():
    with pytest.raises(ValueError, match="batch_size=-1"):
        apipe(pooled.square, [], batch_size=-1)
    with pytest.raises(TypeError):
        apipe(pooled.square, 5)
    with pytest.raises(TypeError, match="not iterable"):
        execnet_c.pipe(pooled.square, Numbers(3))


def test_ctrl_c_ends_it(group):
    gateway = group.makegateway()

    async def main():
        asyncio.get_running_loop().call_later(0.5, os.kill, os.getpid(), signal.SIGINT)
        async for _ in gateway.apipe(pooled.doze, [0, 600], batch_size=1):
            pass

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())
    assert list(gateway.pipe(pooled.square, [3])) == [9]
