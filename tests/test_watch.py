"""What ended, as the watcher of a worker on the plain-Python core sees it: a hang-up, or one direction after a goodbye."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from conftest import TIMEOUT

pytestmark = [pytest.mark.ours, pytest.mark.any_core]

# The I/O thread has just read the goodbye, and another thread's C code keeps the GIL: it cannot say so. Then the task
# goes on as it may after a goodbye.
SPEECHLESS = """
import ctypes, time
gateway = channel.gateway
keep_the_gil = ctypes.PyDLL(None).usleep

class Reading(type(gateway._in)):
    def readinto(self, buffer):
        n = super().readinto(buffer)
        if n:
            keep_the_gil(900_000)
        return n

first, gateway._in = gateway._in, Reading(gateway._in.fileno(), closefd=False)
channel.send("ready")
time.sleep(2)
with open(path, "w") as file:
    file.write("done")
"""


def test_a_goodbye_that_the_worker_cannot_tell_of(group, tmp_path):
    gw = group.makegateway(f"popen//python=env EXECNET_C_PURE=1 {sys.executable}")
    done = tmp_path / "done"
    channel = gw.remote_exec(f"path = {str(done)!r}\n{SPEECHLESS}")
    assert channel.receive(TIMEOUT) == "ready"
    gw.exit()
    assert gw._wait_gone(TIMEOUT) and done.read_text() == "done"


GOODBYE_TIMEOUT = 1.0
WATCHES = (
    f"import sys; from execnet_c.twin import pywatch; pywatch.GOODBYE_TIMEOUT = {GOODBYE_TIMEOUT}; "
    "pywatch._watch(*map(int, sys.argv[1:]))"
)


@pytest.fixture(params=["pipes", "socket"])
def watched(request):
    """A process that says nothing, and the other ends of its connection: what it reads from, what it writes to."""
    if request.param == "pipes":
        (fd_in, into), (outof, fd_out) = os.pipe(), os.pipe()
        into, outof = open(into, "wb"), open(outof, "rb")
    else:
        near, far = socket.socketpair()
        fd_in, fd_out = os.dup(far.fileno()), far.detach()
        into, outof = near.dup(), near
    r, w = os.pipe()
    process = subprocess.Popen(["sleep", "1000"])
    fds = fd_in, fd_out, r
    watcher = subprocess.Popen([sys.executable, "-c", WATCHES, str(process.pid), *map(str, fds)], pass_fds=fds)
    for fd in fds:
        os.close(fd)
    with process, watcher, into, outof, open(w, "wb"):
        yield process, into, outof
        process.kill()
        into.close()


def test_a_hang_up(watched):
    process, *others = watched
    for other in others:
        other.close()
    process.wait(TIMEOUT)
    assert process.returncode == -signal.SIGINT


def test_a_goodbye(watched):
    process, into, _ = watched
    if isinstance(into, socket.socket):
        into.shutdown(socket.SHUT_WR)
    else:
        into.close()
    start = time.monotonic()
    process.wait(TIMEOUT)
    assert process.returncode == -signal.SIGINT and time.monotonic() - start > GOODBYE_TIMEOUT
