"""Ctrl-C typed at a terminal: the whole foreground group gets it, the worker with its master."""

import os
import pty
import select
import signal
import sys
import textwrap
import time

from masters import HEAD, HERE, LIMIT, MARK, is_asleep, is_gone, kill_all, living, wait_until

CTRL_C = b"\x03"


class Terminal:
    """A program whose standard streams and controlling terminal are a pty of its own."""

    def __init__(self, code):
        self.mark = os.urandom(16).hex()
        self.deadline = time.monotonic() + LIMIT
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            try:
                os.chdir(HERE)
                os.environ[MARK] = self.mark
                os.execv(sys.executable, [sys.executable, "-c", HEAD + textwrap.dedent(code)])
            finally:
                os._exit(127)
        self.text = ""

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        kill_all(living(self.mark))
        os.close(self.fd)
        if self.pid is not None:
            os.waitpid(self.pid, 0)

    def expect(self, what):
        """Read until `what` was printed; return what came before it."""
        while what not in self.text:
            ready, _, _ = select.select([self.fd], [], [], max(self.deadline - time.monotonic(), 0))
            assert ready, f"no {what!r} in time, only {self.text!r}"
            try:
                more = os.read(self.fd, 65536)
            except OSError:  # everybody has closed the terminal
                more = b""
            assert more, f"it ended without {what!r}: {self.text!r}"
            self.text += more.decode()
        before, _, self.text = self.text.partition(what)
        return before

    def type(self, keys):
        os.write(self.fd, keys)

    def status(self):
        """Wait for the end of the program and of all that it started; its exit status."""
        assert wait_until(lambda: is_gone(self.pid), max(self.deadline - time.monotonic(), 0)), self.text
        _, status = os.waitpid(self.pid, 0)
        self.pid = None
        assert wait_until(lambda: not living(self.mark), 10)
        return os.waitstatus_to_exitcode(status)


def test_idle_gateways_stay_usable():
    with Terminal(
        """
        group = execnet_c.Group(["popen"] * 3)
        pids = [worker_of(gateway) for gateway in group]
        assert {os.getpgid(pid) for pid in pids} == {os.tcgetpgrp(0)}, "not in the foreground group"
        for i in range(5):
            for pid in pids:
                wait_asleep(pid)
            try:
                print("waiting", flush=True)
                group[i % 3].newchannel().receive()
            except KeyboardInterrupt:
                print("interrupted", flush=True)
            for pid in pids:
                wait_asleep(pid)
            assert [worker_of(gateway) for gateway in group] == pids
        group.terminate(timeout=5)
        print("done", flush=True)
        """
    ) as terminal:
        for _ in range(5):
            terminal.expect("waiting")
            assert wait_until(lambda: is_asleep(terminal.pid))
            terminal.type(CTRL_C)
            terminal.expect("interrupted")
        text = terminal.expect("done")
        assert "Traceback" not in text
        assert terminal.status() == 0


def test_workers_that_are_just_starting_are_not_ended():
    with Terminal(
        """
        groups, heard = [], []
        def handler(*args):
            heard.append(args)
            os.write(1, b"interrupted ")  # print() may be what was interrupted
        def start():
            groups.append(execnet_c.Group())
            for _ in range(3):
                groups[-1].makegateway()
        signal.signal(signal.SIGINT, handler)
        for delay in (0, 0.005, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05):
            start()
            time.sleep(delay)
            print("now", flush=True)
            assert wait_until(lambda: len(heard) == len(groups))
            for gateway in groups[-1]:
                pid = gateway._state()["pid"]
                wait_asleep(pid)
                assert worker_of(gateway) == pid
            groups[-1].terminate(timeout=5)
        print("done", flush=True)
        """
    ) as terminal:
        for _ in range(9):
            terminal.expect("now")
            terminal.type(CTRL_C)
            terminal.expect("interrupted")
        terminal.expect("done")
        assert terminal.status() == 0


def test_a_task_is_interrupted_and_its_worker_takes_the_next():
    with Terminal(
        """
        group = execnet_c.Group()
        gateway = group.makegateway()
        pid = worker_of(gateway)
        sleeps = "import time; time.sleep(1000)"
        for body in ("while True: pass", sleeps, "channel.receive()", "for i in iter(int, 1): pass"):
            wait_asleep(pid)  # so that its main thread takes the task
            channel = gateway.remote_exec("channel.send(1)\\n" + body)
            channel.receive(30)
            if "time" in body or "receive" in body:
                wait_asleep(pid)
            try:
                print("waiting", flush=True)
                gateway.newchannel().receive()
            except KeyboardInterrupt:
                pass
            error = raises(execnet_c.RemoteError, channel.waitclose, 30)
            assert str(error) == "keyboard-interrupted", error
            wait_asleep(pid)
            assert worker_of(gateway) == pid
            print("interrupted", flush=True)
        print("done", flush=True)
        """
    ) as terminal:
        for _ in range(4):
            terminal.expect("waiting")
            assert wait_until(lambda: is_asleep(terminal.pid))
            terminal.type(CTRL_C)
            terminal.expect("interrupted")
        text = terminal.expect("done")
        assert "Traceback" not in text
        assert terminal.status() == 0


def test_a_master_that_does_not_catch_it_ends_with_all_its_workers():
    with Terminal(
        """
        group = execnet_c.Group(["popen"] * 3)
        channels = [gateway.remote_exec("channel.send(1); channel.receive()") for gateway in group]
        for channel in channels:
            channel.receive(30)
        print("waiting", flush=True)
        group[0].newchannel().receive()
        """
    ) as terminal:
        terminal.expect("waiting")
        assert wait_until(lambda: is_asleep(terminal.pid))
        start = time.monotonic()
        terminal.type(CTRL_C)
        terminal.expect("KeyboardInterrupt")
        assert terminal.status() == -signal.SIGINT
        print(f"ended after {time.monotonic() - start:.3f} s")
        assert time.monotonic() - start < 10
        assert terminal.text.count("Traceback") == 0, terminal.text


def test_a_hang_up_of_the_terminal_ends_all():
    with Terminal(
        """
        group = execnet_c.Group(["popen"] * 2)
        channel = group[0].remote_exec("channel.send(1)\\nwhile True: pass")
        channel.receive(30)
        print("waiting", flush=True)
        group[1].newchannel().receive()
        """
    ) as terminal:
        terminal.expect("waiting")
        start = time.monotonic()
        os.kill(terminal.pid, signal.SIGHUP)
        assert terminal.status() == -signal.SIGHUP
        print(f"ended after {time.monotonic() - start:.3f} s")
        assert time.monotonic() - start < 10


def test_a_worker_s_stderr_is_the_terminal():
    for spec in ("popen", "popen//transport=pipe", f"popen//python={sys.executable}"):
        with Terminal(
            f"""
            group = execnet_c.Group()
            channel = group.makegateway({spec!r}).remote_exec("import sys; channel.send(sys.stderr.isatty())")
            print("it is", channel.receive(30), flush=True)
            """
        ) as terminal:
            terminal.expect("it is True")
            assert terminal.status() == 0
