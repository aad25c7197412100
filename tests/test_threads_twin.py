"""Threads that share what the plain-Python core keeps without a lock of its own: counts, debts, what is to be written. They are
made for a Python without a GIL, as those of test_free_threaded.py."""

import collections
import os
import signal
import subprocess
import sys
import time
import types

import pytest
from conftest import TIMEOUT, wait_until
from test_free_threaded import FREE, beside, take_turns_often  # noqa: F401
from test_threads import THREADS, run_together

from execnet_c import cores

if cores.core == "Python":
    from execnet_c.twin import pychannel, pyflow, pypump, pywire

pytestmark = pytest.mark.ours
twin_only = pytest.mark.skipif(cores.core == "C", reason="of the plain-Python core at this end")


def test_receivers_share_a_channel_with_a_limit(gw):
    """None of what they take is left out of the count that lets the sender go on."""
    count = 4000
    channel = gw.remote_exec(f"channel.receive()\nfor i in range({count}): channel.send(i)")
    channel.set_limit(500)
    channel.send(None)
    taken = run_together(lambda number: [channel.receive(TIMEOUT) for _ in range(count // THREADS)])
    assert sorted(item for items in taken for item in items) == list(range(count))


def test_senders_share_a_channel_with_a_limit(gw):
    channel = gw.remote_exec(f"channel.set_limit(500)\nfor i in range({THREADS * 200}): channel.receive()\nchannel.send(None)")
    channel.set_limit(10_000)

    def send(number):
        for i in range(200):
            channel.send(i, timeout=TIMEOUT)
            gw.stats()

    run_together(send)
    assert channel.receive(TIMEOUT) is None


def test_many_channels_are_let_go_at_once(gw):
    """The far end learns of each."""
    channel = gw.remote_exec("for item in channel: item.send(channel.gateway._state()['channels'])")

    def make_and_drop(number):
        for _ in range(300):
            mine = gw.newchannel()
            channel.send(mine)
            assert mine.receive(TIMEOUT) > 0

    run_together(make_and_drop)
    assert wait_until(lambda: gw.remote_status().numchannels <= 2)


def test_the_far_end_is_killed_under_senders(group):
    """They learn that it is gone, and nothing else."""
    for _ in range(10):
        gateway = group.makegateway("popen")
        channels = [gateway.remote_exec("for item in channel: pass") for _ in range(THREADS)]

        def send(number, gateway=gateway, channels=channels):
            if number == 0:
                time.sleep(0.02)
                os.kill(gateway._rinfo().pid, signal.SIGKILL)
            with pytest.raises(OSError, match="gateway|closed"):
                while True:
                    channels[number].send(b"x" * 10_000)

        gateway._rinfo()
        run_together(send)


@twin_only
def test_counts_of_threads_add_up():
    count, noted = [0], []

    def add(number):
        for _ in range(5000):
            pywire.tally(count, 1)
            pywire.tally(count, 2, noted)

    run_together(add)
    assert count == [THREADS * 15000] and len(noted) == THREADS * 5000


@twin_only
def test_a_deque_is_copied_while_it_changes():
    changing = collections.deque(range(50))
    beside(lambda: [changing.rotate(1), changing.append(1), changing.pop()], lambda number: pywire.copied(changing), 3)


@twin_only
def test_a_connection_ends_between_two_steps_of_a_write():
    class Breaking(collections.deque):
        def __getitem__(self, place):
            writer.break_off()  # as the I/O thread does at any time
            return super().__getitem__(place)

    reads, writes = pypump.pipe()
    pypump.own(writes)
    writer = pywire.Writer(writes)
    writer.out = Breaking()
    try:
        assert writer.send_message(4, 1, [b"N"])  # what was begun before
        assert len(writer.out) == 0
    finally:
        os.close(reads)
        pypump.close(writes)


@twin_only
def test_an_fd_stays_open_while_somebody_writes(gw):
    """Or another file might get its number, and the bytes."""
    gw.remote_exec("").waitclose(TIMEOUT)
    writer = gw._writer
    with writer.role:
        gw._signal(signal.SIGKILL)
        gw.join(TIMEOUT)
        assert not gw.hasreceiver() and writer.broken and writer.fd >= 0
        os.fstat(writer.fd)
    assert wait_until(lambda: writer.fd < 0)


@twin_only
def test_an_item_that_is_taken_while_its_credit_is_told(monkeypatch):
    """The next credit is owed then."""
    owed, posted = [], []
    chan = pychannel.Chan(1, 1)
    chan.sent, chan.taken, chan.arrived = [0], [100], 10_000
    gateway = types.SimpleNamespace(
        _known=lambda id: chan, _eof=False, _owe=lambda *debt: owed.append(debt), _wake=int, _backlog=collections.deque()
    )
    gateway._writer = types.SimpleNamespace(post=posted.append)
    flow = pyflow.flow_of(gateway, chan)
    flow.limit_in, flow.owes, flow.sender_waits, flow.mark = 10, True, 0.0, 300
    plain = pyflow.taken

    def taken_beside(chan):
        monkeypatch.setattr(pyflow, "taken", plain)
        before = plain(chan)
        pywire.tally(chan.taken, 200)  # another thread takes the last item that the sender waits for
        pyflow.took(gateway, chan)
        return before

    monkeypatch.setattr(pyflow, "taken", taken_beside)
    pyflow.pay(gateway, 1)
    assert len(posted) == 1 and owed == [(13, 1)]


@pytest.mark.any_core
@pytest.mark.skipif(not FREE, reason="this Python has a GIL")
def test_warnings_beside_the_first_compilation():
    """What other threads warn of meanwhile is no error."""
    program = """
import os
os.environ["EXECNET_C_PURE"] = "1"
import threading, warnings
from execnet_c.twin import pytasks
warnings.simplefilter("ignore")
errors, done = [], threading.Event()
def warn():
    while not done.is_set():
        try:
            warnings.warn("meanwhile")
        except Warning as exc:
            errors.append(exc)
thread = threading.Thread(target=warn)
thread.start()
pytasks.compiled("x = [1, 2, 3]\\n" * 20000, "a file", "exec")
done.set()
thread.join()
print(len(errors))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd="/", capture_output=True, encoding="utf-8", timeout=2 * TIMEOUT)
    assert (done.stdout, done.stderr) == ("0\n", "")
