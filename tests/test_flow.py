"""Flow control: a receiver that does not keep up stops its sender, in both directions. Nothing is lost or stands still by it.

What waits is measured in bytes, by stats(), never in time. All items here count COST bytes, unless a test says otherwise.
See also test_flow_limits.py, and for the frames test_conformance.py.
"""

import signal
import threading

import pytest

import execnet_c
from callbacks import Seen
from conftest import TIMEOUT, wait_until
from flows import BYTES, COST, FIT, IDLE, LIMIT, RECEIVES, SENDS, Sender, numbered, received, sender_waits, sent, waits
from flows import gateway_fixture, gw_fixture  # noqa: F401 (fixtures)
from gateways import group_fixture  # noqa: F401 (fixtures)
from masters import run


# --- a slow receiver stops its sender --------------------------------------------------------------------------------


def test_a_slow_receiver_here_stops_its_sender(gateway):
    channel = gateway.remote_exec(SENDS + "send(channel, 500)")
    sender_waits(channel)
    assert wait_until(lambda: received(channel)["items"] == FIT)
    assert received(channel)["limit"] == LIMIT
    for n in range(500):
        assert received(channel)["bytes"] <= LIMIT
        assert channel.receive(TIMEOUT) == numbered(n)
    channel.waitclose(TIMEOUT)


def test_a_slow_receiver_there_stops_its_sender(gateway):
    go = gateway.newchannel()
    channel = gateway.remote_exec("channel.send(1)\n" + RECEIVES + "receive(channel, channel.receive(), 200)")
    assert channel.receive(TIMEOUT) == 1
    channel.send(go)
    sender = Sender(channel, list(map(numbered, range(200))))
    waits(channel)
    first = len(sender.done)
    assert FIT - 1 <= first <= FIT, "the channel that was sent first may still be counted"
    assert sent(channel)["bytes"] <= LIMIT and sent(channel)["limit"] == LIMIT
    peak = 0
    for n in range(200):
        go.send(None)
        number, *channels = go.receive(TIMEOUT)
        assert number == b"%d" % n
        peak = max([peak, *(each[2] for each in channels)])
    assert sender.end() is None
    assert COST < peak <= LIMIT
    assert channel.receive(TIMEOUT) == "received"
    assert wait_until(lambda: channel.id not in gateway.stats()["channels"])


def test_other_channels_go_on(gateway):
    stuck = gateway.remote_exec(IDLE)
    sender = Sender(stuck, [BYTES] * 1000)
    waits(stuck)
    flood = gateway.remote_exec(SENDS + "send(channel, 1000)")
    sender_waits(flood)
    echo = gateway.remote_exec("for item in channel: channel.send(item)")
    for n in range(300):
        echo.send(numbered(n))
        assert echo.receive(TIMEOUT) == numbered(n)
    assert gateway.remote_status().numexecuting == 3
    stuck.close()
    assert isinstance(sender.end(), OSError)
    for n in range(1000):
        assert flood.receive(TIMEOUT) == numbered(n)


def test_items_larger_than_the_limit_go_alone(gateway):
    """Those of one frame and those that travel in pieces."""
    sizes = [LIMIT, 10, 3_000_000, 20, 30, LIMIT * 3, 1 << 20, 7]
    channel = gateway.remote_exec(SENDS + f"for size in {sizes}: send(channel, 1, size)\nfor item in channel: channel.send(len(item))")
    for size in sizes:
        assert wait_until(lambda: received(channel)["items"])
        large = received(channel)
        assert large["items"] == 1 or large["bytes"] <= LIMIT
        assert channel.receive(TIMEOUT) == numbered(0, size)
    sender = Sender(channel, [bytes(size) for size in sizes])
    for size in sizes:
        assert channel.receive(TIMEOUT) == size
    assert sender.end() is None


def test_without_a_limit_there_is_none(group):
    gateway = group.makegateway("popen")
    channel = gateway.remote_exec(SENDS + "send(channel, 3000)")
    channel.waitclose(TIMEOUT)
    for n in range(3000):
        assert channel.receive(TIMEOUT) == numbered(n)
    channel = gateway.remote_exec("channel.receive()\nfor item in channel: pass")
    for n in range(3000):
        channel.send(numbered(n))
    assert sent(channel) == {"bytes": None, "limit": None, "waits": None}
    assert received(channel) == {"items": 0, "bytes": 0, "limit": None, "sender_waits": None}


def test_what_stats_say(gw):
    channel = gw.remote_exec(SENDS + "send(channel, 3)\nchannel.receive()")
    assert wait_until(lambda: received(channel)["items"] == 3)
    channel.send(BYTES)
    stats = gw.stats()
    assert stats["channels"][channel.id]["received"] == {"items": 3, "bytes": 3 * COST, "limit": LIMIT, "sender_waits": None}
    assert stats["callbacks"] == {"items": 0, "bytes": 0}
    channel.waitclose(TIMEOUT)
    assert received(channel)["items"] == 3, "a closed channel is there as long as it has items"
    assert len(list(channel)) == 3
    assert channel.id not in gw.stats()["channels"]


# --- the end of a wait ------------------------------------------------------------------------------------------------


def test_a_timeout_sends_nothing_and_loses_no_room(gw):
    go = gw.newchannel()
    channel = gw.remote_exec("go = channel.receive(); go.receive()\nfor item in channel: channel.send(item[:8])")
    channel.send(go)
    n = 0
    with pytest.raises(execnet_c.TimeoutError, match="no room for the item after 0 seconds"):
        while True:
            channel.send(numbered(n), timeout=0)
            n += 1
    assert n in (FIT, FIT - 1)
    for timeout in (0.01, 0, 0.02, 0, 0.01):
        for item in (BYTES, b"x" * 2_000_000):
            with pytest.raises(channel.TimeoutError):
                channel.send(item, timeout=timeout)
    go.send(1)
    for number in range(n):
        assert channel.receive(TIMEOUT) == numbered(number)[:8]
    for number in range(n, n + 500):
        channel.send(numbered(number), timeout=TIMEOUT)
        assert channel.receive(TIMEOUT) == numbered(number)[:8]


@pytest.mark.parametrize("timeout, kind", [("1", TypeError), ([], TypeError), (-1, ValueError), (float("nan"), ValueError)])
def test_a_wrong_timeout(gw, timeout, kind):
    channel = gw.remote_exec("channel.send(channel.receive())")
    with pytest.raises(kind):
        channel.send(1, timeout=timeout)
    channel.send(2, timeout=None)
    assert channel.receive(TIMEOUT) == 2


@pytest.mark.parametrize("transport", ["", "//transport=pipe"])
def test_ctrl_c_ends_the_wait_and_nothing_is_lost(transport):
    run(
        f"""
        gw = execnet_c.makegateway("popen//maxqueue=100000{transport}")
        go = gw.newchannel()
        channel = gw.remote_exec("go = channel.receive(); go.receive()\\nfor item in channel: channel.send(item[:8])")
        channel.send(go)
        n = 0
        for size in (994, 3000000):
            with interrupted("send at the limit"):
                while True:
                    channel.send(b"%d" % n + bytes(size))
                    n += 1
        go.send(1)
        for number in range(n):
            assert channel.receive(30).split(b"\\0")[0] == b"%d" % number, number
        for number in range(300):
            channel.send(b"%d" % number + bytes(994))
            assert channel.receive(30).split(b"\\0")[0] == b"%d" % number, number
        assert raises(execnet_c.TimeoutError, channel.receive, 0)
        gw.exit()
        """
    )


ENDS = {
    "close here": (lambda channel: channel.close(), OSError, "cannot send to <Channel id=1 closed>"),
    "exit here": (lambda channel: leave_stopped(channel.gateway), OSError, "was exited"),
    "kill -9": (lambda channel: channel.gateway._signal(signal.SIGKILL), execnet_c.WorkerKilled, "SIGKILL"),
    "close there": (lambda channel: go_of(channel).send("channel.close()"), OSError, "cannot send to <Channel id=1 closed>"),
    "the task fails": (lambda channel: go_of(channel).send("1 / 0"), OSError, "cannot send to <Channel id=1 closed>"),
    "exit there": (lambda channel: go_of(channel).send("import os; os._exit(3)"), execnet_c.WorkerExited, "exit status 3"),
}


def go_of(channel):
    return channel.gateway.test_go


def leave_stopped(gateway):
    """As exit(), while the far end can answer nothing."""
    gateway._signal(signal.SIGSTOP)
    gateway.exit()


@pytest.mark.parametrize("how", ENDS)
def test_what_ends_the_wait(group, how):
    gw = group.makegateway(f"popen//maxqueue={LIMIT}//id=waiter")
    end, kind, words = ENDS[how]
    channel = gw.newchannel()
    assert channel.id == 1
    gw.test_go = gw.remote_exec("other = channel.receive(); task = channel.receive()\nchannel, own = other, channel\nexec(task)")
    gw.test_go.send(channel)
    sender = Sender(channel, [BYTES] * 1000)
    waits(channel)
    assert len(sender.done) == FIT
    end(channel)
    if how == "the task fails":
        with pytest.raises(execnet_c.RemoteError, match="ZeroDivisionError"):
            gw.test_go.waitclose(TIMEOUT)
        del gw.test_go
    error = sender.end()
    gw._signal(signal.SIGCONT)
    assert isinstance(error, kind) and words in str(error), repr(error)


def test_a_worker_whose_near_end_leaves_sends_on(gw):
    """After exit() no credit can come any more, and what still comes is received."""
    channel = gw.remote_exec(SENDS + "send(channel, 500)")
    sender_waits(channel)
    gw.exit()
    assert [channel.receive(TIMEOUT) for _ in range(500)] == list(map(numbered, range(500)))


def test_the_end_of_the_wait_there(gw):
    """A task that waits to send learns that the near end has closed the channel."""
    result = gw.newchannel()
    channel = gw.remote_exec(
        "result = channel.receive()\ntry:\n  while True: channel.send(bytes(994))\nexcept OSError as exc: result.send(str(exc))"
    )
    channel.send(result)
    sender_waits(channel)
    channel.close()
    assert result.receive(TIMEOUT) == f"cannot send to <Channel id={channel.id} closed>"


# --- callbacks --------------------------------------------------------------------------------------------------------


def test_a_slow_callback_here_stops_the_sender(gw):
    seen, go_on = [], threading.Semaphore(0)

    def slow(item):
        assert go_on.acquire(timeout=TIMEOUT)
        seen.append(item)

    channel = gw.remote_exec("channel.receive()\n" + SENDS + "send(channel, 300)")
    channel.setcallback(slow, endmarker=None)
    channel.send(1)
    sender_waits(channel)
    waiting = gw.stats()["callbacks"]
    assert FIT - 1 <= waiting["items"] <= FIT and waiting["bytes"] == waiting["items"] * COST
    for _ in range(301):
        go_on.release()
        assert gw.stats()["callbacks"]["bytes"] <= LIMIT
    channel.waitclose(TIMEOUT)
    assert seen == [*map(numbered, range(300)), None]


def test_a_slow_callback_there_stops_the_sender(gw, tmp_path):
    word = tmp_path / "word"
    channel = gw.remote_exec(
        """
        import os, time, threading
        path, seen, done = channel.receive(), [], threading.Event()
        def slow(item):
            while not os.path.exists(path):
                time.sleep(0.01)
            seen.append(item[:8])
            if len(seen) == 300:
                done.set()
        channel.setcallback(slow)
        done.wait()
        channel.send(seen)
        """
    )
    channel.send(str(word))
    sender = Sender(channel, list(map(numbered, range(300))))
    waits(channel)
    assert len(sender.done) in (FIT - 1, FIT)
    assert sent(channel)["bytes"] <= LIMIT
    word.touch()
    assert sender.end() is None
    assert channel.receive(TIMEOUT) == [numbered(n)[:8] for n in range(300)]


def test_a_callback_may_send_more_than_fits(gw):
    """The credit for what it sends does not wait until it has returned."""
    echo = gw.remote_exec("channel.send(sum(len(channel.receive()) for _ in range(1000)))")
    start, seen = gw.remote_exec("channel.receive(); channel.send(1)"), Seen()

    def callback(item):
        for _ in range(1000):
            echo.send(BYTES)
        seen("sent")

    start.setcallback(callback)
    start.send(None)
    assert seen.wait_for(1) == ["sent"]
    assert echo.receive(TIMEOUT) == 1000 * len(BYTES)


@pytest.mark.parametrize("end", ["", "1 / 0"])
def test_a_callback_that_sends_to_a_task_that_ends_returns(gw, end):
    """The task's CLOSE stands behind the callback."""
    go = gw.newchannel()
    task = gw.remote_exec(f"go = channel.receive()\ngo.receive()\n{end}")
    task.send(go)
    start, seen = gw.remote_exec("channel.receive(); channel.send(1)"), Seen()

    def callback(item):
        try:
            for n in range(1000):
                if n == FIT - 1:
                    go.send(None)
                task.send(BYTES, timeout=TIMEOUT)
        except OSError as exc:
            seen(exc)
        seen("returned")

    start.setcallback(callback)
    start.send(None)
    assert wait_until(lambda: "returned" in seen)
    assert not any(isinstance(each, execnet_c.TimeoutError) for each in seen)
    start.waitclose(TIMEOUT)
    try:
        task.waitclose(TIMEOUT)
    except execnet_c.RemoteError as exc:
        assert end and "ZeroDivisionError" in str(exc)


def test_a_channel_of_which_only_the_callback_is_left_takes_on(gw):
    """It says that it sends nothing more. Its credit still reaches the sender."""
    channel = gw.newchannel()
    result = gw.remote_exec(
        """
        seen = []
        def callback(item):
            seen.append(item)
            if len(seen) == 1000:
                channel.send([item[:8] for item in seen])
        channel.receive().setcallback(callback)
        channel.send("set")
        channel.receive()
        """
    )
    result.send(channel)
    assert result.receive(TIMEOUT) == "set"
    channel.waitclose(TIMEOUT)
    for n in range(1000):
        channel.send(numbered(n), timeout=TIMEOUT)
    assert result.receive(TIMEOUT) == [numbered(n)[:8] for n in range(1000)]


# --- several senders --------------------------------------------------------------------------------------------------


def test_two_threads_on_one_channel(gw):
    channel = gw.remote_exec("go = channel.receive(); go.receive()\nfor item in channel: channel.send(item[:8])")
    go = gw.newchannel()
    channel.send(go)
    senders = [Sender(channel, [b"%d " % name + numbered(n) for n in range(300)]) for name in range(2)]
    waits(channel)
    assert sent(channel)["bytes"] <= LIMIT
    go.send(1)
    came = {b"0": [], b"1": []}
    for _ in range(600):
        assert sent(channel)["bytes"] <= LIMIT
        name, number, _ = (channel.receive(TIMEOUT) + b" ").split(b" ", 2)
        came[name].append(int(number))
    assert [sender.end() for sender in senders] == [None, None]
    assert came == {b"0": list(range(300)), b"1": list(range(300))}


def test_small_items_do_not_starve_a_large_one(gw):
    """Who waits first sends first."""
    go = gw.newchannel()
    channel = gw.remote_exec("go = channel.receive()\nfor _ in go: channel.send(len(channel.receive()))")
    channel.send(go)
    small = Sender(channel, [BYTES] * 400)
    waits(channel)
    large = Sender(channel, [b"x" * 2_000_000])
    later = Sender(channel, [BYTES] * 100)
    for _ in range(501):
        go.send(None)
    sizes = [channel.receive(TIMEOUT) for _ in range(501)]
    assert [each.end() for each in (small, large, later)] == [None, None, None]
    assert sizes.index(2_000_000) < 3 * FIT


def test_signals_at_any_moment_lose_neither_items_nor_room():
    """An exception out of a signal handler comes again and again while items are sent, of all sizes. At last all that
    was sent has come, each item whole and in order, and there is room as before."""
    run(
        """
        import random
        class Stop(Exception): pass
        def stop(*args): raise Stop
        gw = execnet_c.makegateway("popen//maxqueue=100000")
        channel = gw.remote_exec(
            '''
            came = []
            for item in channel:
                if item == b"how many": channel.send(came); came = []
                else: came.append(int(item[:10]))
            ''')
        chance, n = random.Random(5), 0
        until = time.monotonic() + 4
        signal.signal(signal.SIGALRM, stop)
        while time.monotonic() < until:
            sizes = [chance.choice([0, 10, 994, 20000, 120000, 1200000]) for _ in range(5)]
            try:
                signal.setitimer(signal.ITIMER_REAL, chance.choice([0.0001, 0.0005, 0.001, 0.003]))
                for size in sizes:
                    n += 1
                    channel.send(b"%10d" % n + bytes(size))
                signal.setitimer(signal.ITIMER_REAL, 0)
            except Stop:
                pass
            signal.setitimer(signal.ITIMER_REAL, 0)
        channel.send(b"how many", timeout=30)
        came = channel.receive(30)
        assert came == sorted(set(came)), "each at most once, and in order"
        print(n, len(came))
        for size in (200000, 2000000, 994):  # the large ones go alone: only if nothing else counts any more
            channel.send(b"%10d" % n + bytes(size), timeout=30)
        channel.send(b"how many", timeout=30)
        assert channel.receive(30) == [n, n, n]
        gw.exit()
        """,
        limit=90,
    )
