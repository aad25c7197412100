"""Signals: Ctrl-C ends any wait at once and loses nothing, other signals end none."""

import os
import shutil
import subprocess

import pytest

from masters import run

# ---- Ctrl-C in each wait


def test_receive_iteration_and_waitclose():
    run(
        """
        group = execnet_c.Group()
        channel = group.makegateway().remote_exec("for i in channel: channel.send(i + 1)")
        for name, wait in {
            "receive": channel.receive,
            "receive with a timeout": lambda: channel.receive(30),
            "iteration": lambda: list(channel),
            "next": lambda: next(channel),
            "waitclose": channel.waitclose,
            "waitclose with a timeout": lambda: channel.waitclose(30),
        }.items():
            for i in range(3):
                with interrupted(name):
                    wait()
                channel.send(i)
                assert channel.receive(30) == i + 1
        """
    )


def test_the_next_receive_gets_the_next_item():
    run(
        """
        group = execnet_c.Group()
        channel = group.makegateway().remote_exec('''
            for size in channel:
                channel.send(b"x" * size)
                channel.send(size)
        ''')
        for size in (0, 10, 1 << 16, 1 << 20, 1 << 24):
            with interrupted(f"receive before {size} bytes"):
                channel.receive()
            channel.send(size)
            assert channel.receive(30) == b"x" * size
            with interrupted(f"receive after {size} bytes"):
                assert channel.receive() == size
                channel.receive()
        """
    )


def test_in_the_middle_of_a_large_item():
    """The far end is stopped while it writes: half of the item is here."""
    run(
        """
        size = 1 << 26
        group = execnet_c.Group()
        gateway = group.makegateway()
        pid = worker_of(gateway)
        channel = gateway.remote_exec('''
            import os, signal, threading
            size = channel.receive()
            def stop():
                # the main thread writes 64 MiB meanwhile
                os.kill(os.getpid(), signal.SIGSTOP)
            for item in (b"x" * size, "y" * size, [b"z" * size]):
                timer = threading.Timer(0.005, stop)
                timer.start()
                channel.send(item)
                timer.join()
        ''')
        channel.send(size)
        for want in (b"x" * size, "y" * size, [b"z" * size]):
            def until_stopped():
                assert wait_until(lambda: stat_of(pid)[0] in "tT")
            stopped = threading.Thread(target=until_stopped)
            stopped.start()
            # Where the item was written before the stop came, it is complete and there is nothing to interrupt.
            got = []
            try:
                with interrupted("receive of half an item", before=stopped.join):
                    got.append(channel.receive())
                    channel.receive()
            finally:
                os.kill(pid, signal.SIGCONT)
            if not got:
                got.append(channel.receive(30))
            assert got[0] == want
        """
    )


def test_makegateway_that_waits_for_a_setting(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import time\ntime.sleep(1000)\n")
    run(
        """
        path = os.environ.get("PYTHONPATH")
        group = execnet_c.Group()
        worker_of(group.makegateway())
        before = living(os.environ[MARK])
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [sys.argv[1], path]))
        for spec in ("popen//chdir=/", "popen//nice=1", "popen//env:A=b"):
            with interrupted("makegateway " + spec):
                group.makegateway(spec)
            assert len(group) == 1
            assert wait_until(lambda: living(os.environ[MARK]) == before), "a process is left"
        with interrupted("Group of two"):
            execnet_c.Group(["popen//chdir=/", "popen//chdir=/"])
        assert wait_until(lambda: living(os.environ[MARK]) == before), "a process is left"
        if path is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = path
        assert worker_of(group.makegateway("popen//chdir=/"))
        """,
        tmp_path,
    )


def test_join_and_terminate():
    run(
        """
        group = execnet_c.Group()
        gateway = group.makegateway()
        pid = worker_of(gateway)
        with interrupted("join"):
            gateway.join()
        with interrupted("join with a timeout"):
            gateway.join(30)
        assert worker_of(gateway) == pid
        channel = gateway.remote_exec("import time; channel.send(1); time.sleep(1000)")
        channel.receive(30)
        with interrupted("terminate"):
            group.terminate()
        with interrupted("terminate once more"):
            group.terminate()
        with interrupted("terminate with a timeout"):
            group.terminate(timeout=30)
        assert not is_gone(pid)
        start = time.monotonic()
        group.terminate(timeout=0.2)
        assert time.monotonic() - start < 5
        assert stat_of(pid) is None, "an interrupted terminate() forgets whom it has to end"
        """
    )


def test_setcallback_that_waits_for_a_running_callback():
    run(
        """
        group = execnet_c.Group()
        gateway = group.makegateway()
        task = "for i in channel: channel.send(i)"
        one, two = gateway.remote_exec(task), gateway.remote_exec(task)
        runs, go_on = threading.Event(), threading.Event()
        def callback(item):
            runs.set()
            go_on.wait()
        one.setcallback(callback)
        one.send(1)
        two.send(2)
        assert runs.wait(30)
        seen = []
        with interrupted("setcallback"):
            two.setcallback(seen.append)
        go_on.set()
        two.setcallback(seen.append)
        two.send(3)
        assert wait_until(lambda: seen == [2, 3]), seen
        """
    )


def test_remote_status():
    run(
        """
        group = execnet_c.Group()
        gateway = group.makegateway()
        pid = worker_of(gateway)
        stop_process(pid)
        with interrupted("remote_status"):
            gateway.remote_status()
        os.kill(pid, signal.SIGCONT)
        assert gateway.remote_status().numexecuting == 0
        """
    )


# ---- while data floods in

FLOOD = """
FLOOD = '''
    import struct
    if channel.receive() == "small":
        item, times = b"F\\\\0\\\\0\\\\0\\\\1Q", 4000
    else:
        item, times = b"A" + struct.pack("!i", 300_000) + bytes(300_000) + b"Q", 1
    frames = (struct.pack("!bii", 4, 9001, len(item)) + item) * times  # to a channel that nobody has
    channel.send("begins")
    while not channel.isclosed():
        channel.gateway._write(frames)
'''
"""


@pytest.mark.parametrize("transport", ["", "//transport=pipe"])
@pytest.mark.parametrize("kind", ["small", "large"])
def test_a_flood_keeps_neither_deadlines_nor_signals_waiting(kind, transport):
    """It goes on until it is stopped: who looked at nothing else would wait until the program's limit."""
    run(
        FLOOD
        + """
if True:
        group = execnet_c.Group()
        gateway = group.makegateway("popen" + sys.argv[2])
        flood = gateway.remote_exec(FLOOD)
        other = gateway.remote_exec("channel.receive(); channel.send(channel.receive())")
        flood.send(sys.argv[1])
        assert flood.receive(30) == "begins"

        def interrupt():
            time.sleep(0.2)
            sent.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGINT)

        for name, wait in {
            "receive": other.receive,
            "waitclose": other.waitclose,
            "join": gateway.join,
        }.items():
            began = time.monotonic()
            try:
                wait(timeout=0.1)
            except other.TimeoutError:
                pass
            took = time.monotonic() - began
            assert 0.1 <= took < PROMPT, (name, took)
            sent = []
            thread = threading.Thread(target=interrupt)
            thread.start()
            try:
                wait()
            except KeyboardInterrupt:
                took = time.monotonic() - sent[0]
            assert took < PROMPT, (name, took)
            thread.join()
            print(f"{name}: {took * 1000:.2f} ms", flush=True)
        other.send(1)
        other.send("comes through")
        assert other.receive(30) == "comes through"
        flood.close()
        assert worker_of(gateway)
        """,
        kind,
        transport,
    )


@pytest.mark.parametrize("transport", ["", "//transport=pipe"])
def test_a_flood_keeps_no_task_waiting(transport):
    """The same at the far end: its task's deadline, and an interrupt."""
    run(
        """
        import struct
        group = execnet_c.Group()
        gateway = group.makegateway("popen" + sys.argv[1])
        channel = gateway.remote_exec('''
            import os, time
            channel.send(os.getpid())
            channel.receive()
            began = time.monotonic()
            try:
                channel.receive(timeout=0.1)
            except channel.TimeoutError:
                channel.send(time.monotonic() - began)
            try:
                channel.receive()
            except KeyboardInterrupt:
                channel.send("interrupted")
        ''')
        pid = channel.receive(30)
        frames = (struct.pack("!bii", 4, 9001, 6) + b"F\\0\\0\\0\\1Q") * 4000
        over = []
        def flood():
            while not over:
                gateway._write(frames)
        thread = threading.Thread(target=flood)
        thread.start()
        channel.send("begin")
        assert 0.1 <= channel.receive(30) < PROMPT
        time.sleep(0.2)
        sent = time.monotonic()
        os.kill(pid, signal.SIGINT)
        assert channel.receive(30) == "interrupted"
        took = time.monotonic() - sent
        over.append(True)
        thread.join()
        print(f"{took * 1000:.2f} ms")
        assert took < PROMPT
        """,
        transport,
    )


# ---- Ctrl-C in send


ECHO_SIZES = """
group = execnet_c.Group()
gateway = group.makegateway()
pid = worker_of(gateway)
channel = gateway.remote_exec('''
    import zlib
    for item in channel:
        channel.send((type(item).__name__, len(item), zlib.crc32(item if isinstance(item, bytes) else item.encode())))
''')
import zlib
def about(item):
    return (type(item).__name__, len(item), zlib.crc32(item if isinstance(item, bytes) else item.encode()))
channel.send("first")
assert channel.receive(30) == about("first")
"""


@pytest.mark.parametrize("kind", ["bytes", "str"])
def test_send_in_the_middle_of_an_item(kind):
    """Nothing of the item arrives, and what follows is not torn."""
    run(
        ECHO_SIZES
        + """
if True:
        import random
        item = random.Random(1).randbytes(1 << 25)
        item = item if sys.argv[1] == "bytes" else item.hex()
        for i in range(3):
            channel.send("before")
            assert channel.receive(30) == about("before")
            stop_process(pid)
            with interrupted("send of " + sys.argv[1]):
                channel.send(item)
            os.kill(pid, signal.SIGCONT)
            channel.send("after")
            assert channel.receive(30) == about("after")
            channel.send(item)
            assert channel.receive(30) == about(item)
        """,
        kind,
    )


@pytest.mark.parametrize("times", [100, 100000])
def test_send_of_items_of_one_frame_into_a_full_pipe(times):
    """One that is begun is written to its end by others: what follows is not torn."""
    run(
        ECHO_SIZES
        + """
if True:
        times = int(sys.argv[1])
        stop_process(pid)
        n = 0
        with interrupted("send of small items"):
            while True:
                n += 1
                channel.send(str(n) * times)
        os.kill(pid, signal.SIGCONT)
        channel.send("after")
        got = [channel.receive(30) for _ in range(n)]
        assert got[:-1] == [about(str(i) * times) for i in range(1, n)]
        if got[-1] != about("after"):  # the interrupted one was accepted already: then it comes, and once
            assert got[-1] == about(str(n) * times)
            assert channel.receive(30) == about("after")
        channel.send("last")
        assert channel.receive(30) == about("last")
        """,
        times,
    )


def test_send_that_waits_for_another_thread_to_write():
    run(
        ECHO_SIZES
        + """
if True:
        item = b"x" * (1 << 25)
        stop_process(pid)
        thread = threading.Thread(target=channel.send, args=(item,))
        thread.start()
        wait_asleep(os.getpid(), thread.native_id)
        with interrupted("send behind another thread's"):
            channel.send("interrupted")
        os.kill(pid, signal.SIGCONT)
        thread.join()
        channel.send("after")
        assert channel.receive(30) == about(item)
        assert channel.receive(30) == about("after")
        """
    )


def test_remote_exec_and_exit_while_the_pipe_is_full():
    run(
        """
        group = execnet_c.Group()
        gateway = group.makegateway()
        pid = worker_of(gateway)
        stop_process(pid)
        with interrupted("remote_exec"):
            gateway.remote_exec("# " + "x" * (1 << 24))
        os.kill(pid, signal.SIGCONT)
        assert worker_of(gateway) == pid
        stop_process(pid)
        with interrupted("send before exit"):
            gateway.remote_exec("channel.receive()").send(b"x" * (1 << 24))
        start = time.monotonic()
        gateway.exit()
        assert time.monotonic() - start < 1
        os.kill(pid, signal.SIGCONT)
        group.terminate(timeout=10)
        assert time.monotonic() - start < 10
        """
    )


# ---- a signal that comes just before the sleep


def test_signals_at_any_moment_around_the_sleep():
    run(
        """
        import random
        group = execnet_c.Group()
        gateway = group.makegateway()
        channel = gateway.remote_exec("channel.receive()")
        rounds, ready, sent = 300, threading.Semaphore(0), [0.0]
        def shoot():
            rand = random.Random(7)
            for _ in range(rounds):
                ready.acquire()
                until = time.perf_counter() + rand.random() * 0.0006
                while time.perf_counter() < until:
                    pass
                sent[0] = time.monotonic()
                os.kill(os.getpid(), signal.SIGINT)
        thread = threading.Thread(target=shoot)
        thread.start()
        took = []
        for _ in range(rounds):
            try:
                ready.release()
                channel.receive()
            except KeyboardInterrupt:
                took.append(time.monotonic() - sent[0])
        thread.join()
        took.sort()
        print(f"median {took[rounds // 2] * 1000:.2f} ms, longest {took[-1] * 1000:.2f} ms")
        assert took[-1] < PROMPT
        """
    )


def test_no_item_is_lost_to_a_stream_of_interrupts():
    """list.extend keeps what it got before the exception, so what is missing was lost by the channel."""
    run(
        """
        import random
        group = execnet_c.Group()
        gateway = group.makegateway()
        task = '''
            import time
            for i in range(3000):
                channel.send(i if i % 10 else b"%d" % i * 20000)
                if i % 3 == 0:
                    time.sleep(0.0003)
        '''
        ready, over = threading.Semaphore(0), []
        def shoot():
            rand = random.Random(7)
            while ready.acquire() and not over:
                until = time.perf_counter() + rand.random() * 0.002
                while time.perf_counter() < until:
                    pass
                os.kill(os.getpid(), signal.SIGINT)
        thread = threading.Thread(target=shoot)
        thread.start()
        interrupts, allowed = 0, 0  # a shot is fired for each that is allowed, and each is taken in the try block
        while interrupts < 60:
            channel, items, ended = gateway.remote_exec(task), [], False
            while not ended:
                allowed += 1
                try:
                    ready.release()
                    items.extend(channel)
                    ended = True
                    while True:
                        time.sleep(1)
                except KeyboardInterrupt:
                    interrupts += 1
            assert items == [i if i % 10 else b"%d" % i * 20000 for i in range(3000)]
        assert interrupts == allowed
        print(f"{interrupts} interrupts")
        over.append(True)
        ready.release()
        thread.join()
        """
    )


# ---- handlers that return


def test_a_handler_that_returns_ends_no_wait():
    run(
        """
        group = execnet_c.Group()
        gateway = group.makegateway()
        task = "for i in channel: channel.send(i)"
        channel, other = gateway.remote_exec(task), gateway.remote_exec(task)
        calls = []
        signal.signal(signal.SIGUSR1, lambda *args: calls.append(1))
        def shoot():
            for _ in range(20):
                n = len(calls)
                wait_asleep(os.getpid())
                os.kill(os.getpid(), signal.SIGUSR1)
                assert wait_until(lambda: len(calls) > n)
            channel.send("now")
        for wait in (channel.receive, lambda: channel.receive(30), lambda: next(channel)):
            thread = threading.Thread(target=shoot)
            thread.start()
            assert wait() == "now"
            thread.join()
        assert len(calls) == 60
        """
    )


def test_a_handler_may_send_and_receive_on_the_same_gateway():
    run(
        """
        group = execnet_c.Group()
        gateway = group.makegateway()
        task = "for i in channel: channel.send(i)"
        channel, other = gateway.remote_exec(task), gateway.remote_exec(task)
        heard = []
        def handler(*args):
            other.send(len(heard))
            heard.append(other.receive(30))
            assert gateway.remote_exec("channel.send(channel.id)").receive(30)
        signal.signal(signal.SIGUSR1, handler)
        def shoot():
            for i in range(10):
                wait_asleep(os.getpid())
                os.kill(os.getpid(), signal.SIGUSR1)
                assert wait_until(lambda: len(heard) > i)
            channel.send("now")
        thread = threading.Thread(target=shoot)
        thread.start()
        assert channel.receive() == "now"
        thread.join()
        assert heard == list(range(10))
        """
    )


def test_a_handler_may_send_in_the_middle_of_a_send_on_the_same_channel():
    run(
        ECHO_SIZES
        + """
if True:
        other = gateway.remote_exec("for i in channel: channel.send(i)")
        entered, heard = threading.Event(), []
        def handler(*args):
            entered.set()
            channel.send("from the handler")
            other.send(5)
            heard.append(other.receive(30))
        signal.signal(signal.SIGUSR1, handler)
        def shoot():
            wait_asleep(os.getpid())
            os.kill(os.getpid(), signal.SIGUSR1)
            entered.wait()
            wait_asleep(os.getpid())
            os.kill(pid, signal.SIGCONT)
        for item in (b"x" * (1 << 25), "y" * (1 << 25)):
            entered.clear()
            stop_process(pid)
            thread = threading.Thread(target=shoot)
            thread.start()
            channel.send(item)
            thread.join()
            channel.send("after")
            # The item is complete when the handler's is long there.
            assert [channel.receive(30) for _ in range(3)] == [about("from the handler"), about(item), about("after")]
        assert heard == [5, 5]
        """
    )


def test_a_handler_may_raise_in_the_middle_of_nested_sends():
    """Two items are begun, one inside the other's signal handler, and both are left by an exception."""
    run(
        ECHO_SIZES
        + """
if True:
        item = b"x" * (1 << 24)
        nested = b"y" * (1 << 24)
        entered = threading.Event()
        def handler(*args):
            entered.set()
            channel.send(nested)
        signal.signal(signal.SIGUSR1, handler)
        def nest():
            wait_asleep(os.getpid())
            os.kill(os.getpid(), signal.SIGUSR1)
            entered.wait()
        stop_process(pid)
        with interrupted("nested send", before=nest):
            channel.send(item)
        os.kill(pid, signal.SIGCONT)
        for text in ("after", "last"):
            channel.send(text)
            assert channel.receive(30) == about(text)
        """
    )


def test_timeouts_hold_in_a_storm_of_signals():
    run(
        """
        group = execnet_c.Group()
        gateway = group.makegateway()
        channel = gateway.remote_exec("for i in channel: channel.send(i)")
        calls = []
        signal.signal(signal.SIGALRM, lambda *args: calls.append(1))
        signal.setitimer(signal.ITIMER_REAL, 0.005, 0.005)
        for name, wait in {
            "receive": lambda: raises(channel.TimeoutError, channel.receive, 0.5),
            "waitclose": lambda: raises(channel.TimeoutError, channel.waitclose, 0.5),
            "join": lambda: gateway.join(0.5),
        }.items():
            start = time.monotonic()
            wait()
            took = time.monotonic() - start
            print(f"{name}: {took:.3f} s of 0.5")
            assert 0.5 <= took < 2.5
        assert len(calls) > 20
        for item in (1, b"x" * (1 << 26), "y" * (1 << 24), list(range(100000))):
            channel.send(item)
            assert channel.receive(30) == item
        gateway.remote_exec("import time; channel.send(1); time.sleep(1000)").receive(30)
        start = time.monotonic()
        group.terminate(timeout=0.3)
        took = time.monotonic() - start
        print(f"terminate: {took:.3f} s, timeout 0.3")
        assert took < 5
        signal.setitimer(signal.ITIMER_REAL, 0)
        """
    )


# ---- the worker's side


def test_an_interrupt_ends_a_task_of_the_worker_not_the_worker():
    run(
        """
        group = execnet_c.Group()
        gateway = group.makegateway()
        pid = worker_of(gateway)
        for body in ("while True: pass", "channel.receive()", "import time; time.sleep(1000)", "list(channel)"):
            channel = gateway.remote_exec("channel.send(1)\\n" + body)
            channel.receive(30)
            if "while" not in body:
                wait_asleep(pid)
            start = time.monotonic()
            os.kill(pid, signal.SIGINT)
            error = raises(execnet_c.RemoteError, channel.waitclose, 30)
            print(f"{body}: {(time.monotonic() - start) * 1000:.2f} ms")
            assert str(error) == "keyboard-interrupted"
        for _ in range(20):
            wait_asleep(pid)
            os.kill(pid, signal.SIGINT)
        wait_asleep(pid)
        assert worker_of(gateway) == pid
        """
    )


# ---- Python in a thread of its own, as a program may have it that has Python in it

# Instead of main() a second thread runs main(); the process's first one waits for that, and gets the signals.
BESIDE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>

typedef int (*program)(int, char **, char **);
typedef int (*starter)(program, int, char **, void (*)(void), void (*)(void), void (*)(void), void *);

static program python;
static int argc;
static char **argv, **envp;

static void *
run(void *unused)
{
    exit(python(argc, argv, envp));
}

static int
beside(int n, char **args, char **env)
{
    pthread_t thread;
    argc = n, argv = args, envp = env;
    return pthread_create(&thread, NULL, run, NULL) || pthread_join(thread, NULL);
}

int
__libc_start_main(program given, int n, char **args, void (*init)(void), void (*fini)(void), void (*ld)(void), void *end)
{
    python = given;
    return ((starter)dlsym(RTLD_NEXT, "__libc_start_main"))(beside, n, args, init, fini, ld, end);
}
"""


@pytest.fixture(scope="module")
def beside(tmp_path_factory):
    compiler = shutil.which(os.environ.get("CC") or "cc")
    if compiler is None:
        pytest.skip("no C compiler here")
    library = tmp_path_factory.mktemp("beside") / "beside.so"
    command = [compiler, "-shared", "-fPIC", "-x", "c", "-", "-o", str(library), "-ldl", "-lpthread"]
    done = subprocess.run(command, input=BESIDE, capture_output=True, encoding="utf-8")
    if done.returncode:
        pytest.skip(f"{done.stderr}: another libc?")
    return str(library)


def test_where_the_main_thread_is_not_the_first_of_the_process(beside):
    """The system hands signals to that one, and they do not end the main thread's sleep."""
    before = os.environ.get("LD_PRELOAD", "")
    run(
        """
        os.environ["LD_PRELOAD"] = before = sys.argv[1]
        if not before:
            del os.environ["LD_PRELOAD"]
        main = threading.get_native_id()
        assert main != os.getpid()
        group = execnet_c.Group()
        channel = group.makegateway().remote_exec("channel.receive(); channel.send(1); channel.receive()")
        for pause in (0, 3):
            def interrupt():
                wait_asleep(os.getpid(), main)
                time.sleep(pause)
                sent.append(time.monotonic())
                os.kill(os.getpid(), signal.SIGINT)
            sent = []
            threading.Thread(target=interrupt).start()
            try:
                channel.receive(20)
            except KeyboardInterrupt:
                took = time.monotonic() - sent[0]
                print(f"after {pause} s: {took * 1000:.2f} ms")
                assert took < PROMPT
        channel.send(None)
        assert channel.receive(20) == 1
        """,
        before,
        env={"LD_PRELOAD": f"{before} {beside}".strip()},
    )
