"""Gateways through other gateways: how much the process in between holds when another process does not read."""

import os
import signal
import threading

import execnet_c
import pytest
from execnet_c.cores import module as _core
from execnet_c.near import via
from conftest import TIMEOUT, wait_until
from gateways import group_fixture, inner_fixture, outer_fixture  # noqa: F401 (fixtures)
from masters import Program, stop_process, worker_of

WINDOW = 1 << 20  # bytes that wait in between at most, for each direction of each process


def on_the_way(gateway):
    """Bytes that have gone to a process behind this gateway, and that were not written to it yet: of that which has most."""
    return max([each[5] or 0 for each in gateway._stats()[0]])


def memory_of(pid):
    """Bytes that the process holds."""
    with open(f"/proc/{pid}/status") as file:
        return int(file.read().split("VmRSS:")[1].split()[0]) << 10


def echo(gateway):
    return gateway.remote_exec("while True: channel.send(channel.receive())")


@pytest.mark.not_under("asan tsan", "it counts memory")
def test_much_for_an_inner_one_that_sleeps_holds_nothing_up(group, outer, inner):
    """What is sent to it waits here; in between there is a window's worth at most."""
    between, pid = worker_of(outer), worker_of(inner)
    channel = inner.remote_exec("channel.send(len(channel.receive()))")
    stop_process(pid)
    before = memory_of(between)
    sender = threading.Thread(target=channel.send, args=(b"x" * (1 << 26),))
    try:
        sender.start()
        assert wait_until(lambda: on_the_way(outer) > WINDOW / 4)
        assert outer.remote_exec("channel.send(5)").receive(TIMEOUT) == 5
        other = echo(group.makegateway("popen//via=outer"))
        for size in (10, 3 * WINDOW):
            other.send(bytes(size))
            assert other.receive(TIMEOUT) == bytes(size)
            assert on_the_way(outer) <= WINDOW
        assert memory_of(between) - before < 24 * WINDOW
        assert sender.is_alive()
    finally:
        os.kill(pid, signal.SIGCONT)
    assert channel.receive(TIMEOUT) == 1 << 26
    sender.join(TIMEOUT)


# Runs in between, and writes to a file what is held there: of items that arrived, of those that were sent, of frames.
REPORT = """
import os, time
path = channel.receive()
while True:
    channels, _, to_write = channel.gateway._stats()
    with open(path + ".new", "w") as file:
        print(max([each[2] for each in channels]), max([each[5] or 0 for each in channels]), to_write, file=file)
    os.rename(path + ".new", path)
    time.sleep(0.01)
"""


def test_much_from_an_inner_one_waits_over_there_while_the_near_end_stands_still(tmp_path):
    """A window's worth at most is in between, and the process waits to write."""
    report = tmp_path / "report"
    program = f"""
        group = execnet_c.Group(["popen//id=outer", "popen//via=outer//id=inner"])
        group["outer"].remote_exec({REPORT!r}).send({str(report)!r})
        flood = group["inner"].remote_exec("for n in range(64): channel.send(bytes(1 << 20))\\nchannel.receive()")
        print(flood.receive(30) == bytes(1 << 20), flush=True)
        sys.stdin.readline()
        print(sum(len(flood.receive(30)) for _ in range(63)) >> 20, flush=True)
        group.terminate(5)
        """
    with Program(program) as program:
        assert program.line() == "True"
        stop_process(program.pid)
        seen = []

        def stands_still():
            seen.append(report.read_text())
            return len(seen) > 20 and len(set(seen[-20:])) == 1

        assert wait_until(stands_still, step=0.02)
        arrived, sent, to_write = map(int, seen[-1].split())
        assert WINDOW / 4 < sent <= WINDOW
        assert arrived <= WINDOW and to_write <= WINDOW + 100_000
        os.kill(program.pid, signal.SIGCONT)
        program.tell()
        assert program.line() == "63"
        program.finish(stderr=None)


def test_who_waits_for_an_inner_one_learns_of_its_death(group, outer, inner):
    pid = worker_of(inner)
    channel = inner.remote_exec("channel.receive()")
    stop_process(pid)
    errors = []

    def send():
        try:
            while True:
                channel.send(bytes(1 << 20))
        except OSError as exc:
            errors.append(exc)

    sender = threading.Thread(target=send)
    sender.start()
    assert wait_until(lambda: on_the_way(outer) > WINDOW / 4)
    os.kill(pid, signal.SIGKILL)
    sender.join(TIMEOUT)
    assert isinstance(errors[0], execnet_c.WorkerKilled)


# Runs in between: each callback lasts until there is the file that its item names.
HOLD = """
import os, time
def wait(path):
    while not os.path.exists(path):
        time.sleep(0.002)
channel.setcallback(wait)
channel.send(None)
channel.waitclose()
"""


def test_what_came_before_the_relay_behind_a_callback_goes_through_it(outer, tmp_path):
    """Bytes for a process, and their end, wait in between behind a callback while that process starts."""
    gates, into = [tmp_path / "one", tmp_path / "two"], tmp_path / "into"
    stream, control, started = outer.newchannel(), outer.newchannel(), outer.newchannel()
    argv = [b"sh", b"-c", b"cat > " + os.fsencode(into)]
    task = {"stream": stream, "control": control, "argv": argv, "set_python": ""}
    held = outer.remote_exec(HOLD)
    held.receive(TIMEOUT)
    held.send(str(gates[0]))
    outer._post(_core.EXEC, started.id, (via._TASK, "<execnet_c via>", "start", task))
    held.send(str(gates[1]))
    for piece in (b"one, ", b"two"):
        stream.send(piece)
    stream.close()
    gates[0].touch()
    assert started.receive(TIMEOUT)["pid"] > 0
    gates[1].touch()
    assert control.receive(TIMEOUT) == (0, b"")
    assert into.read_bytes() == b"one, two"
