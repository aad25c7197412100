"""pipe(): what comes of a stream, in which order, how far the source is drawn, and what each option does."""

import gc
import itertools
import os
import queue
import threading

import pytest

import execnet_c
import pooled
from execnet_c import pipe
from gateways import group_fixture, pid_of  # noqa: F401  (a fixture)
from masters import TIMEOUT, wait_until

pytestmark = pytest.mark.ours


def test_results_come_in_order():
    assert list(pipe(pooled.square, range(1000), max_workers=2)) == [n * n for n in range(1000)]


def test_without_a_number_there_are_as_many_workers_as_cpus():
    from execnet_c.pool.places import cpus

    assert len(set(pipe(pooled.pid, range(64), batch_size=1))) <= cpus()
    stream = pipe(pooled.pid, range(4))
    next(stream)
    assert len(stream.stats()) == cpus()
    stream.close()


def test_an_empty_stream_has_no_results():
    assert list(pipe(pooled.square, [], max_workers=1)) == []
    assert list(pipe(pooled.square, iter(()), max_workers=1)) == []


@pytest.mark.parametrize("kind", [list, tuple, set, iter, pooled.Watched], ids=str)
def test_any_iterable_will_do(kind):
    stream = kind(50) if kind is pooled.Watched else kind(range(50))
    assert sorted(pipe(pooled.square, stream, max_workers=1)) == [n * n for n in range(50)]


@pytest.mark.parametrize("batch_size", [1, 7, 100, "auto"])
@pytest.mark.parametrize("buffersize", [None, 1, 10])
def test_sizes_change_no_result(batch_size, buffersize):
    results = pipe(pooled.square, iter(range(60)), max_workers=2, batch_size=batch_size, buffersize=buffersize)
    assert list(results) == [n * n for n in range(60)]


def test_out_of_order_each_result_comes_once():
    seconds = [0.3, 0, 0, 0, 0, 0, 0, 0]
    results = list(pipe(pooled.sleep, seconds, max_workers=2, batch_size=1, ordered=False))
    assert sorted(results) == sorted(seconds)
    assert results[0] == 0


def test_in_order_a_slow_item_holds_back_what_is_behind_it():
    seconds = [0.3, 0, 0, 0]
    assert list(pipe(pooled.sleep, seconds, max_workers=2, batch_size=1)) == seconds


@pytest.mark.parametrize("ordered", [True, False])
def test_a_context_goes_along(ordered):
    pairs = [(n, object()) for n in range(100)]
    results = list(pipe(pooled.square, pairs, max_workers=2, as_tuples=True, ordered=ordered))
    assert {id(context): result for result, context in results} == {id(context): n * n for n, context in pairs}
    if ordered:
        assert [context for _, context in results] == [context for _, context in pairs]


def test_a_context_need_not_be_sent():
    [(result, lock)] = pipe(pooled.square, [(3, threading.Lock())], max_workers=1, as_tuples=True)
    assert result == 9 and lock.acquire(False)


def test_what_is_no_pair_is_refused():
    with pytest.raises(TypeError, match="the source must give pairs"):
        list(pipe(pooled.square, [1, 2], max_workers=1, as_tuples=True))


# ---- the source


@pytest.mark.parametrize("buffersize", [1, 3, 20])
@pytest.mark.parametrize("ordered", [True, False])
def test_what_is_drawn_and_not_yet_yielded_never_exceeds_the_buffer(buffersize, ordered):
    source = pooled.Watched()
    results = pipe(pooled.same, source, max_workers=2, buffersize=buffersize, ordered=ordered)
    for yielded in range(200):
        next(results)
        assert source.drawn - yielded <= buffersize
    results.close()


def test_by_default_two_batches_a_worker_are_in_the_buffer():
    source = pooled.Watched()
    results = pipe(pooled.same, source, max_workers=2, batch_size=5)
    for yielded in range(200):
        next(results)
        assert source.drawn - yielded <= 2 * 2 * 5
    results.close()


def test_nothing_is_drawn_or_started_before_the_first_result_is_wanted():
    source = pooled.Watched()
    results = pipe(pooled.same, source, max_workers=1)
    assert results.stats() == []
    results.close()
    assert source.drawn == 0


def test_results_come_while_the_source_waits():
    waiting = queue.Queue()
    results = pipe(pooled.square, iter(waiting.get, None), max_workers=2)
    for n in range(20):
        waiting.put(n)
        assert next(results) == n * n
    waiting.put(None)
    assert list(results) == []


@pytest.mark.parametrize("batch_size", [1000, "auto"])
def test_less_than_a_batch_goes_when_no_more_comes(batch_size):
    waiting = queue.Queue()
    results = pipe(pooled.square, iter(waiting.get, None), max_workers=1, batch_size=batch_size)
    for n in (3, 4, 5):
        waiting.put(n)
    assert [next(results) for _ in range(3)] == [9, 16, 25]
    for n in range(1000):
        waiting.put(n)
    assert [next(results) for _ in range(1000)] == [n * n for n in range(1000)]
    waiting.put(7)
    assert next(results) == 49
    waiting.put(None)
    assert list(results) == []


def test_what_the_source_raises_comes_behind_the_results_before_it():
    def source():
        yield from range(10)
        raise LookupError("no more")

    results, error = [], None
    try:
        for result in pipe(pooled.square, source(), max_workers=2):
            results.append(result)
    except LookupError as exc:
        error = exc
    assert results == [n * n for n in range(10)]
    assert str(error) == "no more"


def test_many_items_run_in_little_memory():
    """Counted, not weighed: never is more of the source drawn than the buffer, however long the stream."""
    source, most = pooled.Watched(200_000), 0
    for yielded, result in enumerate(pipe(pooled.same, source, max_workers=2, batch_size=500)):
        assert result == yielded
        most = max(most, source.drawn - yielded)
    assert yielded == 199_999
    assert most <= 2 * 2 * 500


def test_a_batch_grows_with_the_number_of_items_and_not_with_their_size():
    results = pipe(len, (bytes(200_000) for _ in range(100)), max_workers=1)
    for result in results:
        assert result == 200_000
        assert all(len(batch.items) <= 16 for worker in results._stream.crew.workers.values() for batch in worker.has)


# ---- options


def test_an_initializer_runs_once_in_each_worker():
    results = list(
        pipe(pooled.use, range(100), max_workers=2, initializer=pooled.load, initargs=(1000, 1), batch_size=5)
    )
    assert results == [(True, 1001 + n) for n in range(100)]


def test_an_initializer_that_fails_ends_the_stream():
    with pytest.raises(TypeError, match="unsupported operand") as caught:
        list(pipe(pooled.use, range(100), max_workers=2, initializer=pooled.load, initargs=(1, "two")))
    assert "the initializer failed" in str(caught.value.__cause__)
    assert "in load" in str(caught.value.__cause__)


def test_exceptions_may_be_results():
    results = list(pipe(pooled.divide, [1, 0, 2, 0, 5], max_workers=2, batch_size=2, return_exceptions=True))
    assert [results[n] for n in (0, 2, 4)] == [100, 50, 20]
    for n in (1, 3):
        assert type(results[n]) is ZeroDivisionError
        assert f"item {n}, 0" in str(results[n].__cause__)


def test_exceptions_may_be_results_beside_contexts():
    results = list(pipe(pooled.divide, zip([1, 0, 2], "abc"), max_workers=1, as_tuples=True, return_exceptions=True))
    assert results[0] == (100, "a") and results[2] == (50, "c")
    assert type(results[1][0]) is ZeroDivisionError and results[1][1] == "b"


def test_stats_say_what_each_worker_did():
    results = pipe(pooled.sleep, [0.01] * 40, max_workers=2)
    list(itertools.islice(results, 39))
    stats = results.stats()
    results.close()
    assert len({worker["id"] for worker in stats}) == 2
    assert 39 <= sum(worker["items"] for worker in stats) <= 40
    assert sum(worker["busy"] for worker in stats) >= 0.39
    assert all(worker["bytes"] > 0 for worker in stats if worker["items"])
    assert all(worker["queue"] <= 2 for worker in stats)


def test_a_bar_shows_how_far_it_is(capsys, monkeypatch):
    monkeypatch.setattr(pytest.importorskip("tqdm").tqdm, "monitor_interval", 0)  # else a thread of tqdm's stays
    assert list(pipe(pooled.square, range(300), max_workers=2, progress=True)) == [n * n for n in range(300)]
    said = capsys.readouterr().err
    assert "300/300" in said and "workers=" in said and "in_flight=" in said


def test_stages_run_at_once():
    first = pipe(pooled.sleep, itertools.repeat(0.001), max_workers=1, buffersize=4)
    second = pipe(pooled.same, first, max_workers=1, buffersize=4)
    assert [next(second) for _ in range(100)] == [0.001] * 100
    second.close()
    assert wait_until(lambda: threading.active_count() == 1)


def test_stages_are_bounded():
    source = pooled.Watched()
    first = pipe(pooled.same, source, max_workers=1, buffersize=5)
    second = pipe(pooled.square, first, max_workers=1, buffersize=7)
    for n in range(100):
        assert next(second) == n * n
        assert source.drawn - n <= 5 + 7 + 1
    second.close()


def test_stages_end_with_the_source():
    stream = range(500)
    for _ in range(3):
        stream = pipe(pooled.same, stream, max_workers=1)
    assert list(stream) == list(range(500))


def test_an_error_in_a_stage_comes_out_at_the_end():
    first = pipe(pooled.divide, [1, 2, 0, 4], max_workers=1)
    results = []
    with pytest.raises(ZeroDivisionError):
        for result in pipe(pooled.same, first, max_workers=1):
            results.append(result)
    assert results == [100, 50]


# ---- where it runs


def test_a_group_runs_it_and_goes_on(group):
    gateways = [group.makegateway() for _ in range(2)]
    pids = {pid_of(gateway) for gateway in gateways}
    seen = set(group.pipe(pooled.pid, range(200), batch_size=1))
    assert seen and seen <= pids
    assert {pid_of(gateway) for gateway in gateways} == pids
    assert [gateway.id for gateway in group] == ["gw0", "gw1"]


def test_a_gateway_runs_it_alone(group):
    gateways = [group.makegateway() for _ in range(2)]
    assert set(gateways[1].pipe(pooled.pid, range(50))) == {pid_of(gateways[1])}


def test_several_streams_run_in_the_same_gateways(group):
    group.makegateway()
    group.makegateway()
    first, second = group.pipe(pooled.square, range(500)), group.pipe(pooled.same, range(500))
    assert list(zip(first, second)) == [(n * n, n) for n in range(500)]


def test_max_workers_limits_the_gateways_of_a_group(group):
    for _ in range(3):
        group.makegateway()
    results = group.pipe(pooled.pid, range(50), max_workers=2)
    next(results)
    assert len(results.stats()) == 2
    results.close()


def test_specs_take_turns():
    results = pipe(pooled.pid, range(50), specs=["popen//id=one", "popen"], max_workers=2)
    next(results)
    assert [worker["id"] for worker in results.stats()][0] == "one"
    results.close()


def test_other_programs_of_the_group_are_not_disturbed(group):
    gateway = group.makegateway()
    channel = gateway.remote_exec("for item in channel: channel.send(item)")
    results = gateway.pipe(pooled.square, range(100))
    for n, result in enumerate(results):
        channel.send(result)
        assert channel.receive(TIMEOUT) == n * n


# ---- bad input


@pytest.mark.parametrize(
    "options, text",
    [
        ({"max_workers": 0}, "max_workers=0: it may be 1 or a larger int"),
        ({"max_workers": 1.5}, "max_workers=1.5"),
        ({"batch_size": -1}, "batch_size=-1: it may be 1 or a larger int"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": "large"}, "batch_size='large'"),
        ({"buffersize": 0}, "buffersize=0: it may be 1"),
        ({"retries": -1}, "retries=-1: it may be 0 or a larger int"),
        ({"timeout": 0}, "timeout=0: it may be a number of seconds larger than 0"),
        ({"timeout": "1"}, "timeout='1'"),
        ({"specs": []}, "specs=.*at least one spec"),
        ({"specs": "popen"}, r"specs='popen': it is a list of specs, as in specs=\['popen'\]"),
    ],
)
def test_what_makes_no_sense_is_refused_at_once(options, text):
    with pytest.raises(ValueError, match=text):
        pipe(pooled.square, [1], **options)


def test_a_source_that_is_none_is_refused_at_once():
    with pytest.raises(TypeError, match="not iterable"):
        pipe(pooled.square, 5)


def test_a_group_without_gateways_is_refused(group):
    with pytest.raises(ValueError, match="the group has no gateways"):
        group.pipe(pooled.square, [1])


def test_a_spec_that_cannot_be_started_raises_why():
    with pytest.raises(OSError, match="no-such-python"):
        list(pipe(pooled.square, [1], specs=["popen//python=no-such-python"]))


def test_dropped_in_the_middle_nothing_is_left():
    results = pipe(pooled.square, itertools.count(), max_workers=2)
    next(results)
    pids = [worker.gateway._state()["pid"] for worker in results._stream.crew.workers.values()]
    assert len(pids) == 2
    del results
    gc.collect()
    assert wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids))


def test_the_package_does_not_import_it():
    import subprocess
    import sys

    code = "import execnet_c, sys; execnet_c.Group; print([name for name in sys.modules if '.pool' in name])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/").stdout == "[]\n"
    assert execnet_c.pipe is pipe
