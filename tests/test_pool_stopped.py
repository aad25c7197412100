"""Pools whose worker is stopped, or whose host has gone silent, while large items are on their way to it: the others go on, and
the end comes."""

import os
import signal
import threading
from concurrent.futures import BrokenExecutor

import pytest

import masters
import pooled
from execnet_c import GatewayPoolExecutor, pipe
from execnet_c.pool import ItemTimeout
from gateways import group_fixture, pid_of  # noqa: F401  (a fixture)
from masters import TIMEOUT, is_gone, wait_until

pytestmark = pytest.mark.ours

LARGE = 3 << 20  # bytes: two of them are more than any connection takes
SPECS = {"ring": "popen", "pipe": "popen//transport=pipe", "via": "popen//via=outer"}


@pytest.fixture(params=[*SPECS])
def spec(request):
    return SPECS[request.param]


@pytest.fixture
def three(group, spec):
    """Three gateways of that kind."""
    if "via" in spec:
        group.makegateway("popen//id=outer")
    return [group.makegateway(spec) for _ in range(3)]


@pytest.fixture
def stop():
    """A function that stops a process. At the end they go on."""
    pids = []

    def stop(pid):
        os.kill(pid, signal.SIGSTOP)
        assert wait_until(lambda: masters.stat_of(pid)[0] == "T")
        pids.append(pid)

    yield stop
    for pid in pids:
        try:
            os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            pass


def large(number):
    return [bytes(LARGE) for _ in range(number)]


def test_its_time_is_over_and_another_one_takes_its_place(three, stop):
    results = pipe(pooled.pid, large(40), group=three, batch_size=1, timeout=1, return_exceptions=True, ordered=False)
    pid = next(results)
    stop(pid)
    got = list(results)
    late = [result for result in got if isinstance(result, TimeoutError)]
    assert len(got) == 39 and len(late) == 1 and type(late[0]) is ItemTimeout
    assert wait_until(lambda: is_gone(pid))


def test_the_others_go_on_and_a_close_ends_it(three, stop):
    pid = pid_of(three[0])
    results = pipe(pooled.pid, iter(large(100)), group=three, batch_size=1, ordered=False)
    next(results)
    stop(pid)
    got = [next(results) for _ in range(60)]
    assert got.count(pid) < 10
    results.close()
    assert wait_until(lambda: is_gone(pid))
    assert list(three[0]._group.pipe(pooled.same, range(20))) == [*range(20)]  # its gateway was started anew


def test_in_order_a_close_ends_it_at_the_place_of_the_stopped_one(stop):
    results = pipe(pooled.pid, large(100), specs=["popen//transport=pipe"] * 3, batch_size=1, buffersize=12)
    pid = next(results)
    stop(pid)
    drawn, over = [], threading.Event()

    def draw():
        drawn.extend(results)
        over.set()

    thread = threading.Thread(target=draw)
    thread.start()
    assert not over.wait(1)
    results.close()
    assert over.wait(TIMEOUT)
    thread.join()
    assert len(drawn) < 99 and wait_until(lambda: is_gone(pid))


def test_an_error_ends_it(stop):
    items = [("pid", bytes(LARGE))] * 30 + [("fail", None)] * 3
    results = pipe(pooled.pid_or_fail, items, specs=["popen"] * 3, batch_size=1, ordered=False)
    pid = next(results)
    stop(pid)
    with pytest.raises(ZeroDivisionError):
        list(results)
    assert wait_until(lambda: is_gone(pid))


@pytest.mark.parametrize("transport", ["", "//transport=pipe"])
def test_one_ctrl_c_ends_the_program(transport):
    lines = masters.run(
        f"""
import itertools, pooled
from execnet_c import pipe
results = pipe(pooled.pid, itertools.repeat(bytes({LARGE})), specs=["popen{transport}"] * 3, batch_size=1)
pid = next(results)
os.kill(pid, signal.SIGSTOP)
threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    for _ in results:
        pass
except KeyboardInterrupt:
    print("interrupted", wait_until(lambda: is_gone(pid)))
"""
    )
    assert lines == ["interrupted True"]


@pytest.fixture(params=["", "//transport=pipe"])
def executor(request):
    executor = GatewayPoolExecutor(specs=["popen" + request.param] * 3)
    yield executor
    executor.kill_workers()
    executor.shutdown()


def stopped_one(executor, stop):
    pid = executor.submit(pooled.pid).result(TIMEOUT)
    stop(pid)
    return pid


def test_tasks_of_an_executor_go_to_the_others_and_kill_workers_ends_its_own(executor, stop):
    pid = stopped_one(executor, stop)
    futures = [executor.submit(pooled.pid, bytes(LARGE)) for _ in range(30)]
    assert wait_until(lambda: sum(future.done() for future in futures) == 29)
    assert pid not in [future.result() for future in futures if future.done()]
    executor.kill_workers()
    executor.shutdown(wait=True)
    assert sum(isinstance(future.exception(TIMEOUT), BrokenExecutor) for future in futures) == 1
    assert is_gone(pid)


def test_a_shutdown_waits_for_the_stopped_ones_task_alone(executor, stop):
    pid = stopped_one(executor, stop)
    futures = [executor.submit(pooled.pid, bytes(LARGE)) for _ in range(30)]
    thread = threading.Thread(target=executor.shutdown)
    thread.start()
    assert wait_until(lambda: sum(future.done() for future in futures) == 29)
    assert thread.is_alive()
    os.kill(pid, signal.SIGCONT)
    thread.join(TIMEOUT)
    assert not thread.is_alive()
    assert [future.result() for future in futures].count(pid) == 1


def test_a_stopped_worker_without_a_task_does_not_hold_up_the_end(executor, stop):
    pid = executor.submit(pooled.pid).result(TIMEOUT)
    stop(pid)
    executor.shutdown(wait=True)
    assert is_gone(pid)
