"""Want of memory, and how much of it a far end can make this one hold."""

import importlib.util

import execnet_c
import pytest
from execnet_c.twin import pycore

import pairing
from conftest import TIMEOUT, wait_until
from masters import run


# ---- memory


@pytest.mark.parametrize("kind", ["bytes", "str", "list"])
@pytest.mark.not_under("asan tsan", "it limits memory")
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


@pytest.mark.not_under("asan tsan", "it limits memory")
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


@pytest.mark.not_under("asan tsan", "it limits memory")
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
@pytest.mark.not_under("asan tsan", "it limits memory")
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


@pytest.mark.not_under("asan tsan", "it limits memory")
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
@pytest.mark.not_under("asan tsan", "it limits memory")
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
@pytest.mark.not_under("asan tsan", "it limits memory")
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
@pytest.mark.not_under("asan tsan", "it counts memory")
def test_answers_that_a_far_end_does_not_read(frames):
    """No more is held for them than was sent, and none is lost."""
    assert growth(frames, 2 << 20, "n") < 12


@pytest.mark.not_under("asan tsan", "it counts memory")
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
