"""Signals whose handlers return: they end no wait."""

from masters import run
from signal_programs import ECHO_SIZES


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
