"""pipe() where programs are interrupted, fork, end, or call it at odd places: it works or says why not, and never hangs."""

import functools
import os

import pytest

import masters
import pooled
from execnet_c import GatewayPoolExecutor, pipe
from masters import TIMEOUT
from pairing import HEAD  # noqa: F401  (masters' programs begin with it)

pytestmark = pytest.mark.ours

run = functools.partial(masters.run, env={"PYTHONWARNINGS": "ignore:This process:DeprecationWarning"})

PLAIN = "import itertools, pooled\nfrom execnet_c import pipe\n"


@pytest.mark.parametrize(
    "items",
    [
        "pooled.sleep, itertools.chain([0], itertools.repeat(600))",
        "pooled.deaf, itertools.chain([0], itertools.repeat((600,)))",
    ],
    ids=["sleep", "deaf"],
)
def test_ctrl_c_interrupts_the_workers_and_ends_those_that_go_on(items):
    lines = run(
        PLAIN
        + f"results = pipe({items}, max_workers=2, batch_size=1)\n"
        + """
next(results)
threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    next(results)
except KeyboardInterrupt:
    print("interrupted")
"""
    )
    assert lines == ["interrupted"]


def test_the_end_of_the_program_ends_them():
    assert run(PLAIN + "results = pipe(pooled.sleep, [0, 600, 600], max_workers=2, batch_size=1)\nprint(next(results))") == ["0"]


def test_a_stream_that_was_never_drawn_holds_nothing_up():
    run(PLAIN + "results = pipe(pooled.sleep, itertools.count(), max_workers=2)")


def test_in_a_forked_child_the_parents_stream_is_refused_and_its_own_works():
    run(
        PLAIN
        + """
results = pipe(pooled.square, range(100), max_workers=1)
assert next(results) == 0
pid = os.fork()
if pid == 0:
    status = 1
    try:
        try:
            list(results)
        except OSError as exc:
            assert "belongs to the parent process" in str(exc), exc
            assert list(pipe(pooled.square, iter(range(10)), max_workers=1)) == [n * n for n in range(10)]
            status = 0
    finally:
        os._exit(status)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
assert list(results) == [n * n for n in range(1, 100)]
"""
    )


def test_inside_a_task_it_works():
    run(
        """
group = execnet_c.Group()
channel = group.makegateway().remote_exec('''
import math
from execnet_c import pipe
channel.send(list(pipe(math.sqrt, [1, 4, 9], max_workers=1)))
''')
assert channel.receive(30) == [1.0, 2.0, 3.0]
group.terminate(timeout=5)
"""
    )


def test_inside_a_function_of_a_stream_it_works():
    run(
        """
def inner(n):
    import math
    from execnet_c import pipe
    return list(pipe(math.sqrt, [n], max_workers=1))

def outer():
    from execnet_c import pipe
    print(list(pipe(inner, [1, 4], max_workers=1)))
outer()
"""
    )


def test_inside_a_callback_it_works_or_says_why_not():
    lines = run(
        PLAIN
        + """
group = execnet_c.Group()
gateway = group.makegateway()
done = threading.Event()
def callback(item):
    try:
        print(list(pipe(pooled.square, [1, 2], max_workers=1)))
        try:
            print(list(gateway.pipe(pooled.square, [1, 2])))
        except OSError as exc:
            print(exc)
    finally:
        done.set()
gateway.remote_exec("channel.send(1); channel.receive()").setcallback(callback)
assert done.wait(30)
group.terminate(timeout=5)
"""
    )
    assert lines[0] == "[1, 4]"
    assert "inside a callback of the same gateway would wait for ever" in lines[1]


def test_at_the_interpreters_end_it_works_or_says_why_not():
    lines = run(
        PLAIN
        + """
import atexit
def last():
    for stream in (range(5), iter(range(5))):
        try:
            print(list(pipe(pooled.square, stream, max_workers=1)))
        except RuntimeError as exc:
            print(exc)
atexit.register(last)
"""
    )
    assert len(lines) == 2
    for line in lines:
        assert line == "[0, 1, 4, 9, 16]" or "no thread" in line


def test_a_thread_that_is_no_main_thread_may_draw():
    run(
        PLAIN
        + """
got = []
thread = threading.Thread(target=lambda: got.extend(pipe(pooled.square, iter(range(100)), max_workers=2)))
thread.start()
thread.join(30)
assert got == [n * n for n in range(100)]
"""
    )


@pytest.mark.parametrize("options", ["", ", return_exceptions=True"])
@pytest.mark.parametrize("stream", ["itertools.repeat(0.01)", "pipe(pooled.same, itertools.repeat(0.01), max_workers=1)"])
def test_a_daemon_thread_that_draws_stops_with_the_program(stream, options):
    """It says nothing, and gets no result and no end that is none."""
    lines = run(
        PLAIN
        + f"""
started = threading.Event()
def draw():
    for result in pipe(pooled.sleep, {stream}, max_workers=2{options}):
        if result != 0.01:
            print(result, flush=True)
        started.set()
    print("ended", flush=True)
threading.Thread(target=draw, daemon=True).start()
assert started.wait(30)
"""
    )
    assert lines == []


def test_stages_that_are_left_open_hold_the_end_up_no_longer_than_their_workers():
    run(
        PLAIN
        + """
results = pipe(pooled.same, pipe(pooled.sleep, itertools.repeat(0.01), max_workers=1), max_workers=1)
next(results)
"""
    )


@pytest.mark.parametrize("busy", [True, False])
def test_a_stream_that_is_closed_lets_its_workers_end_as_programs_do(tmp_path, busy):
    """What a task has left there, as a pool of processes, ends by handlers of that kind."""
    paths = [str(tmp_path / name) for name in "ab"]
    with pipe(pooled.at_exit_or_sleep, paths + [600] * busy, max_workers=1, batch_size=1) as results:
        assert next(results) == next(results)
    assert all(map(os.path.exists, paths))


def test_so_does_an_executor_whose_call_fails(tmp_path):
    path = str(tmp_path / "a")
    executor = GatewayPoolExecutor(1)
    executor.submit(pooled.at_exit, path).result(TIMEOUT)
    executor._pool.abort("it is no longer needed", TIMEOUT)
    assert os.path.exists(path)
