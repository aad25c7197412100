"""Deaths of workers, and how the master learns of them."""

import fcntl
import os
import signal
import sys

import execnet_c
import pytest
from execnet_c.twin import pypump, pywire

from conftest import TIMEOUT
from masters import Program, run


# ---- how a worker died is told to whoever uses its gateway

# What the worker does in the end, and what there is to know of it: exit status, signal, text.
DEATHS = {
    "KILL": ("os.kill(os.getpid(), signal.SIGKILL)", None, 9, "killed by SIGKILL"),
    "TERM": ("os.kill(os.getpid(), signal.SIGTERM)", None, 15, "killed by SIGTERM"),
    "SEGV": ("os.kill(os.getpid(), signal.SIGSEGV)", None, 11, "SIGSEGV"),
    "real-time signal": ("os.kill(os.getpid(), signal.SIGRTMIN + 5)", None, 39, "killed by signal 39"),
    "_exit 3": ("os._exit(3)", 3, None, "exit status 3"),
    "_exit 0": ("os._exit(0)", 0, None, "exit status 0"),
    "last words": ("os.write(2, b'these are its last words\\n'); os._exit(4)", 4, None, "these are its last words"),
}


@pytest.mark.parametrize("how", DEATHS)
@pytest.mark.parametrize("state", ["idle", "computing", "waiting"])
def test_each_use_says_how_it_died(how, state):
    body, status, number, text = DEATHS[how]
    run(
        """
        body, status, number, text, state = sys.argv[1:]
        body += "\\nimport time; time.sleep(1000)"  # the signal may be another thread's to take
        group = execnet_c.Group()
        gateway = group.makegateway("popen//stderr=capture" if "words" in text else "popen")
        pid = worker_of(gateway)
        before = gateway.remote_exec("channel.send(1); channel.send(2)")
        before.waitclose(30)
        other = gateway.remote_exec("channel.send(2); channel.receive().send('sent'); channel.receive()")
        marked = gateway.remote_exec("channel.send(1); channel.receive()")
        seen = []
        marked.setcallback(seen.append, endmarker="end")
        unused = gateway.newchannel()
        ready = gateway.newchannel()
        other.send(ready)
        ready.receive(30)
        assert wait_until(lambda: seen == [1])
        if state == "idle":  # that is, nobody here waits for it
            killer = gateway.remote_exec("import os, signal\\n" + body)
            assert wait_until(lambda: not gateway.hasreceiver())
        elif state == "waiting":  # somebody does
            killer = gateway.remote_exec("import os, signal; channel.receive()\\n" + body)
            threading.Timer(0.1, killer.send, [1]).start()
            raises(execnet_c.GatewayDied, unused.receive)
        else:
            gateway.remote_exec("while True: pass")
            killer = gateway.remote_exec("import os, signal\\n" + body)
        uses = [
            killer.receive, lambda: killer.receive(30), killer.waitclose, lambda: next(killer), lambda: list(killer),
            unused.receive, unused.waitclose, lambda: unused.send(1), lambda: other.send(1),
            lambda: gateway.remote_exec("pass"), gateway.newchannel, gateway.remote_status,
            lambda: killer.send(b"x" * (1 << 22)),
        ]
        for use in uses:
            start = time.monotonic()
            error = raises(execnet_c.GatewayDied, use)
            took = time.monotonic() - start
            assert took < 5
            assert isinstance(error, EOFError) and isinstance(error, OSError)
            assert (str(error.status), str(error.signal)) == (status, number), vars(error)
            assert text in str(error) and gateway.id in str(error) and str(pid) in str(error), error
            assert error.command[0] == sys.executable
            if "words" in text:
                assert text in error.stderr
        # what came before is still there
        assert other.receive(30) == 2
        raises(execnet_c.GatewayDied, other.receive)
        assert list(before) == [1, 2]
        assert raises(EOFError, before.receive).args == ()
        assert wait_until(lambda: seen == [1, "end"]), seen
        gateway.join(30)
        assert stat_of(pid) is None
        assert not gateway.hasreceiver()
        start = time.monotonic()
        group.terminate(timeout=5)
        assert time.monotonic() - start < 2
        """,
        body,
        status,
        number,
        text,
        state,
        stderr=None,
    )


def test_the_end_of_a_long_stderr_is_told():
    run(
        """
        group = execnet_c.Group()
        gateway = group.makegateway("popen//stderr=capture")
        channel = gateway.remote_exec('''
            import os, sys
            for i in range(20000):
                print("line", i, file=sys.stderr)
            sys.stderr.buffer.write(b"not \\\\xff UTF-8\\\\n")
            sys.stderr.flush()
            os._exit(1)
        ''')
        error = raises(execnet_c.GatewayDied, channel.receive)
        assert "line 19999" in str(error) and "not \\ufffd UTF-8" in str(error)
        assert len(str(error)) < 5000
        """,
        stderr=None,
    )


# ---- last words: what is told of a crash, though nobody here reads the worker's stderr

CRASHES = {
    "SEGV": ("import ctypes; ctypes.string_at(0)", 11, "Segmentation fault", "string_at"),
    "abort": ("def f():\n    import os; os.abort()\nf()", 6, "Aborted", "in f"),
    "from outside": ("import os, signal\nos.kill(os.getpid(), signal.SIGBUS)\nwhile True: pass", 7, "Bus error", "<module>"),
}
SPECS = ["popen", "popen//transport=pipe", "popen//python={}", "popen//python=env EXECNET_C_PURE=1 {}"]


@pytest.mark.parametrize("how", CRASHES)
@pytest.mark.parametrize("spec", SPECS)
def test_a_crash_is_told_with_its_traceback(how, spec):
    body, number, what, where = CRASHES[how]
    run(
        """
        spec, body, number, what, where = sys.argv[1:]
        group = execnet_c.Group()
        channel = group.makegateway(spec).remote_exec(body)
        error = raises(execnet_c.GatewayDied, channel.receive, 30)
        assert error.signal == int(number)
        head, _, words = str(error).partition("; its last words:\\n")
        assert "killed by SIG" in head and words.startswith("Fatal Python error: " + what), error
        assert '"<remote exec>", line' in words and where in words, error
        assert error.stderr.startswith("Fatal Python error")
        """,
        spec.format(sys.executable),
        body,
        number,
        what,
        where,
    )


@pytest.mark.parametrize("spec", SPECS)
def test_an_exception_that_ends_a_worker_is_told(spec):
    run(
        """
        group = execnet_c.Group()
        gateway = group.makegateway(sys.argv[1])
        gateway.remote_exec('''
            def fail(*args):
                raise ValueError("f\\xfcr a reason")
            channel.gateway._next_task = fail
        ''').waitclose(30)
        error = raises(execnet_c.GatewayDied, gateway.newchannel().receive, 30)
        assert error.status == 1
        assert "its last words:\\nTraceback" in str(error) and "ValueError: f\\xfcr a reason" in str(error), error
        """,
        spec.format(sys.executable),
        stderr=None,  # Python says so there, too
    )


@pytest.mark.parametrize("spec", SPECS)
def test_a_crash_of_its_child_is_not_the_worker_s(spec):
    run(
        """
        group = execnet_c.Group()
        channel = group.makegateway(sys.argv[1]).remote_exec('''
            import os, signal
            child = os.fork()
            if child == 0:
                os.abort()
            channel.send(os.waitpid(child, 0)[1] & 127)
            channel.receive()
            os._exit(3)
        ''')
        assert channel.receive(30) == signal.SIGABRT
        channel.send(1)
        error = raises(execnet_c.GatewayDied, channel.receive, 30)
        assert error.status == 3 and "words" not in str(error) and error.stderr == "", error
        """,
        spec.format(sys.executable),
    )


@pytest.mark.parametrize("spec", ["popen", "popen//env:PYTHONFAULTHANDLER=1//python={}"])
def test_a_fault_handler_of_the_user_s_is_left_alone(spec):
    """It writes where he has it write."""
    enable = "" if "FAULT" in spec else "import faulthandler; faulthandler.enable()\n"
    with Program(
        """
        group = execnet_c.Group()
        if "FAULT" in sys.argv[1]:
            os.environ["PYTHONFAULTHANDLER"] = "1"
        channel = group.makegateway(sys.argv[1]).remote_exec(sys.argv[2])
        error = raises(execnet_c.GatewayDied, channel.receive, 30)
        assert error.signal == 6 and error.stderr == "", error
        """,
        spec.format(sys.executable),
        enable + "import os; os.abort()",
    ) as program:
        _, said = program.finish(stderr=None)
        assert said.startswith("Fatal Python error: Aborted"), said


@pytest.mark.not_under("asan tsan", "it limits memory")
def test_system_exit_and_memory_errors_of_a_task_are_remote_errors():
    run(
        """
        group = execnet_c.Group()
        gateway = group.makegateway()
        pid = worker_of(gateway)
        for body, text in (
            ("import sys; sys.exit(3)", "SystemExit: 3"),
            ("raise SystemExit('bye')", "SystemExit: bye"),
            ("def f(): f()\\nf()", "RecursionError"),
            ("import resource as r; r.setrlimit(r.RLIMIT_AS, (1 << 30, -1)); bytearray(1 << 34)", "MemoryError"),
            ("x = [0] * 10\\nwhile True: x = x + x", "MemoryError"),
        ):
            channel = gateway.remote_exec(body)
            error = raises(execnet_c.RemoteError, channel.waitclose, 50)
            assert text in str(error), error
            assert worker_of(gateway) == pid
        """
    )


DEAF = """
import time
channel.send(1)
while True:
    try:
        time.sleep(100)
    except KeyboardInterrupt:
        pass
"""
IN_THE_MIDST = {"idle": "channel.send(1)", "a task": "channel.send(1); channel.receive()", "deaf": DEAF}


@pytest.mark.parametrize("state, via", [*((state, False) for state in IN_THE_MIDST), ("a task", True)])
@pytest.mark.ours
def test_a_worker_whose_connection_breaks_at_its_own_end_says_so(group, state, via, monkeypatch):
    """What it cannot read, here: nobody else knows of that."""
    monkeypatch.setattr("execnet_c.near.gateway.Gateway._patience", TIMEOUT)  # under load, a process takes long to end
    if via:
        group.makegateway("popen//id=outer")
    gw = group.makegateway("popen//via=outer" if via else "popen")
    channel, other = gw.remote_exec(IN_THE_MIDST[state]), gw.newchannel()
    assert channel.receive(TIMEOUT) == 1
    gw._write(b"\xff" * 9)
    with pytest.raises(execnet_c.GatewayDied) as error:
        other.receive(TIMEOUT)
    assert error.value.status == 1 or state == "deaf"  # which is killed, now or later, unless it ends by itself
    assert "execnet_c: the connection broke here: " in error.value.stderr
    assert "unknown message code in ff ffffffff ffffffff" in error.value.stderr


@pytest.mark.deep
@pytest.mark.ours
def test_a_task_that_does_not_end_after_the_goodbye_is_killed(group):
    """5 and 10 seconds later."""
    gw = group.makegateway()
    channel = gw.remote_exec("import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nchannel.send(1)\ntime.sleep(60)")
    assert channel.receive(TIMEOUT) == 1
    gw.exit()
    assert gw._wait_gone(TIMEOUT)
    assert gw._state()["status"] == -signal.SIGKILL


def test_a_worker_that_dies_in_the_middle_of_a_large_item():
    run(
        """
        group = execnet_c.Group()
        for kind in ("bytes", "str", "list"):
            gateway = group.makegateway()
            pid = worker_of(gateway)
            channel = gateway.remote_exec('''
                channel.send("before")
                channel.receive()
                item = b"x" * (1 << 28)
                channel.send("now")
                channel.send({"bytes": item, "str": item.decode(), "list": [item, item]}[channel.receive()])
                channel.send("after")
                channel.receive()  # not the end: on a quick machine all may have come before the kill
            ''')
            got = []
            def kill():
                # It has read what it was sent and writes: killed when a part of it is here.
                wait_until(lambda: stat_of(pid)[0] == "S" and got == ["before", "now"])
                os.kill(pid, signal.SIGKILL)
            got.append(channel.receive(30))
            channel.send(1)
            thread = threading.Thread(target=kill)
            got.append(channel.receive(30))
            channel.send(kind)
            thread.start()
            try:
                while True:
                    item = channel.receive(30)
                    assert len(item) in (1 << 28, 2) or item == "after"  # whole, or not at all
            except execnet_c.GatewayDied as exc:
                assert exc.signal == 9
            thread.join()
            raises(execnet_c.GatewayDied, channel.waitclose)
            raises(execnet_c.GatewayDied, channel.send, 1)
        """
    )


def test_a_worker_that_dies_while_it_is_sent_a_large_item():
    run(
        """
        group = execnet_c.Group()
        for item in (b"x" * (1 << 26), "x" * (1 << 26)):
            gateway = group.makegateway()
            pid = worker_of(gateway)
            channel = gateway.newchannel()
            stop_process(pid)
            main = threading.get_native_id()
            times = []
            def kill():
                wait_asleep(os.getpid())
                times.append(time.monotonic())
                os.kill(pid, signal.SIGKILL)
            thread = threading.Thread(target=kill)
            thread.start()
            error = raises(execnet_c.GatewayDied, channel.send, item)
            took = time.monotonic() - times[0]
            thread.join()
            print(f"a send that blocks: {took * 1000:.1f} ms after the death")
            assert error.signal == 9 and took < 2
            raises(execnet_c.GatewayDied, channel.send, 1)
        """
    )


@pytest.mark.any_core
@pytest.mark.parametrize("size", [2, pywire.CHUNK + 1, pywire.LONG_MIN])
def test_sent_is_what_has_gone_out_though_its_reader_dies_at_once(monkeypatch, size):
    """The plain-Python core, whose I/O thread may see the end before the sender has come back from its write."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 1 << 20)
    os.set_blocking(writing, False)
    pypump.own(writing)
    writer = pywire.Writer(writing)
    gone = []

    def write(fd, data, write=os.write):
        gone.append(write(fd, data))
        if sum(gone) >= lives_for:
            writer.break_off()
        return gone[-1]

    monkeypatch.setattr(os, "write", write)
    lives_for = 9 + size if size < pywire.LONG_MIN else pywire.PIECE_SIZE
    sent = writer.send_message(pywire.DATA, 1, [bytes(size)])
    monkeypatch.undo()
    assert sent == (size < pywire.LONG_MIN)
    if sent:
        assert not writer.send_message(pywire.DATA, 1, [b"NQ"])
    os.close(reading)
    pypump.close(writing)


def test_each_wait_ends_with_the_worker():
    run(
        """
        group = execnet_c.Group()
        gateway = group.makegateway()
        pid = worker_of(gateway)
        seen = []
        waits = {}
        channel, marked = gateway.newchannel(), gateway.newchannel()
        marked.setcallback(lambda item: seen.append(time.monotonic()), endmarker=None)
        def note(name, wait):
            try:
                wait()
            except EOFError:
                pass
            waits[name] = time.monotonic()
        threads = [
            threading.Thread(target=note, args=each)
            for each in {
                "receive": channel.receive,
                "receive with a timeout": lambda: channel.receive(30),
                "receive in another thread": gateway.newchannel().receive,
                "waitclose": channel.waitclose,
                "waitclose with a callback": marked.waitclose,
                "iteration": lambda: list(gateway.newchannel()),
                "join": gateway.join,
                "terminate": group.terminate,
            }.items()
        ]
        for thread in threads[:-1]:
            thread.start()
        for thread in threads[:-1]:
            wait_asleep(os.getpid(), thread.native_id)
        stop_process(pid)
        killed = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        for thread in threads[:-1]:
            thread.join(30)
        threads[-1].start()
        threads[-1].join(30)
        assert len(waits) == len(threads)
        assert wait_until(lambda: seen)
        for name, when in waits.items():
            print(f"{name}: {(when - killed) * 1000:.1f} ms after the death")
            assert when - killed < 2
        """
    )


@pytest.mark.parametrize("how", ["os.fork", "subprocess"])
def test_a_death_is_seen_though_a_grandchild_holds_the_pipes(how):
    run(
        """
        group = execnet_c.Group()
        gateway = group.makegateway()
        pid = worker_of(gateway)
        channel = gateway.remote_exec('''
            import ctypes, os, subprocess, time
            if channel.receive() == "os.fork":
                # past the handlers of fork, which would close the connection's fds in the child
                child = ctypes.CDLL(None).syscall(57)
                if child == 0:
                    time.sleep(1000)
                    os._exit(0)
            else:
                for fd in range(3, 100):
                    try:
                        os.set_inheritable(fd, True)
                    except OSError:
                        pass
                child = subprocess.Popen(["sleep", "1000"], close_fds=False).pid
            channel.send(child)
            channel.send("last")
            channel.receive()
        ''')
        if os.uname().machine != "x86_64":
            sys.argv[1] = "subprocess"
        channel.send(sys.argv[1])
        grandchild = channel.receive(30)
        wait_asleep(grandchild)
        wait_asleep(pid)
        pipes = {os.readlink(f"/proc/{grandchild}/fd/{fd}") for fd in os.listdir(f"/proc/{grandchild}/fd")}
        ours = {os.readlink(f"/proc/self/fd/{fd}") for fd in fds() if os.path.exists(f"/proc/self/fd/{fd}")}
        assert len([pipe for pipe in pipes & ours if pipe.startswith("pipe")]) >= 2, "it holds none"
        killed = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        assert channel.receive(30) == "last"
        error = raises(execnet_c.GatewayDied, channel.receive)
        took = time.monotonic() - killed
        print(f"{took * 1000:.1f} ms after the death")
        assert error.signal == 9 and took < 2
        killed = time.monotonic()
        group.terminate(timeout=5)
        assert time.monotonic() - killed < 2
        os.kill(grandchild, signal.SIGKILL)
        """,
        how,
    )


# ---- where somebody else takes the exit status


def test_sigchld_is_ignored_here():
    run(
        """
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        group = execnet_c.Group(["popen"] * 2)
        pid = worker_of(group[0])
        channel = group[0].remote_exec("import os; os._exit(3)")
        start = time.monotonic()
        error = raises(execnet_c.GatewayDied, channel.receive)
        assert time.monotonic() - start < 5
        assert error.status is None and error.signal is None
        assert "exit status is unknown" in str(error), error
        group.terminate(timeout=5)
        assert time.monotonic() - start < 5
        """
    )


def test_a_stray_waitpid_here():
    run(
        """
        group = execnet_c.Group(["popen"] * 2)
        pids = {worker_of(gateway) for gateway in group}
        channel = group[0].remote_exec("channel.send(1); channel.receive()")
        channel.receive(30)
        got = []
        def stray():
            try:
                while True:
                    got.append(os.waitpid(-1, 0))
            except ChildProcessError:
                pass
        thread = threading.Thread(target=stray)
        thread.start()
        wait_asleep(os.getpid(), thread.native_id)
        start = time.monotonic()
        os.kill(worker_of(group[0]), signal.SIGKILL)
        error = raises(execnet_c.GatewayDied, channel.receive)
        assert time.monotonic() - start < 5
        if error.signal is None:
            assert "exit status is unknown" in str(error), error
        else:
            assert error.signal == 9
        group.terminate(timeout=5)
        assert time.monotonic() - start < 5
        thread.join(30)
        print("taken by the stray waitpid:", len(got))
        """
    )
