"""Want of fds and threads; and how little an idle gateway needs."""

import pytest

from conftest import TIMEOUT
from masters import run


# ---- fds


def test_makegateway_without_fds_says_what_is_missing_and_leaves_nothing():
    """The limit goes up fd by fd until a gateway can be made: each thing that may be missing once is."""
    run(
        """
        import errno, resource
        group = execnet_c.Group()
        gateway = group.makegateway()
        worker_of(gateway)
        family = living(os.environ[MARK])
        for again in range(2):  # with an I/O thread, and without
            before = fds()
            hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            taken = {int(fd) for fd in before if os.path.exists("/proc/self/fd/" + fd)}
            texts, made, limit = [], None, min(set(range(256)) - taken)
            while made is None:
                # /proc is read under the old limit: the listing needs an fd, too
                resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
                try:
                    made = group.makegateway()
                except OSError as exc:
                    error = exc
                finally:
                    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
                if made is None:
                    assert error.errno == errno.EMFILE, error
                    assert len(str(error)) > len("[Errno 24] Too many open files"), error
                    texts.append(str(error))
                    assert wait_until(lambda: fds() == before), (fds(), before)
                    assert wait_until(lambda: living(os.environ[MARK]) == family), "a process is left"
                limit += 1
                assert limit < 200
            print(*sorted(set(texts)), sep="\\n")
            assert len(texts) >= 6
            assert worker_of(made)
            group.terminate(timeout=5)
            del made, gateway
            gateway = None
            family = {os.getpid()}
            assert wait_until(lambda: len(os.listdir("/proc/self/task")) == 1)
        """
    )


def test_waiting_goes_on_without_an_fd_for_a_bell():
    run(
        """
        import resource
        group = execnet_c.Group()
        gateway = group.makegateway()
        pid = worker_of(gateway)
        channels = [gateway.remote_exec("for i in channel: channel.send(i)") for _ in range(4)]
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        got, start = [], threading.Event()
        def receive(channel):
            start.wait()
            got.append(channel.receive(30))
            raises(channel.TimeoutError, channel.receive, 0.1)
            channel.waitclose(30)
        threads = [threading.Thread(target=receive, args=(channel,)) for channel in channels]
        for thread in threads:
            thread.start()
        held = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, fds())) + 1, hard))
        try:
            while True:
                held.append(os.dup(0))
        except OSError:
            pass
        start.set()
        time.sleep(0.2)
        for i, channel in enumerate(channels):
            channel.send(i)
        assert wait_until(lambda: len(got) == 4), got
        assert sorted(got) == [0, 1, 2, 3]
        raises(channels[0].TimeoutError, channels[0].receive, 0.1)
        time.sleep(0.2)
        for channel in channels:
            channel.close()
        for thread in threads:
            thread.join(30)
        # a task and an end need none either
        assert worker_of(gateway) == pid
        began = time.monotonic()
        group.terminate(timeout=5)
        assert time.monotonic() - began < 4
        """
    )


def test_a_task_without_fds():
    run(
        """
        group = execnet_c.Group()
        gateway = group.makegateway()
        channel = gateway.remote_exec('''
            import os, resource
            limits = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
            for item in channel:
                try:
                    os.dup(0)
                except OSError as exc:
                    channel.send((exc.errno, item))
                if item == "enough":
                    # The C library loads a file when the interpreter's end ends its threads, or gives up loudly.
                    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        ''')
        for i in range(100):
            channel.send(b"x" * (i * 10000))
            assert channel.receive(30) == (24, b"x" * (i * 10000))
        others = [gateway.remote_exec("channel.send(channel.receive())") for _ in range(3)]
        for other in others:
            other.send(1)
        assert [other.receive(30) for other in others] == [1, 1, 1]
        channel.send("enough")
        assert channel.receive(30) == (24, "enough")
        """
    )


def test_a_gateway_takes_four_fds_and_all_of_them_one_thread():
    run(
        """
        group = execnet_c.Group()
        worker_of(group.makegateway())
        before, tasks = len(fds()), len(os.listdir("/proc/self/task"))
        assert tasks == 2
        more = [group.makegateway() for _ in range(20)]
        for gateway in more:
            assert worker_of(gateway)
        took = (len(fds()) - before) / 20
        print(f"{took} fds a gateway; {len(os.listdir('/proc/self/task'))} threads")
        assert took <= 4
        assert len(os.listdir("/proc/self/task")) == tasks
        assert threading.active_count() == 1
        """
    )


# ---- threads


def test_setcallback_without_a_thread_is_an_error_that_changes_nothing():
    run(
        """
        import _thread
        group = execnet_c.Group()
        gateway = group.makegateway()
        channel = gateway.remote_exec("for i in channel: channel.send(i)")
        # whoever starts threads looks there, or has taken it from there
        users = [room for room in sys.modules.values() if "start_new_thread" in vars(room)]
        start_new_thread, seen = _thread.start_new_thread, []
        def refuse(*args):
            raise RuntimeError("can't start new thread")
        for _ in range(3):
            for room in users:
                room.start_new_thread = refuse
            error = raises(RuntimeError, channel.setcallback, seen.append)
            assert "can't start new thread" in str(error)
            for room in users:
                room.start_new_thread = start_new_thread
            channel.send("still received")
            assert channel.receive(30) == "still received"
        channel.setcallback(seen.append, endmarker="end")
        channel.send(1)
        assert wait_until(lambda: seen == [1])
        channel.close()
        assert wait_until(lambda: seen == [1, "end"])
        """
    )


def test_a_worker_without_threads_runs_its_tasks_one_by_one():
    """There is one thread for them, the main one, and each task still comes to its turn or fails with a reason."""
    run(
        """
        group = execnet_c.Group()
        gateway = group.makegateway()
        worker_of(gateway)
        gateway.remote_exec('''
            import execnet_c.worker
            def refuse(*args):
                raise RuntimeError("can't start new thread")
            execnet_c.worker.start_new_thread = refuse
        ''').waitclose(30)
        results = []
        for i in range(10):
            channel = gateway.remote_exec("channel.send(1)")
            try:
                results.append(channel.receive(30))
            except execnet_c.RemoteError as exc:
                assert "can't start new thread" in str(exc)
                results.append(str(exc))
        assert len(results) == 10
        assert gateway.remote_status().numexecuting <= 1
        """
    )


# ---- idling


def test_an_idle_process_burns_nothing():
    run(
        """
        group = execnet_c.Group(["popen"] * 5)
        pids = [worker_of(gateway) for gateway in group] + [os.getpid()]
        channel = group[0].remote_exec("channel.send(1); channel.receive()")
        channel.receive(30)
        callback = group[2].newchannel()
        callback.setcallback(print)
        thread = threading.Thread(target=raises, args=(EOFError, group[3].newchannel().receive))
        thread.start()
        wait_asleep(os.getpid(), thread.native_id)
        for pid in pids[:-1]:
            wait_asleep(pid)
        before = [cpu_of(pid) for pid in pids]
        time.sleep(2)
        used = [cpu_of(pid) - was for pid, was in zip(pids, before)]
        print(f"{max(used) * 1000:.0f} ms of CPU time at most, in 2 s")
        assert max(used) < 0.05
        group.terminate(timeout=5)
        thread.join(30)
        """
    )


def test_an_idle_main_thread_that_waits_burns_nothing():
    run(
        """
        group = execnet_c.Group(["popen"] * 5)
        pids = [worker_of(gateway) for gateway in group] + [os.getpid()]
        before = [cpu_of(pid) for pid in pids]
        raises(execnet_c.TimeoutError, group[0].newchannel().receive, 2)
        used = [cpu_of(pid) - was for pid, was in zip(pids, before)]
        print(f"{max(used) * 1000:.0f} ms of CPU time at most, in 2 s")
        assert max(used) < 0.05
        """
    )


@pytest.mark.ours
def test_a_spare_thread_that_never_begins_is_told_of(lib, gw):
    """Its task is refused; the next one that finds a way is run."""
    busy = gw.remote_exec(
        """
        import sys
        worker = sys.modules[type(channel.gateway).__module__]
        start, worker.start_new_thread = worker.start_new_thread, lambda function, arguments: 0
        channel.send(1)
        channel.receive()
        worker.start_new_thread = start
        channel.send(2)
        channel.receive()
        """
    )
    assert busy.receive(TIMEOUT) == 1
    for _ in range(3):
        with pytest.raises(lib.RemoteError, match="MemoryError: no memory for the thread"):
            gw.remote_exec("channel.send(1)").receive(TIMEOUT)
    busy.send(None)
    assert busy.receive(TIMEOUT) == 2
    assert gw.remote_exec("channel.send(1)").receive(TIMEOUT) == 1
