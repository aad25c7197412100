"""Futures of GatewayPoolExecutor that are interrupted, and tasks that have a time."""

import concurrent.futures
import os
import signal
import time

import pytest

import execnet_c
import pooled
from execnet_c import GatewayPoolExecutor
from execnet_c.pool import ItemTimeout
from gateways import group_fixture  # noqa: F401  (a fixture)
from masters import TIMEOUT, wait_until

pytestmark = pytest.mark.ours


@pytest.fixture(name="executor")
def executor_fixture():
    with GatewayPoolExecutor(1) as executor:
        yield executor


def running(executor, tmp_path, func, *args):
    """A future whose task runs by now."""
    path = tmp_path / f"here-{time.monotonic()}"
    future = executor.submit(pooled.tell_and, str(path), func, *args)
    wait_until(path.exists)
    return future


def test_a_task_that_runs(executor, tmp_path):
    pid = executor.submit(os.getpid).result(TIMEOUT)
    for func in (pooled.sleep, pooled.loop):
        future = running(executor, tmp_path, func, 1000)
        assert future.interrupt()
        assert type(future.exception(TIMEOUT)) is KeyboardInterrupt
        assert not future.interrupt() and not future.cancelled()
    assert executor.submit(os.getpid).result(TIMEOUT) == pid, "its worker lives on"


def test_a_task_that_catches_it_has_a_result(executor, tmp_path):
    future = running(executor, tmp_path, pooled.catch, 1000)
    assert future.interrupt(kill_after=None) and future.interrupt()
    assert future.result(TIMEOUT) == 1


def test_a_task_that_goes_on_is_ended(executor, tmp_path):
    pid = executor.submit(os.getpid).result(TIMEOUT)
    future = running(executor, tmp_path, pooled.deaf, (1000,))
    behind = executor.submit(os.getpid)
    assert future.interrupt(kill_after=0.2)
    error = future.exception(TIMEOUT)
    assert isinstance(error, concurrent.futures.BrokenExecutor) and isinstance(error, execnet_c.WorkerKilled)
    assert "its task went on after interrupt()" in str(error)
    assert behind.result(TIMEOUT) != pid


def test_one_that_waits_is_cancelled(executor, tmp_path):
    first = running(executor, tmp_path, pooled.sleep, 1000)
    second, third = executor.submit(os.getpid), executor.submit(pow, 2, 3)
    assert second.interrupt() and second.cancelled() and not second.interrupt()
    assert not first.cancel(), "as the standard says"
    assert first.interrupt()
    assert third.result(TIMEOUT) == 8
    assert not third.interrupt()


@pytest.fixture(name="aside")
def aside_fixture(group):
    """An executor whose tasks run in another thread than the main one."""
    gateway = group.makegateway("popen")
    held = gateway.remote_exec("channel.send('here')\nchannel.receive()")
    assert held.receive(TIMEOUT) == "here"
    with GatewayPoolExecutor(group=[gateway]) as executor:
        yield executor
    held.send(None)
    held.waitclose(TIMEOUT)


def test_a_task_in_another_thread(aside, tmp_path):
    pid = aside.submit(os.getpid).result(TIMEOUT)
    for func in (pooled.doze, pooled.loop):
        future = running(aside, tmp_path, func, 1000)
        assert future.interrupt()
        assert type(future.exception(TIMEOUT)) is KeyboardInterrupt
    future = running(aside, tmp_path, pooled.catch_dozing, 1000)
    assert future.interrupt(kill_after=None)
    assert future.result(TIMEOUT) == 1
    assert type(aside.with_options(timeout=0.2).submit(pooled.loop, 0).exception(TIMEOUT)) is ItemTimeout
    assert aside.submit(os.getpid).result(TIMEOUT) == pid


@pytest.mark.parametrize("where", ["executor", "aside"])
def test_at_any_moment_no_other_task_is_hit(request, where):
    executor = request.getfixturevalue(where)
    for n in range(100):
        future, behind = executor.submit(pooled.square, n), executor.submit(pooled.square, n)
        time.sleep(n % 20 * 5e-5)
        stopped = future.interrupt()
        assert behind.result(TIMEOUT) == n * n
        if not stopped:
            assert future.result(TIMEOUT) == n * n
        elif not future.cancelled():
            assert future.exception(TIMEOUT) is None or type(future.exception()) is KeyboardInterrupt


def test_one_of_which_a_worker_died_is_not_tried_again(tmp_path):
    with GatewayPoolExecutor(1, retries=5) as executor:
        pid = executor.submit(os.getpid).result(TIMEOUT)
        future = running(executor, tmp_path, pooled.deaf, (1000,))
        os.kill(pid, signal.SIGSTOP)
        assert future.interrupt(kill_after=0.1)
        assert isinstance(future.exception(TIMEOUT), execnet_c.WorkerKilled)
        assert executor.submit(os.getpid).result(TIMEOUT) != pid


# --- with_options ----------------------------------------------------------------------------------------------------


def test_a_time_for_each_task(executor):
    pid, timed = executor.submit(os.getpid).result(TIMEOUT), executor.with_options(timeout=0.2)
    futures = [timed.submit(pooled.sleep, 1000), timed.submit(pow, 2, 3), timed.submit(pooled.deaf, (1000,)), timed.submit(os.getpid)]
    for late in futures[0], futures[2]:
        error = late.exception(TIMEOUT)
        assert type(error) is ItemTimeout and str(error) == "no result after 0.2 seconds"
    assert futures[1].result(TIMEOUT) == 8
    assert futures[3].result(TIMEOUT) != pid, "the worker of one that goes on is ended"
    assert executor.submit(pooled.doze, 0.4).result(TIMEOUT) == 0.4, "others have no time"
    with pytest.raises(TimeoutError):
        list(timed.map(pooled.sleep, [0, 1000]))


def test_its_time_begins_when_it_begins(executor):
    timed = executor.with_options(timeout=1.0)
    futures = [timed.submit(pooled.doze, 0.4) for _ in range(5)]
    assert [future.result(TIMEOUT) for future in futures] == [0.4] * 5


def test_cancel_may_interrupt(executor, tmp_path):
    pid, view = executor.submit(os.getpid).result(TIMEOUT), executor.with_options(interrupt_on_cancel=True)
    future, called = running(view, tmp_path, pooled.sleep, 1000), []
    future.add_done_callback(called.append)
    assert future.cancel() and future.cancel()
    assert concurrent.futures.wait([future], TIMEOUT).done == {future} and called == [future]
    assert future.cancelled() and future.cancel() and not future.interrupt()
    with pytest.raises(concurrent.futures.CancelledError):
        future.result(TIMEOUT)
    assert executor.submit(os.getpid).result(TIMEOUT) == pid
    future = running(view, tmp_path, pooled.deaf, (1000,))
    assert future.cancel()
    wait_until(future.cancelled)
    future = running(view, tmp_path, pooled.catch, 1000)
    assert future.cancel(), "what it returns is not wanted any more"
    wait_until(future.cancelled)
    done = view.submit(pow, 2, 3)
    assert done.result(TIMEOUT) == 8 and not done.cancel()


def test_a_view_is_the_same_pool():
    executor = GatewayPoolExecutor(1)
    view = executor.with_options(timeout=5)
    pid = executor.submit(os.getpid).result(TIMEOUT)
    del executor
    assert [*view.map(pow, [2, 3], [2, 2])] == [4, 9]
    assert view.submit(os.getpid).result(TIMEOUT) == pid
    assert [worker["id"] for worker in view.stats()] == ["gw0"]
    view.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        view.submit(pow, 2, 3)


@pytest.mark.parametrize("seconds", [0, -1, "1", float("nan"), float("inf")])
def test_seconds_that_make_no_sense(executor, seconds):
    with pytest.raises(ValueError, match="timeout="):
        executor.with_options(timeout=seconds)
    with pytest.raises(ValueError, match="kill_after="):
        executor.submit(os.getpid).interrupt(kill_after=seconds)
