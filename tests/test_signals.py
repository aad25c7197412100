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
