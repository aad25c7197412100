"""What the works of all subjects share: the classes of a work and its lines, the sizes, the memory of this process."""

import contextlib
import importlib.metadata
import time

MIB = 1024 * 1024
SIZES = ("full", "quick", "small")


class Missing(Exception):
    """Something that a peer needs is missing; the text says what."""


class Line:
    """One line of the report: the title and the unit of its number."""

    def __init__(self, title, unit, more_is_better=False):
        self.title = title
        self.unit = unit
        self.more_is_better = more_is_better


class Work:
    """Something to measure.

    peers: {name: class}; function(peer, setting) measures one of them, and returns {line: number}. floors: {name:
    function(setting)}; these measure what the system itself takes for the same work, without a library. left_out: {name:
    why} of peers that a reader might expect here. rounds: (full, quick), the rounds at most; 0: only if --only names the
    work. limit: seconds for one measurement.
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
        """The names of all peers and floors that take turns, ours first."""
        return [*self.peers, *self.floors]


class Setting:
    """How much is measured, and where: what `run.py` tells each measurement."""

    def __init__(self, size="full", limits=None, host=None, ssh_config=None, python="python3", pythons=(), scratch=None):
        self.size = size
        self.limits = limits  # the directory of the compiled C programs
        self.host = host
        self.ssh_config = ssh_config
        self.python = python  # the command for Python at that host
        self.scratch = scratch  # a directory that the measurements of a run share
        self.pythons = pythons  # command lines of other interpreters on this machine

    def pick(self, full, quick, small):
        return (full, quick, small)[SIZES.index(self.size)]

    def spec(self):
        """The spec of a gateway to the host."""
        config = [f"ssh_config={self.ssh_config}"] if self.ssh_config else []
        return "//".join([f"ssh={self.host}", *config, f"python={self.python}"])

    def ssh(self, *words):
        """The command line of an ssh client that runs `words` at the host."""
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
    """Memory of this process, in MiB. field: VmRSS, what it has now; VmHWM, the most since forget_peak()."""
    with open("/proc/self/status") as file:
        return int(file.read().split(f"{field}:")[1].split()[0]) / 1024


def forget_peak():
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
