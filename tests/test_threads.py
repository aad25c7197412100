"""Many threads on one gateway, gateways in many threads, and what the GIL is kept for."""

import os
import signal
import threading
import time

import pytest
from conftest import TIMEOUT, wait_until
from masters import run

from execnet_c import cores

THREADS = 8

ECHO = "for item in channel: channel.send(item)"


def run_together(function, *argument_lists):
    """Run function(argument) in a thread for each argument, all at once; return the results in order."""
    arguments = list(zip(*argument_lists)) if argument_lists else [(number,) for number in range(THREADS)]
    results = [None] * len(arguments)
    errors = []
    start = threading.Barrier(len(arguments))

    def run(place, args):
        try:
            start.wait(TIMEOUT)
            results[place] = function(*args)
        except BaseException as exc:
            errors.append(exc)

    threads = [threading.Thread(target=run, args=(i, args), daemon=True) for i, args in enumerate(arguments)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 2 * TIMEOUT
    for thread in threads:
        thread.join(max(deadline - time.monotonic(), 0))
    if errors:
        raise errors[0]
    assert not any(thread.is_alive() for thread in threads), "a thread hangs"
    return results


def in_thread(function, *args):
    thread = threading.Thread(target=function, args=args, daemon=True)
    thread.start()
    return thread


# --- one gateway, many threads --------------------------------------------------------------------------------------


def test_conversations_side_by_side(gw):
    def converse(number):
        channel = gw.remote_exec(ECHO)
        for i in range(200):
            channel.send((number, i))
            assert channel.receive(TIMEOUT) == (number, i)
        channel.close()
        return number

    assert run_together(converse) == list(range(THREADS))


def test_several_channels_a_thread(gw):
    def converse(number):
        channels = [gw.remote_exec(ECHO) for _ in range(4)]
        for i in range(50):
            for place, channel in enumerate(channels):
                channel.send((number, place, i))
        for place, channel in enumerate(channels):
            assert [channel.receive(TIMEOUT) for _ in range(50)] == [(number, place, i) for i in range(50)]
            channel.close()

    run_together(converse)


def test_payloads_of_all_sizes_side_by_side(gw):
    def converse(number):
        channel = gw.remote_exec(ECHO)
        for size in (0, 1, 100, 5_000, 70_000, 1_000_000, 10):
            data = bytes([number]) * size
            channel.send(data)
            assert channel.receive(TIMEOUT) == data
        channel.close()

    run_together(converse)


def test_senders_share_a_channel(gw):
    """No item is lost, none is torn, and each thread's items keep their order."""
    channel = gw.remote_exec("channel.send([channel.receive() for _ in range(channel.receive())])")
    count = 250
    channel.send(THREADS * count)

    def send(number):
        for i in range(count):
            channel.send((number, i, "x" * (i % 7 * 1000)))

    run_together(send)
    items = channel.receive(TIMEOUT)
    assert all(len(text) == i % 7 * 1000 for _, i, text in items)
    for number in range(THREADS):
        assert [i for sender, i, _ in items if sender == number] == list(range(count))


def test_receivers_share_a_channel(gw):
    """Each item comes out exactly once, and each thread sees the items it gets in their order."""
    count = 4000
    channel = gw.remote_exec(f"for i in range({count}): channel.send(i)\nfor i in range({THREADS}): channel.send(None)")

    def receive(number):
        return list(iter(lambda: channel.receive(TIMEOUT), None))

    taken = run_together(receive)
    assert sorted(item for items in taken for item in items) == list(range(count))
    assert all(items == sorted(items) for items in taken)


def test_all_receivers_learn_of_the_end(lib, gw):
    channel = gw.remote_exec("channel.receive()")

    def receive(number):
        if number == 0:
            time.sleep(0.1)
            channel.send(None)
            channel.waitclose(TIMEOUT)
            return "closed"
        with pytest.raises(EOFError):
            channel.receive(TIMEOUT)
        return "end"

    assert run_together(receive) == ["closed"] + ["end"] * (THREADS - 1)


def test_receivers_with_and_without_a_timeout(lib, gw):
    """Whoever reads for all and goes away hands the reading on."""
    channels = [gw.remote_exec("channel.receive(); channel.send('late')") for _ in range(THREADS)]
    given_up = threading.Semaphore(0)

    def receive(number):
        channel = channels[number]
        if number % 2:
            with pytest.raises(lib.TimeoutError):
                channel.receive(0.02 * number)
            given_up.release()
        elif number == 0:
            for _ in range(THREADS // 2):
                assert given_up.acquire(timeout=TIMEOUT)
            for other in channels:
                other.send(None)
        return channel.receive(TIMEOUT)

    assert run_together(receive) == ["late"] * THREADS


def test_new_channels_and_ends_side_by_side(gw):
    def open_and_close(number):
        ids = []
        for i in range(100):
            channel = gw.newchannel()
            ids.append(channel.id)
            if i % 2:
                channel.close()
            assert channel.isclosed() == bool(i % 2)
            del channel
        return ids

    ids = [number for ids in run_together(open_and_close) for number in ids]
    assert len(set(ids)) == len(ids)
    assert wait_until(lambda: gw.remote_status().numchannels <= 1)


def test_closing_one_channel_from_all_sides(gw):
    for _ in range(20):
        channel = gw.remote_exec("channel.receive()")
        run_together(lambda number: channel.close())
        assert channel.isclosed()
        channel.waitclose(TIMEOUT)


def test_callbacks_set_side_by_side(gw):
    count = 100
    got = [[] for _ in range(THREADS)]

    def listen(number):
        channel = gw.remote_exec(f"for i in range({count}): channel.send(i)")
        channel.setcallback(got[number].append, endmarker="end")
        channel.waitclose(TIMEOUT)

    run_together(listen)
    assert all(wait_until(lambda items=items: items == [*range(count), "end"]) for items in got)


def test_one_callback_among_many_who_set_it(gw):
    channel = gw.newchannel()

    def listen(number):
        try:
            channel.setcallback(lambda item: None)
        except OSError:
            return 0
        return 1

    assert sum(run_together(listen)) == 1
    channel.close()


def test_everything_at_once(gw):
    """Callbacks, receivers, errors, closed and forgotten channels on one connection."""

    def callback(rounds):
        for _ in range(rounds):
            items = []
            channel = gw.remote_exec("for i in range(20): channel.send(i)")
            channel.setcallback(items.append, endmarker=None)
            channel.waitclose(TIMEOUT)
            assert wait_until(lambda: items == [*range(20), None])

    def converse(rounds):
        channel = gw.remote_exec(ECHO)
        for i in range(rounds * 20):
            channel.send("y" * i)
            assert channel.receive(TIMEOUT) == "y" * i
        channel.close()

    def fail(rounds):
        for _ in range(rounds):
            channel = gw.remote_exec("1 / 0")
            with pytest.raises(channel.RemoteError, match="ZeroDivisionError"):
                channel.receive(TIMEOUT)

    def forget(rounds):
        for _ in range(rounds):
            gw.remote_exec("channel.send('unheard')").waitclose(TIMEOUT)

    def pass_on(rounds):
        for _ in range(rounds):
            inner = gw.newchannel()
            outer = gw.remote_exec("inner = channel.receive(); inner.send('here'); inner.close()")
            outer.send(inner)
            assert inner.receive(TIMEOUT) == "here"
            outer.waitclose(TIMEOUT)

    def look(rounds):
        for _ in range(rounds):
            assert gw.remote_status().execmodel == "thread"

    jobs = [callback, converse, fail, forget, pass_on, look, callback, converse]
    run_together(lambda job, rounds: job(rounds), jobs, [15] * len(jobs))


@pytest.mark.ours
def test_a_full_pipe_does_not_stop_who_receives(lib, gw):
    """A thread that waits in send(), for the far end is stopped, leaves receiving and other gateways to the others."""
    talker = gw.remote_exec(ECHO)
    earlier = gw.remote_exec("for i in range(100): channel.send(i)")
    earlier.waitclose(TIMEOUT)
    other = gw._group.makegateway("popen").remote_exec(ECHO)
    pid = gw.remote_exec("import os; channel.send(os.getpid())").receive(TIMEOUT)
    os.kill(pid, signal.SIGSTOP)
    try:
        sender = in_thread(talker.send, b"x" * 20_000_000)
        assert not wait_until(lambda: not sender.is_alive(), 0.3), "the far end is stopped, the pipe is small"
        for i in range(100):
            other.send(i)
            assert other.receive(TIMEOUT) == i
        assert [earlier.receive(TIMEOUT) for _ in range(100)] == list(range(100))
        with pytest.raises(lib.TimeoutError):
            talker.receive(0.05)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert len(talker.receive(TIMEOUT)) == 20_000_000
    sender.join(TIMEOUT)
    assert not sender.is_alive()


def test_both_sides_send_much_at_once(gw):
    """Neither waits for the other to stop sending before it reads."""
    channel = gw.remote_exec(
        "for i in range(20): channel.send(b'x' * 1_000_000)\nfor i in range(20): channel.receive()\nchannel.send('done')"
    )
    sender = in_thread(lambda: [channel.send(b"y" * 1_000_000) for _ in range(20)])
    assert all(len(channel.receive(TIMEOUT)) == 1_000_000 for _ in range(20))
    assert channel.receive(TIMEOUT) == "done"
    sender.join(TIMEOUT)
    assert not sender.is_alive()


# --- gateways in many threads ---------------------------------------------------------------------------------------


def test_gateways_made_side_by_side(group):
    def make(number):
        gateway = group.makegateway("popen")
        assert gateway.remote_exec(f"channel.send({number})").receive(TIMEOUT) == number
        return gateway.id

    ids = run_together(make)
    assert len(set(ids)) == THREADS
    assert sorted(gateway.id for gateway in group) == sorted(ids)


@pytest.mark.ours
def test_one_id_for_one_gateway(lib, group):
    """Of many that want the same id, one gets it."""

    def make(number):
        try:
            group.makegateway("popen//id=only")
        except ValueError:
            return 0
        return 1

    assert sum(run_together(make)) == 1
    assert len(group) == 1


def test_gateways_made_used_and_ended_in_threads(lib):
    def live(number):
        group = lib.Group()
        channel = group.makegateway("popen").remote_exec(ECHO)
        channel.send(number)
        assert channel.receive(TIMEOUT) == number
        group.terminate(timeout=5.0)
        return number

    assert run_together(live) == list(range(THREADS))


@pytest.mark.ours
def test_the_environment_changes_while_processes_start(monkeypatch):
    names = [f"EXECNET_C_TEST_{number}" for number in range(1000)]
    for name in names:  # to read them takes its time
        monkeypatch.setenv(name, "x" * 50)
    enough = threading.Event()

    def change():
        while not enough.is_set():
            for name in names[-20:]:
                del os.environ[name]
            for name in names[-20:]:
                os.environ[name] = "x"

    thread = in_thread(change)
    try:
        for _ in range(100):
            gateway = cores.module.Gateway()
            gateway._start(["true"], None)
            assert gateway._wait_gone(TIMEOUT)
    finally:
        enough.set()
        thread.join(TIMEOUT)


def test_a_gateway_outlives_the_thread_that_made_it(group):
    made = []
    in_thread(lambda: made.append(group.makegateway("popen").remote_exec(ECHO))).join(TIMEOUT)
    [channel] = made
    channel.send(1)
    assert channel.receive(TIMEOUT) == 1
    in_thread(lambda: made.append(channel.gateway.remote_exec(ECHO))).join(TIMEOUT)
    made[1].send(2)
    assert made[1].receive(TIMEOUT) == 2


def test_a_thread_ends_while_its_reply_is_on_the_way(group):
    """The thread that last read the connection is gone: what arrives next is read all the same."""
    channel = group.makegateway("popen").remote_exec("channel.send(1); channel.receive(); channel.send(2)")
    in_thread(channel.receive, TIMEOUT).join(TIMEOUT)
    in_thread(channel.send, None).join(TIMEOUT)
    assert channel.receive(TIMEOUT) == 2


# --- the GIL --------------------------------------------------------------------------------------------------------


def while_waiting(wait):
    """How far this thread counts while another one is in wait(); then that one's result."""
    result = []
    thread = in_thread(lambda: result.append(wait()))
    count = 0
    while thread.is_alive():
        count += 1
    return count, result


@pytest.mark.parametrize("kind", ["receive", "waitclose", "status", "send", "terminate", "join"])
def test_python_runs_on_while_a_thread_waits(lib, group, kind):
    """Each wait takes some 0.3 s; a thread that held the GIL would let nobody count."""
    gateway = group.makegateway("popen")
    gateway.remote_exec("channel.send(1)").receive(TIMEOUT)
    waits = {
        "receive": lambda: gateway.remote_exec("import time; time.sleep(0.3); channel.send(1)").receive(TIMEOUT),
        "waitclose": lambda: gateway.remote_exec("import time; time.sleep(0.3)").waitclose(TIMEOUT),
        "terminate": lambda: group.terminate(timeout=TIMEOUT),
    }
    if kind == "send":
        channel = gateway.remote_exec("import time; channel.receive(); time.sleep(0.3); channel.send(1)")
        waits["send"] = lambda: [channel.send(b"x" * 30_000_000), channel.receive(TIMEOUT)]
    elif kind == "status":
        waits["status"] = lambda: [gateway.remote_status() for _ in range(3000)]
    elif kind == "terminate":
        gateway.remote_exec("import time; time.sleep(0.3)")
    elif kind == "join":
        gateway.remote_exec("import time; time.sleep(0.3)")
        gateway.exit()
        waits["join"] = lambda: gateway.join(TIMEOUT)
    count, result = while_waiting(waits[kind])
    assert len(result) == 1
    assert count > 2000


def test_a_worker_dies_while_a_thread_drops_channels():
    """The thread and the one that learns of the death change the same table."""
    run(
        """
        sys.setswitchinterval(1e-5)
        for _ in range(8):
            group = execnet_c.Group()
            gateway = group.makegateway()
            pid = worker_of(gateway)
            channels = [gateway.newchannel() for _ in range(30_000)]
            def drop():
                while channels:
                    channels.pop()
            thread = threading.Thread(target=drop)
            os.kill(pid, 9)
            thread.start()
            gateway.join(10)
            assert not gateway.hasreceiver()
            thread.join()
            group.terminate(5)
        """
    )
