"""pipe() when workers die, items take too long, and the program wants no more: each result comes once, in order, or an error
names the item."""

import builtins
import itertools
import os
import random
import signal
import threading
import time

import pytest

import execnet_c
import pooled
from execnet_c import pipe
from execnet_c.pool import ItemTimeout, crew
from gateways import group_fixture, pid_of  # noqa: F401  (a fixture)
from masters import TIMEOUT, wait_until

pytestmark = pytest.mark.ours


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    """Under load a process takes long to end, and until then nobody knows how."""
    monkeypatch.setattr("execnet_c.near.gateway.Gateway._patience", TIMEOUT)


def pids_of(results):
    return [worker.gateway._state()["pid"] for worker in results._stream.crew.workers.values()]


def kill_one(results):
    """Whether there was one to kill."""
    try:
        os.kill(random.choice(pids_of(results)), signal.SIGKILL)
    except OSError:
        return False  # it was being replaced
    return True


# ---- deaths


@pytest.mark.parametrize("batch_size", [1, 10, "auto"])
@pytest.mark.parametrize("ordered", [True, False])
def test_workers_killed_at_any_time_lose_nothing(batch_size, ordered):
    random.seed(batch_size == 1)
    results = pipe(pooled.sleep, [0.001] * 300, max_workers=2, batch_size=batch_size, ordered=ordered, retries=10)
    count = killed = 0
    for count, _ in enumerate(results, 1):
        if count % 40 == 1:
            killed += kill_one(results)
    assert count == 300
    assert killed > 4


def test_workers_killed_at_random_points_in_time_keep_the_order():
    random.seed(5)
    results = pipe(pooled.slowly, iter(range(5_000)), max_workers=2, batch_size=20, retries=50)
    assert next(results) == 0
    over = threading.Event()

    killed = []

    def kill():
        while not over.wait(random.random() / 4) and len(killed) < 12:
            killed.append(kill_one(results))

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        got = [0, *results]
    finally:
        over.set()
        thread.join()
    assert got == list(range(5_000))
    assert sum(killed) > 2


def test_a_worker_that_died_is_replaced(tmp_path):
    results = pipe(pooled.die_once, [0, str(tmp_path / "mark"), *range(1, 30)], max_workers=1, batch_size=1)
    assert list(results) == [0, "survived", *range(1, 30)]


def test_in_a_group_it_is_replaced_with_its_id_and_place(group, tmp_path):
    for _ in range(3):
        group.makegateway()
    before = [pid_of(gateway) for gateway in group]
    stream = [*range(30), str(tmp_path / "mark"), *range(30)]
    results = list(group.pipe(pooled.die_once, stream, batch_size=2))
    assert results == [*range(30), "survived", *range(30)]
    assert [gateway.id for gateway in group] == ["gw0", "gw1", "gw2"]
    after = [pid_of(gateway) for gateway in group]
    assert sum(one != other for one, other in zip(before, after)) == 1


@pytest.mark.parametrize(
    "workers, batch_size, retries",
    [(2, 1, 0), *itertools.product([1, 2], [1, 8, 100], [1, 2])],  # without retries nobody may be left to find out
)
def test_an_item_of_which_workers_die_is_named(workers, batch_size, retries):
    results, error = [], None
    try:
        for result in pipe(pooled.die, range(200), max_workers=workers, batch_size=batch_size, retries=retries):
            results.append(result)
    except execnet_c.WorkerKilled as exc:
        error = exc
    assert results == list(range(13))
    assert "SIGKILL" in str(error) and "it was working at item 13, 13" in str(error)
    assert error.signal == 9


def test_the_death_may_be_a_result_and_the_stream_goes_on():
    results = list(pipe(pooled.die, range(200), max_workers=2, return_exceptions=True))
    assert isinstance(results[13], execnet_c.WorkerKilled)
    assert [*results[:13], *results[14:]] == [n for n in range(200) if n != 13]


def test_without_retries_a_dead_worker_is_not_replaced():
    results = pipe(pooled.sleep, [0.01] * 60, max_workers=2, batch_size=1, retries=0, return_exceptions=True)
    next(results)
    before = pids_of(results)
    os.kill(before[0], 9)
    got = [0.01, *results]
    assert len(got) == 60
    assert sum(isinstance(result, execnet_c.WorkerKilled) for result in got) <= 1
    assert pids_of(results) == before


def test_when_no_worker_is_left_the_error_names_the_items():
    with pytest.raises(execnet_c.WorkerKilled, match="it was working at items? "):
        list(pipe(pooled.die, range(200), max_workers=1, batch_size=50, retries=0))


def test_a_host_that_does_not_come_back_is_done_without(group):
    group.makegateway("popen//id=good")
    bad = group.makegateway("popen//id=bad")
    results = group.pipe(pooled.sleep, [0.01] * 100, batch_size=1)
    next(results)
    bad.spec.python = "/no/such/python"
    os.kill(pid_of(bad), 9)
    assert list(results) == [0.01] * 99
    assert [worker["id"] for worker in results.stats() if worker["items"]].count("good") == 1


def test_a_gateway_that_was_dead_before_is_started_anew(group):
    gateway = group.makegateway("popen//id=mine")
    os.kill(pid_of(gateway), 9)
    assert wait_until(lambda: not gateway.hasreceiver())
    assert list(group.pipe(pooled.square, range(10))) == [n * n for n in range(10)]
    assert pid_of(group["mine"])


def test_a_gateway_that_the_program_exits_is_not_started_anew(group):
    group.makegateway("popen//id=stays")
    goes = group.makegateway("popen//id=goes")
    results = group.pipe(pooled.sleep, [0.01] * 60, batch_size=1)
    next(results)
    goes.exit()
    assert list(results) == [0.01] * 59
    assert [gateway.id for gateway in group] == ["stays"]


# ---- time


@pytest.mark.parametrize("batch_size", [1, 3, 50])
def test_an_item_that_takes_too_long_is_a_timeout(batch_size):
    stream = [0, 0, 60, 0, 0, 60, 0]
    results = list(pipe(pooled.sleep, stream, max_workers=1, batch_size=batch_size, timeout=0.3, return_exceptions=True))
    assert [result for result in results if not result] == [0] * 5
    for n in (2, 5):
        assert isinstance(results[n], ItemTimeout) and isinstance(results[n], builtins.TimeoutError)
        assert isinstance(results[n], execnet_c.TimeoutError)
        assert str(results[n]) == f"item {n}, 60: no result after 0.3 seconds"


def test_it_is_raised_at_its_place():
    results = []
    with pytest.raises(TimeoutError, match="item 2, 60"):
        for result in pipe(pooled.sleep, [0, 0, 60, 0], max_workers=2, timeout=0.3):
            results.append(result)
    assert results == [0, 0]


def test_an_interrupt_leaves_the_worker_alive():
    stream = [0, 60, 0]
    first, late, last = pipe(pooled.pid_after, stream, max_workers=1, timeout=0.3, return_exceptions=True)
    assert isinstance(late, TimeoutError)
    assert first == last


@pytest.mark.parametrize("batch_size", [1, 6])
@pytest.mark.parametrize("workers", [1, 2])
def test_who_hears_no_interrupt_is_ended_and_replaced(batch_size, workers):
    stream = [1, 2, (60,), 3, 4, 5]
    options = {"max_workers": workers, "batch_size": batch_size, "timeout": 0.3, "return_exceptions": True}
    results = list(pipe(pooled.deaf, stream, **options))
    assert isinstance(results[2], TimeoutError)
    assert [*results[:2], *results[3:]] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("batch_size", [1, 5])
def test_who_keeps_the_gil_is_ended_too(batch_size, monkeypatch):
    monkeypatch.setattr(crew, "SILENT", 2.0)
    monkeypatch.setattr(crew, "LONGEST_WAIT", 0.5)
    results = list(pipe(pooled.keep_the_gil, range(5), max_workers=1, batch_size=batch_size, timeout=0.5, return_exceptions=True))
    assert isinstance(results[2], ItemTimeout) and str(results[2]).startswith("item 2, 2:")
    assert [*results[:2], *results[3:]] == [0, 0, 3, 6]


def test_a_long_batch_of_short_items_is_not_taken_for_silence(monkeypatch):
    monkeypatch.setattr(crew, "SILENT", 2.0)
    stream = [0.25] * 20
    assert list(pipe(pooled.sleep, stream, max_workers=1, batch_size=20, timeout=2.0)) == stream


def test_timeouts_do_not_count_as_deaths_of_the_worker():
    stream = [(60,), (60,), (60,), 1]
    results = list(pipe(pooled.deaf, stream, max_workers=1, timeout=0.2, retries=0, return_exceptions=True))
    assert [type(result) for result in results] == [ItemTimeout] * 3 + [int]


def test_short_items_are_never_taken_for_late_ones():
    """Each second one ends about when its time is over: it is a result or a timeout, and no interrupt hits what follows."""
    stream = [0.02, 0] * 100
    results = list(pipe(pooled.sleep, stream, max_workers=1, timeout=0.02, return_exceptions=True))
    for n, result in enumerate(results):
        assert result == stream[n] or isinstance(result, ItemTimeout) and str(result).startswith(f"item {n}, ")
    assert len(results) == 200 and 0 in results


# ---- the end


@pytest.mark.parametrize("how", ["close", "with", "error in the loop", "error of an item"])
def test_the_end_interrupts_what_runs(how):
    """Well before the items are over, which takes minutes."""
    results = pipe(pooled.sleep, itertools.chain([0, 0], itertools.repeat(600)), max_workers=2, batch_size=1)
    assert next(results) == 0
    pids = pids_of(results)
    if how == "close":
        results.close()
    elif how == "with":
        with results:
            pass
    elif how == "error in the loop":
        with pytest.raises(LookupError), results:
            for _ in results:
                raise LookupError
    else:
        results.close()
        stream = pipe(pooled.sleep, ["no number", 600, 600], max_workers=2, batch_size=1)
        with pytest.raises(TypeError):
            list(stream)
    assert wait_until(lambda: not any(map(os.path.exists, (f"/proc/{pid}" for pid in pids))))
    assert list(results) == []


def test_a_groups_workers_are_interrupted_and_live_on(group, monkeypatch):
    monkeypatch.setattr(crew, "KILL_AFTER", TIMEOUT)  # a busy machine may need more than a second
    gateways = [group.makegateway() for _ in range(2)]
    pids = [pid_of(gateway) for gateway in gateways]
    results = group.pipe(pooled.doze, itertools.chain([0], itertools.repeat(600)), batch_size=1)
    assert next(results) == 0
    results.close()
    assert [pid_of(gateway) for gateway in group] == pids
    assert list(group.pipe(pooled.square, range(10))) == [n * n for n in range(10)]


def test_an_interrupt_that_comes_just_before_a_wait_is_repeated(group, monkeypatch):
    """Each stream is ended at about the moment at which its second item begins to wait."""
    monkeypatch.setattr(crew, "KILL_AFTER", TIMEOUT)
    gateway = group.makegateway()
    before = pid_of(gateway)
    for _ in range(100):
        results = gateway.pipe(pooled.sleep_in_main_thread, [0, 600], batch_size=1)
        assert next(results) == 0
        results.close()
    assert group[0] is gateway and pid_of(gateway) == before


def test_a_groups_workers_that_go_on_are_ended_and_started_anew(group, tmp_path):
    gateway = group.makegateway("popen//id=mine")
    before = pid_of(gateway)
    results = group.pipe(pooled.deaf, [0, (600, str(tmp_path / "mark")), 0], batch_size=1)
    assert next(results) == 0
    assert wait_until((tmp_path / "mark").exists)
    results.close()
    [gateway] = group
    assert gateway.id == "mine" and pid_of(gateway) != before
    assert list(group.pipe(pooled.square, range(10))) == [n * n for n in range(10)]


def test_a_source_that_waits_for_ever_holds_up_no_end():
    waiting = threading.Event()

    def source():
        yield 1
        waiting.wait(TIMEOUT)

    results = pipe(pooled.square, source(), max_workers=1)
    assert next(results) == 1
    begin = time.monotonic()
    results.close()
    waited = time.monotonic() - begin
    waiting.set()
    assert waited < TIMEOUT / 2
