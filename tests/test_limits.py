"""Want: of fds, threads and memory; and how little an idle gateway needs."""

import importlib.util

import execnet_c
import pytest
from execnet_c.twin import pycore

import pairing
from conftest import TIMEOUT, wait_until
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
            import execnet_c.far.worker
            def refuse(*args):
                raise RuntimeError("can't start new thread")
            execnet_c.far.worker.start_new_thread = refuse
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


# ---- memory


@pytest.mark.parametrize("kind", ["bytes", "str", "list"])
def test_an_item_too_large_for_this_process_is_a_memory_error(kind):
    run(
        """
        import resource
        kind = sys.argv[1]
        group = execnet_c.Group()
        gateway = group.makegateway()
        channel = gateway.remote_exec('''
            kind = channel.receive()
            item = b"x" * (1 << 28)
            big = {"bytes": item, "str": item.decode(), "list": [item]}[kind]
            channel.send("before")
            for _ in range(2):
                channel.send(big)
                channel.send("after")
            channel.receive()
            channel.send(big)
            channel.send("last")
        ''')
        with open("/proc/self/statm") as file:
            size = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + (96 << 20), -1))
        channel.send(kind)
        assert channel.receive(30) == "before"
        for _ in range(2):
            raises(MemoryError, channel.receive, 30)
            assert channel.receive(30) == "after"
        resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
        channel.send(1)
        item = channel.receive(30)
        assert len(item[0] if kind == "list" else item) == 1 << 28
        assert channel.receive(30) == "last"
        channel.waitclose(30)
        """,
        kind,
    )


def test_an_item_too_large_to_send_is_a_memory_error_and_sends_nothing():
    run(
        """
        import resource
        group = execnet_c.Group()
        gateway = group.makegateway()
        channel = gateway.remote_exec("for i in channel: channel.send(i if isinstance(i, str) else len(i))")
        item = [1] * (1 << 24)
        with open("/proc/self/statm") as file:
            size = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + (96 << 20), -1))
        for _ in range(3):
            raises(MemoryError, channel.send, item)
            channel.send("small")
            assert channel.receive(30) == "small"
        resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
        channel.send(item[: 1 << 20])
        assert channel.receive(50) == 1 << 20
        """
    )


def test_a_worker_without_memory_for_an_item():
    run(
        """
        group = execnet_c.Group()
        gateway = group.makegateway()
        pid = worker_of(gateway)
        channel = gateway.remote_exec('''
            import resource
            with open("/proc/self/statm") as file:
                size = int(file.read().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (size + (96 << 20), -1))
            channel.send("ready")
            while True:
                try:
                    channel.send(len(channel.receive()))
                except MemoryError:
                    channel.send("no memory")
        ''')
        assert channel.receive(30) == "ready"
        for item in (b"x" * (1 << 28), "x" * (1 << 28)):
            channel.send(item)
            assert channel.receive(30) == "no memory"
            channel.send(b"1234")
            assert channel.receive(30) == 4
        other = gateway.remote_exec("channel.send(2)")
        assert other.receive(30) == 2
        """
    )


def _limit_memory(channel, room):
    import resource

    with open("/proc/self/statm") as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + room, -1))


def _count(channel, texts):
    channel.send(len(texts))


@pytest.mark.ours
@pytest.mark.parametrize("room", [24, 60], ids=["payload", "objects"])
@pytest.mark.parametrize("model, busy", [("thread", 0), ("thread", 1), ("main_thread_only", 0), ("gevent", 1)])
def test_a_task_too_large_for_its_worker(group, monkeypatch, model, busy, room):
    """There is no room for its 40 MB, or for those and the objects that they become. That task fails, nothing else."""
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")  # no room that is there already
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "131072")
    if model == "gevent" and importlib.util.find_spec(model) is None:
        pytest.skip("there is no gevent")
    gw = group.makegateway(f"popen//execmodel={model}")
    gw.remote_exec(_limit_memory, room=room << 20).waitclose(TIMEOUT)
    others = [gw.remote_exec("for item in channel: channel.send(item)") for _ in range(busy)]
    for i in range(3):
        channel = gw.remote_exec(_count, texts=["x" * 400] * 100_000)
        with pytest.raises(channel.RemoteError, match="MemoryError: no memory for a task of 4[0-9]{7} bytes"):
            channel.receive(TIMEOUT)
        for other in others:
            other.send(i)
            assert other.receive(TIMEOUT) == i
        assert gw.remote_exec(_count, texts=["x"] * 10).receive(TIMEOUT) == 10
    assert wait_until(lambda: gw.remote_status().numexecuting == busy)


def test_a_callback_whose_item_is_too_large():
    run(
        """
        import resource
        group = execnet_c.Group()
        gateway = group.makegateway()
        channel = gateway.remote_exec('''
            channel.receive()
            channel.send("before")
            channel.send("x" * (1 << 28))
            channel.send("after")
            channel.receive()
        ''')
        other = gateway.remote_exec("for i in channel: channel.send(i)")
        seen = []
        channel.setcallback(seen.append, endmarker="end")
        with open("/proc/self/statm") as file:
            size = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + (96 << 20), -1))
        channel.send(1)
        assert wait_until(lambda: seen == ["before", "end"]), seen
        error = raises(execnet_c.RemoteError, channel.waitclose, 30)
        assert "MemoryError" in str(error)
        other.send(1)
        assert other.receive(30) == 1
        """,
        stderr=None,  # the task over there may not have taken the error
    )


@pytest.mark.c_interface("near")
def test_a_connection_that_ended_for_want_of_memory_says_so_to_all():
    """To who receives, and to who sends; the twin has one cause for both anyway."""
    run(
        """
        import resource
        group = execnet_c.Group()
        gateway = group.makegateway()
        worker_of(gateway)
        flood = gateway.remote_exec('''
            channel.receive()
            while True:
                channel.send(None)
        ''')
        other = gateway.remote_exec("channel.receive()")
        with open("/proc/self/statm") as file:
            size = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + (16 << 20), -1))
        flood.send(1)
        while gateway.hasreceiver():
            time.sleep(0.01)
        resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
        errors = [
            raises(execnet_c.LinkLost, other.receive, 30),
            raises(execnet_c.LinkLost, other.send, 1),
            raises(execnet_c.LinkLost, gateway.newchannel),
        ]
        assert all("no memory" in str(error) for error in errors), errors
        """
    )


STARVE = """
names = type(channel.gateway)._post.__globals__
frame, CLOSE = names["frame"], names["CLOSE"]

def starved(code, *args):
    if code == CLOSE:
        raise MemoryError
    return frame(code, *args)

names["frame"] = starved
"""


@pytest.mark.parametrize("end", ["near", "far"])
def test_a_close_that_there_is_no_memory_for_ends_the_connection(group, end, monkeypatch):
    """Or who waits for it would wait for ever. Of the plain-Python core: see tests/c/test_writer.c for the other one."""
    if getattr(pairing, end) != "Python":
        pytest.skip(f"the {end} end has the C core")
    gateway = group.makegateway("popen")
    task = "inner = channel.gateway.newchannel(); channel.send(inner); "
    task = f"{STARVE}{task}del inner" if end == "far" else f"{task}channel.receive()"
    channel, other = gateway.remote_exec(task), gateway.newchannel()
    if end == "near":
        monkeypatch.setattr(pycore, "frame", pycore.frame)  # so that it is put back
        exec(STARVE, {"channel": channel})
    with pytest.raises((execnet_c.LinkLost, execnet_c.GatewayDied)) as error:
        kept = [channel.receive(TIMEOUT)]
        if end == "near":
            kept.clear()  # this end closes it, and not the other one before
        other.receive(TIMEOUT)
    assert "no memory for a frame" in f"{error.value} {error.value.stderr}"


# ---- what a far end makes this one hold


def growth(frames, sent, answers):
    """The MiB that a far end makes this process hold which sends at least `sent` bytes of those frames, the result of an
    expression with the number `k`, and reads no answer. Then it reads them: there are as many as `answers` says, an
    expression with the number `n` of frames."""
    lines = run(
        """
        import textwrap
        from test_core_frames import HEAD
        frames, sent, answers = sys.argv[1], int(sys.argv[2]), sys.argv[3]
        body = textwrap.dedent(f'''
            put(MARKER)
            total = n = 0
            while total < {sent}:
                some = b"".join(({frames}) for k in range(n, n + 1000))
                put(some)
                n += 1000
                total += len(some)
            put(frame(HELLO, 0, b"LQ"))
            os.kill(os.getpid(), 19)
            closed = 0
            while closed < {answers}:
                closed += get_frame()[0] in (CLOSE, CLOSE + 1)
            put(frame(DATA, 1, b"LQ"))
            wait_end()
        ''')
        def held():
            with open("/proc/self/statm") as file:
                return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)
        gateway = pairing.module.Gateway()
        gateway._start([sys.executable, "-I", "-S", "-c", HEAD + body], None)
        gateway._set_facts({"a": 1})
        channel = gateway.newchannel()
        items = gateway.newchannel()
        before = held()
        assert gateway._hello(60) is None
        print(held() - before)
        assert wait_until(lambda: stat_of(gateway._state()["pid"])[0] in "tT")
        gateway._signal(signal.SIGCONT)
        assert channel.receive(60) is None
        gateway._signal(9)
        assert gateway._wait_gone(30)
        """,
        frames,
        sent,
        answers,
    )
    return float(lines[0])


@pytest.mark.parametrize("frames", ["frame(0, 5 + k)", "frame(0, 5 + k, b'R')", "frame(3, 6 + k, b'LQ')"], ids=["status", "facts", "task"])
def test_answers_that_a_far_end_does_not_read(frames):
    """No more is held for them than was sent, and none is lost."""
    assert growth(frames, 2 << 20, "n") < 12


def test_channels_in_items_that_nobody_receives():
    """They are counted: beyond 65536 it is the item that fails."""
    ids = "frame(4, 3, b''.join(b'B' + struct.pack('!i', 2 * (k * 100 + i)) for i in range(100)) + b'@\\0\\0\\0\\x64Q')"
    assert growth(ids, 8 << 20, "0") < 160


def test_an_item_with_too_many_channels_fails_and_what_follows_comes():
    run(
        """
        group = execnet_c.Group()
        gateway = group.makegateway()
        channel = gateway.remote_exec('''
            import struct
            ids = b"".join(b"B" + struct.pack("!i", 100_000 + 2 * i) for i in range(70_000))
            item = ids + b"@" + struct.pack("!i", 70_000) + b"Q"
            channel.gateway._write(struct.pack("!bii", 4, channel.id, len(item)) + item)
            channel.send("after")
            channel.send(channel.gateway.newchannel())
        ''')
        error = raises(execnet_c.LoadError, channel.receive, 30)
        assert "65536" in str(error), error
        assert channel.receive(30) == "after"
        assert isinstance(channel.receive(30), execnet_c.Channel)
        """
    )


def test_tasks_that_nobody_comes_to_are_refused():
    run(
        """
        import struct
        group = execnet_c.Group()
        gateway = group.makegateway("popen//execmodel=main_thread_only")
        busy = gateway.remote_exec("channel.receive()")
        frames = [struct.pack("!bii", 3, 100_001 + 2 * i, 2) + b"LQ" for i in range(65_600)]
        gateway._write(b"".join(frames))
        channel = gateway.remote_exec("channel.send(1)")
        assert "too many tasks wait" in str(raises(execnet_c.RemoteError, channel.receive, 30))
        busy.send(1)
        busy.waitclose(30)
        """,
        stderr=None,  # of those that nobody here holds
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


# ---- errors that nobody takes


def test_errors_that_wait_to_be_printed_take_little_memory():
    """A far end may send them faster than this end, whose stderr takes nothing, gets rid of them. Each is told or counted."""
    run(
        """
        import re, threading
        class Slow:
            lines = []
            def write(self, text):
                self.lines.append(text)
                if len(self.lines) == 1:
                    go_on.wait(60)
            def flush(self):
                pass
        def wait_for_all():
            assert channel.receive(60) is None
            go_on.set()
        go_on, stderr, sys.stderr = threading.Event(), sys.stderr, Slow()
        group = execnet_c.Group()
        channel = group.makegateway().remote_exec('''
            text = b"N" + (1000).to_bytes(4, "big") + b"x" * 1000 + b"Q"
            frame = bytes([6]) + (0x7ffffff1).to_bytes(4, "big") + len(text).to_bytes(4, "big") + text
            for _ in range(200):
                channel.gateway._write(frame * 100)
            channel.send(None)
        ''')
        thread = threading.Thread(target=wait_for_all)
        thread.start()
        def count():
            more = [re.search("Warning: ([0-9]+) more unhandled errors are left out", line) for line in Slow.lines]
            return sum(int(found[1]) if found else 1 for found in more)
        assert wait_until(lambda: count() == 20000, 60), count()
        thread.join()
        sys.stderr = stderr
        assert len(Slow.lines) < 2200, len(Slow.lines)
        group.terminate(5)
        """
    )
