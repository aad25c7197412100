"""The execution models gevent and eventlet: greenlets go on while others wait, at both ends; the libraries patched and
not. Each test is a program of its own: a hub stays with its thread for good."""

import importlib.util
import subprocess
import sys
import textwrap

import pairing
import pytest

pytestmark = [pytest.mark.ours, pytest.mark.timeout(200)]

LIMIT = 90  # seconds for a program

# `ticks` grows some hundred times a second while greenlets of the main thread get to run.
HEAD = """
import os, sys, time, warnings
sys.path[:0] = {path!r}
warnings.simplefilter("ignore")
library, patched = {library!r}, {patched!r}
if library == "gevent":
    if patched:
        from gevent import monkey
        monkey.patch_all()
    import gevent
    spawn, sleep, kill, Timeout = gevent.spawn, gevent.sleep, gevent.kill, gevent.Timeout
    result = lambda greenlet: greenlet.get()
else:
    import eventlet
    if patched:
        eventlet.monkey_patch()
    spawn, sleep, kill, Timeout = eventlet.spawn, eventlet.sleep, eventlet.kill, eventlet.Timeout
    result = lambda greenlet: greenlet.wait()
import pairing
import execnet_c as execnet

ticks = []

def tick():
    while True:
        ticks.append(None)
        sleep(0.002)

class others_run:
    "Fails unless others got to run in here."
    def __enter__(self):
        sleep(0)
        self.before = len(ticks)
    def __exit__(self, kind, exc, tb):
        assert exc is not None or len(ticks) > self.before + 3, len(ticks) - self.before

def go_on():
    "Returns when others have run for a while: with them held up it would not."
    enough = len(ticks) + 5
    while len(ticks) < enough:
        sleep(0.01)

def raises(kind, function, *args):
    try:
        function(*args)
    except kind as exc:
        return exc
    raise AssertionError(f"no {{kind.__name__}}")

spawn(tick)
group = execnet.Group(execmodel={model!r})
"""


@pytest.fixture(params=["gevent", "eventlet"])
def library(request):
    if importlib.util.find_spec(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    return request.param


def run(library, body, patched=False, model=None):
    """Run it as a program over this pairing of cores; everything it asserts held if this returns."""
    path = [str(pairing.__file__).rpartition("/")[0]]
    program = HEAD.format(path=path, library=library, patched=patched, model=model or library) + textwrap.dedent(body)
    program += "\ngroup.terminate(5)\nprint('done')\n"
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=LIMIT)
    assert process.stdout.endswith("done\n") and process.returncode == 0, process.stdout + process.stderr
    assert "Traceback" not in process.stderr, process.stderr
    return process.stdout


# ---- other greenlets go on


def test_while_one_starts_uses_and_ends_gateways(library):
    run(
        library,
        """
        with others_run():
            gateway = group.makegateway("popen")
            gateway._rinfo()
        with others_run():
            assert gateway.remote_exec("import time; time.sleep(0.3); channel.send(1)").receive(60) == 1
        with others_run():
            gateway.remote_exec("import time; time.sleep(0.3)").waitclose(60)
        with others_run():
            raises(execnet.TimeoutError, gateway.newchannel().receive, 0.3)
        assert gateway.remote_status().execmodel == gateway.execmodel.backend == library
        with others_run():
            more = execnet.Group(["popen"] * 3, execmodel=library)
        assert len(more) == 3
        with others_run():
            spawn(lambda: (sleep(0.3), gateway.exit()))
            gateway.join(60)
        with others_run():
            stuck = more[0].remote_exec("import time; channel.send(0); time.sleep(99)")
            stuck.receive(60)
            more.terminate(0.2)
        """,
    )


def test_while_one_sends_to_who_does_not_read(library):
    """Also what is too much to be kept, and more than the system takes at once."""
    run(
        library,
        """
        gateway = group.makegateway("popen")
        pid = gateway._rinfo().pid
        for size in (10, 900_000, 30_000_000):
            channel = gateway.remote_exec("while 1: channel.send(len(channel.receive()))")
            os.kill(pid, 19)
            sender = spawn(lambda: [channel.send(b"x" * size) for _ in range(4)])
            other = gateway.newchannel()
            go_on()
            small = spawn(other.send, 1)
            go_on()
            os.kill(pid, 18)
            result(sender), result(small)
            assert [channel.receive(60) for _ in range(4)] == [size] * 4
            channel.close()
        """,
    )


def test_while_one_waits_for_room(library):
    """In a channel with a limit; they go in the order in which they came, and one that gives up is passed over."""
    run(
        library,
        """
        gateway = group.makegateway("popen")
        channel = gateway.remote_exec(
            "channel.set_limit(1000); channel.send(0); go = channel.gateway.newchannel(); channel.send(go)\\n"
            "go.receive()\\nwhile (item := channel.receive()) is not None: channel.send(item[0])"
        )
        channel.receive(60), (go := channel.receive(60))
        channel.send("0" * 900)
        sent = []
        first, second, third = [spawn(lambda text=c * 500: (channel.send(text), sent.append(text[0]))) for c in "123"]
        with others_run():
            raises(execnet.TimeoutError, lambda: channel.send("4", timeout=0.2))
        kill(second)
        with others_run(), Timeout(30):
            sleep(0.1)
        assert not sent
        go.send(None)
        result(first), result(third)
        channel.send(None)
        assert sent == ["1", "3"] and list(channel) == ["0", "1", "3"]
        """,
    )


def test_hundreds_share_a_gateway(library):
    run(
        library,
        """
        gateway = group.makegateway("popen")

        def talk(n):
            channel = gateway.remote_exec("for item in channel: channel.send((item, item))")
            for i in range(5):
                channel.send([n, i])
                assert channel.receive(60) == ([n, i], [n, i])
            sleep(0)
            channel.close()
            channel.waitclose(60)
            return n

        assert [result(one) for one in [spawn(talk, n) for n in range(300)]] == list(range(300))
        assert gateway.remote_status().numchannels <= 1
        """,
    )


def test_each_waits_for_its_own_time(library):
    run(
        library,
        """
        gateway = group.makegateway("popen")
        channels = [gateway.newchannel() for _ in range(50)]

        def wait(n, channel):
            began = time.monotonic()
            raises(execnet.TimeoutError, channel.receive, n / 50)
            return time.monotonic() - began - n / 50

        late = [result(one) for one in [spawn(wait, n, channel) for n, channel in enumerate(channels)]]
        assert min(late) > -0.01 and max(late) < 20, late
        began = time.monotonic()
        raises(execnet.TimeoutError, channels[0].waitclose, 0.1)
        gateway.join(0.1)
        assert time.monotonic() - began > 0.19
        raises(ValueError, channels[0].receive, -1)
        """,
    )


def test_what_ends_a_waiting_greenlet_loses_nothing(library):
    run(
        library,
        """
        gateway = group.makegateway("popen")
        channel = gateway.remote_exec("for item in channel: channel.send(item)")
        waiting = spawn(channel.receive)
        sleep(0.05)
        kill(waiting)
        sleep(0.05)
        with Timeout(0.1, False):
            channel.receive()
            raise AssertionError
        channel.send("still there")
        assert channel.receive(60) == "still there"
        big = gateway.remote_exec("import time; time.sleep(0.3)\\nfor item in channel: channel.send(len(item))")
        sender = spawn(big.send, b"x" * 100_000_000)
        sleep(0.05)
        kill(sender)
        big.send(b"whole")
        assert big.receive(60) in (5, 100_000_000)
        """,
    )


def test_the_end_of_the_far_end_ends_all_waits(library):
    run(
        library,
        """
        gateway = group.makegateway("popen")
        pid = gateway._rinfo().pid
        waits = [gateway.newchannel().receive for _ in range(20)] + [gateway.newchannel().waitclose]
        errors = [spawn(raises, execnet.GatewayDied, wait) for wait in waits]
        joining = spawn(gateway.join)
        sleep(0.05)
        os.kill(pid, 9)
        assert {result(error).signal for error in errors} == {9}
        result(joining)
        """,
    )


# ---- callbacks


def test_callbacks_run_in_a_greenlet_of_this_thread_one_after_the_other(library):
    run(
        library,
        """
        import threading
        gateway = group.makegateway("popen")
        got, threads = [], set()

        def callback(item):
            threads.add(threading.get_native_id())
            sleep(0.02)
            got.append(item)

        channels = [gateway.remote_exec("for i in range(5): channel.send(i)") for _ in range(3)]
        with others_run():
            for channel in channels:
                channel.setcallback(callback, endmarker="end")
            for channel in channels:
                channel.waitclose(60)
        assert sorted(map(str, got)) == sorted([*"01234", "end"] * 3), got
        assert len(threads) == 1
        queue = execnet.MultiChannel([gateway.remote_exec("channel.send(7)") for _ in range(3)]).make_receive_queue("over")
        items = [queue.get(timeout=60)[1] for _ in range(6)]
        assert sorted(map(str, items)) == ["7"] * 3 + ["over"] * 3
        """,
    )


def test_a_callback_that_waits_keeps_nobody_else_from_waiting(library):
    """Inside it, a wait without an end is refused, as it is with threads; outside, it is not."""
    run(
        library,
        """
        gateway = group.makegateway("popen")
        other = gateway.remote_exec("channel.send(channel.receive())")
        refused = []

        def callback(item):
            refused.append(raises(OSError, other.receive))
            sleep(0.2)
            other.send("go on")

        channel = gateway.remote_exec("channel.send(1)")
        channel.setcallback(callback)
        while not refused:
            sleep(0.01)
        assert other.receive() == "go on"
        assert "inside a callback" in str(refused[0])
        """,
    )


# ---- at the far end


def test_tasks_are_greenlets_of_the_main_thread(library):
    run(
        library,
        """
        gateway = group.makegateway("popen")
        task = '''
        import threading
        channel.send(threading.current_thread() is threading.main_thread())
        channel.send(channel.gateway.execmodel.backend)
        channel.gateway.execmodel.sleep(0.2)
        channel.send(channel.receive())
        '''
        channels = [gateway.remote_exec(task) for _ in range(20)]
        assert [(channel.receive(60), channel.receive(60)) for channel in channels] == [(True, library)] * 20
        assert gateway.remote_status().numexecuting == 20
        for channel in channels:
            channel.send("x")
        assert [channel.receive(60) for channel in channels] == ["x"] * 20
        failing = gateway.remote_exec("1 / 0")
        assert "ZeroDivisionError" in str(raises(execnet.RemoteError, failing.receive, 60))
        """,
    )


def test_a_thread_here_and_greenlets_over_there(library):
    run(
        library,
        """
        group.set_execmodel("thread", library)
        gateway = group.makegateway("popen")
        assert gateway.execmodel.backend == "thread" and gateway.remote_status().execmodel == library
        first, second = (gateway.remote_exec("channel.send(channel.receive())") for _ in range(2))
        second.send(2)
        assert second.receive(60) == 2
        first.send(1)
        assert first.receive(60) == 1
        """,
    )


def test_a_worker_ends_with_its_master(library):
    run(
        library,
        """
        gateway = group.makegateway("popen")
        pid = gateway._rinfo().pid
        channel = gateway.remote_exec("import os; os.write(1, b''); channel.send(0); channel.receive()")
        channel.receive(60)
        gateway.exit()
        group.terminate(20)
        assert not os.path.exists(f"/proc/{pid}")
        """,
    )


def test_the_far_end_lacks_the_library(library, tmp_path):
    """And is another interpreter, to which everything is sent."""
    (tmp_path / library).mkdir()
    (tmp_path / library / "__init__.py").write_text("raise ImportError('not here')")
    run(
        library,
        f"""
        os.environ["PYTHONPATH"] = {str(tmp_path)!r}
        for spec in ("popen", "popen//python=" + sys.executable):
            error = raises(execnet.RemoteError, group.makegateway, spec)
            assert "the execution model '" + library + "' needs the package of that name: not here" in str(error)
        assert len(group) == 0
        """,
    )


def test_the_library_is_missing_here(library, tmp_path):
    (tmp_path / f"{library}.py").write_text("raise ImportError('not here')")
    program = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
import execnet_c
try:
    execnet_c.set_execmodel({library!r})
except ImportError as exc:
    print(exc)
assert execnet_c.default_group.execmodel.backend == "thread"
group = execnet_c.Group()
"""
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=LIMIT)
    assert process.stdout == f"the execution model {library!r} needs the package of that name: not here\n", process.stderr


# ---- beside the rest of the world


@pytest.mark.parametrize("model", ["thread", "the library's"])
def test_patched(library, model):
    """With `thread`, a wait holds up the thread as it does without greenlets, and everything works."""
    run(
        library,
        """
        import threading
        gateway = group.makegateway("popen")
        channel = gateway.remote_exec("channel.send(channel.receive())")
        channel.send(b"x" * 3_000_000)
        assert len(channel.receive(60)) == 3_000_000
        got = []
        channel = gateway.remote_exec("for i in range(3): channel.send(i)")
        channel.setcallback(got.append, endmarker="end")
        channel.waitclose(60)
        sleep(0.01)
        assert got == [0, 1, 2, "end"]
        threads = [threading.Thread(target=group.makegateway, args=("popen",)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(group) == 4
        via = group.makegateway(f"popen//via={gateway.id}")
        assert via.remote_exec("channel.send(5)").receive(60) == 5
        """,
        patched=True,
        model="thread" if model == "thread" else None,
    )


@pytest.mark.parametrize("patched", [False, True])
def test_rsync(library, patched, tmp_path):
    (tmp_path / "from").mkdir()
    for n in range(30):
        (tmp_path / "from" / str(n)).write_bytes(bytes(100_000))
    run(
        library,
        f"""
        rsync = execnet.RSync({str(tmp_path / "from")!r}, verbose=False)
        for n in range(2):
            rsync.add_target(group.makegateway("popen"), {str(tmp_path)!r} + f"/to{{n}}")
        rsync.send()
        assert all(len(os.listdir({str(tmp_path)!r} + f"/to{{n}}")) == 30 for n in range(2))
        """,
        patched=patched,
    )


def test_other_threads_wait_as_ever(library):
    run(
        library,
        """
        from _thread import start_new_thread
        gateway = group.makegateway("popen")
        echo = gateway.remote_exec("for item in channel: channel.send(item)")
        done = []

        def talk():
            channel = gateway.remote_exec("for item in channel: channel.send(item)")
            for i in range(50):
                channel.send(i)
                assert channel.receive(60) == i
            done.append(None)

        for _ in range(4):
            start_new_thread(talk, ())
        for i in range(50):
            echo.send(i)
            assert echo.receive(60) == i
        while len(done) < 4:
            sleep(0.01)
        """,
    )


def test_a_forked_child_leaves_its_parent_s_greenlets_alone(library):
    run(
        library,
        """
        gateway = group.makegateway("popen")
        channel = gateway.remote_exec("for item in channel: channel.send(item)")
        waiting = spawn(channel.receive, 60)
        sleep(0.05)
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                raises(OSError, channel.send, 1)
                if library == "eventlet":
                    eventlet.hubs.use_hub()
                sleep(0.05)
                own = execnet.Group(execmodel=library).makegateway("popen")
                status = own.remote_exec("channel.send(0)").receive(60)
            finally:
                os._exit(status)
        channel.send("for the parent")
        assert result(waiting) == "for the parent"
        while True:
            gone, status = os.waitpid(pid, os.WNOHANG)
            if gone:
                break
            sleep(0.01)
        assert status == 0
        """,
    )


def test_one_that_hands_its_exception_to_the_hub(library):
    """The others that were rung with it go on, and those that wait later are rung."""
    run(
        library,
        """
        channel = group.makegateway("popen").remote_exec("for item in channel: channel.send(item)")
        raised, got, errors = [], [], sys.stderr

        def fail():
            channel.receive(60)
            raised.append(None)
            raise ValueError("handed on")

        sys.stderr = open(os.devnull, "w")
        bare = gevent.spawn_raw if library == "gevent" else eventlet.spawn_n
        for _ in range(3):
            bare(fail)
            spawn(lambda: got.append(channel.receive(60)))
        sleep(0.05)
        for item in range(6):
            channel.send(item)
        time.sleep(0.3)  # so that all are rung at once
        with Timeout(60):
            while len(raised) + len(got) < 6:
                sleep(0.01)
        assert len(raised) == len(got) == 3
        channel.send("later")
        assert channel.receive(60) == "later"
        sys.stderr = errors
        """,
    )


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the size of a pipe is to be set")
def test_more_at_once_than_the_pipe_takes_rings(library):
    run(
        library,
        """
        import fcntl
        gateway = group.makegateway("popen")
        lot = gateway._parking.lot()
        fcntl.fcntl(lot._into, 1031, 4096)  # F_SETPIPE_SZ: room for 512
        ended = []

        def wait(channel):
            raises(EOFError, channel.receive, 80)
            ended.append(None)

        for _ in range(1500):
            spawn(wait, gateway.newchannel())
        sleep(0.1)
        gateway.exit()
        with Timeout(60):
            while len(ended) < 1500:
                sleep(0.01)
        """,
    )


def test_members_of_the_model(library):
    run(
        library,
        """
        import execnet as oracle
        theirs = oracle.Group(execmodel=library).execmodel
        ours = group.execmodel
        for name in ("queue", "subprocess"):
            assert getattr(ours, name) is getattr(theirs, name)
        assert ours.socket.socket.__module__.startswith(library)
        for name in ("Lock", "RLock", "Event"):
            assert type(getattr(ours, name)()) is type(getattr(theirs, name)())
        assert ours.get_ident() == theirs.get_ident()
        got = []
        ours.start(got.append, (1,))
        ours.sleep(0.01)
        assert got == [1]
        reading, writing = os.pipe()
        file = ours.fdopen(writing, "w", 1)
        file.write("text\\n")
        file.close()
        assert os.read(reading, 10) == b"text\\n"
        """,
    )
