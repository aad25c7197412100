"""For programs of test_bounds.py: attacks by a far end that a script plays, and how much memory this process held at most."""

import struct
import sys
import textwrap
import time

import pairing
from masters import stat_of, wait_until
from test_core_frames import HEAD


def peak():
    """Bytes."""
    with open("/proc/self/status") as file:
        return int(file.read().split("VmHWM:")[1].split()[0]) * 1024


def begin_peak():
    """The peak as it is when nothing is added to what is held now."""
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    return peak()


def frames_of(frames, size):
    """(number of frames, their bytes): so many of an expression with the number `k` have `size` bytes or more."""
    names = {"struct": struct}
    exec(HEAD.partition("def get_frame")[0], names)
    make, sent, n = eval("lambda k: " + frames, names), 0, 0
    while sent < size:
        sent += len(make(n))
        n += 1
    return n, sent


def wait_stopped(gateway):
    """Wait until the far end has stopped itself, and what it has sent before was read."""
    assert wait_until(lambda: stat_of(gateway._state()["pid"])[0] in "tT", 50)
    seen = -1
    while seen != (seen := peak()):
        time.sleep(0.3)


def attack(frames, size, begin=lambda gateway: None, first="", then="wait_end()"):
    """A gateway whose far end runs `first`, sends `size` bytes of frames or a little more, stops itself, and runs `then`.
    begin(gateway) comes before the attack. Prints the bytes that it sent, the number of frames, and how many bytes the peak
    of this process rose meanwhile."""
    n, sent = frames_of(frames, size)
    loop = f"""
    for k in range(0, {n}, 50):
        put(b"".join(({frames}) for k in range(k, min(k + 50, {n}))))
    os.kill(os.getpid(), 19)
    """
    body = "".join(map(textwrap.dedent, (HEAD, "put(MARKER)\n", first, loop, then)))
    gateway = pairing.module.Gateway()
    gateway._start([sys.executable, "-I", "-S", "-c", body], None)
    gateway.kept = begin(gateway)
    before = begin_peak()
    wait_stopped(gateway)
    print(sent, n, peak() - before, flush=True)
    return gateway


def end(gateway):
    gateway._signal(9)
    assert gateway._wait_gone(30)
