"""What the works of all subjects share: a work and its lines, the sizes, and what a process holds of memory."""

import contextlib
import importlib.metadata
import time

MIB = 1024 * 1024
SIZES = ("full", "quick", "small")


class Missing(Exception):
    """What a peer needs is not there; the text says what."""


class Line:
    """One line of the report: what its number is, and in what unit."""

    def __init__(self, title, unit, more_is_better=False):
        self.title = title
        self.unit = unit
        self.more_is_better = more_is_better


class Work:
    """Something to measure.

    function(peer, setting) gives {line: number} for one of `peers`, {name: class}; `floors` are {name: function} and
    need no peer: what the system itself takes for it, function(setting). left_out: {name: why} of peers that somebody
    might look for here. rounds: at most so many (full, quick), none if it is to be asked for. limit: seconds for one measurement.
    """

    def __init__(self, title, function, peers, lines, floors=(), left_out=(), rounds=(15, 1), limit=60, needs_host=False):
        self.title = title
        self.function = function
        self.peers = dict(peers)
        self.lines = lines
        self.floors = dict(floors)
        self.left_out = dict(left_out)
        self.rounds = rounds
        self.limit = limit
        self.needs_host = needs_host

    def names(self):
        """Of all who take turns, ours first."""
        return [*self.peers, *self.floors]


class Setting:
    """How much is measured, and where: what `run.py` tells each measurement."""

    def __init__(self, size="full", limits=None, host=None, ssh_config=None, python="python3", pythons=(), scratch=None):
        self.size = size
        self.limits = limits  # the directory of the compiled C programs
        self.host = host
        self.ssh_config = ssh_config
        self.python = python  # the command at that host
        self.scratch = scratch  # a directory that the measurements of a run share
        self.pythons = pythons  # command lines of other interpreters here

    def pick(self, full, quick, small):
        return (full, quick, small)[SIZES.index(self.size)]

    def spec(self):
        """Of a gateway to the host."""
        config = [f"ssh_config={self.ssh_config}"] if self.ssh_config else []
        return "//".join([f"ssh={self.host}", *config, f"python={self.python}"])

    def ssh(self, *words):
        """A command line of ssh's own."""
        return ["ssh", *(["-F", self.ssh_config] if self.ssh_config else []), self.host, *words]


@contextlib.contextmanager
def talking(peer, task):
    peer.start(task)
    try:
        yield peer
    finally:
        peer.stop()


class Clock:
    """`with Clock() as clock: ...`, then clock.seconds."""

    def __enter__(self):
        self._start = time.perf_counter()
        return self

    def __exit__(self, *exc_info):
        self.seconds = time.perf_counter() - self._start


def version_of(distribution):
    return importlib.metadata.version(distribution)


def only(peers, *names):
    return {name: peers[name] for name in names}


def memory(field):
    """MiB of this process: VmRSS, what it holds, or VmHWM, the most that it held since `forget_peak`."""
    with open("/proc/self/status") as file:
        return int(file.read().split(f"{field}:")[1].split()[0]) / 1024


def forget_peak():
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
