"""GatewayPoolExecutor keeps what ProcessPoolExecutor promises, each promise a test; and what it promises beyond that."""

import asyncio
import concurrent.futures
import gc
import itertools
import os
import threading
from concurrent.futures import BrokenExecutor

import pytest

import execnet_c
import masters
import pooled
from execnet_c import GatewayPoolExecutor
from gateways import group_fixture, pid_of  # noqa: F401  (a fixture)
from masters import TIMEOUT, wait_until

pytestmark = pytest.mark.ours


@pytest.fixture
def executor():
    with GatewayPoolExecutor(2) as executor:
        yield executor


# ---- what the standard says


def test_submit_passes_arguments(executor):
    assert executor.submit(pow, 2, 10).result(TIMEOUT) == 1024
    assert executor.submit(pooled.same, item=5).result(TIMEOUT) == 5
    with pytest.raises(TypeError):
        executor.submit()


def test_an_exception_is_that_of_the_call(executor):
    error = executor.submit(pooled.divide, 0).exception(TIMEOUT)
    assert type(error) is ZeroDivisionError
    assert type(error.__cause__) is execnet_c.RemoteError and "in divide" in str(error.__cause__)
    assert executor.submit(pooled.divide, 5).result(TIMEOUT) == 20


@pytest.mark.parametrize("chunksize", [1, 7, 1000])
@pytest.mark.parametrize("buffersize", [None, 1, 3])
def test_map_gives_results_in_order(executor, chunksize, buffersize):
    results = executor.map(pow, range(100), itertools.repeat(2), chunksize=chunksize, buffersize=buffersize)
    assert list(results) == [n * n for n in range(100)]


def test_map_submits_at_once_and_draws_no_more_than_the_buffer(executor):
    source = pooled.Watched()
    results = executor.map(pooled.same, source, buffersize=3, chunksize=2)
    assert source.drawn == 6
    for n in range(50):
        assert next(results) == n
        assert source.drawn - n <= 3 * 2 + 2
    results.close()


def test_map_goes_on_though_the_executor_was_dropped():
    results = GatewayPoolExecutor(1).map(pooled.same, range(20), buffersize=2)
    gc.collect()
    assert list(results) == list(range(20))


def test_map_raises_at_the_place_of_the_error(executor):
    results = executor.map(pooled.divide, [1, 2, 0, 4])
    assert [next(results), next(results)] == [100, 50]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_map_has_a_timeout(executor):
    assert executor.submit(pow, 2, 2).result(TIMEOUT) == 4  # the start of a worker is no part of that time
    results = executor.map(pooled.sleep, [0, 3], timeout=1)
    assert next(results) == 0
    with pytest.raises(concurrent.futures.TimeoutError):
        next(results)


@pytest.mark.parametrize(
    "options, error", [({"chunksize": 0}, ValueError), ({"buffersize": 0}, ValueError), ({"buffersize": "1"}, TypeError)]
)
def test_map_refuses_what_makes_no_sense(executor, options, error):
    with pytest.raises(error):
        executor.map(pooled.same, [1], **options)


def test_a_pending_future_can_be_cancelled_and_a_running_one_not(tmp_path):
    go = str(tmp_path / "go")
    with GatewayPoolExecutor(1) as executor:
        running, pending, last = executor.submit(pooled.wait_for, go), executor.submit(pow, 2, 2), executor.submit(pow, 2, 3)
        assert wait_until(running.running)
        assert not running.cancel()
        assert pending.cancel() and pending.cancelled()
        open(go, "w").close()
        assert running.result(TIMEOUT) == go and last.result(TIMEOUT) == 8
        with pytest.raises(concurrent.futures.CancelledError):
            pending.result(TIMEOUT)


def test_futures_work_with_the_functions_of_the_standard(executor):
    futures = [executor.submit(pow, n, 2) for n in range(20)]
    assert sorted(future.result() for future in concurrent.futures.as_completed(futures, TIMEOUT)) == [n * n for n in range(20)]
    done, not_done = concurrent.futures.wait(futures, TIMEOUT)
    assert len(done) == 20 and not not_done
    called = []
    executor.submit(pow, 2, 2).add_done_callback(lambda future: called.append(future.result()))
    assert wait_until(lambda: called == [4])


def test_it_runs_in_a_loop(executor):
    async def main():
        loop = asyncio.get_running_loop()
        return await asyncio.gather(*(loop.run_in_executor(executor, pow, n, 2) for n in range(10)))

    assert asyncio.run(main()) == [n * n for n in range(10)]


def test_the_end_of_a_with_block_waits_for_what_is_pending():
    with GatewayPoolExecutor(1) as executor:
        futures = [executor.submit(pooled.sleep, 0.05) for _ in range(5)]
    assert all(future.done() for future in futures)
    assert [future.result() for future in futures] == [0.05] * 5


def test_after_shutdown_nothing_is_taken():
    executor = GatewayPoolExecutor(1)
    executor.shutdown()
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.submit(pow, 2, 2)
    executor.shutdown()


def test_shutdown_need_not_wait(tmp_path):
    executor = GatewayPoolExecutor(1)
    future = executor.submit(pooled.wait_for, str(tmp_path / "go"))
    executor.shutdown(wait=False)
    assert not future.done()
    open(tmp_path / "go", "w").close()
    assert future.result(TIMEOUT)


def test_shutdown_may_cancel_what_is_pending(tmp_path):
    executor = GatewayPoolExecutor(1)
    running = executor.submit(pooled.wait_for, str(tmp_path / "go"))
    pending = [executor.submit(pow, 2, 2) for _ in range(5)]
    assert wait_until(running.running)
    executor.shutdown(wait=False, cancel_futures=True)
    open(tmp_path / "go", "w").close()
    executor.shutdown()
    assert running.result(0) and all(future.cancelled() for future in pending)


def test_an_initializer_runs_in_each_worker():
    with GatewayPoolExecutor(1, None, pooled.set_word, ("word",)) as executor:
        assert executor.submit(pooled.get_word).result(TIMEOUT) == "word"


def test_an_initializer_that_fails_breaks_the_pool():
    with GatewayPoolExecutor(1, initializer=pooled.divide, initargs=(0,)) as executor:
        futures = [executor.submit(pow, 2, 2) for _ in range(3)]
        for future in futures:
            error = future.exception(TIMEOUT)
            assert isinstance(error, BrokenExecutor) and isinstance(error, ZeroDivisionError)
            assert "in divide" in str(error.__cause__.__cause__)
        with pytest.raises(BrokenExecutor):
            executor.submit(pow, 2, 2)


def test_max_tasks_per_child_replaces_workers():
    with GatewayPoolExecutor(1, max_tasks_per_child=3) as executor:
        pids = [executor.submit(os.getpid).result(TIMEOUT) for _ in range(9)]
    assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [3, 3, 3]


@pytest.mark.parametrize(
    "options, text",
    [
        ({"max_workers": 0}, "max_workers=0"),
        ({"mp_context": "spawn"}, "mp_context may only be None"),
        ({"max_tasks_per_child": 0}, "max_tasks_per_child=0"),
        ({"specs": []}, "at least one spec"),
        ({"retries": -1}, "retries=-1"),
        ({"group": []}, "has no gateways"),
        ({"group": [], "specs": ["popen"]}, "it may be one of them"),
    ],
)
def test_what_makes_no_sense_is_refused(options, text):
    with pytest.raises(ValueError, match=text):
        GatewayPoolExecutor(**options)


# ---- deaths


def test_a_worker_that_dies_fails_its_own_task_alone(executor):
    futures = [executor.submit(pooled.die, n) for n in range(30)]
    error = futures[13].exception(TIMEOUT)
    assert isinstance(error, BrokenExecutor) and isinstance(error, execnet_c.WorkerKilled)
    assert isinstance(error, execnet_c.GatewayDied) and error.signal == 9 and "SIGKILL" in str(error)
    assert [future.result(TIMEOUT) for n, future in enumerate(futures) if n != 13] == [n for n in range(30) if n != 13]
    assert executor.submit(pow, 2, 2).result(TIMEOUT) == 4


def test_with_retries_its_task_runs_again(tmp_path):
    with GatewayPoolExecutor(1, retries=1) as executor:
        assert executor.submit(pooled.die_once, str(tmp_path / "mark")).result(TIMEOUT) == "survived"
        assert isinstance(executor.submit(pooled.die, 13).exception(TIMEOUT), execnet_c.WorkerKilled)


def test_an_idle_worker_that_dies_is_replaced():
    with GatewayPoolExecutor(1) as executor:
        for _ in range(5):
            pid = executor.submit(os.getpid).result(TIMEOUT)
            os.kill(pid, 9)
            assert wait_until(lambda: executor._pool.crew.workers[1].gateway._state()["pid"] != pid)
        assert executor.submit(os.getpid).result(TIMEOUT) != pid


def test_what_cannot_be_pickled_fails_its_future_alone(executor):
    futures = [executor.submit(pooled.same, threading.Lock()), executor.submit(pooled.lock_if_two, 2)]
    for future in futures:
        assert isinstance(future.exception(TIMEOUT), TypeError) and "pickle" in str(future.exception())
    assert executor.submit(pow, 2, 2).result(TIMEOUT) == 4


@pytest.mark.parametrize("func", [pooled.ends_who_loads, pooled.raises_what_ends_who_loads])
def test_what_ends_who_loads_it_fails_its_future_alone(executor, func):
    assert isinstance(executor.submit(func, 1).exception(TIMEOUT), SystemExit)
    assert executor.submit(pow, 2, 2).result(TIMEOUT) == 4


def test_an_exception_that_takes_no_attributes(executor):
    error = executor.submit(pooled.raises_unchanging, 5).exception(TIMEOUT)
    assert type(error) is pooled.Unchanging and error.args == (5,)
    assert type(error.__cause__) is execnet_c.RemoteError


def test_without_a_thread_the_next_task_tries_again(executor, monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            executor.submit(pow, 2, 2)
    assert executor.submit(pow, 2, 3).result(TIMEOUT) == 8


def test_a_lambda_goes_by_value(executor):
    pytest.importorskip("cloudpickle")
    assert executor.submit(lambda n: n + 1, 1).result(TIMEOUT) == 2


def test_kill_workers_fails_what_is_left():
    executor = GatewayPoolExecutor(2)
    futures = [executor.submit(pooled.sleep, 600) for _ in range(5)]
    assert wait_until(futures[0].running)
    executor.kill_workers()
    for future in futures:
        assert isinstance(future.exception(TIMEOUT), BrokenExecutor)
    executor.shutdown()


# ---- where it runs


def test_a_groups_gateways_are_its_workers_and_stay(group):
    pids = {pid_of(group.makegateway()) for _ in range(2)}
    with GatewayPoolExecutor(group=group) as executor:
        assert set(executor.map(pooled.pid, range(40))) <= pids
    assert {pid_of(gateway) for gateway in group} == pids


def test_specs_that_cannot_be_started_break_it():
    with GatewayPoolExecutor(specs=["popen//python=no-such-python"]) as executor:
        error = executor.submit(pow, 2, 2).exception(TIMEOUT)
        assert isinstance(error, BrokenExecutor) and "no-such-python" in str(error)


def test_it_has_one_thread(executor):
    before = set(threading.enumerate())
    futures = [executor.submit(pow, n, 2) for n in range(1000)]
    assert len(set(threading.enumerate()) - before) == 1
    assert [future.result(TIMEOUT) for future in futures] == [n * n for n in range(1000)]


def test_one_that_is_dropped_ends_when_its_work_is_done():
    executor = GatewayPoolExecutor(1)
    future, thread = executor.submit(pow, 2, 2), executor._pool.thread
    del executor
    gc.collect()
    assert future.result(TIMEOUT) == 4
    thread.join(TIMEOUT)
    assert not thread.is_alive()


def test_at_the_end_of_the_program_pending_futures_finish_first():
    lines = masters.run(
        """
import pooled
executor = execnet_c.GatewayPoolExecutor(1)
for n in range(5):
    executor.submit(pooled.sleep, n / 8).add_done_callback(lambda future: print(future.result(), flush=True))
"""
    )
    assert lines == ["0.0", "0.125", "0.25", "0.375", "0.5"]


def test_a_forked_child_is_refused_and_harms_nothing():
    masters.run(
        """
executor = execnet_c.GatewayPoolExecutor(1)
assert executor.submit(pow, 2, 2).result(30) == 4
pid = os.fork()
if pid == 0:
    try:
        executor.submit(pow, 2, 2)
    except OSError as exc:
        assert "belongs to the parent process" in str(exc)
        sys.exit(0)
    os._exit(1)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
assert executor.submit(pow, 2, 2).result(30) == 4
executor.shutdown()
""",
        env={"PYTHONWARNINGS": "ignore:This process:DeprecationWarning"},
    )
