"""The end of the interpreter, its main thread, and other interpreters of the process."""

import subprocess
import sys
import textwrap

import pairing
import pytest
from conftest import TIMEOUT


# --- the end of the interpreter -------------------------------------------------------------------------------------

AT_EXIT = {
    "receiving": "channel.receive()",
    "receiving with a timeout": "channel.receive(100)",
    "waiting for the close": "channel.waitclose()",
    "talking": """
        while True:
            talker.send(1)
            talker.receive()""",
    "sending": """
        while True:
            talker.send(b"x" * 1_000_000)""",
    "computing in a callback": """
        talker.setcallback(lambda item: talker.send(item))
        talker.send(1)
        channel.waitclose()""",
}

PROGRAM = """
import sys, threading, time
import execnet_c

gateway = execnet_c.makegateway("popen")
channel = gateway.remote_exec("channel.receive()")
talker = gateway.remote_exec("for item in channel: channel.send(item)")

def wait():
    try:
        {wait}
    except (EOFError, OSError):
        pass

threads = [threading.Thread(target=wait, daemon=True) for _ in range({threads})]
for thread in threads:
    thread.start()
time.sleep({pause})
{end}
"""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("attempts", [range(0, 10, 2), pytest.param(range(1, 10, 2), marks=pytest.mark.deep)])
@pytest.mark.parametrize("kind", AT_EXIT)
def test_daemon_threads_at_the_end(kind, attempts):
    """The program ends with status 0 and without a word, whatever its daemon threads are doing."""
    threads = 1 if kind == "computing in a callback" else 3
    for attempt in attempts:
        end = "execnet_c.default_group.terminate(1.0)" if attempt % 5 == 4 else ""
        program = PROGRAM.format(wait=AT_EXIT[kind], threads=threads, pause=attempt * 0.01, end=end)
        done = subprocess.run(
            [sys.executable, "-c", pairing.HEAD + program],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            timeout=TIMEOUT,
        )
        assert (done.returncode, done.stderr) == (0, "")


def test_large_items_that_nobody_received_are_collected():
    """They have memory of their own, and what arrived of them a view of it. CPython 3.13 closes such memory before it is freed."""
    program = """
import execnet_c, gc, time
for _ in range(2):
    channel = execnet_c.makegateway("popen").remote_exec("channel.send(b'x' * 1_000_000)")
    while not channel.gateway.stats()["channels"][channel.id]["received"]["items"]:
        time.sleep(0.01)
cycle = [channel]
cycle.append(cycle)
execnet_c.default_group.terminate(10.0)
del channel, cycle
gc.collect()
"""
    command = [sys.executable, "-c", pairing.HEAD + program]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", timeout=TIMEOUT)
    assert (done.returncode, done.stderr) == (0, "")


# Registered between the import and the gateway.
HANDLER = """
import atexit
import {lib}

def handle():
    channel = held[0].remote_exec("channel.send(channel.receive() + 1)")
    channel.send(1)
    print("the handler got", channel.receive(10))

atexit.register(handle)
group = {group}
held = [group.makegateway("popen")]
"""


@pytest.mark.parametrize("given", ["default_group", "Group()"])
def test_a_handler_at_exit_finds_gateways_of_what_was_there_before_it(lib, given):
    """The default group is as old as the import; another one ends before handlers that are older."""
    program = HANDLER.format(lib=lib.__name__, group=f"{lib.__name__}.{given}")
    done = subprocess.run(
        [sys.executable, "-c", pairing.HEAD * (lib.__name__ == "execnet_c") + program],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=TIMEOUT,
    )
    if given == "default_group":
        assert done.stdout == "the handler got 2\n"
        assert done.stderr == "" or lib.__name__ == "execnet"  # from Python 3.12 on that fails to start a thread then
    else:
        assert done.stdout == "" and "OSError: " in done.stderr


# --- the main thread, whichever is the first to import threading ----------------------------------------------------

# What has another thread import it.
FIRST_IMPORTS = {
    "a start": "",
    "a callback": """
        def callback(item):
            import logging
            report()
        channel = gateway.remote_exec("channel.send(channel.receive())")
        channel.setcallback(callback)
        channel.send(1)
        reported.acquire()""",
    "a handler of stderr": """
        def handler(gateway, line):
            import concurrent.futures
            report()
        execnet_c.set_stderr_handler(handler)
        execnet_c.makegateway("popen").remote_exec("import sys; print('a line', file=sys.stderr)").waitclose()
        reported.acquire()""",
    "a thread of the execution model": """
        def run():
            import asyncio
            report()
        gateway.execmodel.start(run)
        reported.acquire()""",
}

MAIN_THREAD = """
import _thread, os, sys
import execnet_c

reported = _thread.allocate_lock()
reported.acquire()

def report():
    import threading
    assert threading.current_thread() is not threading.main_thread()
    reported.release()

assert "threading" not in sys.modules
gateway = execnet_c.makegateway("popen")
assert gateway.remote_exec("channel.send(1)").receive() == 1
{first}

import signal, threading

def is_main():
    main = threading.main_thread()
    return main is threading.current_thread() and main.ident == threading.get_ident() and main.is_alive()

assert is_main() and sum(thread.name == "MainThread" for thread in threading.enumerate()) == 1
signal.signal(signal.SIGUSR1, signal.SIG_DFL)
child = os.fork()
if child == 0:
    sys.exit(not is_main())
assert os.waitpid(child, 0)[1] == 0
main = threading.main_thread()
threading.Thread(target=lambda: [main.join(), print("was waited for")]).start()
"""


@pytest.mark.parametrize("first", FIRST_IMPORTS)
def test_the_main_thread_stays_the_main_thread(first):
    """Also for a forked child. The end of the program waits for the threads that it should wait for, and no others."""
    program = MAIN_THREAD.format(first=textwrap.dedent(FIRST_IMPORTS[first]))
    done = subprocess.run(  # from Python 3.12 on a fork beside threads is warned of
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", pairing.HEAD + program],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=TIMEOUT,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "was waited for\n", "")


# What has another thread of a worker import it, while a task has the main thread.
FIRST_IMPORTS_THERE = {
    "another task": lambda gateway, channel: gateway.remote_exec("import threading").waitclose(TIMEOUT),
    "a callback": lambda gateway, channel: [channel.send("threading"), channel.receive(TIMEOUT)],
    "a relay": lambda gateway, channel: gateway._group.makegateway(f"popen//via={gateway.id}")
    .remote_exec("channel.send(1)")
    .receive(TIMEOUT),
}


@pytest.mark.parametrize("first", FIRST_IMPORTS_THERE)
def test_the_main_thread_of_a_worker_stays_the_main_thread(group, first):
    gateway = group.makegateway("popen")
    channel = gateway.remote_exec(
        """
        other = channel.receive()
        other.setcallback(lambda item: other.send(__import__(item).__name__))
        channel.send(None)
        channel.receive()
        import signal, threading
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)
        main = threading.main_thread()
        channel.send([main is threading.current_thread(), main.ident == threading.get_ident(), main.is_alive()])
        """
    )
    other = gateway.newchannel()
    channel.send(other)
    assert channel.receive(TIMEOUT) is None
    FIRST_IMPORTS_THERE[first](gateway, other)
    channel.send(None)
    assert channel.receive(TIMEOUT) == [True, True, True]


# --- other interpreters of this process -----------------------------------------------------------------------------

# Leaves it all to the interpreter's end: a gateway that serves, one with a callback, one whose handler of stderr runs.
IN_ANOTHER = """
import time
import execnet_c

def converse(gateway):
    channel = gateway.remote_exec("for item in channel: channel.send(item)")
    for item in [*range(100), b"x" * 3_000_000]:
        channel.send(item)
        assert channel.receive(30) == item

lines, items = [], []
execnet_c.set_stderr_handler(lambda gateway, line: [time.sleep(0.3), lines.append(line)])
gateway = execnet_c.makegateway("popen")
converse(gateway)
other = execnet_c.Group(["popen"])[0]
channel = other.remote_exec("channel.send(1); channel.receive()")
channel.setcallback(lambda item: [items.append(item), time.sleep(0.3)])
gateway.remote_exec("import sys; print('a line', file=sys.stderr)")
try:
    gateway.remote_exec("0 / 0").waitclose(30)
except execnet_c.RemoteError as exc:
    assert "ZeroDivisionError" in str(exc)
converse(other)
print(*items, flush=True)
"""

RUN_IN_ANOTHER = """
import sys, threading
kind, code = sys.argv[1:]
if kind == "legacy":
    from _testcapi import run_in_subinterp as run
else:
    if sys.version_info >= (3, 13):
        import _interpreters as interpreters
    else:
        import _xxsubinterpreters as interpreters
    def run(code):
        interpreter = interpreters.create("isolated") if hasattr(interpreters, "exec") else interpreters.create()
        error = getattr(interpreters, "exec", interpreters.run_string)(interpreter, code)
        assert error is None, error.formatted
        interpreters.destroy(interpreter)
        return 0

run_more = [threading.Thread(target=run, args=(code,)) for _ in range(2 if kind == "their own GIL" else 0)]
for thread in run_more:
    thread.start()
for _ in range(3):
    assert run(code) == 0
for thread in run_more:
    thread.join()
print("the process goes on")
"""

# An error for a channel that nobody holds any more.
NOBODY = """
import time
import execnet_c
channel = execnet_c.makegateway("popen").remote_exec("raise ValueError('for nobody')")
while not channel.isclosed():
    time.sleep(0.01)
del channel
"""


def run_in_another(kind, code):
    if kind == "legacy":
        pytest.importorskip("_testcapi")
    elif sys.version_info < (3, 12):
        pytest.skip("each interpreter of a process has the same GIL before Python 3.12")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", RUN_IN_ANOTHER, kind, pairing.HEAD + code],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=2 * TIMEOUT,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1:] == ["the process goes on"]
    return done.stdout.splitlines()[:-1], done.stderr


@pytest.mark.parametrize("kind", ["legacy", "a GIL of its own", "their own GIL"])
def test_an_interpreter_that_is_not_the_main_one_ends_with_its_gateways(kind):
    """CPython aborts the process when one ends and has a thread. What runs in a thread then is waited for."""
    assert run_in_another(kind, IN_ANOTHER) == (["1"] * (5 if kind == "their own GIL" else 3), "")


# All have the same weights, each a model of its own.
TAGS = """
from execnet_c._tagger import Model
block = Model.build({"bias": {"NN": 1.0, "VB": 0.5}, "i word run": {"VB": 3.0}}, {"the": "DT"}, ["NN", "VB", "DT"])
model = Model(block)
for _ in range(200):
    assert model.tag(["the", "run"] * 200) == [("the", "DT"), ("run", "VB")] * 200
"""


@pytest.mark.parametrize("kind", ["legacy", "a GIL of its own", "their own GIL"])
def test_another_interpreter_tags(kind):
    assert run_in_another(kind, TAGS) == ([], "")


@pytest.mark.parametrize("kind", ["legacy", "a GIL of its own"])
def test_another_interpreter_prints_its_own_errors_for_nobody(kind):
    _, stderr = run_in_another(kind, NOBODY)
    assert stderr.count("ValueError: for nobody") == 3, stderr


POOL = """
from concurrent.futures import InterpreterPoolExecutor

def add(number):
    import execnet_c

    channel = execnet_c.makegateway().remote_exec("channel.send(channel.receive() + 1)")
    channel.send(number)
    return channel.receive(30)

if __name__ == "__main__":
    with InterpreterPoolExecutor(3) as pool:
        print(list(pool.map(add, range(6))))
"""


@pytest.mark.skipif(sys.version_info < (3, 14), reason="from Python 3.14 on there is an InterpreterPoolExecutor")
def test_a_pool_of_interpreters(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(POOL)
    done = subprocess.run([sys.executable, program], capture_output=True, encoding="utf-8", timeout=2 * TIMEOUT)
    assert (done.stdout, done.stderr) == ("[1, 2, 3, 4, 5, 6]\n", "")
