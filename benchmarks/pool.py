"""A function over a stream, in two processes: as many ints as possible, each the argument of a function that returns it; and two
workers of which one takes four times as long as the other.

Each library has as many runs, the fastest counts: with chunks of several sizes; pipe() finds its own. And small tasks of
executors.
"""

import itertools
import os
import statistics
import tempfile
import time

import far
import peers
from base import Clock, Line, Work

WORKERS = 2
CHUNKS = (100, 1000, 10_000)
TASKS_TOGETHER = 100
NAP = 0.002  # seconds for an item of the faster worker
FACTOR = 4


def ints_a_second(results, number):
    """results(): an iterator over what becomes of range(number)."""
    with Clock() as clock:
        for expected, result in enumerate(results()):
            assert result == expected
    assert expected == number - 1
    return number / clock.seconds


def best_of(chunks, results_of, number):
    """One run for each size of the chunks; the fastest of them."""
    return max(ints_a_second(lambda: results_of(chunk), number) for chunk in chunks)


def with_pipe(peer, number):
    peer.group = peer.module.Group(["popen"] * WORKERS)
    for _ in peer.group.pipe(far.same, range(WORKERS)):
        pass  # the workers have imported what they need
    try:
        return best_of(["auto"] * len(CHUNKS), lambda size: peer.group.pipe(far.same, range(number), batch_size=size), number)
    finally:
        peer.stop()


def with_pool(peer, number):
    import multiprocessing

    with multiprocessing.get_context("spawn").Pool(WORKERS) as pool:
        pool.map(far.same, range(WORKERS))
        return best_of(CHUNKS, lambda chunk: pool.imap(far.same, range(number), chunk), number)


def with_futures(peer, number):
    import concurrent.futures
    import multiprocessing

    with concurrent.futures.ProcessPoolExecutor(WORKERS, multiprocessing.get_context("spawn")) as executor:
        list(executor.map(far.same, range(WORKERS)))
        return best_of(CHUNKS, lambda chunk: executor.map(far.same, range(number), chunksize=chunk), number)


def with_joblib(peer, number):
    from joblib import Parallel, delayed

    with Parallel(WORKERS, return_as="generator", batch_size=CHUNKS[0]) as parallel:
        list(parallel(delayed(far.same)(n) for n in range(WORKERS)))
        return ints_a_second(lambda: parallel(delayed(far.same)(n) for n in range(number)), number)


FUNCTIONS = {peers.ExecnetC: with_pipe, peers.Pool: with_pool, peers.Futures: with_futures, peers.Joblib: with_joblib}


def ints(peer, setting):
    return {"pipe": FUNCTIONS[type(peer)](peer, setting.pick(1_000_000, 100_000, 1000))}


class PoolExecutor:
    """multiprocessing's pool with the methods of an executor."""

    def __init__(self, pool):
        self._pool = pool
        self.shutdown = pool.terminate

    def map(self, function, items, chunksize):
        return self._pool.imap(function, items, chunksize)

    def submit(self, function, item):
        call = self._pool.apply_async(function, (item,))
        call.result = call.get
        return call


def executor_of(peer):
    """With WORKERS processes; joblib's is loky's."""
    import concurrent.futures
    import multiprocessing

    spawn = multiprocessing.get_context("spawn")
    if isinstance(peer, peers.ExecnetC):
        return peer.module.GatewayPoolExecutor(WORKERS)
    if isinstance(peer, peers.Pool):
        return PoolExecutor(spawn.Pool(WORKERS))
    if isinstance(peer, peers.Futures):
        return concurrent.futures.ProcessPoolExecutor(WORKERS, spawn)
    from joblib.externals.loky import get_reusable_executor

    return get_reusable_executor(WORKERS)


def tasks(peer, setting):
    number, rounds = setting.pick((100_000, 2000), (20_000, 500), (1000, 20))
    executor = executor_of(peer)
    try:
        for _ in executor.map(far.same, range(10 * WORKERS), chunksize=1):
            pass  # the workers have imported what they need
        with Clock() as clock:
            results = list(executor.map(far.same, range(number), chunksize=TASKS_TOGETHER))
        assert results == list(range(number))
        times = []
        for n in range(rounds):
            with Clock() as one:
                result = executor.submit(far.same, n).result()
            assert result == n
            times.append(one.seconds)
    finally:
        executor.shutdown()
    return {"tasks_map": number / clock.seconds, "tasks_submit": 1e6 * statistics.median(times)}


def factor(path):
    """The first worker is the slow one."""
    import os

    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return 1
    return FACTOR


def nap(factor, item):
    time.sleep(NAP * factor)
    return item


def unequal(peer, setting):
    seconds = setting.pick(4.0, 2.0, 0.1)
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "slow")
        results = peer.module.pipe(nap, itertools.count(), max_workers=2, initializer=factor, initargs=(path,))
        for _ in itertools.islice(results, setting.pick(200, 100, 10)):
            pass  # until the batches have their sizes
        before, begin, count = results.stats(), time.perf_counter(), 0
        while time.perf_counter() < begin + seconds or not all(w["items"] > b["items"] for w, b in zip(results.stats(), before)):
            next(results)
            count += 1
        rate = count / (time.perf_counter() - begin)
        paces = [(w["busy"] - b["busy"]) / (w["items"] - b["items"]) for w, b in zip(results.stats(), before)]
        results.close()
    return {"unequal": 100 * rate / sum(1 / pace for pace in paces)}


WORKS = {
    "pipe": Work(
        "A function over a million ints, in two processes",
        ints,
        {"execnet_c": peers.ExecnetC, **peers.CALLS},
        {"pipe": Line("ints", "1/s", more_is_better=True)},
        rounds=(5, 1),
        limit=180,
    ),
    "executor": Work(
        "Tasks that return their argument, in two processes",
        tasks,
        {"execnet_c": peers.ExecnetC, **peers.CALLS},
        {
            "tasks_map": Line(f"map, {TASKS_TOGETHER} tasks together", "1/s", more_is_better=True),
            "tasks_submit": Line("submit().result()", "us"),
        },
        rounds=(5, 1),
        limit=180,
    ),
    "pipe-unequal": Work(
        "Two workers, one four times as slow as the other",
        unequal,
        {"execnet_c": peers.ExecnetC},
        {"unequal": Line("items, of what each does alone", "%", more_is_better=True)},
        rounds=(5, 1),
    ),
}
