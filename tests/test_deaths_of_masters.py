"""How workers end: with the master's program, however that ends, and by terminate()."""

import sys

import pytest

from masters import Program, is_gone, run, wait_until


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
@pytest.mark.parametrize("task", ["waits", pytest.param("busy", marks=pytest.mark.deep)])
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
@pytest.mark.parametrize("way", ["os.kill(os.getpid(), 9)", pytest.param("os._exit(0)", marks=pytest.mark.deep)])
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


@pytest.mark.parametrize("timeout", ["0", "0.3", pytest.param("1.0", marks=pytest.mark.deep)])
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
        for i in range(12):
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
