"""One measurement of one peer, in a process of its own:

    python measure.py WORK PEER [--quick]

prints a JSON object, a number for each line of the report that this work has; {"missing": why} where the peer's
library is not installed. `WORKS` lists the works and the lines.
"""

import contextlib
import json
import os
import statistics
import subprocess
import sys
import threading
import time

import corpus
import peers
import tasks

MIB = 1024 * 1024

# Seconds that a row of round trips takes at least.
LONG, SHORT = 0.4, 0.15


class Line:
    """One line of the report: what its number is, and in what unit."""

    def __init__(self, title, unit, more_is_better=False):
        self.title = title
        self.unit = unit
        self.more_is_better = more_is_better


@contextlib.contextmanager
def talking(peer, task):
    peer.start(task)
    try:
        yield peer
    finally:
        peer.stop()


@contextlib.contextmanager
def busy_machine():
    """Every CPU that this process may use has other work to do. The work ends with this process, however it ends."""
    loop = f"import os\nwhile os.getppid() == {os.getpid()}:\n    for _ in range(10**5): pass"
    others = [subprocess.Popen([sys.executable, "-c", loop]) for _ in os.sched_getaffinity(0)]
    try:
        time.sleep(0.2)
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def microseconds_a_trip(peer, item, quick):
    send, receive = peer.send, peer.receive
    for _ in range(100):
        send(item)
        assert receive() == item
    trips, start = 0, time.perf_counter()
    while True:
        for _ in range(50):
            send(item)
            receive()
        trips += 50
        spent = time.perf_counter() - start
        if spent > (SHORT if quick else LONG):
            return spent / trips * 1e6


def round_trips(peer, quick):
    with talking(peer, tasks.echo):
        return {
            "int": microseconds_a_trip(peer, 42, quick),
            "sentence": microseconds_a_trip(peer, corpus.sentence(), quick),
        }


def round_trips_busy(peer, quick):
    with busy_machine():
        return {f"{name}_busy": value for name, value in round_trips(peer, quick).items()}


def large_echo(peer, quick):
    data = os.urandom(MIB) * 64

    def megabytes_per_second():
        start = time.perf_counter()
        peer.send(data)
        back = peer.receive()
        spent = time.perf_counter() - start
        assert len(back) == len(data) and back[-MIB:] == data[-MIB:]
        return 2 * len(data) / spent / 1e6

    with talking(peer, tasks.echo):
        peer.send(0)
        assert peer.receive() == 0
        cold = megabytes_per_second()
        warm = statistics.median(megabytes_per_second() for _ in range(1 if quick else 2))
        return {"large_cold": cold, "large": warm}


def one_way(peer, quick):
    number = 20_000 if quick else 100_000
    with talking(peer, tasks.count):
        for n in (1000, number):
            start = time.perf_counter()
            peer.send(n)
            for i in range(n):
                peer.send(i)
            assert peer.receive() == n
            spent = time.perf_counter() - start
        return {"one_way": number / spent / 1e3}


def starting(peer, quick):
    times = []
    for _ in range(1 if quick else 3):
        start = time.perf_counter()
        peer.start(tasks.say_one)
        assert peer.receive() == 1
        times.append((time.perf_counter() - start) * 1e3)
        peer.stop()
    return {"start": statistics.median(times)}


def python_work():
    total = 0
    for i in range(10_000):
        total += i & 7
    return total


def gil(peer, quick):
    """Python work of this thread, alone and while another thread receives 256 MiB."""
    size, pieces = 64 * MIB, 2 if quick else 4
    done = threading.Event()

    def units_per_second(seconds):
        units, start = 0, time.perf_counter()
        while True:
            python_work()
            units += 1
            spent = time.perf_counter() - start
            if spent > seconds or done.is_set():
                return units / spent

    def take():
        for _ in range(pieces):
            assert len(peer.receive()) == size
        done.set()

    def scheduled():
        """Seconds that this thread ran, and that it waited for a CPU: what is left was waiting for the GIL."""
        with open(f"/proc/self/task/{threading.get_native_id()}/schedstat") as file:
            return sum(int(number) for number in file.read().split()[:2]) / 1e9

    with talking(peer, tasks.flood):
        peer.send((1000, 1))
        peer.receive()
        alone = units_per_second(0.3)
        receiver = threading.Thread(target=take)
        peer.send((size, pieces))
        ran, start = scheduled(), time.perf_counter()
        receiver.start()
        beside = units_per_second(float("inf"))
        ran, spent = scheduled() - ran, time.perf_counter() - start
        receiver.join()
        received = size * pieces / (time.perf_counter() - start) / 1e6
        return {"gil_work": beside / alone * 100, "gil_free": ran / spent * 100, "gil_received": received}


def serializing(peer, quick):
    _, sentences = corpus.load()
    data = peer.dumps(sentences)
    assert peer.loads(data) == sentences

    def milliseconds(function, argument):
        times = []
        for _ in range(2 if quick else 3):
            start = time.perf_counter()
            function(argument)
            times.append(time.perf_counter() - start)
        return statistics.median(times) * 1e3

    return {"dumps": milliseconds(peer.dumps, sentences), "loads": milliseconds(peer.loads, data)}


class Work:
    """A measurement: who can do it, and the lines that it fills in; it takes part in every `every`th round."""

    def __init__(self, function, peers, every=1, **lines):
        self.function = function
        self.peers = peers
        self.every = every
        self.lines = lines


WORKS = {
    "round-trips": Work(
        round_trips,
        peers.CONVERSATIONS,
        int=Line("round trip of an int", "us"),
        sentence=Line("round trip of 25 (word, tag) pairs", "us"),
    ),
    "round-trips-busy": Work(
        round_trips_busy,
        peers.CONVERSATIONS,
        int_busy=Line("  an int, all CPUs busy", "us"),
        sentence_busy=Line("  25 pairs, all CPUs busy", "us"),
    ),
    "one-way": Work(one_way, peers.CONVERSATIONS, one_way=Line("ints one way", "1000/s", more_is_better=True)),
    "large": Work(
        large_echo,
        peers.CONVERSATIONS,
        large=Line("64 MiB of bytes, echo (both ways)", "MB/s", more_is_better=True),
        large_cold=Line("  the first one", "MB/s", more_is_better=True),
    ),
    "gil": Work(
        gil,
        peers.CONVERSATIONS,
        every=3,  # it takes far longer than the others
        gil_work=Line("Python work beside a receiving thread", "%", more_is_better=True),
        gil_free=Line("  time without waiting for the GIL", "%", more_is_better=True),
        gil_received=Line("  what that thread receives", "MB/s", more_is_better=True),
    ),
    "start": Work(starting, peers.STARTS, start=Line("start of a far end, to its first word", "ms")),
    "serializer": Work(
        serializing,
        peers.SERIALIZERS,
        dumps=Line("dumps of tagged text", "ms"),
        loads=Line("loads of it", "ms"),
    ),
}


def main():
    work, name = WORKS[sys.argv[1]], sys.argv[2]
    try:
        peer = work.peers[name]()
    except ImportError as exc:
        print(json.dumps({"missing": str(exc)}))
        return
    result = work.function(peer, "--quick" in sys.argv)
    print(json.dumps({**result, "version": peer.version()}))


if __name__ == "__main__":
    main()
