"""How fast one thread computes in Python while another thread receives or sends."""

import threading
import time

import peers
import tasks
from base import MIB, Line, Work, talking


def python_work():
    total = 0
    for i in range(10_000):
        total += i & 7
    return total


def units_per_second(is_over):
    units, start = 0, time.perf_counter()
    while True:
        python_work()
        units += 1
        if is_over():
            return units / (time.perf_counter() - start)


def scheduled():
    """Seconds that this thread ran or waited for a CPU. The rest of the time it waited for the GIL."""
    with open(f"/proc/self/task/{threading.get_native_id()}/schedstat") as file:
        return sum(int(number) for number in file.read().split()[:2]) / 1e9


def beside(other, setting):
    """Compute while another thread calls other(). Returns (speed, as % of the speed without other(); % of the time in which
    this thread did not wait for the GIL; seconds that other() took)."""
    done, failures = threading.Event(), []

    def run():
        try:
            other()
        except BaseException as error:
            failures.append(error)
        done.set()

    end = time.perf_counter() + setting.pick(0.3, 0.2, 0.02)
    alone = units_per_second(lambda: time.perf_counter() > end)
    thread = threading.Thread(target=run)
    ran, start = scheduled(), time.perf_counter()
    thread.start()
    speed = units_per_second(done.is_set)
    spent = time.perf_counter() - start
    free = (scheduled() - ran) / spent
    thread.join()
    if failures:
        raise failures[0]
    return speed / alone * 100, free * 100, spent


def with_bulk(peer, setting):
    mib, pieces = setting.pick((64, 16), (32, 2), (1, 2))
    data = bytes(mib * MIB)

    def receive_all():
        peer.send((mib, pieces))
        for _ in range(pieces):
            assert len(peer.receive_bytes()) == len(data)

    def send_all():
        peer.send(pieces)
        for _ in range(pieces):
            peer.send_bytes(data)
        assert peer.receive() == len(data) * pieces

    def receive_one():
        peer.send((1, 1))
        assert len(peer.receive_bytes()) == MIB

    def send_one():
        peer.send(1)
        peer.send_bytes(b"x")
        assert peer.receive() == 1

    ways = {"receiving": (tasks.flood, receive_one, receive_all), "sending": (tasks.drain, send_one, send_all)}
    found = {}
    for name, (task, first, other) in ways.items():
        with talking(peer, task):
            first()  # after this the far end has surely started
            work, free, spent = beside(other, setting)
        found[f"gil_{name}"] = work
        found[f"gil_{name}_free"] = free
        found[f"gil_{name}_rate"] = len(data) * pieces / spent / 1e6
    return found


def with_messages(peer, setting):
    """Compute while another thread receives a thousand messages a second."""
    number, seconds = setting.pick((1000, 1.0), (500, 0.5), (20, 0.02))

    def receive_all():
        peer.send((number, seconds))
        assert [peer.receive() for _ in range(number)] == list(range(number))

    with talking(peer, tasks.tick):
        peer.send((1, 0.0))
        peer.receive()
        work, free, _ = beside(receive_all, setting)
    return {"gil_messages": work, "gil_messages_free": free}


def lines(name, title):
    return {
        f"gil_{name}": Line(f"Python work beside {title}", "%", more_is_better=True),
        f"gil_{name}_free": Line("  time without waiting for the GIL", "%", more_is_better=True),
    }


WORKS = {
    "gil": Work(
        "The GIL: Python work beside a thread that moves 1 GiB",
        with_bulk,
        {name: peer for name, peer in peers.CONVERSATIONS.items() if name != "mitogen"},
        {
            **lines("receiving", "a receiving thread"),
            "gil_receiving_rate": Line("  what that thread receives", "MB/s", more_is_better=True),
            **lines("sending", "a sending thread"),
            "gil_sending_rate": Line("  what that thread sends", "MB/s", more_is_better=True),
        },
        left_out={"mitogen": "1 GiB each way takes it longer than all others together"},
        rounds=(2, 1),
        limit=180,  # execnet and multiprocessing.Pipe receive 1 GiB in up to a minute beside such work
    ),
    "gil-messages": Work(
        "The GIL: Python work beside a thread that gets 1,000 messages a second",
        with_messages,
        peers.CONVERSATIONS,
        lines("messages", "1,000 messages/s"),
        rounds=(3, 1),
    ),
}
