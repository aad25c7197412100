"""How long it takes from the start of far ends until their first item is here: one, many at once, over ssh, other Pythons."""

import shlex
import statistics
import subprocess
import sys

import peers
import tasks
from base import Clock, Line, Missing, Work, only

MPI_FIRST_WORD = "from mpi4py.MPI import COMM_WORLD as c\nc.send(1, dest=0) if c.rank else [c.recv() for _ in range(c.size - 1)]"


def milliseconds(function, *arguments):
    with Clock() as clock:
        function(*arguments)
    return clock.seconds * 1e3


def first_word(peer):
    peer.start(tasks.say_one)
    assert peer.receive() == 1


def one(peer, setting):
    times = []
    for _ in range(setting.pick(3, 2, 1)):
        times.append(milliseconds(first_word, peer))
        peer.stop()
    return {"start": statistics.median(times)}


def one_call(peer, setting):
    """A pool sends nothing by itself, so this measures until the first call is answered."""

    def call():
        peer.start(None)
        peer.send(1)
        assert peer.receive() == 1

    found = milliseconds(call)
    peer.stop()
    return {"start": found}


def either(peer, setting):
    return (one_call if type(peer) in peers.CALLS.values() else one)(peer, setting)


def run_bare(command, number=1):
    started = [subprocess.Popen(command, stdin=subprocess.DEVNULL) for _ in range(number)]
    assert [process.wait() for process in started] == [0] * number


def bare(setting):
    return {"start": statistics.median(milliseconds(run_bare, [sys.executable, "-c", "pass"]) for _ in range(3))}


def by_mpi(setting):
    """mpiexec starts both ends. The near end ends when it has received the first item, so this measures until then."""
    if peers.mpiexec() is None:
        raise Missing("no mpiexec: pip install mpich")
    return {"start": milliseconds(run_bare, [peers.mpiexec(), "-n", "2", sys.executable, "-c", MPI_FIRST_WORD])}


MANY = {"start_8": (8, 4, 2), "start_32": (32, 8, 3)}


def many(peer, setting):
    found = {}
    for line, sizes in MANY.items():
        found[line] = milliseconds(peer.start_many, setting.pick(*sizes), tasks.say_one)
        peer.stop()
    return found


def bare_many(setting):
    command = [sys.executable, "-c", "pass"]
    return {line: milliseconds(run_bare, command, setting.pick(*sizes)) for line, sizes in MANY.items()}


def over_ssh(peer, setting):
    found = {"start_ssh": milliseconds(first_word, peer)}
    peer.stop()
    found["start_ssh_8"] = milliseconds(peer.start_many, setting.pick(8, 8, 2), tasks.say_one)
    peer.stop()
    return found


def ssh_true(setting):
    command = setting.ssh("true")
    found = {"start_ssh": milliseconds(run_bare, command)}
    found["start_ssh_8"] = milliseconds(run_bare, command, setting.pick(8, 8, 2))
    return found


def importing(text):
    def measure(*_):
        return {"import": milliseconds(run_bare, [sys.executable, "-c", text])}

    return measure


def importing_it(peer, setting):
    return importing(f"import {peer.library}")()


def other_pythons(peer, setting):
    """The mean over all command lines of --python; if there are none, this interpreter."""
    times = []
    for command in setting.pythons or [sys.executable]:
        peer.spec = f"popen//python={command}"
        times.append(milliseconds(first_word, peer))
        peer.stop()
    return {"start_python": statistics.mean(times)}


def bare_pythons(setting):
    commands = [shlex.split(command) for command in setting.pythons or [sys.executable]]
    return {"start_python": statistics.mean(milliseconds(run_bare, [*command, "-c", "pass"]) for command in commands)}


LOCAL = {**only(peers.CONVERSATIONS, peers.OURS, "execnet", "multiprocessing.Pipe", "mitogen"), **peers.CALLS}

WORKS = {
    "start": Work(
        "Start of a far end",
        either,
        LOCAL,
        {"start": Line("one far end, to its first word", "ms")},
        floors={"python -c pass": bare, "mpi4py": by_mpi},
        left_out={"pyzmq": "it starts no processes"},
        rounds=(11, 1),
    ),
    "start-many": Work(
        "Start of many far ends",
        many,
        only(peers.CONVERSATIONS, peers.OURS, "execnet", "multiprocessing.Pipe"),
        {"start_8": Line("8 at once", "ms"), "start_32": Line("32 at once", "ms")},
        floors={"python -c pass": bare_many},
        rounds=(3, 1),
    ),
    "start-ssh": Work(
        "Start over ssh",
        over_ssh,
        peers.SSH_GATEWAYS,
        {"start_ssh": Line("one far end over ssh", "ms"), "start_ssh_8": Line("8 of one host over ssh", "ms")},
        floors={"ssh HOST true": ssh_true},
        rounds=(5, 1),
        needs_host=True,
    ),
    "start-pythons": Work(
        "Start of other Pythons (--python)",
        other_pythons,
        peers.GATEWAYS,
        {"start_python": Line("popen//python=, their mean", "ms")},
        floors={"python -c pass": bare_pythons},
        rounds=(5, 1),
    ),
    "import": Work(
        "Import",
        importing_it,
        peers.GATEWAYS,
        {"import": Line("python -c 'import ...'", "ms")},
        floors={"python -c pass": importing("pass")},
        rounds=(11, 1),
    ),
}
