"""asyncio over channels: areceive(), asend(), `async for`, aremote_exec(). Each test would hang, were an end forgotten."""

import asyncio
import contextlib
import gc
import os
import signal
import threading

import pytest

import execnet_c
import masters
import pairing
from far_ends import PLAIN
from gateways import add, group_fixture, gw_fixture, inner_fixture, outer_fixture, pid_of  # noqa: F401  (fixtures)
from masters import TIMEOUT

ECHO = "for item in channel: channel.send(item)"


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, TIMEOUT))


@contextlib.contextmanager
def stopped(pid):
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_items_come_and_go(gw):
    async def main():
        channel = await gw.aremote_exec(ECHO)
        for item in (1, "two", [3.0, None], bytes(3 << 20)):
            await channel.asend(item)
            assert await channel.areceive() == item
            await channel.asend(item)
            assert await channel.areceive(timeout=TIMEOUT) == item

    run(main())


def test_a_loop_gets_all_and_ends(gw):
    async def main():
        channel = await gw.aremote_exec("for n in range(1000): channel.send(n)")
        return [item async for item in channel]

    assert run(main()) == list(range(1000))


def test_a_function_with_arguments(group):
    async def main():
        channel = await group.makegateway().aremote_exec(add, a=1, c=5)
        assert await channel.areceive() == (1, 2, 5)
        with pytest.raises(TypeError, match="can't pass kwargs"):
            await channel.gateway.aremote_exec("0", a=1)

    run(main())


def test_the_end_is_raised_as_by_receive(gw):
    async def main():
        channel = await gw.aremote_exec("channel.receive()")
        waiting = asyncio.ensure_future(channel.areceive())
        await channel.asend(None)
        with pytest.raises(EOFError) as ended:
            await waiting
        assert type(ended.value) is EOFError
        failing = await gw.aremote_exec("channel.send(1); 1 / 0")
        got = []
        with pytest.raises(execnet_c.RemoteError, match="ZeroDivisionError"):
            async for item in failing:
                got.append(item)
        assert got == [1]
        with pytest.raises(OSError, match="cannot send"):
            await failing.asend(1)

    run(main())


def test_a_death_ends_all_waits(gw):
    pid = pid_of(gw)

    async def main():
        channels = [await gw.aremote_exec("channel.receive()") for _ in range(5)]
        waits = [asyncio.ensure_future(channel.areceive()) for channel in channels]
        await asyncio.sleep(0)
        os.kill(pid, signal.SIGKILL)
        for error in await asyncio.gather(*waits, return_exceptions=True):
            assert isinstance(error, execnet_c.GatewayDied)
        with pytest.raises(execnet_c.GatewayDied):
            async for _ in channels[0]:
                pass
        with pytest.raises(OSError):
            await channels[0].asend(1)
        with pytest.raises(OSError):
            await gw.aremote_exec("0")

    run(main())


def test_an_exit_here_ends_a_wait(group):
    async def main():
        gw = group.makegateway()
        wait = asyncio.ensure_future((await gw.aremote_exec("channel.receive()")).areceive())
        await asyncio.sleep(0)
        gw.exit()
        with pytest.raises(EOFError):  # the task's own end may have come first
            await wait

    run(main())


def test_a_timeout_takes_nothing(gw):
    async def main():
        channel = await gw.aremote_exec(ECHO)
        for timeout in (0, 0.01):
            with pytest.raises(channel.TimeoutError, match=f"no item after {timeout} seconds"):
                await channel.areceive(timeout)
        with pytest.raises(ValueError):
            await channel.areceive(-1)
        with pytest.raises(TypeError):
            await channel.areceive("1")
        await channel.asend("here")
        assert await channel.areceive(TIMEOUT) == "here"

    run(main())


def test_a_cancelled_wait_loses_no_message(gw):
    async def main():
        channel = await gw.aremote_exec(ECHO)
        got = []
        for n in range(300):
            wait = asyncio.ensure_future(channel.areceive())
            await asyncio.sleep(0)
            await channel.asend(n)
            for _ in range(n % 7):
                await asyncio.sleep(0.0002)
            wait.cancel()
            try:
                got.append(await wait)
            except asyncio.CancelledError:
                pass
        while len(got) < 300:
            got.append(await channel.areceive(TIMEOUT))
        assert got == list(range(300))

    run(main())


def test_several_wait_for_one_channel(gw):
    async def main():
        channel = await gw.aremote_exec(ECHO)
        waits = [asyncio.ensure_future(channel.areceive()) for _ in range(20)]
        for n in range(20):
            await channel.asend(n)
        assert sorted(await asyncio.gather(*waits)) == list(range(20))

    run(main())


def test_a_loop_over_what_is_here_leaves_others_their_turn(group):
    channel = group.makegateway().remote_exec("for n in range(2000): channel.send(n)")
    channel.waitclose(TIMEOUT)

    async def main():
        turns = []

        async def other():
            while True:
                turns.append(None)
                await asyncio.sleep(0)

        beside = asyncio.ensure_future(other())
        assert len([item async for item in channel]) == 2000
        beside.cancel()
        return len(turns)

    assert run(main()) >= 10


# What arrives is looked at by each wait of its gateway on the plain-Python core.
MANY = 10_000 if pairing.near == "C" else 2000


def test_many_channels_wait_on_one_thread(group):
    gateways = [group.makegateway() for _ in range(4)]

    async def main():
        channels = [gateways[n % 4].newchannel() for n in range(MANY)]
        controls = [await gateway.aremote_exec("for other in channel: other.send(other.id)") for gateway in gateways]
        threads = threading.active_count()
        waits = [asyncio.ensure_future(channel.areceive()) for channel in channels]
        await asyncio.sleep(0)
        assert threading.active_count() <= threads
        for n, channel in enumerate(channels):
            controls[n % 4].send(channel)
        assert await asyncio.gather(*waits) == [channel.id for channel in channels]

    run(main())


def test_a_send_that_waits_for_the_receiver_does_not_block_the_loop(gw):
    async def main():
        channel = await gw.aremote_exec(
            "channel.set_limit(1000); go = channel.gateway.newchannel(); channel.send(go); go.receive(); go.send(list(channel))"
        )
        go = await channel.areceive()
        sends = [asyncio.ensure_future(channel.asend(bytes([n]) * 400)) for n in range(10)]
        other = await gw.aremote_exec(ECHO)
        await other.asend("not held up")
        assert await other.areceive() == "not held up"
        assert not all(send.done() for send in sends)
        sends[9].cancel()
        await go.asend(None)
        done = await asyncio.gather(*sends, return_exceptions=True)
        assert done[:9] == [None] * 9 and isinstance(done[9], asyncio.CancelledError)
        channel.close()
        assert [item[0] for item in await go.areceive()] == list(range(9))

    run(main())


def test_a_send_into_a_full_connection_does_not_block_the_loop(group):
    gw, free = group.makegateway(), group.makegateway()
    pid = pid_of(gw)

    async def main():
        channel, other = await gw.aremote_exec(ECHO), await free.aremote_exec(ECHO)
        with stopped(pid):
            sends = [asyncio.ensure_future(channel.asend(bytes(500_000))) for n in range(20)]
            for n in range(20):
                await other.asend(n)
                assert await other.areceive() == n
            assert not all(send.done() for send in sends)
        await asyncio.gather(*sends)
        for _ in sends:
            assert await channel.areceive() == bytes(500_000)

    run(main())


def test_a_death_ends_a_send_that_waits(group):
    gw = group.makegateway()
    pid = pid_of(gw)

    async def main():
        channel = await gw.aremote_exec("import time; channel.set_limit(1000); channel.send(1); time.sleep(60)")
        await channel.areceive()
        sends = [asyncio.ensure_future(channel.asend(bytes(900))) for n in range(3)]
        await asyncio.sleep(0.05)
        os.kill(pid, signal.SIGKILL)
        assert isinstance((await asyncio.gather(*sends, return_exceptions=True))[2], OSError)

    run(main())


def test_what_cannot_be_sent_is_refused(gw):
    async def main():
        channel = await gw.aremote_exec(ECHO)
        with pytest.raises(execnet_c.DumpError):
            await channel.asend(object())
        await channel.asend("fine")
        assert await channel.areceive() == "fine"

    run(main())


def test_two_loops_in_two_threads(gw):
    channel = gw.remote_exec(ECHO)
    got = []

    async def main():
        for _ in range(50):
            got.append(await channel.areceive(TIMEOUT))

    threads = [threading.Thread(target=run, args=[main()]) for _ in range(2)]
    for thread in threads:
        thread.start()
    for n in range(100):
        channel.send(n)
    for thread in threads:
        thread.join(TIMEOUT)
    assert sorted(got) == list(range(100))


def fds():
    return len(os.listdir("/dev/fd"))


def test_a_closed_loop_leaves_nothing(gw):
    channel = gw.remote_exec(ECHO)

    def once():
        loop = asyncio.new_event_loop()
        task = loop.create_task(channel.areceive())
        loop.call_soon(loop.stop)
        loop.run_forever()
        loop.call_soon = None  # whoever wakes the task now would fail
        loop.close()
        task._log_destroy_pending = False
        return task

    once()
    gc.collect()
    before = fds()
    for _ in range(5):
        once()
    gc.collect()
    assert fds() == before
    channel.send("one")

    async def main():
        return await channel.areceive(TIMEOUT)

    assert run(main()) == "one"


def test_nothing_takes_a_thread(group):
    gw = group.makegateway()
    pid = pid_of(gw)

    async def main():
        channel = await gw.aremote_exec(ECHO)
        before = threading.active_count()
        with stopped(pid):
            sends = [asyncio.ensure_future(channel.asend(bytes(500_000))) for n in range(20)]
            await asyncio.sleep(0.05)
            assert not all(send.done() for send in sends)
            assert threading.active_count() <= before
        await asyncio.gather(*sends)
        assert threading.active_count() <= before

    run(main())


def test_a_cancelled_send_to_a_stopped_far_end_has_sent_nothing(gw):
    pid = pid_of(gw)

    async def main():
        channel = await gw.aremote_exec("for item in channel: channel.send(len(item))")
        with stopped(pid):
            sends = []
            while not sends or sends[-1].done():
                sends.append(asyncio.ensure_future(channel.asend(bytes(100_000 + len(sends)))))
                await asyncio.sleep(0.01)
            sends += [asyncio.ensure_future(channel.asend(bytes(n))) for n in range(3)]
            await asyncio.sleep(0.01)
            for send in sends[-4:-1]:
                send.cancel()
            done = await asyncio.gather(*sends[:-1], return_exceptions=True)
        await sends[-1]
        assert [type(error) for error in done[-3:]] == [asyncio.CancelledError] * 3
        sent = [100_000 + n for n, error in enumerate(done) if error is None]
        for size in [*sent, 2]:
            assert await channel.areceive(TIMEOUT) == size

    run(main())


def test_the_loop_goes_on_while_a_death_is_looked_into(group, monkeypatch):
    gw = group.makegateway()
    pid = pid_of(gw)

    async def main():
        channel = await gw.aremote_exec("channel.receive()")
        waited = []
        plain = gw._wait_gone
        monkeypatch.setattr(type(gw), "_wait_gone", lambda self, seconds: (waited.append(seconds), plain(seconds))[1])
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(execnet_c.WorkerKilled):
            await channel.areceive()
        assert waited and set(waited) == {0}

    run(main())


def test_a_callback_or_no_loop_is_an_error(gw):
    channel = gw.remote_exec(ECHO)
    with pytest.raises(RuntimeError, match="no running event loop"):
        channel.areceive().send(None)
    channel.setcallback(print)

    async def main():
        with pytest.raises(OSError, match="channel has receiver callback"):
            await channel.areceive()

    run(main())


def test_a_task_can_do_it_too(gw):
    channel = gw.remote_exec(
        """
import asyncio
async def main():
    async for item in channel:
        await channel.asend(item + 1)
asyncio.run(main())
"""
    )
    channel.send(1)
    assert channel.receive(TIMEOUT) == 2


def test_a_far_end_without_the_package_says_so(group):
    channel = group.makegateway(PLAIN[0].spec()).remote_exec("channel.areceive()")
    with pytest.raises(execnet_c.RemoteError, match="asyncio needs the package"):
        channel.receive(TIMEOUT)


def test_a_forked_child_is_refused_and_has_loops_of_its_own():
    masters.run(
        """
if True:
    import asyncio
    group = execnet_c.Group()
    channel = group.makegateway().remote_exec("for item in channel: channel.send(item)")
    async def trip(channel, item):
        await channel.asend(item)
        return await channel.areceive(30)
    assert asyncio.run(trip(channel, 1)) == 1
    pid = os.fork()
    if not pid:
        status = 1
        try:
            for call in (lambda: trip(channel, 1), channel.areceive):
                try:
                    asyncio.run(call())
                except OSError as exc:
                    assert "belongs to the parent process" in str(exc), exc
                else:
                    assert False
            own = execnet_c.Group()
            assert asyncio.run(trip(own.makegateway().remote_exec("channel.send(channel.receive())"), 2)) == 2
            own.terminate(timeout=2.0)
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert asyncio.run(trip(channel, 3)) == 3
    group.terminate(timeout=2.0)
""",
        env={"PYTHONWARNINGS": "ignore:This process:DeprecationWarning"},
    )
