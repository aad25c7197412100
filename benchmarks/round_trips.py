"""Round trips: an item to the far end and back, while the CPUs are idle, and while they are busy."""

import contextlib
import os
import pickle
import subprocess
import sys
import time

import corpus
import limits
import peers
import tasks
from base import Line, Work, talking

TITLES = {
    "int": "an int",
    "words": "20 words",
    "pairs": "25 (word, tag) pairs",
    "kib": "1 KiB of bytes",
    "kib64": "64 KiB of bytes",
}


def items():
    return {
        "int": 42,
        "words": corpus.words(),
        "pairs": corpus.pairs(),
        "kib": os.urandom(1024),
        "kib64": os.urandom(65536),
    }


def seconds(setting):
    """Seconds for each measured row of round trips."""
    return setting.pick(0.06, 0.04, 0.005)


@contextlib.contextmanager
def busy_machine():
    """Keep every CPU that this process may use busy. The processes that do so end with this one, however it ends."""
    loop = f"import os\nwhile os.getppid() == {os.getpid()}:\n    for _ in range(10**5): pass"
    others = [subprocess.Popen([sys.executable, "-c", loop]) for _ in os.sched_getaffinity(0)]
    try:
        time.sleep(0.2)
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def microseconds_a_trip(peer, item, budget):
    send, receive = peer.send, peer.receive
    trips, start = 0, time.perf_counter()
    while trips < 3 or time.perf_counter() - start < budget / 2:
        send(item)
        assert receive() == item
        trips += 1
    trips = max(3, int(trips * budget / (time.perf_counter() - start)))
    start = time.perf_counter()
    for _ in range(trips):
        send(item)
        receive()
    spent = time.perf_counter() - start
    send(item)
    assert receive() == item
    return spent / trips * 1e6


def idle(peer, setting):
    with talking(peer, tasks.echo):
        return {name: microseconds_a_trip(peer, item, seconds(setting)) for name, item in items().items()}


def busy(peer, setting):
    with busy_machine():
        return {f"{name}_busy": value for name, value in idle(peer, setting).items()}


def in_c(way):
    """The function that measures the C program, with as many bytes as pickle makes of each item."""

    def measure(setting):
        return {
            name: limits.run(setting, "pingpong", way, len(pickle.dumps(item, 5)), seconds(setting))
            for name, item in items().items()
        }

    return measure


def in_c_busy(way):
    def measure(setting):
        with busy_machine():
            return {f"{name}_busy": value for name, value in in_c(way)(setting).items()}

    return measure


ALL = {**peers.CONVERSATIONS, **peers.CALLS}

WORKS = {
    "round-trips": Work(
        "Round trips",
        idle,
        ALL,
        {name: Line(title, "us") for name, title in TITLES.items()},
        floors={"C, pipes": in_c("pipe"), "C, shared memory": in_c("memory")},
    ),
    "round-trips-busy": Work(
        "Round trips while other work keeps all CPUs busy",
        busy,
        ALL,
        {f"{name}_busy": Line(title, "us") for name, title in TITLES.items()},
        floors={"C, pipes": in_c_busy("pipe"), "C, shared memory": in_c_busy("memory")},
        rounds=(5, 1),
    ),
}
