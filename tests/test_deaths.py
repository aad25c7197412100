"""Deaths: of workers, and how the master learns of them; of masters, and how their workers end."""

import fcntl
import os
import sys

import execnet_c
import pytest
from execnet_c.twin import pypump, pywire

from conftest import TIMEOUT
from masters import Program, is_gone, run, wait_until

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


def test_system_exit_and_memory_errors_of_a_task_are_remote_errors():
    run(
        """
        group = execnet_c.Group()
        gateway = group.makegateway()
        pid = worker_of(gateway)
        for body, text in (
            ("import sys; sys.exit(3)", "SystemExit: 3"),
            ("raise SystemExit('bye')", "SystemExit: bye"),
            ("import resource as r; r.setrlimit(r.RLIMIT_AS, (1 << 30, -1)); bytearray(1 << 34)", "MemoryError"),
            ("x = [0] * 10\\nwhile True: x = x + x", "MemoryError"),
            ("def f(): f()\\nf()", "RecursionError"),
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
def test_a_worker_whose_connection_breaks_at_its_own_end_says_so(group, state, via):
    """What it cannot read, here: nobody else knows of that."""
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


# ---- a worker that does not come up

USES = """
def first_uses(gateway, limit):
    for use in (
        lambda: gateway.remote_exec("channel.send(1)").receive(),
        lambda: gateway.newchannel().receive(),
        gateway.remote_status,
        lambda: gateway.remote_exec("pass").waitclose(),
    ):
        start = time.monotonic()
        error = raises((execnet_c.GatewayDied, OSError, EOFError), use)
        assert time.monotonic() - start < limit
        assert isinstance(error, execnet_c.GatewayDied), repr(error)
        yield error
"""


@pytest.mark.parametrize("program", ["/nonexistent/python", "/", "/etc/passwd"])
def test_a_program_that_cannot_be_started(program):
    run(
        """
        before = fds()
        group = execnet_c.Group()
        executable, sys.executable = sys.executable, sys.argv[1]
        for spec in ("popen", "popen//chdir=/"):
            error = raises(OSError, group.makegateway, spec)
            assert sys.argv[1] in str(error), error
            assert error.errno, error
        raises(OSError, execnet_c.Group, ["popen"] * 3)
        assert list(group) == []
        assert wait_until(lambda: fds() <= before), fds() - before
        sys.executable = executable
        assert worker_of(group.makegateway())
        """,
        program,
    )


SCRIPTS = {
    "true": ("exit 0", "exit status 0"),
    "false": ("exit 1", "exit status 1"),
    "complains": ("echo no such interpreter >&2; exit 127", "no such interpreter"),
    "kills itself": ("kill -9 $$", "SIGKILL"),
    "chatters": ("yes hello world, this is no frame at all 2>&-; exec sleep 1000", "no far end of ours"),
    "chatters after the marker": (r"printf '\0execnet_c\0'; exec yes hello world, this is no frame at all", ""),
    "echoes": (r"printf '\0execnet_c\0'; exec cat", ""),
}


@pytest.mark.parametrize("how", SCRIPTS)
@pytest.mark.parametrize("spec", ["popen", "popen//chdir=/", "popen//transport=pipe", "popen//transport=pipe//chdir=/"])
def test_a_program_that_is_no_python(how, spec, tmp_path):
    body, text = SCRIPTS[how]
    if how == "echoes" and spec != "popen//transport=pipe//chdir=/":
        return  # it greets as it is greeted, and nobody looks at what it says; or it is not greeted through the pipe
    script = tmp_path / "python"
    script.write_text(f"#!/bin/sh\n{body}\n")
    script.chmod(0o755)
    run(
        USES
        + """
if True:
        program, spec, text = sys.argv[1:]
        group = execnet_c.Group()
        executable, sys.executable = sys.executable, program
        start = time.monotonic()
        try:
            gateway = group.makegateway(spec)
            assert "chdir" not in spec
        except OSError as exc:
            errors = [exc]
            assert list(group) == []
        else:
            errors = list(first_uses(gateway, 5))
        print(f"{time.monotonic() - start:.3f} s", errors[0])
        for error in errors:
            assert text in str(error) and program in str(error), error
        sys.executable = executable
        group.terminate(timeout=0.5)
        assert time.monotonic() - start < 10
        assert worker_of(group.makegateway())
        """,
        script,
        spec,
        text,
        stderr=None,
    )


def test_a_program_that_says_nothing(tmp_path):
    """There is nothing to tell it from a slow one; it is ended with its group all the same."""
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\nexec sleep 1000\n")
    script.chmod(0o755)
    run(
        """
        group = execnet_c.Group()
        sys.executable = sys.argv[1]
        gateway = group.makegateway()
        channel = gateway.remote_exec("channel.send(1)")
        raises(channel.TimeoutError, channel.receive, 0.2)
        start = time.monotonic()
        group.terminate(timeout=0.3)
        took = time.monotonic() - start
        print(f"terminate: {took:.3f} s, timeout 0.3")
        assert took < 3
        """,
        script,
    )


@pytest.mark.parametrize("spec", ["popen", "popen//chdir=/"])
@pytest.mark.parametrize("how", ["PYTHONHOME", "sitecustomize"])
def test_a_python_that_fails_at_its_start(how, spec, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import os\nos.write(2, b'this site is broken')\nos._exit(5)\n")
    run(
        USES
        + """
if True:
        how, path, spec = sys.argv[1:]
        os.environ["PYTHONPATH" if how == "sitecustomize" else "PYTHONHOME"] = path
        group = execnet_c.Group()
        try:
            gateway = group.makegateway(spec)
            assert "chdir" not in spec
        except OSError as exc:
            errors = [exc]
        else:
            errors = list(first_uses(gateway, 10))
        for error in errors:
            assert isinstance(error, execnet_c.GatewayDied)
            assert "before it could serve" in str(error) and sys.executable in str(error), error
            assert ("this site is broken" if how == "sitecustomize" else "encodings") in str(error), error
        """,
        how,
        tmp_path,
        spec,
        stderr=None,
    )


@pytest.mark.parametrize("spec", ["popen", "popen//chdir=/"])
def test_another_version_at_the_far_end(spec):
    run(
        USES
        + """
if True:
        import execnet_c.near.bootstrap
        version = execnet_c.__version__
        execnet_c.near.bootstrap.__version__ = "0.0.7"
        group = execnet_c.Group()
        try:
            gateway = group.makegateway(sys.argv[1])
            assert sys.argv[1] == "popen"
        except OSError as exc:
            errors = [exc]
        else:
            errors = list(first_uses(gateway, 10))
        for error in errors:
            assert isinstance(error, execnet_c.GatewayDied) and error.status == 3
            assert "0.0.7" in str(error) and version in str(error), error
        """,
        spec,
        stderr=None,
    )


# ---- the end of the master's program

TASKS = {
    "idle": "channel.send(1)",
    "waits": "channel.send(1)\nchannel.receive()",
    "iterates": "channel.send(1)\nlist(channel)",
    "sends": "channel.send(1)\nwhile True: channel.send(b'x' * 100000)",
    "busy": "channel.send(1)\nwhile True: pass",
    "sleeps": "import time\nchannel.send(1)\ntime.sleep(1000)",
    "ignores signals": "import signal, time\nfor s in (2, 15): signal.signal(s, signal.SIG_IGN)\n"
    "channel.send(1)\nwhile True: time.sleep(1000)",
    "holds the GIL": "import itertools\nchannel.send(1)\nsum(itertools.repeat(0))",
    "big number": "channel.send(1)\n7 ** (10 ** 9)",
    "threads": "import threading, time\nthreading.Thread(target=time.sleep, args=(1000,)).start()\nchannel.send(1)",
    "callback": "import time\nother = channel.receive()\n"
    "other.setcallback(lambda item: (channel.send(2), time.sleep(1000)))\nchannel.send(1)\nchannel.receive()",
    "catches all": "import time\nchannel.send(1)\nwhile True:\n  try: time.sleep(1000)\n  except BaseException: pass",
}
START = """
group = execnet_c.Group()
gateway = group.makegateway()
channel = gateway.remote_exec(sys.argv[1])
calls_back = "setcallback" in sys.argv[1]
if calls_back:
    other = gateway.newchannel()
    channel.send(other)
assert channel.receive(30) == 1
if calls_back:
    other.send(1)
    assert channel.receive(30) == 2
print("up", flush=True)
"""


@pytest.mark.parametrize("task", TASKS)
def test_the_program_ends_in_time_and_silently(task):
    with Program(START, TASKS[task]) as program:
        assert program.line() == "up"
        took = ends(program)
        print(f"{task}: ended after {took:.3f} s")
        program.finish()
        assert took < 8


def ends(program):
    """Seconds until the program and all that it started are gone."""
    import time

    start = time.monotonic()
    assert wait_until(lambda: not program.family(), 40), "processes are left"
    return time.monotonic() - start


@pytest.mark.parametrize("n", [1, 5])
def test_a_program_that_ends_right_after_makegateway(n):
    run("for _ in range(int(sys.argv[1])): execnet_c.makegateway()", n)
    run("group = execnet_c.Group(['popen'] * int(sys.argv[1]))", n)
    run("channels = [execnet_c.makegateway().remote_exec('import time; time.sleep(0.1)') for _ in range(3)]", n)


WAYS = {
    "exit": ("sys.exit(7)", 7, None),
    "exception": ("raise ValueError('for a reason')", 1, "ValueError: for a reason\n"),
    "exit in a thread": ("t = threading.Thread(target=sys.exit, args=(3,)); t.start(); t.join()", 0, None),
    "exception at exit": ("import atexit; atexit.register(lambda: 1 / 0)", 0, "ZeroDivisionError: division by zero\n"),
    "thread ends later": ("threading.Thread(target=time.sleep, args=(0.3,)).start()", 0, None),
    "callback runs": (
        "c = gateway.remote_exec('channel.send(1); channel.receive()'); c.setcallback(lambda i: time.sleep(0.2))",
        0,
        None,
    ),
    "keeps all alive": ("sys.modules['kept'] = gateway, channel, group; gateway.itself = gateway", 0, None),
    "a thread receives": (
        "t = threading.Thread(target=raises, args=(EOFError, gateway.newchannel().receive), daemon=True); t.start(); "
        "wait_asleep(os.getpid(), t.native_id)",
        0,
        None,
    ),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("task", ["waits", "busy"])
def test_ways_to_end(way, task):
    code, status, words = WAYS[way]
    with Program(START + code, TASKS[task]) as program:
        assert program.line() == "up"
        took = ends(program)
        print(f"{way}, {task}: ended after {took:.3f} s")
        _, stderr = program.finish(status, stderr=None)
        assert stderr.endswith(words) if words else stderr == "", stderr
        assert took < 8


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("way", ["os._exit(0)", "os.kill(os.getpid(), 9)"])
def test_a_worker_ends_itself_when_its_master_is_gone(way, task):
    with Program(START + way, TASKS[task]) as program:
        assert program.line() == "up"
        assert wait_until(lambda: is_gone(program.pid))
        took = ends(program)
        print(f"{way}, {task}: {took:.3f} s after its master")
        assert took < 6


def test_a_worker_in_the_middle_of_a_large_item_ends_with_its_master():
    with Program(
        """
        group = execnet_c.Group()
        gateway = group.makegateway()
        pid = worker_of(gateway)
        channel = gateway.remote_exec("channel.send(channel.receive())")
        stop_process(pid)
        threading.Thread(target=channel.send, args=(b"x" * (1 << 26),)).start()
        print(pid, flush=True)
        time.sleep(1000)
        """
    ) as program:
        import os

        pid = int(program.line())
        os.kill(program.pid, 9)
        assert wait_until(lambda: is_gone(program.pid))
        os.kill(pid, 18)
        assert ends(program) < 6


def test_a_worker_ends_though_its_masters_child_lives():
    """Started beside the gateway's pipes, with all fds that may be inherited."""
    with Program(
        """
        import subprocess
        group = execnet_c.Group(["popen"] * 2)
        pids = [worker_of(gateway) for gateway in group]
        null = subprocess.DEVNULL
        child = subprocess.Popen(["sleep", "1000"], close_fds=False, stdout=null, stderr=null)
        late = group.makegateway()
        pids.append(worker_of(late))
        print(child.pid, *pids, flush=True)
        time.sleep(1000)
        """
    ) as program:
        import os
        import time

        child, *pids = map(int, program.line().split())
        os.kill(program.pid, 9)
        start = time.monotonic()
        assert wait_until(lambda: all(map(is_gone, pids)), 10)
        print(f"{time.monotonic() - start:.3f} s after their master")
        assert not is_gone(child)


# ---- terminate


@pytest.mark.parametrize("timeout", ["0", "0.3", "1.0"])
def test_terminate_takes_about_twice_its_timeout_and_leaves_nothing(timeout):
    lines = run(
        """
        timeout = float(sys.argv[1])
        tasks = sys.argv[2:]
        before = None
        sleep_at_a_pipe(execnet_c)
        for task in tasks + ["STOP", "all"]:
            group = execnet_c.Group()
            pids = []
            for body in tasks if task == "all" else [task]:
                gateway = group.makegateway()
                pids.append(worker_of(gateway))
                channel = gateway.remote_exec("channel.send(1)" if body == "STOP" else body)
                if "setcallback" in body:
                    other = gateway.newchannel()
                    channel.send(other)
                assert channel.receive(30) == 1
                if "setcallback" in body:
                    other.send(1)
                    assert channel.receive(30) == 2
                if body == "STOP":
                    stop_process(pids[-1])
            start = time.monotonic()
            group.terminate(timeout=timeout)
            took = time.monotonic() - start
            assert all(stat_of(pid) is None for pid in pids)
            assert list(group) == []
            print(f"{task[-40:]!r}: {took:.3f} s")
            assert took < 2 * timeout + 3
            start = time.monotonic()
            group.terminate(timeout=timeout)
            assert time.monotonic() - start < 1
            del gateway, channel, group
            other = None
            import gc
            gc.collect()
            if before is None:
                before = fds(), set(os.listdir("/proc/self/task"))
            assert wait_until(lambda: len(fds()) <= len(before[0])), (fds(), before)
            assert wait_until(lambda: len(os.listdir("/proc/self/task")) <= len(before[1]))
        """,
        timeout,
        *TASKS.values(),
        stderr=None,
    )
    assert len(lines) == len(TASKS) + 2


def test_terminate_from_threads_at_once():
    run(
        """
        group = execnet_c.Group(["popen"] * 4)
        pids = [worker_of(gateway) for gateway in group]
        for gateway in group:
            gateway.remote_exec("channel.send(1)\\nwhile True: pass").receive(30)
        start = time.monotonic()
        threads = [threading.Thread(target=group.terminate, args=(0.3,)) for _ in range(5)]
        threads += [threading.Thread(target=gateway.exit) for gateway in group]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        took = time.monotonic() - start
        print(f"{took:.3f} s, timeout 0.3")
        assert took < 4
        assert all(stat_of(pid) is None for pid in pids)
        assert list(group) == []
        """
    )


def test_terminate_in_a_callback():
    run(
        """
        group = execnet_c.Group(["popen"] * 2)
        pids = [worker_of(gateway) for gateway in group]
        channel = group[0].remote_exec("channel.send(1)")
        done = []
        def callback(item):
            group.terminate(timeout=0.5)
            done.append(item)
        start = time.monotonic()
        channel.setcallback(callback)
        assert wait_until(lambda: done == [1])
        assert time.monotonic() - start < 5
        assert all(stat_of(pid) is None for pid in pids)
        """
    )


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_many_gateways_one_after_the_other_leave_nothing():
    run(
        """
        sleep_at_a_pipe(execnet_c)
        execnet_c.Group(["popen"]).terminate(timeout=5)
        before = len(fds())
        for i in range(30):
            group = execnet_c.Group(["popen"] * 2)
            if i % 3:
                group[0].remote_exec("channel.send(1)").receive(30)
            if i % 2:
                group.terminate(timeout=5)
            else:
                for gateway in group:
                    gateway.exit()
                group.terminate(timeout=5)
        del group, gateway
        assert wait_until(lambda: len(fds()) <= before), (fds(), before)
        assert wait_until(lambda: living(os.environ[MARK]) == {os.getpid()}), "a process is left"
        """
    )
