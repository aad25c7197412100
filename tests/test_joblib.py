"""The backend for joblib: what joblib's own backends do it does, too; its workers stay for the next call, and leave nothing behind."""

import multiprocessing
import os
import sys
import threading
import time
import warnings

import pytest

import execnet_c
import masters
import pooled
from conftest import children_of
from execnet_c.pool.limits import THREADS
from gateways import group_fixture, pid_of  # noqa: F401  (a fixture)
from masters import wait_until
from ssh_hosts import server_fixture  # noqa: F401  (a fixture)

try:
    import joblib
    from joblib import Parallel, delayed, parallel_config

    import execnet_c.joblib
except ImportError:
    pytest.skip("joblib is not here", allow_module_level=True)
try:
    import numpy
    import sklearn.model_selection
    import sklearn.svm
except ImportError:
    sklearn = None
else:  # they start threads: before the tests count them
    sklearn.svm.SVC().fit(numpy.eye(4), [0, 1, 0, 1])
    numpy.eye(300) @ numpy.eye(300)

pytestmark = [pytest.mark.ours, pytest.mark.timeout(240)]
execnet_c.joblib.register()


@pytest.fixture
def two():
    """Two workers."""
    with parallel_config("execnet_c", specs=["popen"] * 2):
        yield


def ours():
    """Our workers that are left."""
    return children_of(os.getpid())


# ---- results


@pytest.mark.parametrize("batch_size", ["auto", 1, 7])
@pytest.mark.parametrize("pre_dispatch", ["2 * n_jobs", "all", 3])
def test_results_come_in_order(two, batch_size, pre_dispatch):
    results = Parallel(batch_size=batch_size, pre_dispatch=pre_dispatch)(delayed(pow)(n, 2) for n in range(100))
    assert results == [n * n for n in range(100)]


def test_results_come_as_a_generator(two):
    results = Parallel(return_as="generator", batch_size=1)(delayed(pooled.sleep)(n) for n in [0.5, 0, 0, 0])
    assert list(results) == [0.5, 0, 0, 0]


def test_they_come_as_they_are_done(two, tmp_path):
    go = str(tmp_path / "go")
    calls = [delayed(pooled.wait_for)(go), delayed(pooled.same)(1), delayed(pooled.same)(2)]
    results = Parallel(return_as="generator_unordered", batch_size=1)(calls)
    assert next(results) == 1
    open(go, "w").close()
    assert set(results) == {2, go}


def test_the_source_is_drawn_as_far_as_pre_dispatch_says(two):
    source = pooled.Watched()
    results = Parallel(return_as="generator", batch_size=1, pre_dispatch=2)(
        delayed(pooled.wait_for)(path) for path in map(str, map(source_path, source))
    )
    assert source.drawn == 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # joblib says that not all was used
        results.close()


def source_path(n):
    return f"/nonexistent/{n}"


def test_what_is_no_module_function_goes(two):
    factor = 3
    assert Parallel()(delayed(lambda n: factor * n)(n) for n in range(5)) == [0, 3, 6, 9, 12]
    [result] = Parallel()([delayed(lambda: (lambda n: n + factor))()])
    assert result(1) == 4


def test_what_main_defines_goes_both_ways():
    lines = masters.run(
        """
        import joblib, execnet_c.joblib
        execnet_c.joblib.register()

        class Number:
            def __init__(self, value):
                self.value = value

        def double(number):
            return Number(2 * number.value)

        with joblib.parallel_config("execnet_c", specs=["popen"] * 2):
            numbers = joblib.Parallel()(joblib.delayed(double)(Number(n)) for n in range(4))
        print([number.value for number in numbers], {type(number) for number in numbers} == {Number})
        """
    )
    assert lines == ["[0, 2, 4, 6] True"]


def test_arrays_go_both_ways(two):
    numpy = pytest.importorskip("numpy")
    arrays = [numpy.full(100_000, n) for n in range(4)]
    results = Parallel()(delayed(pooled.add_one)(array) for array in arrays)
    assert [(result.shape, result[0], result[-1]) for result in results] == [((100_000,), n + 1, n + 1) for n in range(4)]


def test_it_says_what_it_does(two, capsys):
    Parallel(verbose=50)(delayed(pow)(n, 2) for n in range(3))
    said = capsys.readouterr()
    assert "Using backend GatewayBackend with 2 concurrent workers" in said.out + said.err
    assert "3 out of   3" in said.out + said.err


def test_without_joblib_the_error_says_what_to_install():
    lines = masters.run(
        """
        sys.modules["joblib"] = None
        try:
            import execnet_c.joblib
        except ImportError as exc:
            print(exc)
        """
    )
    assert lines == ["execnet_c.joblib needs joblib: pip install 'execnet_c[joblib]'"]


# ---- workers


def pids(calls=20, **options):
    return set(Parallel(batch_size=1, **options)(delayed(pooled.pid_after)(0.02) for _ in range(calls)))


def test_workers_stay_for_the_next_call_and_end_with_the_block():
    before = ours()
    with parallel_config("execnet_c", specs=["popen"] * 2):
        first, second = pids(), pids()
        assert first == second == ours() - before and len(first) == 2
    assert wait_until(lambda: ours() == before)


def test_workers_end_with_the_object_that_has_started_them():
    before = ours()
    parallel = Parallel(n_jobs=2, backend="execnet_c")
    assert parallel(delayed(pow)(n, 2) for n in range(4)) == [0, 1, 4, 9]
    assert len(ours() - before) == 2
    del parallel
    assert wait_until(lambda: ours() == before)


def test_a_with_block_of_parallel_keeps_them():
    with parallel_config("execnet_c", specs=["popen"] * 2), Parallel(batch_size=1) as parallel:
        first, second = (set(parallel(delayed(pooled.pid_after)(0.02) for _ in range(20))) for _ in range(2))
        assert first == second
        with pytest.raises(ZeroDivisionError):
            parallel(delayed(pooled.divide)(n) for n in [1, 0, 2])
        assert parallel(delayed(pooled.divide)(n) for n in [1, 2]) == [100, 50]


@pytest.mark.parametrize(
    "options, n_jobs, number",
    [
        ({"specs": ["popen"] * 3}, -1, 3),
        ({"specs": ["popen"] * 3}, -2, 2),
        ({"specs": ["popen"] * 3}, 2, 2),
        ({"specs": ["popen"] * 3}, -9, 2),
        ({"specs": ["popen"] * 3}, 5, 5),
        ({"specs": ["popen"]}, -1, 2),
        ({"specs": ["popen"]}, 1, 1),
        ({}, 4, 4),
        ({}, 1, 1),
    ],
)
def test_how_many_jobs(options, n_jobs, number):
    with parallel_config("execnet_c", n_jobs=n_jobs, **options):
        assert joblib.effective_n_jobs(n_jobs) == number
        with pytest.raises(ValueError, match="n_jobs == 0"):
            joblib.effective_n_jobs(0)
        if number > 2:
            assert len(pids(60)) == number


def test_one_worker_does_the_work_if_it_was_named_and_one_job_is_done_here():
    with parallel_config("execnet_c", specs=["popen"]):
        assert len(pids()) == 1 and os.getpid() not in pids()
        assert pids(n_jobs=1) == {os.getpid()}


def test_more_jobs_start_more_workers():
    with parallel_config("execnet_c", specs=["popen"]):
        assert [len(pids(60, n_jobs=n)) for n in (2, 3, 2)] == [2, 3, 2]


def test_a_groups_gateways_are_the_workers_and_stay(group):
    gateways = {pid_of(group.makegateway()) for _ in range(2)}
    with parallel_config("execnet_c", group=group):
        assert pids() == gateways
        with pytest.raises(ZeroDivisionError):
            Parallel()(delayed(pooled.divide)(n) for n in [1, 0, 2])
        assert pids() == gateways
    assert {pid_of(gateway) for gateway in group} == gateways


def test_options_of_the_executor_hold(monkeypatch):
    for name in THREADS:
        monkeypatch.delenv(name, raising=False)
    with parallel_config("execnet_c", specs=["popen"] * 2, initializer=pooled.set_word, initargs=("word",)):
        assert Parallel()(delayed(pooled.get_word)() for _ in range(2)) == ["word"] * 2
    with parallel_config("execnet_c", specs=["popen"] * 2, inner_max_num_threads=3):
        assert [found for _, found in Parallel()(delayed(pooled.variables)() for _ in range(2))] == [dict.fromkeys(THREADS, "3")] * 2
    found = Parallel(backend="execnet_c", n_jobs=2, worker_options={"threads": 5})(delayed(pooled.variables)() for _ in range(2))
    assert [variables for _, variables in found] == [dict.fromkeys(THREADS, "5")] * 2


@pytest.mark.parametrize(
    "options, error",
    [
        ({"specs": []}, ValueError),
        ({"specs": ["popen"], "group": []}, ValueError),
        ({"worker_options": {"thread": 1}}, ValueError),
        ({"nonsense": 1}, TypeError),
    ],
)
def test_what_makes_no_sense_is_refused_at_once(options, error):
    with pytest.raises(error):
        parallel_config("execnet_c", **options)


def test_what_cannot_be_started_is_an_error_each_time():
    with parallel_config("execnet_c", specs=["popen//python=no-such-python"]):
        for _ in range(2):
            with pytest.raises(OSError, match="no-such-python"):
                Parallel()(delayed(pow)(n, 2) for n in range(20))


def test_calls_in_calls_are_done_by_threads_as_with_loky(two):
    found = Parallel()(delayed(pooled.nested)(n) for n in range(4))
    assert {name for name, _, _ in found} == {"ThreadingBackend"}
    assert [results for _, results, _ in found] == [[m * m for m in range(n)] for n in range(4)]
    assert os.getpid() not in {pid for _, _, pid in found}


# ---- failures


def test_an_exception_is_that_of_the_call_and_ends_what_else_runs(two):
    pids()
    begin = time.monotonic()
    with pytest.raises(ZeroDivisionError) as caught:
        Parallel(batch_size=1)(delayed(func)(n) for func, n in [(pooled.sleep, 600), (pooled.divide, 0), (pooled.sleep, 600)])
    assert type(caught.value.__cause__) is execnet_c.RemoteError and "in divide" in str(caught.value.__cause__)
    assert time.monotonic() - begin < 300
    assert Parallel()(delayed(pooled.divide)(n) for n in [1, 2]) == [100, 50]


def test_an_exception_of_the_source_is_raised(two):
    def source():
        yield from (delayed(pow)(n, 2) for n in range(20))
        raise KeyError("source")

    with pytest.raises(KeyError, match="source"):
        Parallel()(source())


@pytest.mark.parametrize("return_as", ["list", "generator_unordered"])
def test_a_call_that_takes_too_long(two, return_as):
    pids()
    with pytest.raises(multiprocessing.TimeoutError):
        list(Parallel(timeout=0.5, return_as=return_as)(delayed(pooled.sleep)(600) for _ in range(2)))
    assert pids()


def test_a_worker_that_dies_is_an_error_and_replaced(two):
    with pytest.raises(execnet_c.WorkerKilled) as caught:
        Parallel(batch_size=1)(delayed(pooled.die)(n) for n in range(10, 20))
    assert caught.value.signal == 9
    assert Parallel()(delayed(pooled.die)(n) for n in range(5)) == list(range(5))


def test_with_retries_its_calls_are_done_again(tmp_path):
    with parallel_config("execnet_c", specs=["popen"] * 2, retries=1):
        items = [1, str(tmp_path / "mark"), 3]
        assert Parallel(batch_size=1)(delayed(pooled.die_once)(item) for item in items) == [1, "survived", 3]


def test_what_cannot_be_pickled_is_an_error(two):
    with pytest.raises(TypeError, match="pickle"):
        Parallel()(delayed(pooled.same)(threading.Lock()) for _ in range(2))
    with pytest.raises(TypeError, match="pickle"):
        Parallel()(delayed(pooled.lock_if_two)(2) for _ in range(2))


def test_a_generator_that_is_closed_ends_what_runs(two):
    results = Parallel(return_as="generator", batch_size=1)(delayed(pooled.sleep)(n) for n in [0, 600, 600, 600])
    assert next(results) == 0
    with pytest.warns(UserWarning, match="cancelled"):
        results.close()
    assert pids()


def test_ctrl_c_ends_what_runs():
    lines = masters.run(
        """
        import joblib, execnet_c.joblib, pooled
        execnet_c.joblib.register()
        with joblib.parallel_config("execnet_c", specs=["popen"] * 2):
            joblib.Parallel()(joblib.delayed(pow)(n, 2) for n in range(4))
            threading.Timer(0.5, os.kill, [os.getpid(), signal.SIGINT]).start()
            try:
                joblib.Parallel()(joblib.delayed(pooled.sleep)(600) for n in range(4))
            except KeyboardInterrupt:
                print("interrupted")
            print(joblib.Parallel()(joblib.delayed(pow)(n, 2) for n in range(4)))
        """
    )
    assert lines == ["interrupted", "[0, 1, 4, 9]"]


# ---- the end of the program

MIDDLE = "it = joblib.Parallel(return_as='generator', batch_size=1)(joblib.delayed({})(n) for n in {}); "
CALLS = "joblib.Parallel(batch_size=1)(joblib.delayed({})(n) for n in {})"
LOKY = CALLS.format("loky_in_calls", "range(6)")
ENDS = {
    "in order": ("results()", 0),
    "in the middle of a generator": (MIDDLE.format("pooled.sleep", "[0, 1, 1]") + "next(it)", 0),
    "by an exception": (CALLS.format("pooled.divide", "[1, 0, 2]"), 1),
    "by exit": ("results(); sys.exit(3)", 3),
    "at once": ("results(); os._exit(3)", 3),
    "at once in the middle": (MIDDLE.format("pooled.sleep", "[0, 600, 600]") + "next(it); os._exit(3)", 3),
    "killed in the middle": (MIDDLE.format("pooled.deaf", "[(600,)] * 3") + "os.kill(os.getpid(), 9)", -9),
    "with calls in calls": (CALLS.format("pooled.nested", "range(4)"), 0),
    "with loky in calls": (LOKY, 0),
    "with loky in calls, by an exception": (LOKY + "; " + CALLS.format("pooled.divide", "[1, 0, 2]"), 1),
}


@pytest.mark.deep
@pytest.mark.parametrize("how", ENDS)
def test_a_program_leaves_nothing_behind_however_it_ends(how):
    """What a task has started in a worker is left behind, too, if that is not given the time to end as programs do."""
    what, status = ENDS[how]
    with masters.Program(
        f"""
        import joblib, execnet_c.joblib, pooled
        execnet_c.joblib.register()

        def results():
            return joblib.Parallel()(joblib.delayed(pow)(n, 2) for n in range(4))

        def loky_in_calls(n):
            return joblib.Parallel(n_jobs=2, backend="loky")(joblib.delayed(pow)(m, 2) for m in range(n))

        with joblib.parallel_config("execnet_c", specs=["popen"] * 2):
            {what}
        """,
        limit=2 * masters.LIMIT,
    ) as program:
        program.finish(status, stderr=None)
        assert wait_until(lambda: not program.family(), 10.0), "processes are left"


# ---- scikit-learn


def search():
    """What a grid search finds."""
    if sklearn is None:
        pytest.skip("scikit-learn is not here")
    rng = numpy.random.default_rng(5)
    x, y = rng.normal(size=(60, 4)), rng.integers(0, 2, 60)
    grid = {"C": [0.1, 1, 10], "gamma": [0.1, 1]}
    found = sklearn.model_selection.GridSearchCV(sklearn.svm.SVC(), grid, cv=3).fit(x, y)
    return found.best_params_, found.cv_results_["mean_test_score"].tolist()


def test_a_grid_search_gives_the_same_result(two):
    found = search()
    with parallel_config("sequential"):
        assert found == search()


@pytest.mark.deep
def test_a_grid_search_over_ssh_gives_the_same_result(server):
    expected = search()
    with parallel_config("execnet_c", specs=["popen", server.spec("h1", f"python={sys.executable}")]):
        assert search() == expected
