"""Programs that the tests start, interrupt and kill, because pytest itself must not be.

A program's text begins with `from masters import *`; the end of this file is for the programs. The tests find a program and
all its descendants, also those whose parents are gone, by a mark in their environment. This file imports the standard
library only, because each program imports it.
"""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import uuid
from contextlib import contextmanager, suppress

HERE = os.path.dirname(os.path.abspath(__file__))
MARK = "EXECNET_TEST_MARK"
LIMIT = 60.0
# Seconds: enough for any loaded machine. A test that would hang fails by this instead.
TIMEOUT = float(os.environ.get("EXECNET_C_TEST_TIMEOUT", "30"))

HEAD = """\
import os, signal, sys, threading, time
import pairing, execnet_c
from masters import *
"""


def wait_until(condition, timeout=TIMEOUT, step=0.005):
    """Wait until condition() is true, for what no message tells of. Returns whether it came true in time."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(step)
    return True


def stat_of(pid, tid=None):
    """The fields of /proc/.../stat from the state on; None when there is no such process or thread."""
    try:
        with open(f"/proc/{pid}/stat" if tid is None else f"/proc/{pid}/task/{tid}/stat") as file:
            return file.read().rpartition(")")[2].split()
    except OSError:
        return None


def is_gone(pid):
    """Ended, or about to be reaped."""
    stat = stat_of(pid)
    return stat is None or stat[0] in "ZX"


def _status(pid, tid):
    """The lines of /proc/.../status, by their names."""
    with open(f"/proc/{pid}/task/{tid}/status") as file:
        return dict(line.rstrip("\n").split(":", 1) for line in file)


def _waits_in_locks(pid):
    """Whether that process has the twin, which waits at locks only."""
    with open(f"/proc/{pid}/maps") as file:
        return "/_core." not in file.read()


def _waits_at_a_ring(pid, tid):
    """Whether a thread that waits at a futex waits at a ring: its futex is shared memory, that of a lock is private."""
    with open(f"/proc/{pid}/task/{tid}/syscall") as file:
        words = file.read().split()
    return len(words) > 2 and int(words[2], 16) == 9  # FUTEX_WAIT_BITSET without FUTEX_PRIVATE_FLAG


def is_asleep(pid, tid=None):
    """Whether a thread (the main one) sleeps in a system call that waits for something other than a lock, and no signal
    waits for it. With the twin it may be any lock, also the GIL."""
    stat = stat_of(pid, tid or pid)
    if stat is None or stat[0] != "S":
        return False
    status = _status(pid, tid or pid)
    if int(status["SigPnd"], 16) or int(status["ShdPnd"], 16):
        return False
    try:
        with open(f"/proc/{pid}/task/{tid or pid}/wchan") as file:
            return "futex" not in file.read() or _waits_at_a_ring(pid, tid or pid) or _waits_in_locks(pid)
    except OSError:
        return True


def wait_asleep(pid, tid=None):
    """Wait until the thread has slept for ten looks without waking up in between. They take longer than the 5 ms after
    which a thread that waits for the GIL wakes up."""
    seen = woken = 0

    def still():
        nonlocal seen, woken
        before, woken = woken, _status(pid, tid or pid)["voluntary_ctxt_switches"]
        seen = seen + 1 if woken == before and is_asleep(pid, tid) else 0
        return seen >= 10

    assert wait_until(still, step=0.002), "it does not go to sleep"


def living(mark):
    """Processes with that mark in their environment."""
    found = set()
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/environ", "rb") as file:
                if mark.encode() in file.read():
                    found.add(int(name))
        except OSError:
            pass
    return found


def kill_all(pids):
    """SIGKILL to each of these processes that is still there."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


class Program:
    """A running program. After LIMIT seconds it is killed, with all that it started."""

    def __init__(self, code, *args, env=(), limit=LIMIT):
        self.mark = uuid.uuid4().hex
        self.process = subprocess.Popen(
            [sys.executable, "-c", HEAD + textwrap.dedent(code), *map(str, args)],
            cwd=HERE,
            env={**os.environ, MARK: self.mark, **dict(env)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
        )
        self.pid = self.process.pid
        self._watchdog = threading.Timer(limit, self.kill_all)
        self._watchdog.start()

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self._watchdog.cancel()
        self._watchdog.join()
        self.kill_all()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            stream.close()
        self.process.wait()

    def family(self):
        return living(self.mark)

    def kill_all(self):
        kill_all(self.family())

    def line(self):
        """The next line that it prints."""
        line = self.process.stdout.readline()
        assert line, f"it said nothing more; its stderr: {self.process.stderr.read()}"
        return line.strip()

    def tell(self, text=""):
        print(text, file=self.process.stdin, flush=True)

    def finish(self, status=0, stderr=""):
        """Wait for its end; check exit status and stderr (None: anything goes); return (lines, stderr)."""
        out, err = self.process.communicate()
        assert self.process.returncode == status, f"status {self.process.returncode}\n{out}\n{err}"
        assert stderr is None or err == stderr, err
        return out.splitlines(), err


def run(code, *args, status=0, stderr="", env=(), limit=LIMIT):
    """Run a program to its end; return the lines that it prints. No process may be left after it."""
    with Program(code, *args, env=env, limit=limit) as program:
        lines, _ = program.finish(status, stderr)
        print(*lines, sep="\n")  # figures; `pytest -s` shows them
        assert wait_until(lambda: not program.family(), 10.0), "processes are left"
    return lines


# --- for the programs themselves --------------------------------------------------------------------------------------

PROMPT = 1.0  # seconds: enough for a busy machine, and less than the delay that a lost signal would cause


def stop_process(pid):
    """Send SIGSTOP, and return when all threads of the process have stopped: they run on until one takes the signal."""
    os.kill(pid, signal.SIGSTOP)
    assert wait_until(lambda: all((stat_of(pid, int(tid)) or "T")[0] in "tT" for tid in os.listdir(f"/proc/{pid}/task")))


def sleep_at_a_pipe(library):
    """Have this thread wait at a pipe once: it gets an fd for that, and keeps it."""
    group = library.Group()
    group.makegateway("popen//transport=pipe").remote_exec("channel.send(1)").receive(30)
    group.terminate(timeout=5)


@contextmanager
def interrupted(what, sig=signal.SIGINT, before=None):
    """Check that a signal, sent when the main thread sleeps, ends the block by KeyboardInterrupt: the block has to wait."""
    sent = []

    def send():
        if before is not None:
            before()
        wait_asleep(os.getpid())
        sent.append(time.monotonic())
        os.kill(os.getpid(), sig)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    except KeyboardInterrupt:
        took = time.monotonic() - sent[0]
    else:
        raise AssertionError(f"{what} was not interrupted")
    thread.join()
    print(f"{what}: {took * 1000:.2f} ms", flush=True)
    assert took < PROMPT


def worker_of(gateway):
    """The process id of a gateway's worker. Returns when the worker's main thread is free again."""
    channel = gateway.remote_exec("import os; channel.send(os.getpid())")
    pid = channel.receive(30)
    channel.waitclose(30)
    return pid


def cpu_of(pid):
    """Seconds of CPU time that a process has used."""
    stat = stat_of(pid)
    return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")


def fds():
    return set(os.listdir("/proc/self/fd"))


def raises(kind, function, *args, **kwargs):
    """The exception of that kind that the call raises."""
    try:
        result = function(*args, **kwargs)
    except kind as exc:
        return exc
    raise AssertionError(f"{function} returned {result!r}")
