"""keepalive=: a far end that gives no sign of life is found out in time, and one that is only busy or far away is not.

The far ends that are asked work with the C core; see Group.makegateway.
"""

import os
import re
import shlex
import signal
import sys
import time
from pathlib import Path

import pairing
import pytest
from conftest import TIMEOUT, wait_until
from execnet_c.near.deaths import HostSilent

pytestmark = pytest.mark.ours
asked = pytest.mark.c_interface("far")

# Behind it stands a far end as behind a slow line: so many bytes at a time, with pauses; what comes back is not held up.
SLOW_LINE = """
import os, subprocess, sys, time
size, pause, program = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]
far = subprocess.Popen([sys.executable, *program], stdin=subprocess.PIPE, bufsize=0)
while True:
    data = os.read(0, size)
    if not data:
        break
    time.sleep(pause)
    while data:
        data = data[os.write(far.stdin.fileno(), data):]
far.stdin.close()
sys.exit(far.wait())
"""

# Without a call that gives the GIL away, for so many seconds and a little more.
HOG = """
import itertools, time
def hog(n):
    began = time.perf_counter()
    sum(itertools.repeat(0, n))
    return time.perf_counter() - began
n = 10**6
while hog(n) < 0.2:
    n *= 2
channel.send("ready")
took = hog(int(n * {seconds} / hog(n) * 1.3))
channel.send(took)
"""


def pid_of(gw):
    return gw._state()["pid"]


def stop(pid):
    """Stop a process, and see that it is."""
    os.kill(pid, signal.SIGSTOP)
    assert wait_until(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")


@asked
@pytest.mark.parametrize("keepalive", ["1", "0.5"])
def test_a_stopped_far_end_is_found_out(lib, group, keepalive):
    gw = group.makegateway(f"popen//keepalive={keepalive}")
    pid = pid_of(gw)
    channel = gw.remote_exec("channel.send(1); channel.receive()")
    assert channel.receive(TIMEOUT) == 1
    stop(pid)
    with pytest.raises(lib.GatewayDied) as error:
        channel.receive(TIMEOUT)
    assert gw._state()["reason"] == "XC_SILENT"
    assert f"the far end was silent for {keepalive} seconds" in str(error.value)
    assert isinstance(error.value, HostSilent) and error.value.signal == signal.SIGKILL
    assert not gw.hasreceiver()
    with pytest.raises(lib.GatewayDied, match="silent"):
        gw.newchannel()


@asked
def test_it_takes_three_quarters_of_the_time_at_least_and_not_much_more_than_it(lib, group):
    gw = group.makegateway("popen//keepalive=2")
    channel = gw.remote_exec("channel.send(1); channel.receive()")
    assert channel.receive(TIMEOUT) == 1
    heard = time.monotonic()
    stop(pid_of(gw))
    with pytest.raises(EOFError):
        channel.receive(TIMEOUT)
    took = time.monotonic() - heard
    assert 1.4 < took < 2 + TIMEOUT / 3


@asked
def test_whoever_sends_learns_it(lib, group):
    gw = group.makegateway("popen//keepalive=1")
    channel = gw.remote_exec("channel.send(1); channel.receive()")
    assert channel.receive(TIMEOUT) == 1
    stop(pid_of(gw))
    with pytest.raises(OSError, match="the far end was silent for 1 seconds"):
        for _ in range(100):
            channel.send(bytes(1 << 20))


@asked
def test_what_wakes_up_behind_the_verdict_changes_nothing(lib, group, tmp_path):
    """The process that we started is killed; what it had started lives, and comes back to a connection that is over."""
    pid_file = tmp_path / "pid"
    script = tmp_path / "wrapper"
    script.write_text(f'#!/bin/sh\nexec 3<&0\n{shlex.quote(sys.executable)} "$@" <&3 3<&- &\necho $! > {pid_file}\nwait\n')
    script.chmod(0o755)
    gw = group.makegateway(f"popen//python={script}//keepalive=1")
    pid = int(pid_file.read_text())
    channel = gw.remote_exec("channel.send(1)\nfor item in channel: channel.send(item)")
    assert channel.receive(TIMEOUT) == 1
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(lib.GatewayDied, match="silent"):
            channel.receive(TIMEOUT)
        assert gw._wait_gone(TIMEOUT)
        assert pid_of(gw) != pid
    finally:
        os.kill(pid, signal.SIGCONT)
    before = gw._state()
    assert wait_until(lambda: not Path(f"/proc/{pid}").exists()), "it did not see that the connection is over"
    assert gw._state() == before and not gw.hasreceiver()


@asked
def test_one_that_keeps_the_gil_lives(lib, group):
    gw = group.makegateway("popen//keepalive=1")
    channel = gw.remote_exec(HOG.format(seconds=2))
    assert channel.receive(TIMEOUT) == "ready"
    assert channel.receive(2 * TIMEOUT) > 1  # longer than it may be silent
    channel.waitclose(TIMEOUT)
    assert gw.remote_exec("channel.send(7**3)").receive(TIMEOUT) == 343


@asked
def test_one_whose_callback_computes_lives(lib, group):
    gw = group.makegateway("popen//keepalive=1")
    channel = gw.remote_exec(
        "import time\n"
        "def callback(item):\n    time.sleep(item)\n    channel.send('done')\n"
        "other = channel.gateway.newchannel()\nchannel.send(other)\n"
        "other.setcallback(callback)\nother.waitclose()"
    )
    channel.receive(TIMEOUT).send(3)
    assert channel.receive(TIMEOUT) == "done"


@pytest.mark.parametrize("near_computes", [False, True])
def test_an_idle_one_lives(group, near_computes):
    gw = group.makegateway("popen//keepalive=1")
    until = time.monotonic() + 3
    if near_computes:
        while time.monotonic() < until:
            sum(range(10**7))
    time.sleep(max(0, until - time.monotonic()))
    assert gw.hasreceiver()
    assert gw.remote_exec("channel.send(2)").receive(TIMEOUT) == 2
    assert wait_until(lambda: gw.remote_status().numchannels == 0)  # nothing else keeps one


@asked
def test_one_behind_a_slow_line_lives_while_much_is_sent(group, tmp_path):
    """For some five seconds nothing comes back, neither from the task nor an answer to what stands behind 10 MB."""
    script = tmp_path / "line.py"
    script.write_text(SLOW_LINE)
    line = shlex.join([sys.executable, str(script), str(200_000), "0.1"])
    gw = group.makegateway(f"popen//python={line}//transport=pipe//keepalive=2")
    channel = gw.remote_exec("channel.send(1); channel.send(len(channel.receive()))")
    assert channel.receive(TIMEOUT) == 1
    began = time.monotonic()
    channel.send(bytes(10_000_000))
    assert channel.receive(4 * TIMEOUT) == 10_000_000
    assert time.monotonic() - began > 4, "the line was not slow"
    assert gw._state()["reason"] == "XC_OK"


def test_a_far_end_on_the_other_core_is_not_judged(lib, group):
    """It cannot answer as long as a task keeps the GIL."""
    if pairing.far == "C":
        pytest.skip("the far end works with the C core")
    gw = group.makegateway("popen//keepalive=0.5")
    channel = gw.remote_exec(HOG.format(seconds=2))
    assert channel.receive(TIMEOUT) == "ready"
    assert channel.receive(2 * TIMEOUT) > 0.75
    channel.waitclose(TIMEOUT)


@pytest.mark.parametrize("keys", ["", "//keepalive=0"])
def test_without_it_nobody_is_judged(lib, group, keys):
    gw = group.makegateway("popen" + keys)
    channel = gw.remote_exec("channel.send(1); channel.send(channel.receive())")
    assert channel.receive(TIMEOUT) == 1
    pid = pid_of(gw)
    stop(pid)
    with pytest.raises(channel.TimeoutError):
        channel.receive(2)
    os.kill(pid, signal.SIGCONT)
    channel.send(2)
    assert channel.receive(TIMEOUT) == 2


@asked
def test_it_can_be_switched(lib, group):
    gw = group.makegateway("popen//keepalive=600")
    channel = gw.remote_exec("channel.send(1); channel.receive()")
    assert channel.receive(TIMEOUT) == 1
    gw._keepalive(0.5)
    gw._keepalive(0)
    pid = pid_of(gw)
    stop(pid)
    with pytest.raises(channel.TimeoutError):
        channel.receive(1.5)
    gw._keepalive(0.5)
    with pytest.raises(lib.GatewayDied, match="silent for 0.5 seconds"):
        channel.receive(TIMEOUT)
    gw._keepalive(0.5)  # all is over: nothing happens


@asked
def test_the_end_leaves_nothing_behind(lib, group):
    """Neither that of a gateway that was watched, whose next look was far away, nor that of a silent one; what is left
    is looked at behind each test, and a timer would keep the I/O thread."""
    gw = group.makegateway("popen//keepalive=600")
    gw.exit()
    gw.join(TIMEOUT)
    assert gw._state()["reason"] == "XC_EOF" or gw._state()["reason"] == "XC_CLOSED"
    gw = group.makegateway("popen//keepalive=0.5")
    stop(pid_of(gw))
    gw.join(TIMEOUT)
    assert gw._state()["reason"] == "XC_SILENT"
    group.terminate(timeout=5)
    assert wait_until(lambda: not Path(f"/proc/{pid_of(gw)}").exists())


@asked
def test_a_silent_one_does_not_hold_up_an_endless_terminate(lib, group):
    gw = group.makegateway("popen//keepalive=1")
    stop(pid_of(gw))
    gw.join(TIMEOUT)
    group.terminate()
    assert gw._state()["reason"] == "XC_SILENT"


@pytest.mark.parametrize("value", ["=", "", "=soon", "=-1", "=nan", "=inf", "=1e400", "=1,5"])
def test_bad_values(group, value):
    spec = f"popen//keepalive{value}"
    with pytest.raises(ValueError, match=re.escape(f"spec {spec!r}: keepalive must be a number of seconds")):
        group.makegateway(spec)
    assert len(group) == 0


def test_bad_calls(lib, group):
    gw = group.makegateway("popen")
    with pytest.raises(TypeError):
        gw._keepalive("soon")
    with pytest.raises(OSError, match="not started"):
        lib.Gateway(lib.XSpec("popen"))._keepalive(1)
