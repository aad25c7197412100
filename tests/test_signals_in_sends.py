"""Ctrl-C while much data comes or goes: it ends the wait at once, and no message is torn."""

import pytest

from masters import run
from signal_programs import ECHO_SIZES


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


@pytest.mark.parametrize("transport", ["", "//transport=pipe"])
def test_what_another_thread_was_sending_goes_out_before_the_goodbye(transport):
    """It has its turn behind the rest of a send that was interrupted. Its send() returns, so the item must arrive."""
    run(
        """
        group = execnet_c.Group()
        gateway = group.makegateway("popen" + sys.argv[1])
        channel = gateway.remote_exec("channel.send([len(item) for item in channel])")
        pid = worker_of(gateway)
        stop_process(pid)
        with interrupted("the send before"):
            while True:
                channel.send(b"x" * 1_000_000)
        thread = threading.Thread(target=channel.send, args=(b"behind",))
        thread.start()
        wait_asleep(os.getpid(), thread.native_id)
        gateway.exit()
        os.kill(pid, signal.SIGCONT)
        thread.join()
        sizes = channel.receive(30)
        assert sizes[-1] == 6 and {*sizes[:-1]} == {1_000_000}, sizes
        group.terminate(timeout=10)
        """,
        transport,
    )
