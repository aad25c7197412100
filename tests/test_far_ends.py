"""Far ends in other Pythons, with nothing of ours installed there: what tasks find.

Each far end that this machine has (see far_ends.py) does the same things. The far end's core is not the pairing's to choose
here, so one run with each core at the near end is enough.
"""

import os
import random
import shutil
import subprocess
import time
import uuid

import pairing
import pytest

if pairing.name in ("C-Python", "Python-C"):
    pytest.skip("foreign far ends have a core of their own: C-C and Python-Python do", allow_module_level=True)

import execnet_c
from conftest import TIMEOUT
from far_ends import FAR_ENDS, PLAIN, FarEnd
from masters import MARK, living, wait_until

each_far_end = pytest.mark.parametrize("far", FAR_ENDS, ids=lambda end: end.name, indirect=True, scope="module")


class Started:
    """A far end that serves, started in an empty directory."""

    def __init__(self, end, mark):
        self.end = end
        self.directory = end.directory()
        self.group = execnet_c.Group()
        before = os.getcwd()
        os.chdir(self.directory)
        try:
            os.environ[MARK] = mark
            self.gw = self.group.makegateway(end.spec())
            own = subprocess.run(
                [*end.command, "-u", "-c", "import sys; print([sys.path, sys.flags.utf8_mode])"],
                capture_output=True,
                encoding="utf-8",
            )
            self.own_path = eval(own.stdout)[0]
        finally:
            os.environ.pop(MARK, None)
            os.chdir(before)

    def ask(self, source, *items):
        channel = self.gw.remote_exec(source)
        for item in items:
            channel.send(item)
        return channel.receive(TIMEOUT)


@pytest.fixture(scope="module")
def far(request):
    end, mark = request.param, uuid.uuid4().hex
    end.spec()
    started = Started(end, mark)
    yield started
    try:
        started.group.terminate(timeout=TIMEOUT)
        assert wait_until(lambda: not living(mark), TIMEOUT), f"processes are left: {living(mark)}"
        assert os.listdir(started.directory) == []
    finally:
        shutil.rmtree(started.directory)


# ---- what tasks can do there


def values():
    nested = []
    for i in range(200):
        nested = [i, nested]
    return [
        *(None, True, False, 0, 1, -1, 2**31 - 1, 2**31, -(2**31), -(2**31) - 1, 2**63, 10**400, -(7**1000)),
        *(0.0, -0.0, 1.5, -1e300, 5e-324, float("inf"), float("-inf"), 1 / 3, 1j, complex(-0.0, 2.5)),
        *("", "text", "\0 \x7f \xe9 \u20ac \U0001f40d", "x" * 100_000),
        *(b"", b"\0\xff", random.Random(1).randbytes(1 << 20)),
        *([], (), {}, set(), frozenset(), [1, [2, (3, {"four": [5]})]], {1: 2, "a": None, (1, "t"): {b"k": 1.0}}),
        *({1, "a", b"b", (1, 2)}, frozenset([1, frozenset([2])]), nested, list(range(10_000))),
        {i: str(i) for i in range(1000)},
    ]


def same(a, b):
    if type(a) is not type(b):
        return False
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    return repr(a) == repr(b) if isinstance(a, (float, complex)) else a == b


@each_far_end
def test_values_come_back_as_they_went(far):
    channel = far.gw.remote_exec("for item in channel: channel.send((item, type(item).__name__))")
    for value in values():
        channel.send(value)
        back, name = channel.receive(TIMEOUT)
        assert same(back, value), repr(value)[:100]
        assert name == type(value).__name__
    everything = values()
    channel.send(everything)
    assert same(channel.receive(TIMEOUT)[0], everything)
    channel.close()


@each_far_end
def test_channels_travel(far):
    task = far.gw.remote_exec(
        """
        first, second = channel.receive()["channels"]
        second.send(first.receive() + 1)
        channel.send([first, channel, channel.gateway.newchannel()])
        """
    )
    channels = [far.gw.newchannel(), far.gw.newchannel()]
    task.send({"channels": channels})
    channels[0].send(41)
    assert channels[1].receive(TIMEOUT) == 42
    first, itself, new = task.receive(TIMEOUT)
    assert (first, itself) == (channels[0], task)
    assert new.id not in {channels[0].id, channels[1].id, task.id}


@each_far_end
def test_what_cannot_be_sent_is_an_error_there(far):
    task = "try: channel.send(object())\nexcept Exception as exc: channel.send(type(exc).__name__)"
    assert far.ask(task) == "DumpError"


def add(channel, first, second=1):
    import os

    channel.send([first + second, bool(os.getpid()), channel.receive()])


@each_far_end
def test_functions_and_modules_are_tasks(far, tmp_path, monkeypatch):
    channel = far.gw.remote_exec(add, first=2.5)
    channel.send("more")
    assert channel.receive(TIMEOUT) == [3.5, True, "more"]
    name = "task_" + uuid.uuid4().hex
    (tmp_path / f"{name}.py").write_text("x = 6\nif __name__ == '__channelexec__':\n    channel.send(x * 7)\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert far.gw.remote_exec(__import__(name)).receive(TIMEOUT) == 42


@each_far_end
def test_a_failing_task_sends_its_traceback(far):
    with pytest.raises(execnet_c.RemoteError) as error:
        far.gw.remote_exec("def f(n):\n    return 1 // n\n\nf(0)").receive(TIMEOUT)
    text = str(error.value)
    assert "Traceback (most recent call last)" in text and "line 2, in f" in text and "line 4, in <module>" in text
    assert text.strip().splitlines()[-1].startswith("ZeroDivisionError")
    assert [line for line in text.splitlines() if "File " in line and "remote exec" not in line] == []
    assert error.value.remote_type == "ZeroDivisionError" and "by zero" in error.value.remote_message
    with pytest.raises(execnet_c.RemoteError, match="SyntaxError") as error:
        far.gw.remote_exec("def def").receive(TIMEOUT)
    assert error.value.remote_type == "SyntaxError"


@each_far_end
@pytest.mark.parametrize("task", [r"raise EOFError('caf\udce9')", "raise EOFError", "input()"])
def test_an_eoferror_of_a_task_is_told_whatever_its_text(far, task):
    channel = far.gw.remote_exec("channel.send(1)\n" + task)
    with pytest.raises(execnet_c.RemoteError) as error:
        list(channel)
    assert error.value.remote_type == "EOFError"
    assert error.value.remote_message == ("caf\\udce9" if "caf" in task else error.value.remote_message)
    ends = far.gw.newchannel()
    channel = far.gw.remote_exec("ends = channel.receive()\nchannel.send(1)\nends.receive()")
    channel.send(ends)
    assert channel.receive(TIMEOUT) == 1
    ends.close()
    channel.waitclose(TIMEOUT)


@each_far_end
def test_an_error_out_of_the_far_ends_own_core_keeps_its_traceback(far):
    with pytest.raises(execnet_c.RemoteError) as error:
        far.gw.remote_exec("def f():\n    channel.send([object()])\n\nf()").receive(TIMEOUT)
    text = str(error.value)
    assert "Traceback (most recent call last)" in text and "line 2, in f" in text
    assert "DumpError: can't serialize <class 'object'>" in text.strip().splitlines()[-1]


@each_far_end
def test_the_standard_streams_are_not_the_wire(far):
    found = far.ask(
        r"""
        import os, sys
        print("to nobody")
        print("to nobody", flush=True)
        sys.stdout.write("\0execnet_c\0\4\0\0\0\0")
        sys.stdout.flush()
        os.write(1, b"\4\0\0\0\1\0\0\0\1N")
        try:
            input()
        except EOFError:
            ended = True
        channel.send([sys.argv, sys.stdin.read(), os.read(0, 10), ended, __name__])
        """
    )
    assert found == [["-c"], "", b"", True, "__channelexec__"]


@each_far_end
def test_the_path_is_that_of_its_own_c_option(far):
    assert far.ask("import sys; channel.send(sys.path)") == far.own_path


@each_far_end
def test_nothing_passes_for_an_installed_execnet_c(far):
    found = far.ask(
        """
        import sys
        names = [name for name in sys.modules if name.partition(".")[0] == "execnet_c"]
        try:
            import execnet_c
            names.append(execnet_c)
        except ImportError as exc:
            names.append(exc.name)
        main = [name for name in vars(sys.modules["__main__"]) if not name.startswith("__")]
        channel.send([names, main])
        """
    )
    assert found[0] == ["execnet_c"]
    assert set(found[1]) <= {"os", "sys", "marshal", "zlib", "main"}, "names are left in __main__"


@each_far_end
def test_tasks_run_beside_a_busy_main_thread(far):
    busy = far.gw.remote_exec(
        """
        import threading
        channel.send(threading.current_thread() is threading.main_thread())
        stop = channel.gateway.newchannel()
        channel.send(stop)
        stopped = []
        stop.setcallback(stopped.append)
        while not stopped:
            pass
        channel.send(stopped)
        """
    )
    assert busy.receive(TIMEOUT) is True
    stop = busy.receive(TIMEOUT)
    facts = far.gw._rinfo(update=True)
    assert far.gw.remote_status().numexecuting == 1
    both = [far.gw.remote_exec("channel.send(channel.receive() * 2)") for _ in range(2)]
    status = far.gw.remote_status()
    assert status.execmodel == "thread" and status.numexecuting in (2, 3), status
    for channel in reversed(both):
        channel.send(21)
        assert channel.receive(TIMEOUT) == 42
    for channel in both:
        channel.waitclose(TIMEOUT)
    stop.send("now")
    assert busy.receive(TIMEOUT) == ["now"]
    busy.waitclose(TIMEOUT)
    assert wait_until(lambda: far.gw.remote_status().numexecuting == 0, TIMEOUT)
    assert facts.version_info[0] == 3 and facts.platform == "linux" and facts.pid > 0
    assert facts.cwd == ("/" if far.end.root else far.directory)


@pytest.fixture
def own_gw(far):
    """One more gateway to that far end, and no longer than the test."""
    group = execnet_c.Group()
    yield group.makegateway(far.end.spec())
    group.terminate(timeout=TIMEOUT)


@each_far_end
def test_callbacks_at_both_ends(own_gw):
    task = own_gw.remote_exec(
        """
        done = channel.gateway.newchannel()
        channel.send(done)
        got = []
        def take(item):
            got.append(item)
            if item is None:
                done.send(got)
        channel.setcallback(take, endmarker=None)
        done.waitclose()
        """
    )
    done = task.receive(TIMEOUT)
    seen = []
    done.setcallback(seen.append, endmarker="end")
    for item in (1, "two", [3]):
        task.send(item)
    task.close()
    assert wait_until(lambda: seen, TIMEOUT) and seen == [[1, "two", [3], None]]
    done.close()
    assert wait_until(lambda: len(seen) == 2, TIMEOUT) and seen[1] == "end"


@each_far_end
def test_a_task_has_no_child_but_its_own(far):
    found = far.ask(
        """
        import os
        found = []
        def wait():
            try:
                found.append(os.waitpid(-1, 0))
            except ChildProcessError:
                found.append(None)
        wait()
        child = os.fork()
        if child == 0:
            os._exit(3)
        wait()
        wait()
        channel.send([found, child])
        """
    )
    child = found[1]
    assert found[0] == [None, (child, 3 << 8), None]


@each_far_end
def test_settings_are_applied(far):
    end = far.end
    directory = end.directory()
    there = end.there(directory) + ("" if end.read_only else "/new")
    group = execnet_c.Group()
    try:
        niceness = os.getpriority(os.PRIO_PROCESS, 0) + 3
        gw = group.makegateway(end.spec(f"chdir={there}", "nice=3", "env:COLOUR=red = green", "id=painter"))
        task = "import os; channel.send([os.getcwd(), os.nice(0), os.environ['COLOUR'], channel.gateway.id])"
        found = gw.remote_exec(task).receive(TIMEOUT)
        assert found == [there, niceness, "red = green", "painter-worker"]
        # What fails over there has a traceback, also in those of our functions that are only compiled when called.
        with pytest.raises(execnet_c.RemoteError) as error:
            group.makegateway(end.spec("chdir=/nowhere/to/be/found"))
        text = str(error.value)
        assert "in _apply" in text and "execnet_c worker" in text, text
        assert text.strip().splitlines()[-1].startswith("FileNotFoundError") and "/nowhere/to/be/found" in text
        assert [gateway.id for gateway in group] == ["painter"]
    finally:
        group.terminate(timeout=TIMEOUT)
        shutil.rmtree(directory)


@each_far_end
def test_exit_ends_it(far):
    mark = uuid.uuid4().hex
    group = execnet_c.Group()
    os.environ[MARK] = mark
    try:
        gateways = [group.makegateway(far.end.spec()) for _ in range(2)]
    finally:
        del os.environ[MARK]
    assert gateways[0].remote_exec("channel.send(1)").receive(TIMEOUT) == 1
    assert living(mark)
    start = time.monotonic()
    for gateway in gateways:
        gateway.exit()
    assert wait_until(lambda: not living(mark), TIMEOUT), "processes are left"
    print(f"gone {(time.monotonic() - start) * 1000:.0f} ms after exit()")
    assert time.monotonic() - start < 4, "it did not end by itself, but was made to"
    group.terminate(timeout=TIMEOUT)


# The first task has the main thread, and has not imported threading when the second one does.
MAIN_TASK = """
import atexit, sys
channel.send("threading" in sys.modules)
atexit.register(open, channel.receive(), "w")
import signal, threading
signal.signal(signal.SIGUSR1, signal.SIG_DFL)
main = threading.main_thread()
channel.send([main is threading.current_thread(), main.ident == threading.get_ident(), main.is_alive(), main.name])
"""

OTHER_TASK = """
import os, sys, threading
main, me = threading.main_thread(), threading.current_thread()
right = getattr(main, "native_id", 0) in (0, os.getpid()) or sys.version_info >= (3, 13)  # those have another's there
channel.send([main is me, main.ident == me.ident, right, sorted({main.name, me.name} & {"MainThread"})])
"""


@pytest.mark.parametrize("end", PLAIN, ids=lambda end: end.name)
def test_the_main_thread_stays_the_main_thread(end, tmp_path):
    """Whichever is the first to import threading. The worker ends with its connection, and not by force."""
    end.spec()
    # Without site: what is installed there may import threading at start.
    group = execnet_c.Group([FarEnd("", [*end.command, "-S"]).spec()])
    try:
        first = group[0].remote_exec(MAIN_TASK)
        assert first.receive(TIMEOUT) is False
        assert group[0].remote_exec(OTHER_TASK).receive(TIMEOUT) == [False, False, True, ["MainThread"]]
        first.send(str(tmp_path / "ended"))
        assert first.receive(TIMEOUT) == [True, True, True, "MainThread"]
        first.waitclose(TIMEOUT)
    finally:
        group.terminate(timeout=TIMEOUT)
    assert os.listdir(tmp_path) == ["ended"]


THREAD_TASK = """
import _thread
main, done = _thread.get_ident(), _thread.allocate_lock()
done.acquire()
def run():
    try:
        import threading
        channel.send(threading.main_thread().ident == main)
    finally:
        done.release()
_thread.start_new_thread(run, ())
done.acquire()
"""


@pytest.mark.parametrize("end", PLAIN, ids=lambda end: end.name)
def test_the_main_thread_stays_the_main_thread_for_a_thread_of_the_first_task(end, group):
    end.spec()
    for _ in range(5):
        gw = group.makegateway(FarEnd("", [*end.command, "-S"]).spec())
        assert gw.remote_exec(THREAD_TASK).receive(TIMEOUT) is True
        gw.exit()


# ---- which of them there are


def test_this_machine_has_far_ends():
    """Where everything else here is skipped, this fails."""
    assert any(not end.missing for end in PLAIN), [end.missing for end in PLAIN]
