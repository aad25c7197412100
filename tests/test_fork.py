"""Forks: a child owns none of its parent's gateways, harms none, and may have its own; tasks may fork, too."""

import functools

import pytest

import masters

# Newer Pythons warn of any fork in a process with more than one thread, and a master has its I/O thread.
run = functools.partial(masters.run, env={"PYTHONWARNINGS": "ignore:This process:DeprecationWarning"})

# What a child does, and how the parent learns what came of it.
HELP = """
def in_child(function, leave=os._exit):
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            function()
            status = 0
        finally:
            if status:
                import traceback
                traceback.print_exc()
                sys.stderr.flush()
                leave = os._exit
            sys.stdout.flush()
            leave(status)
    return pid

def ends_well(pid):
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
"""


# ---- in the master


def test_a_child_is_told_that_the_gateway_is_its_parents():
    run(
        HELP
        + """
if True:
        group = execnet_c.Group()
        gateway = group.makegateway()
        channel = gateway.remote_exec("for i in channel: channel.send(i)")
        callback = gateway.remote_exec("channel.receive()")
        callback.setcallback(print)
        channel.send("queued")
        channel.send("queued too")
        assert channel.receive(30) == "queued"
        def child():
            for function in (
                channel.receive,
                lambda: channel.receive(0.1),
                lambda: channel.send(1),
                lambda: list(channel),
                lambda: channel.setcallback(print),
                channel.waitclose,
                lambda: channel.close(),
                channel.isclosed,
                lambda: callback.close(),
                gateway.newchannel,
                lambda: gateway.remote_exec("pass"),
                gateway.remote_status,
                gateway.join,
                gateway.reconfigure,
                gateway.exit,
            ):
                start = time.monotonic()
                error = raises(OSError, function)
                assert "belongs to the parent process" in str(error), error
                assert time.monotonic() - start < 1
            assert not gateway.hasreceiver()
            repr(gateway), repr(channel), repr(group), str(channel)
            group.terminate(timeout=1)
        ends_well(in_child(child))
        assert channel.receive(30) == "queued too"
        channel.send("alive")
        assert channel.receive(30) == "alive"
        assert worker_of(gateway)
        """
    )


@pytest.mark.parametrize("group", ["execnet_c.Group()", "execnet_c.default_group"])
def test_a_child_makes_gateways_of_its_own(group):
    run(
        HELP
        + f"group = {group}\n"
        + """
if True:
        gateway = group.makegateway()
        pid = worker_of(gateway)
        def child():
            for own in (execnet_c.Group(), group):
                mine = own.makegateway()
                his = worker_of(mine)
                assert his != pid and int(stat_of(his)[1]) == os.getpid()
                channel = mine.remote_exec("for i in channel: channel.send(i)")
                seen = []
                channel.send(b"x" * (1 << 24))
                assert channel.receive(30) == b"x" * (1 << 24)
                channel.setcallback(seen.append)
                channel.send(2)
                assert wait_until(lambda: seen == [2])
                assert list(own) == [mine]
                own.terminate(timeout=5)
                assert stat_of(his) is None
                assert list(own) == []
            # and once more, for the end of the program to clean up
            group.makegateway().remote_exec("channel.send(1)").receive(30)
        ends_well(in_child(child))
        ends_well(in_child(child, sys.exit))
        assert worker_of(gateway) == pid
        ends_well(in_child(lambda: ends_well(in_child(child))))
        assert worker_of(gateway) == pid
        """
    )


@pytest.mark.parametrize("leave", ["os._exit", "sys.exit"])
def test_the_end_of_a_child_harms_no_gateway(leave):
    run(
        HELP
        + """
if True:
        group = execnet_c.Group(["popen"] * 3)
        execnet_c.makegateway()
        pids = [worker_of(gateway) for gateway in group]
        channels = [gateway.remote_exec("for i in channel: channel.send(i)") for gateway in group]
        seen = []
        channels[2].setcallback(seen.append)
        for i in range(10):
            channels[0].send(b"x" * (1 << 20))
            # the child forgets what the parent has, in several ways
            def child():
                del channels[:]
                import gc
                gc.collect()
                global group
                group = None
                gc.collect()
            ends_well(in_child(child, """
        + leave
        + """))
            assert channels[0].receive(30) == b"x" * (1 << 20)
            channels[1].send(i)
            assert channels[1].receive(30) == i
            channels[2].send(i)
        assert wait_until(lambda: seen == list(range(10))), seen
        assert [worker_of(gateway) for gateway in group] == pids
        """
    )


def test_a_child_that_lives_on_keeps_no_worker_alive():
    lines = run(
        HELP
        + """
if True:
        group = execnet_c.Group(["popen"] * 2)
        pids = [worker_of(gateway) for gateway in group]
        group[1].remote_exec("channel.send(1); import time; time.sleep(1000)").receive(30)
        master = os.getpid()
        def child():
            # waits for the parent's end, then for the workers', in its place
            os.kill(master, signal.SIGKILL)
            start = time.monotonic()
            for pid in pids:
                assert wait_until(lambda: is_gone(pid), 10)
                print(f"{time.monotonic() - start:.3f} s after the master", flush=True)
        in_child(child)
        time.sleep(1000)
        """,
        status=-9,
    )
    assert len(lines) == 2


@pytest.mark.deep
def test_a_fork_while_threads_wait_receive_and_send():
    """The child must find no lock taken by a thread that it does not have."""
    run(
        HELP
        + """
if True:
        group = execnet_c.Group(["popen"] * 2)
        stop = []
        def busy(gateway):
            channel = gateway.remote_exec("for i in channel: channel.send(i)")
            n = 0
            while not stop:
                channel.send(n)
                assert channel.receive(30) == n
                n += 1
                gateway.newchannel()
        def blocked(gateway):
            try:
                gateway.newchannel().receive()
            except EOFError:
                pass
        threads = [threading.Thread(target=f, args=(g,)) for f in (busy, blocked) for g in group]
        for thread in threads:
            thread.start()
        channel = group[0].remote_exec('''
            for i in channel:
                channel.send(i)
        ''')
        seen = []
        def callback(i):
            seen.append(i)
            channel.send(i + 1)
        channel.setcallback(callback)
        channel.send(0)
        def child():
            signal.alarm(30)
            assert "belongs to the parent" in str(raises(OSError, channel.send, 1))
            own = execnet_c.Group()
            assert own.makegateway().remote_exec("channel.send(1)").receive(30) == 1
            own.terminate(timeout=5)
        for i in range(15):
            n = len(seen)
            ends_well(in_child(child, os._exit if i % 2 else sys.exit))
            assert wait_until(lambda: len(seen) > n)
        stop.append(True)
        for thread in threads[:2]:
            thread.join(30)
        group.terminate(timeout=5)
        for thread in threads:
            thread.join(30)
        assert seen == list(range(len(seen)))
        print(len(seen), "items meanwhile")
        """
    )


def test_a_fork_from_another_thread_and_from_a_callback():
    run(
        HELP
        + """
if True:
        group = execnet_c.Group()
        gateway = group.makegateway()
        channel = gateway.remote_exec("for i in channel: channel.send(i)")
        done = []
        def child():
            assert "belongs to the parent" in str(raises(OSError, channel.send, 1))
            own = execnet_c.Group()
            own.makegateway().remote_exec("channel.send(1)").receive(30)
            own.terminate(timeout=5)
        def fork(*args):
            ends_well(in_child(child))
            done.append(args)
        thread = threading.Thread(target=fork)
        thread.start()
        thread.join(60)
        channel.setcallback(fork)
        channel.send("x")
        assert wait_until(lambda: done == [(), ("x",)]), done
        assert worker_of(gateway)
        """
    )


def test_a_child_uses_subprocess_and_multiprocessing_beside_gateways():
    run(
        """
        import multiprocessing, subprocess
        group = execnet_c.Group(["popen"] * 2)
        pids = [worker_of(gateway) for gateway in group]
        assert subprocess.check_output(["echo", "hello"]) == b"hello\\n"
        context = multiprocessing.get_context("fork")
        with context.Pool(2) as pool:
            assert pool.map(abs, [-1, -2, -3]) == [1, 2, 3]
        assert [worker_of(gateway) for gateway in group] == pids
        # a child of ours has none of the pipes of the others
        sleeper = subprocess.Popen(["sleep", "1000"], close_fds=False)
        wait_asleep(sleeper.pid)
        names = [os.readlink(f"/proc/{sleeper.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{sleeper.pid}/fd")]
        ours = {os.readlink(f"/proc/self/fd/{fd}") for fd in "012"}
        assert set(names) <= ours, names
        sleeper.kill()
        sleeper.wait()
        """
    )


# ---- in a task


def test_a_child_of_a_task_that_returns_from_it():
    run(
        """
        group = execnet_c.Group()
        gateway = group.makegateway()
        for body in ("pass", "raise SystemExit(0)", "channel.send", "import sys; sys.exit()"):
            channel = gateway.remote_exec(f'''
                import os
                pid = os.fork()
                if pid == 0:
                    {body}
                else:
                    channel.send(pid)
                    channel.send(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
            ''')
            pid, status = channel.receive(30), channel.receive(30)
            channel.waitclose(30)
            assert status == 0
        assert worker_of(gateway)
        """
    )


def test_a_child_of_a_task_that_fails_or_uses_the_channel():
    """It says so on stderr, with an exit status; the wire is not its."""
    run(
        """
        group = execnet_c.Group()
        gateway = group.makegateway()
        for body in ("1 / 0", "channel.send(1)", "channel.receive()"):
            channel = gateway.remote_exec(f'''
                import os
                pid = os.fork()
                if pid == 0:
                    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
                    {body}
                else:
                    channel.send(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
            ''')
            assert channel.receive(30) == 1
            channel.waitclose(30)
        assert worker_of(gateway)
        """
    )


def test_a_child_of_a_task_that_outlives_its_worker():
    """It holds none of the worker's pipes: the end of the worker is seen, and so is the end of the master."""
    run(
        """
        group = execnet_c.Group()
        gateway = group.makegateway()
        channel = gateway.remote_exec('''
            import os, time
            pid = os.fork()
            if pid == 0:
                time.sleep(1000)
            channel.send(pid)
        ''')
        child = channel.receive(30)
        channel.waitclose(30)
        assert worker_of(gateway)
        start = time.monotonic()
        group.terminate(timeout=5)
        took = time.monotonic() - start
        print(f"terminate: {took:.3f} s")
        assert took < 4
        assert not is_gone(child)
        os.kill(child, signal.SIGKILL)
        """
    )


def test_fork_and_threads_in_a_task():
    run(
        """
        group = execnet_c.Group()
        gateway = group.makegateway()
        channels = [gateway.remote_exec('''
            import os
            for i in range(20):
                pid = os.fork()
                if pid == 0:
                    os._exit(i)
                channel.send(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        ''') for _ in range(4)]
        for channel in channels:
            assert list(channel) == list(range(20))
        """,
        stderr=None,  # newer Pythons warn of a fork beside threads
    )


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing_in_a_task(method):
    run(
        """
        group = execnet_c.Group()
        gateway = group.makegateway()
        channel = gateway.remote_exec(f'''
            import math, multiprocessing
            context = multiprocessing.get_context({sys.argv[1]!r})
            with context.Pool(2) as pool:
                channel.send(pool.map(math.factorial, range(10)))
            process = context.Process(target=print)
            process.start()
            process.join()
            channel.send(process.exitcode)
        ''')
        assert channel.receive(50) == [1, 1, 2, 6, 24, 120, 720, 5040, 40320, 362880]
        assert channel.receive(50) == 0
        channel.waitclose(50)
        assert worker_of(gateway)
        """,
        method,
        stderr=None,
    )


def test_subprocess_in_a_task():
    run(
        """
        group = execnet_c.Group()
        gateway = group.makegateway()
        channel = gateway.remote_exec('''
            import subprocess, sys
            channel.send(subprocess.check_output([sys.executable, "-c", "print(6 * 7)"]))
            channel.send(subprocess.run(["cat"], stdin=None, stdout=subprocess.PIPE).stdout)
            channel.send(subprocess.run("echo x; exit 3", shell=True).returncode)
            sleeper = subprocess.Popen(["sleep", "1000"], close_fds=False)
            channel.send(sleeper.pid)
        ''')
        assert channel.receive(30) == b"42\\n"
        assert channel.receive(30) == b""
        assert channel.receive(30) == 3
        sleeper = channel.receive(30)
        channel.waitclose(30)
        start = time.monotonic()
        group.terminate(timeout=5)
        assert time.monotonic() - start < 4, "a grandchild holds it up"
        os.kill(sleeper, signal.SIGKILL)
        """
    )


def test_gateways_of_a_task():
    """A worker is a master, too."""
    run(
        """
        group = execnet_c.Group()
        gateway = group.makegateway()
        channel = gateway.remote_exec('''
            import execnet_c, os
            group = execnet_c.Group(["popen"] * 2)
            for inner in group:
                channel.send(inner.remote_exec("channel.send(1)").receive(30))
            group.terminate(timeout=5)
            execnet_c.makegateway().remote_exec("channel.send(1)").receive(30)
        ''')
        assert channel.receive(30) == channel.receive(30) == 1
        channel.waitclose(30)
        """
    )
