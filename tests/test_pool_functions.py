"""How functions and exceptions travel in a pool: by reference, by source, by value; and what cannot go is named before anything
is started."""

import functools
import math
import operator
import os
import subprocess
import sys
import textwrap
import threading

import pytest

import execnet_c
import pooled
from execnet_c import pipe
from far_ends import FAR_ENDS, OLDEST
from pairing import HEAD

try:
    import numpy  # it starts threads of its own: before the tests count them
except ImportError:
    numpy = None

pytestmark = pytest.mark.ours

FOREIGN = next((far_end for far_end in FAR_ENDS if not far_end.missing and f"{OLDEST[0]}.{OLDEST[1]}" in far_end.name), None)


@pytest.mark.parametrize(
    "func, results",
    [
        (math.sqrt, [1.0, 2.0, 3.0]),
        (operator.neg, [-1, -4, -9]),
        (str, ["1", "4", "9"]),
        (pooled.square, [1, 16, 81]),
        (functools.partial(operator.add, 10), [11, 14, 19]),
        (pooled.Adder(5), [6, 9, 14]),
        (pooled.Adder(5).add, [6, 9, 14]),
        ("abc %s".__mod__, ["abc 1", "abc 4", "abc 9"]),
    ],
)
def test_callables_of_all_kinds_go(func, results):
    assert list(pipe(func, [1, 4, 9], max_workers=1)) == results


def test_a_function_in_a_function_goes_by_its_source():
    def double(n):
        return 2 * n

    assert list(pipe(double, [1, 2], max_workers=1)) == [2, 4]


def test_a_lambda_and_a_closure_go_by_value():
    pytest.importorskip("cloudpickle")
    factor = 3
    assert list(pipe(lambda n: factor * n, [1, 2], max_workers=1)) == [3, 6]


def program(text, *flags):
    """Run a program; what it prints."""
    environment = {**os.environ, "PYTHONPATH": ""}
    code = [sys.executable, *flags, HEAD + textwrap.dedent(text)] if flags else [sys.executable, text]
    done = subprocess.run(code, capture_output=True, text=True, env=environment, timeout=100, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_function_of_main_goes(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        HEAD
        + textwrap.dedent(
            """
            import dataclasses
            import execnet_c

            def double(n):
                return 2 * n

            FACTOR = 3

            def by_factor(n):
                return Number(FACTOR * n.value)

            @dataclasses.dataclass
            class Number:
                value: int

            print(list(execnet_c.pipe(double, [1, 2], max_workers=1)))
            print(list(execnet_c.pipe(by_factor, [Number(1), Number(2)], max_workers=1)))
            """
        )
    )
    pytest.importorskip("cloudpickle")
    assert program(str(script)) == "[2, 4]\n[Number(value=3), Number(value=6)]\n"


WITHOUT_SOURCE = "exec('def double(n): return 2 * n')"  # that of a program of `python -c` is found from Python 3.13 on


def test_a_function_without_a_source_goes_by_value():
    pytest.importorskip("cloudpickle")
    text = f"import execnet_c\n{WITHOUT_SOURCE}\nprint(list(execnet_c.pipe(double, [1, 2], max_workers=1)))"
    assert program(text, "-c") == "[2, 4]\n"


def test_without_cloudpickle_the_error_names_it():
    text = f"""
        import sys, execnet_c
        sys.modules["cloudpickle"] = None
        {WITHOUT_SOURCE}
        try:
            execnet_c.pipe(double, [1])
        except TypeError as exc:
            print(exc)
    """
    assert "pip install 'execnet_c[pool]'" in program(text, "-c")


def test_without_cloudpickle_the_error_of_what_main_defines_names_it():
    text = """
        import sys, execnet_c
        sys.modules["cloudpickle"] = None
        class Item: pass
        def double(n): return 2 * n

        def of_a_task():
            with execnet_c.GatewayPoolExecutor(1) as executor:
                executor.submit(double, 1).result()

        def of_an_item():
            list(execnet_c.pipe(repr, [Item()], max_workers=1))

        def of_an_argument():
            list(execnet_c.pipe(repr, [1], max_workers=1, initializer=repr, initargs=[Item()]))

        for call in (of_a_task, of_an_item, of_an_argument):
            try:
                call()
            except AttributeError as exc:
                print(exc)
    """
    lines = program(text, "-c").splitlines()
    assert len(lines) == 3 and "'double'" in lines[0] and "'Item'" in lines[1] and "'Item'" in lines[2]
    assert all("pip install 'execnet_c[pool]'" in line for line in lines)


def test_what_a_function_lacks_at_a_worker_is_an_error_there():
    def lacking(n):
        import no_such_module

        return no_such_module.f(n)

    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        list(pipe(lacking, [1], max_workers=1))


# ---- what cannot go


def test_what_is_not_callable_is_refused():
    with pytest.raises(TypeError, match="the function must be callable, not int"):
        pipe(5, [1])
    with pytest.raises(TypeError, match="the initializer must be callable, not str"):
        pipe(pooled.use, [1], initializer="x")


def test_the_part_that_cannot_go_is_named(tmp_path):
    pytest.importorskip("cloudpickle")
    with open(tmp_path / "file", "w") as file:
        with pytest.raises(TypeError, match=r"what cannot go is its variable 'file', a TextIOWrapper \([Cc]annot pickle"):
            pipe(lambda n: file.write(n), [1])
    with pytest.raises(TypeError, match="what cannot go is the object that it is a method of, a lock"):
        pipe(threading.Lock().acquire, [1])
    with pytest.raises(TypeError, match="what cannot go is an argument of the partial, a lock"):
        pipe(functools.partial(pooled.same, threading.Lock()), [1])


def test_arguments_of_the_initializer_that_cannot_go_are_refused():
    with pytest.raises(TypeError, match="initargs cannot be sent to a worker: cannot pickle"):
        pipe(pooled.use, [1], initializer=pooled.load, initargs=(threading.Lock(), 1))


@pytest.mark.parametrize("batch_size", [1, 10])
def test_an_item_that_cannot_go_fails_alone(batch_size):
    items = [1, threading.Lock(), 3]
    one, error, three = pipe(pooled.same, items, max_workers=1, batch_size=batch_size, return_exceptions=True)
    assert (one, three) == (1, 3)
    assert isinstance(error, TypeError)
    assert "item 1, <unlocked" in str(error) and "cannot be pickled" in str(error)


@pytest.mark.parametrize("batch_size", [1, 10])
def test_a_result_that_cannot_come_back_fails_alone(batch_size):
    results = list(pipe(pooled.lock_if_two, [1, 2, 3], max_workers=1, batch_size=batch_size, return_exceptions=True))
    assert results[0] == 1 and results[2] == 3
    assert isinstance(results[1], TypeError) and "cannot pickle" in str(results[1])
    assert "item 1, 2" in str(results[1].__cause__)


# ---- exceptions


def test_an_exception_is_raised_as_itself_with_its_item():
    results, error = [], None
    try:
        for result in pipe(pooled.divide, [1, 2, 0, 4], max_workers=2):
            results.append(result)
    except ZeroDivisionError as exc:
        error = exc
    assert results == [100, 50]
    cause = error.__cause__
    assert type(cause) is execnet_c.RemoteError
    assert str(cause).startswith("item 2, 0 (gateway 'gw")
    assert "in divide" in str(cause) and "ZeroDivisionError" in str(cause)
    assert "remote.py" not in str(cause)
    if hasattr(error, "__notes__"):
        assert error.__notes__ == ["item 2, 0"]


def test_its_arguments_and_attributes_come_along():
    error = pooled.Fit("one", two=["two"])
    [caught] = pipe(pooled.fail, [error], max_workers=1, return_exceptions=True)
    assert type(caught) is pooled.Fit
    assert caught.args == error.args and caught.more == {"two": ["two"]}


def test_one_that_takes_no_attributes():
    [error] = pipe(pooled.raises_unchanging, [5], max_workers=1, return_exceptions=True)
    assert type(error) is pooled.Unchanging
    assert "item 0, 5" in str(error.__cause__)


def test_one_that_cannot_be_unpickled_becomes_a_remote_error():
    def fail(n):
        import pooled

        raise pooled.Unfit(n, 2)

    with pytest.raises(execnet_c.RemoteError, match=r"(?s)item 0, 'text' .*Unfit: text"):
        list(pipe(fail, ["text"], max_workers=1))


def test_one_that_ends_programs_is_an_exception_of_the_item():
    with pytest.raises(SystemExit) as caught:
        list(pipe(pooled.exit_with, [1], max_workers=1))
    assert caught.value.code == 3


def test_stop_iteration_ends_no_batch_early():
    results = list(pipe(pooled.stop_iteration, range(5), max_workers=1, batch_size=5, return_exceptions=True))
    assert [results[n] for n in (0, 1, 3, 4)] == [0, 1, 3, 4]
    assert "StopIteration" in str(results[2])


# ---- other Pythons


def old():
    if FOREIGN is None:
        pytest.skip("the oldest Python is not here")
    return FOREIGN.spec("chdir=/tmp")  # where it finds none of our modules


def test_a_bare_python_runs_it():
    def double(n):
        return 2 * n

    assert list(pipe(double, range(500), specs=[old()])) == [2 * n for n in range(500)]
    assert list(pipe(math.sqrt, [1, 4], specs=[old()])) == [1.0, 2.0]


@pytest.fixture
def bare():
    """A spec of this very Python without what is installed beside it."""
    return f"popen//python={sys.executable} -S//chdir=/tmp"


def test_cloudpickle_is_sent_to_who_lacks_it(bare):
    pytest.importorskip("cloudpickle")
    assert list(pipe(lambda n: n + 1, [1, 2], specs=[bare])) == [2, 3]


def test_a_function_of_a_module_that_is_missing_there_goes_by_value(bare):
    pytest.importorskip("cloudpickle")
    one, error, three = pipe(pooled.lock_if_two, [1, 2, 3], specs=[bare], return_exceptions=True)
    assert (one, three) == (1, 3) and "pickle" in str(error)


@pytest.mark.skipif(numpy is None, reason="numpy is not installed")
def test_an_array_arrives_writable():
    [result] = pipe(pooled.add_one, [numpy.arange(100_000)], max_workers=1)
    result += 1
    assert (result == numpy.arange(2, 100_002)).all()


def test_a_module_that_a_host_lacks_is_named_with_the_host():
    pytest.importorskip("cloudpickle")
    with pytest.raises(ModuleNotFoundError, match="module 'pooled' is missing on this machine") as caught:
        list(pipe(pooled.Referring(pooled.square), [1], specs=[old()]))
    assert caught.value.name == "pooled"


def test_a_function_by_value_is_refused_by_another_python():
    pytest.importorskip("cloudpickle")
    here = "%d.%d" % sys.version_info[:2]
    if here == "%d.%d" % OLDEST:
        pytest.skip("this is that Python")
    with pytest.raises(RuntimeError, match=f"as code of Python {here}, and Python {OLDEST[0]}.{OLDEST[1]} runs here"):
        list(pipe(lambda n: n, [1], specs=[old()]))


def test_an_item_of_a_class_that_a_host_lacks_fails_alone():
    one, error, three = pipe(str, [1, pooled.Watched(), 3], specs=[old()], return_exceptions=True)
    assert (one, three) == ("1", "3")
    assert isinstance(error, ModuleNotFoundError) and "pooled" in str(error)
    assert "item 1" in str(error.__cause__)
