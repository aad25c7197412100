"""An ssh host behind a bad network: a wire (wire.py) leads to it that loses and delays packets, and can be cut.

ssh, and the program that starts it, run in the usual network namespace. Only ssh's connection is made in the namespace of
the wire's near end, and then handed to ssh.
"""

import os
import shlex
import shutil
import subprocess
import sys
from contextlib import contextmanager

import sshd
from ssh_hosts import NEWEST, both, missing, serving

NEAR, FAR = "10.77.0.254", "10.77.0.1"
WIRE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "wire.py")


class Link:
    """The wire, and the server behind it. spec() makes a spec for the server's host."""

    def __init__(self, wire, server):
        self._wire = wire
        self.server = server

    def spec(self, *keys):
        return self.server.spec("beyond", *keys)

    def _order(self, *words):
        print(*words, file=self._wire.stdin, flush=True)
        answer = self._wire.stdout.readline()
        assert answer, "the wire is gone"
        return answer.split()

    def carry(self, delay=0.0, loss=0.0):
        """From now on each packet takes `delay` seconds, and the share `loss` of them gets lost. Heals a cut."""
        self._order("pass", delay, loss)

    def cut(self):
        """From now on all packets get lost, both ways, without an error."""
        self._order("cut")

    def count(self):
        """(packets that came through, packets that were lost) since the last call."""
        passed, lost = self._order("count")
        return int(passed), int(lost)


def _why_not():
    if NEWEST is None:
        return "there is no CPython that could serve as a foreign far end"
    for tool, package in (("ip", "iproute2"), ("nsenter", "util-linux")):
        if shutil.which(tool) is None:
            return f"there is no {tool} (Debian: {package})"
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return "there is no /dev/net/tun for the wire, or it is not for us"
    return None


def _start_wire():
    pipe = subprocess.PIPE
    wire = subprocess.Popen([sys.executable, "-I", WIRE, NEAR, FAR], stdin=pipe, stdout=pipe, stderr=pipe, encoding="utf-8")
    first = wire.stdout.readline()
    if not first:
        said = wire.communicate()[1].strip().splitlines()
        missing(f"no network namespaces of our own here: {said[-1] if said else wire.returncode}")
    return wire, *first.split()


@contextmanager
def running():
    """A Link without delay and loss; skips the test if there can be none."""
    if reason := _why_not():
        missing(reason)
    wire, near, far = _start_wire()
    try:
        proxy = shlex.join([sys.executable, "-I", WIRE, "connect", near])
        host = sshd.Host(both(NEWEST), options={"ProxyCommand": f"{proxy} %h %p", "ProxyUseFdpass": "yes"})
        address = FAR.removesuffix("1")
        with serving({"beyond": host}, address=address, wrapper=["nsenter", f"--net={far}"]) as server:
            yield Link(wire, server)
    finally:
        wire.communicate()
