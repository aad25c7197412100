"""`python -m execnet_c check`: starts a gateway for each spec and says what it is and how fast, or why it cannot be made
and what to try.
"""

import statistics
import threading
import time

from ..near.deaths import GatewayDied
from ..multi import Group
from ..xspec import XSpec

ANSWER_TIMEOUT = 60.0  # seconds
MEASURE = 0.3  # seconds for each of the two measurements
PIECE = bytes(256 * 1024)

TASK = """
import sys
channel.send((sys.implementation.name, ".".join(map(str, sys.version_info[:3])), type(channel).__module__))
for item in channel:
    if item == "count":
        count = 0
        for piece in channel:
            if not piece:
                break
            count += len(piece)
        item = count
    channel.send(item)
"""


def check(specs, write=None):
    """Print a line for each spec, in their order. True if all of them came up."""
    write = write or (lambda line: print(line, flush=True))
    group = Group()
    found = [None] * len(specs)
    turn = threading.Lock()  # held while a gateway is measured
    made = [threading.Event() for _ in specs]  # the gateway is there, or cannot be made

    def look(number):
        try:
            spec = XSpec(specs[number])
            for earlier in made[:number] if spec.via or spec.installvia else ():
                earlier.wait()
            start = time.perf_counter()
            gateway = group.makegateway(spec)
            made[number].set()
            found[number] = True, _describe(gateway, start, turn)
        except Exception as exc:
            found[number] = False, f"{type(exc).__name__}: {_cause(exc)}"
        finally:
            made[number].set()

    threads = [threading.Thread(target=look, args=(number,), daemon=True) for number in range(len(specs))]
    try:
        for thread in threads:
            thread.start()
        width = max(map(len, specs))
        for number, thread in enumerate(threads):
            thread.join()
            up, line = found[number]
            write(f"{specs[number]:{width}}  {'ok' if up else 'FAILED'}  {line}")
    finally:
        group.terminate(timeout=5)
    return all(up for up, _ in found)


def _describe(gateway, start, turn):
    channel = gateway.remote_exec(TASK)
    name, version, home = channel.receive(ANSWER_TIMEOUT)
    start = time.perf_counter() - start
    with turn:
        round_trip = _round_trip(channel)
        speed = _speed(channel)
    name = {"cpython": "CPython", "pypy": "PyPy"}.get(name, name)
    core = "C core" if home == "execnet_c._core" else "plain Python"
    stream = next((kind for kind in ("ssh", "vagrant_ssh", "socket") if getattr(gateway.spec, kind)), None)
    stream = stream or {"pipe": "pipes"}.get(transport := gateway._state()["transport"], transport)
    if gateway.spec.via:
        stream += f" via {gateway.spec.via}"
    return (
        f"{name} {version}, {core}, {stream}, start {start * 1000:.0f} ms, round trip {round_trip * 1e6:.0f} us, "
        f"{speed / 1e6:.0f} MB/s"
    )


def _round_trip(channel):
    """The median of the seconds that an int takes there and back."""
    taken = []
    until = time.perf_counter() + MEASURE
    while not taken or time.perf_counter() < until:
        start = time.perf_counter()
        channel.send(1)
        channel.receive(ANSWER_TIMEOUT)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def _speed(channel):
    """Bytes per second to the far end; the time ends when the far end says that it has them all."""
    channel.send("count")
    start = time.perf_counter()
    while time.perf_counter() - start < MEASURE:
        channel.send(PIECE)
    channel.send(b"")
    count = channel.receive(ANSWER_TIMEOUT)
    return count / (time.perf_counter() - start)


def _cause(exc):
    if not isinstance(exc, GatewayDied) or not hasattr(exc, "cause"):
        return (str(exc).strip().splitlines() or ["it does not say more"])[-1]
    said = exc.stderr.strip().splitlines()
    return exc.cause + (f" ({said[-1].strip()})" if said else "")
