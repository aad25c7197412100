"""worker_options of pipe() and GatewayPoolExecutor: on which CPUs workers run, with how many threads and how much memory; and
max_tasks_per_child."""

import collections
import itertools
import os
import sys

import pytest

import execnet_c
import pooled
from execnet_c import GatewayPoolExecutor, pipe
from execnet_c.pool.limits import THREADS, cpus
from gateways import group_fixture, pid_of  # noqa: F401  (a fixture)
from masters import TIMEOUT

pytestmark = [
    pytest.mark.ours,
    pytest.mark.not_under("address thread", "they need more address space than a machine has"),
]

USABLE = sorted(os.sched_getaffinity(0))
MiB = 1 << 20


def of_each(func, number, **options):
    """{process id: what `func` has found} for so many workers. It gives both."""
    found = {}
    with pipe(func, itertools.count(), batch_size=1, ordered=False, **options) as results:
        for pid, what in results:
            found[pid] = what
            if len(found) == number:
                return found


@pytest.fixture
def no_variables(monkeypatch):
    for name in THREADS:
        monkeypatch.delenv(name, raising=False)


# ---- CPUs


def in_turn(among, number):
    return sorted([among[n % len(among)]] for n in range(number))


def test_workers_are_spread_over_the_cpus():
    number = len(USABLE) + 1
    found = of_each(pooled.affinity, number, max_workers=number, worker_options={"affinity": "spread"})
    assert sorted(found.values()) == in_turn(USABLE, number)


def test_cpus_may_be_named():
    among = USABLE[-1:]
    found = of_each(pooled.affinity, 2, max_workers=2, worker_options={"affinity": among})
    assert sorted(found.values()) == in_turn(among, 2)


def test_by_default_a_worker_may_use_all_cpus():
    assert [*of_each(pooled.affinity, 1, max_workers=1).values()] == [USABLE]


def test_a_worker_that_is_started_anew_runs_where_the_last_one_did():
    options = {"max_workers": 1, "worker_options": {"affinity": USABLE[-1:]}, "max_tasks_per_child": 1}
    assert [*of_each(pooled.affinity, 3, **options).values()] == [USABLE[-1:]] * 3


def test_an_executors_workers_are_spread():
    with GatewayPoolExecutor(2, worker_options={"affinity": "spread"}) as executor:
        found = dict(executor.map(pooled.affinity, range(20)))
    assert sorted(found.values()) == in_turn(USABLE, 2)


def test_in_a_group_it_holds_as_long_as_the_stream(group):
    gateways = [group.makegateway() for _ in range(2)]
    found = of_each(pooled.affinity, 2, group=gateways, worker_options={"affinity": "spread"})
    assert [found[pid_of(gateway)] for gateway in gateways] == [[USABLE[n % len(USABLE)]] for n in range(2)]
    assert [*of_each(pooled.affinity, 2, group=gateways).values()] == [USABLE] * 2


def refused(text, **options):
    """An error before any item runs."""
    ran = []
    with pytest.raises(OSError, match=text) as caught:
        ran += pipe(pooled.pid, range(3), **options)
    assert not ran and "worker_options" in str(caught.value) and "this machine (gateway 'gw" in str(caught.value)


def test_a_system_without_affinity_is_an_error(group):
    gateway = group.makegateway()
    gateway.remote_exec("import os; del os.sched_setaffinity").waitclose(TIMEOUT)
    refused("affinity='spread': its system has no sched_setaffinity", group=[gateway], worker_options={"affinity": "spread"})
    refused(r"affinity=\[0\]: its system has no", group=[gateway], worker_options={"affinity": [0]})


@pytest.mark.parametrize("cpu", [1_000, 1 << 40, 1 << 70])
def test_a_cpu_that_is_not_there_is_an_error(cpu):
    refused(rf"affinity=\[{cpu}\]: CPU {cpu} cannot be used, but of these one can: \[{USABLE[0]}", max_workers=1, worker_options={"affinity": [cpu]})


def test_an_error_of_that_breaks_an_executor():
    with GatewayPoolExecutor(1, worker_options={"affinity": [1_000]}) as executor:
        error = executor.submit(os.getpid).exception(TIMEOUT)
    assert isinstance(error, execnet_c.pool.executor.BrokenExecutor) and "CPU 1000 cannot be used" in str(error)


# ---- threads


def numbers(options=None, workers=1, **more):
    """The variables that a worker has."""
    [found] = of_each(pooled.variables, 1, max_workers=workers, worker_options=options, **more).values()
    return found


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_by_default_a_worker_has_its_share_of_threads(no_variables, workers):
    share = max(1, cpus() // workers)
    assert numbers(workers=workers) == dict.fromkeys(THREADS, str(share))
    assert numbers({"threads": "share"}, workers) == dict.fromkeys(THREADS, str(share))


def test_who_is_pinned_has_one_thread(no_variables):
    assert numbers({"affinity": "spread"}) == dict.fromkeys(THREADS, "1")
    assert numbers({"affinity": "spread", "threads": 3}) == dict.fromkeys(THREADS, "3")


def test_their_number_may_be_given_or_left_alone(no_variables):
    assert numbers({"threads": 7}, workers=2) == dict.fromkeys(THREADS, "7")
    assert numbers({"threads": None}) == dict.fromkeys(THREADS)
    with GatewayPoolExecutor(1, worker_options={"threads": 7}) as executor:
        assert executor.submit(pooled.variables).result(TIMEOUT)[1] == dict.fromkeys(THREADS, "7")


def test_what_the_environment_says_stays_by_default(no_variables, monkeypatch):
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "9")
    share = str(cpus())
    assert numbers() == {**dict.fromkeys(THREADS, share), "OPENBLAS_NUM_THREADS": "9"}
    assert numbers({"threads": 2}) == dict.fromkeys(THREADS, "2")


def test_what_a_spec_says_stays(no_variables):
    specs = ["popen//env:OPENBLAS_NUM_THREADS=9"]
    assert numbers(specs=specs) == {**dict.fromkeys(THREADS, str(cpus())), "OPENBLAS_NUM_THREADS": "9"}
    assert numbers({"threads": 2}, specs=specs) == {**dict.fromkeys(THREADS, "2"), "OPENBLAS_NUM_THREADS": "9"}


def test_where_the_user_has_set_what_all_fall_back_on_that_holds(no_variables, monkeypatch):
    specs = ["popen//env:OMP_NUM_THREADS=9"]
    only = {**dict.fromkeys(THREADS), "OMP_NUM_THREADS": "9"}
    assert numbers(specs=specs) == numbers({"threads": 2}, specs=specs) == only
    monkeypatch.setenv("OMP_NUM_THREADS", "9")
    assert numbers() == only
    assert numbers({"threads": 2}) == dict.fromkeys(THREADS, "2")


def test_an_initializer_finds_them_set(no_variables):
    with pipe(pooled.use_variables, [1], initializer=pooled.variables, max_workers=1, worker_options={"threads": 7}) as results:
        assert [*results] == [dict.fromkeys(THREADS, "7")]


def test_workers_of_a_group_are_asked_only_if_told_so(no_variables, group):
    gateway = group.makegateway()
    assert numbers(group=group) == numbers({"affinity": "spread"}, group=group) == dict.fromkeys(THREADS)
    assert numbers({"threads": "share"}, group=group) == dict.fromkeys(THREADS, str(cpus()))
    assert numbers({"threads": 7}, group=[gateway]) == dict.fromkeys(THREADS, "7")
    assert numbers(group=group) == dict.fromkeys(THREADS)


def test_a_worker_that_has_threadpoolctl_is_told_by_it(no_variables, group):
    pytest.importorskip("threadpoolctl")
    gateway = group.makegateway()
    gateway.remote_exec("import numpy, threadpoolctl").waitclose(TIMEOUT)

    def threads():
        [found] = of_each(pooled.threads_of_libraries, 1, group=[gateway], worker_options=options).values()
        return found

    options = {"threads": 1}
    before = gateway.remote_exec("import threadpoolctl as t; channel.send([p['num_threads'] for p in t.threadpool_info()])")
    before = before.receive(TIMEOUT)
    assert before and threads() == [1] * len(before)
    options = None
    assert threads() == before


# ---- memory


LIMIT = {"memory": 600 * MiB}


def limits_memory(test):
    free = "t" in getattr(sys, "abiflags", "")
    test = pytest.mark.skipif(free, reason="a Python without a GIL takes more addresses as it starts")(test)
    return pytest.mark.not_under("asan tsan", "it limits memory")(test)


@limits_memory
@pytest.mark.parametrize("options", [{"max_workers": 1}, {"max_workers": 1, "timeout": 60}])
def test_an_item_that_needs_more_memory_is_a_memory_error_that_names_the_limit(options):
    items = [1, 2_000, 1]
    results = list(pipe(pooled.allocate, items, return_exceptions=True, worker_options=LIMIT, **options))
    assert results[0] == results[2] == 1
    assert type(results[1]) is MemoryError and str(LIMIT["memory"]) in str(results[1])
    assert "memory=" in str(results[1].__cause__) and "in allocate" in str(results[1].__cause__)


@limits_memory
def test_a_task_that_needs_more_memory_fails_alone():
    with GatewayPoolExecutor(1, worker_options=LIMIT) as executor:
        error = executor.submit(pooled.allocate, 2_000).exception(TIMEOUT)
        assert type(error) is MemoryError and str(LIMIT["memory"]) in str(error)
        assert executor.submit(pooled.allocate, 10).result(TIMEOUT) == 10


@limits_memory
def test_pieces_until_there_is_no_memory_left():
    results = list(pipe(pooled.fill, [0, 1, 0], return_exceptions=True, max_workers=1, worker_options=LIMIT))
    assert results[0] == results[2] == 0
    assert type(results[1]) is MemoryError and str(LIMIT["memory"]) in str(results[1])


@limits_memory
def test_a_result_that_needs_more_memory():
    """To be pickled it is there twice."""
    results = list(pipe(pooled.zeros, [1, 400, 1], return_exceptions=True, max_workers=1, worker_options=LIMIT))
    assert list(map(len, (results[0], results[2]))) == [MiB, MiB]
    assert type(results[1]) is MemoryError and str(LIMIT["memory"]) in str(results[1])


@limits_memory
def test_an_item_that_needs_more_memory():
    items = [b"x", bytes(1_000 * MiB), b"xx"]
    results = list(pipe(len, items, return_exceptions=True, max_workers=1, worker_options=LIMIT, batch_size=1))
    assert results[0] == 1 and results[2] == 2
    assert type(results[1]) is MemoryError and str(LIMIT["memory"]) in str(results[1])


@limits_memory
def test_an_initializer_that_needs_more_memory():
    with pytest.raises(MemoryError, match=str(LIMIT["memory"])):
        list(pipe(pooled.use, [1], initializer=len, initargs=[bytes(1_000 * MiB)], max_workers=1, worker_options=LIMIT))


@limits_memory
@pytest.mark.parametrize("word", ["MemoryError", "terminate called after throwing an instance of 'std::bad_alloc'"])
def test_a_worker_that_dies_of_it_names_it(word):
    specs = ["popen//stderr=capture"]
    [error] = pipe(pooled.die_saying, [word], return_exceptions=True, specs=specs, worker_options=LIMIT)
    assert isinstance(error, execnet_c.WorkerKilled) and f"memory={LIMIT['memory']}" in str(error)
    [error] = pipe(pooled.die_saying, ["something else"], return_exceptions=True, specs=specs, worker_options=LIMIT)
    assert isinstance(error, execnet_c.WorkerKilled) and "memory=" not in str(error)
    [error] = pipe(pooled.die_saying, [word], return_exceptions=True, specs=specs)
    assert isinstance(error, execnet_c.WorkerKilled) and "memory=" not in str(error)


def test_less_memory_than_a_worker_has_already_is_an_error():
    refused(r"memory=1000000: it has \d+ bytes already", max_workers=1, worker_options={"memory": 1_000_000})


@limits_memory
def test_in_a_group_the_limit_holds_as_long_as_the_stream(group):
    gateway = group.makegateway()
    [limit] = of_each(pooled.memory_limit, 1, group=[gateway], worker_options=LIMIT).values()
    assert limit == LIMIT["memory"]
    [limit] = of_each(pooled.memory_limit, 1, group=[gateway]).values()
    assert limit != LIMIT["memory"]


# ---- max_tasks_per_child


@pytest.mark.parametrize("batch_size", [1, 2, 100, "auto"])
def test_a_worker_is_replaced_after_so_many_items(batch_size):
    pids = list(pipe(pooled.pid, range(9), max_workers=1, batch_size=batch_size, max_tasks_per_child=3))
    assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [3, 3, 3]


def test_none_of_several_workers_does_more():
    pids = list(pipe(pooled.pid, range(40), max_workers=3, max_tasks_per_child=4))
    assert len(pids) == 40 and max(collections.Counter(pids).values()) <= 4


def test_items_that_fail_count():
    def options():
        return {"max_workers": 1, "max_tasks_per_child": 2, "return_exceptions": True}

    pids = list(pipe(pooled.pid_or_error, [1, 0, 1, 0, 1], **options()))
    assert isinstance(pids[1], ValueError) and isinstance(pids[3], ValueError)
    assert len({pids[0], pids[2], pids[4]}) == 3


def test_a_batch_that_comes_back_is_given_in_parts(tmp_path):
    """The worker dies, and its batch is larger than what the next one may still do."""
    items = [1, 2, 3, str(tmp_path / "mark"), 5, 6, 7]
    results = list(pipe(pooled.die_once, items, max_workers=1, batch_size=4, max_tasks_per_child=4, retries=2))
    assert results == [1, 2, 3, "survived", 5, 6, 7]


def test_a_groups_worker_is_replaced_in_its_group(group):
    group.makegateway("popen//id=only")
    pids = list(group.pipe(pooled.pid, range(4), max_tasks_per_child=2))
    assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [2, 2]
    assert [gateway.id for gateway in group] == ["only"]


def test_an_endless_stream_goes_on():
    with pipe(pooled.same, itertools.count(), max_workers=2, max_tasks_per_child=5) as results:
        assert [next(results) for _ in range(50)] == list(range(50))


# ---- bad input

BAD = [
    ({"afinity": "spread"}, "'afinity'.*it may have affinity, memory, threads"),
    ([("threads", 1)], "a dict"),
    ({"affinity": "all"}, "affinity='all'"),
    ({"affinity": []}, r"affinity=\[\]"),
    ({"affinity": [-1]}, r"affinity=\[-1\]"),
    ({"affinity": ["0"]}, r"affinity=\['0'\]"),
    ({"affinity": [True]}, r"affinity=\[True\]"),
    ({"affinity": 1}, "affinity=1"),
    ({"threads": 0}, "threads=0"),
    ({"threads": True}, "threads=True"),
    ({"threads": 1.5}, "threads=1.5"),
    ({"threads": "many"}, "threads='many'"),
    ({"memory": 0}, "memory=0"),
    ({"memory": "1G"}, "memory='1G'"),
    ({"memory": 1e9}, "memory=1000000000.0"),
    ({"memory": 1 << 63}, "memory=9223372036854775808"),
]


@pytest.mark.parametrize("options, text", BAD)
def test_what_makes_no_sense_is_refused_before_anything_starts(options, text):
    source = pooled.Watched()
    with pytest.raises(ValueError, match=text):
        pipe(pooled.same, source, worker_options=options)
    with pytest.raises(ValueError, match=text):
        GatewayPoolExecutor(1, worker_options=options)
    assert source.drawn == 0


@pytest.mark.parametrize("number", [0, -1, 1.5, True])
def test_max_tasks_per_child_is_a_number(number):
    with pytest.raises(ValueError, match=f"max_tasks_per_child={number}"):
        pipe(pooled.same, [1], max_tasks_per_child=number)


def test_what_is_empty_asks_for_nothing(no_variables):
    assert numbers({}) == numbers(None)
