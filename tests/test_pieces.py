"""Long messages travel in pieces: they hold up nobody, arrive whole or not at all, and cost one payload of memory."""

import os
import threading

import execnet_c
import pytest
from conftest import TIMEOUT
from masters import run
from pieces import MIB, gw_fixture  # noqa: F401 (fixtures)

pytestmark = pytest.mark.ours

SLOW_TIMEOUT = 4 * TIMEOUT

ECHO = "for item in channel: channel.send(item)"
LENGTHS = "for item in channel: channel.send(len(item))"


def in_threads(*calls):
    """What they return, each having been called in a thread of its own."""
    results = [None] * len(calls)

    def call(i):
        results[i] = calls[i]()

    threads = [threading.Thread(target=call, args=(i,)) for i in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SLOW_TIMEOUT)
        assert not thread.is_alive()
    return results


# --- nobody is held up ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sender", ["near", "far"])
def test_others_get_through_meanwhile(gw, sender):
    """One round trip after the other, beside one item of 300 MB."""
    size = 300 * MIB
    other = gw.remote_exec(ECHO)
    if sender == "near":
        channel = gw.remote_exec("channel.send(len(channel.receive()))")
        long = threading.Thread(target=channel.send, args=(b"x" * size,))
    else:
        channel = gw.remote_exec("size = channel.receive(); channel.send(b'x' * size); channel.send(size)")
        channel.send(size)
        received = []
        long = threading.Thread(target=lambda: received.append(len(channel.receive())))
    other.send("first")
    assert other.receive(TIMEOUT) == "first"
    long.start()
    n = 0
    while long.is_alive():
        n += 1
        other.send(n)
        assert other.receive(TIMEOUT) == n
    long.join()
    assert channel.receive(TIMEOUT) == size
    assert sender == "near" or received == [size]
    print(f"{n} round trips")
    assert n >= 20


def test_a_close_and_a_status_request_overtake(gw):
    """The far end reads on, but nobody there takes the item: its sender has most of it to write yet."""
    channel, other = gw.remote_exec(LENGTHS), gw.remote_exec("channel.receive()")
    sent = threading.Event()

    def send():
        channel.send(b"x" * (200 * MIB))
        sent.set()

    thread = threading.Thread(target=send)
    thread.start()
    n = 0
    while not sent.is_set():
        n += 1
        assert gw.remote_status().numexecuting >= 1
    other.close()
    thread.join()
    assert channel.receive(TIMEOUT) == 200 * MIB
    assert n >= 5


def test_several_at_once(gw):
    """Both ways at the same time, and each is what it was."""
    items = [bytes([i]) * (10 * MIB + i) if i % 2 else chr(97 + i) * (10 * MIB + i) for i in range(4)]
    channels = [gw.remote_exec(ECHO) for _ in items]

    def there_and_back(channel, item):
        for _ in range(2):
            channel.send(item)
            if channel.receive(TIMEOUT) != item:
                return False
        return True

    calls = [lambda pair=pair: there_and_back(*pair) for pair in zip(channels, items)]
    assert in_threads(*calls) == [True] * 4


@pytest.mark.deep
def test_more_than_have_numbers(gw):
    """Of one channel's, in any order; those of one thread in its order."""
    channel = gw.remote_exec("for i in range(160): channel.send(channel.receive()[::MIB])".replace("MIB", str(MIB)))

    def send(i):
        for n in (0, 1):
            channel.send(bytes([i, *bytes(MIB - 1), n, *bytes(MIB - 1)]))

    in_threads(*[lambda i=i: send(i) for i in range(80)])
    got = [tuple(channel.receive(TIMEOUT)) for _ in range(160)]
    assert sorted(got) == [(i, n) for i in range(80) for n in (0, 1)]
    assert all(got.index((i, 0)) < got.index((i, 1)) for i in range(80))


@pytest.mark.parametrize("size", [MIB - 7, MIB - 6, MIB - 5, 3 * MIB // 2, 2 * MIB, 2 * MIB + 1, 5_000_000])
def test_sizes_around_the_edges(gw, size):
    """A bytes object has six bytes around it on the wire."""
    channel = gw.remote_exec(ECHO)
    for item in (os.urandom(size), "\xe4" * (size // 2), [b"x" * (size // 3)] * 3):
        channel.send(item)
        assert channel.receive(TIMEOUT) == item


def test_order_within_a_channel(gw):
    channel = gw.remote_exec("for i in range(5): channel.send(b'%d' % i * 1500000); channel.send(i)")
    got = list(channel)
    assert got == [x for i in range(5) for x in (b"%d" % i * 1500000, i)]


def test_a_long_source_and_a_long_error(gw):
    source = "text = " + repr("x" * (3 * MIB)) + "\nchannel.send(len(text))\nchannel.receive()"
    channel = gw.remote_exec(source)
    assert channel.receive(TIMEOUT) == 3 * MIB
    other = gw.remote_exec("channel.send(channel.receive())\nraise ValueError('y' * (2 << 20))")
    other.send(1)
    assert other.receive(TIMEOUT) == 1
    with pytest.raises(execnet_c.RemoteError) as error:
        other.waitclose(TIMEOUT)
    assert "y" * (2 * MIB) in str(error.value)
    channel.close("z" * (2 * MIB))
    answer = gw.remote_exec("channel.send(1)")
    assert answer.receive(TIMEOUT) == 1


def test_items_for_a_callback(gw):
    channel = gw.remote_exec("for n in (3000000, 1, 2000000): channel.send(b'x' * n)")
    seen = []
    channel.setcallback(lambda item: seen.append(item and len(item)), endmarker=None)
    channel.waitclose(TIMEOUT)
    assert seen == [3000000, 1, 2000000, None]


def test_channels_inside(gw):
    channel = gw.remote_exec("item = channel.receive(); item[1].send(len(item[0]))")
    inner = gw.newchannel()
    channel.send(["x" * (2 * MIB), inner])
    assert inner.receive(TIMEOUT) == 2 * MIB


# --- interrupted, killed, ended -------------------------------------------------------------------------------------


def test_a_stream_of_interrupts():
    """What was sent arrives, in order, and nothing comes in part."""
    run(
        """
        import random
        group = execnet_c.Group()
        gateway = group.makegateway()
        channel = gateway.remote_exec('''
            for item in channel:
                channel.send((item[0], item == item[:1] * len(item)))
        ''')
        size, sent, interrupts = 1 << 22, [], 0
        armed = [False]
        def handler(*args):
            if armed[0]:
                raise KeyboardInterrupt
        signal.signal(signal.SIGALRM, handler)
        rand = random.Random(5)
        for i in range(150):
            item = bytes([i]) * size
            try:
                armed[0] = True
                signal.setitimer(signal.ITIMER_REAL, 0.0001 + rand.random() * 0.004)
                channel.send(item)
                armed[0] = False
                sent.append((i, True))
            except KeyboardInterrupt:
                interrupts += 1
                sent.append((i, False))
            armed[0] = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        channel.send(b"\\xff")
        got = []
        while not got or got[-1][0] != 255:
            got.append(channel.receive(30))
        got.pop()
        # An exception may have come behind the last byte: then the item has arrived all the same.
        for i, complete in sent:
            if complete:
                assert got and got.pop(0) == (i, True)
            elif got and got[0] == (i, True):
                del got[0]
        assert not got
        print(f"{interrupts} interrupts")
        assert interrupts
        """,
        limit=SLOW_TIMEOUT,
    )


def test_more_interrupts_than_numbers():
    """Each number is free again, whether anything of its message was written or not."""
    run(
        """
        group = execnet_c.Group()
        gateway = group.makegateway()
        pid = worker_of(gateway)
        channel = gateway.remote_exec("for item in channel: channel.send(len(item))")
        item = b"x" * (1 << 22)
        class Stop(Exception):
            pass
        def handler(*args):
            raise Stop
        signal.signal(signal.SIGALRM, handler)
        for i in range(150):
            stop_process(pid)
            assert wait_until(lambda: stat_of(pid)[0] in "tT")
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.01)
                channel.send(item)
                raise AssertionError("nobody reads, and it was sent")
            except Stop:
                pass
            if i % 2:
                os.kill(pid, signal.SIGCONT)
                assert worker_of(gateway) == pid
        channel.send(item)
        assert channel.receive(30) == len(item)
        """,
        limit=SLOW_TIMEOUT,
    )


def test_ctrl_c_while_nobody_waits_for_room():
    """The far end reads as fast as we write: the sender must look for signals all the same."""
    run(
        """
        group = execnet_c.Group()
        gateway = group.makegateway()
        channel = gateway.remote_exec("for item in channel: channel.send(len(item))")
        channel.send(b"1")
        assert channel.receive(30) == 1
        item = b"x" * (512 << 20)
        class Stop(Exception):
            pass
        def handler(*args):
            came.append(time.monotonic())
            raise Stop
        signal.signal(signal.SIGALRM, handler)
        for pause in (0.02, 0.05, 0.1):
            came = []
            try:
                signal.setitimer(signal.ITIMER_REAL, pause)
                channel.send(item)
                while True:
                    time.sleep(1)
            except Stop:
                left = time.monotonic()
            assert left - came[0] < PROMPT
        channel.send(b"12")
        lengths = [channel.receive(30)]
        while lengths[-1] != 2:
            lengths.append(channel.receive(30))
        assert set(lengths) <= {2, len(item)}
        """,
        limit=SLOW_TIMEOUT,
    )


def test_a_worker_that_dies_while_it_sends_or_receives():
    """What was complete stays receivable, and whoever sends is told."""
    run(
        """
        for sending in (True, False):
            group = execnet_c.Group()
            gateway = group.makegateway()
            pid = worker_of(gateway)
            channel = gateway.remote_exec('''
                ready = channel.receive()
                channel.send(b"a" * 2000000)
                channel.send("small")
                ready.send(1)
                if channel.receive():
                    import os, signal, threading
                    threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGKILL)).start()
                    while True:
                        channel.send(b"b" * (1 << 28))
                channel.receive()
            ''')
            ready = gateway.newchannel()
            channel.send(ready)
            assert ready.receive(30) == 1
            if sending:
                channel.send(0)
                stop_process(pid)
                thread = threading.Timer(0.1, os.kill, (pid, signal.SIGKILL))
                thread.start()
                error = raises(OSError, channel.send, b"x" * (1 << 26))
                thread.join()
                assert "SIGKILL" in str(error), error
            else:
                channel.send(1)
                gateway.join(30)
            assert channel.receive(30) == b"a" * 2000000
            assert channel.receive(30) == "small"
            while True:
                try:
                    assert len(channel.receive(30)) == 1 << 28
                except EOFError as exc:
                    assert "SIGKILL" in str(exc)
                    break
            group.terminate(timeout=5)
        """,
        limit=SLOW_TIMEOUT,
        stderr=None,  # the task over there may say how it was ended
    )


def test_an_exit_does_not_wait_for_a_long_message():
    run(
        """
        group = execnet_c.Group()
        gateway = group.makegateway()
        pid = worker_of(gateway)
        channel = gateway.remote_exec("channel.receive()")
        stop_process(pid)
        errors = []
        def send():
            errors.append(raises(OSError, channel.send, b"x" * (1 << 26)))
        thread = threading.Thread(target=send)
        thread.start()
        wait_asleep(os.getpid(), thread.native_id)
        start = time.monotonic()
        gateway.exit()
        assert time.monotonic() - start < PROMPT
        os.kill(pid, signal.SIGCONT)
        thread.join(30)
        assert len(errors) == 1
        group.terminate(timeout=10)
        """
    )


def test_a_handler_may_send_a_long_item_inside_another_while_others_wait():
    run(
        """
        group = execnet_c.Group()
        gateway = group.makegateway()
        pid = worker_of(gateway)
        channel = gateway.remote_exec("for item in channel: channel.send(item[:1] + b'%d' % len(item))")
        other = gateway.remote_exec("for item in channel: channel.send(item)")
        other.send("first")
        assert other.receive(30) == "first"
        size, entered = 1 << 24, threading.Event()
        def handler(*args):
            entered.set()
            channel.send(b"b" * size)
        signal.signal(signal.SIGUSR1, handler)
        threads = [threading.Thread(target=other.send, args=(i,)) for i in range(3)]
        def shoot():
            wait_asleep(os.getpid())
            for thread in threads:
                thread.start()
            for thread in threads:
                wait_asleep(os.getpid(), thread.native_id)
            os.kill(os.getpid(), signal.SIGUSR1)
            entered.wait()
            wait_asleep(os.getpid())
            os.kill(pid, signal.SIGCONT)
        stop_process(pid)
        shooter = threading.Thread(target=shoot)
        shooter.start()
        channel.send(b"a" * size)
        for thread in [shooter, *threads]:
            thread.join(30)
            assert not thread.is_alive()
        assert [channel.receive(30) for _ in range(2)] == [b"b%d" % size, b"a%d" % size]
        assert sorted(other.receive(30) for _ in range(3)) == [0, 1, 2]
        """
    )


# --- memory ---------------------------------------------------------------------------------------------------------

PEAK = """
import gc, os
def peak():
    # In KiB, of this process since mark()
    with open("/proc/self/status") as file:
        return int(file.read().split("VmHWM:")[1].split()[0])
def mark():
    gc.collect()
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    with open("/proc/self/status") as file:
        return int(file.read().split("VmRSS:")[1].split()[0])
"""


@pytest.mark.not_under("asan tsan", "it counts memory")
def test_one_payload_of_memory():
    """Two items of 100 MiB at a time: so much is what the receiver needs more, and their sender nothing."""
    run(
        PEAK
        + """
if True:
        size = 100 << 20
        group = execnet_c.Group()
        gateway = group.makegateway()
        control = gateway.remote_exec('''
PEAK
before = None
for word in channel:
    if word == "mark":
        before = mark()
    else:
        channel.send(peak() - before)
'''.replace("PEAK", sys.argv[1]))
        task = "item = channel.receive(); channel.receive(); channel.send(item); channel.receive()"
        channels = [gateway.remote_exec(task) for _ in range(2)]
        items = [b"x" * size, b"y" * size]
        control.send("mark")
        before = mark()
        threads = [threading.Thread(target=channel.send, args=(item,)) for channel, item in zip(channels, items)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        probe = gateway.remote_exec("channel.send(1)")
        assert probe.receive(30) == 1
        sender = peak() - before
        del items
        before = mark()
        for channel in channels:
            channel.send("back")
        got = [channel.receive(30) for channel in channels]
        receiver = peak() - before
        control.send("peak")
        far = control.receive(30)
        assert [set(item) for item in got] == [{120}, {121}] and [len(item) for item in got] == [size] * 2
        print(f"sender {sender >> 10} MiB, receiver {receiver >> 10} MiB, far end {far >> 10} MiB; 2 x 100 MiB")
        assert sender < 32 << 10
        assert receiver < 240 << 10
        assert far < 240 << 10
        """,
        PEAK,
        limit=SLOW_TIMEOUT,
    )
