"""Many channels, many gateways, and a large item on its way: their time and memory, and how much they delay others."""

import os
import threading
import time

import peers
from base import MIB, Clock, Line, Work, memory

HOLD_CHANNELS = """
def held():
    with open("/proc/self/status") as file:
        return int(file.read().split("VmRSS:")[1].split()[0]) / 1024

before = held()
channels = channel.receive()
channel.send((len(channels), held() - before))
channels[-1].send(channels[-1].receive())
for other in channels:
    other.waitclose()
channel.send("all closed")
"""

ECHO = "for item in channel: channel.send(item)"
TAKE = "for mib in channel: channel.send(len(channel.receive()))"
GIVE = "for mib in channel: channel.send(bytes(mib << 20))"


def channels(peer, setting):
    number = setting.pick(20_000, 5_000, 50)
    gateway = peer.group.makegateway("popen")
    task = gateway.remote_exec(HOLD_CHANNELS)
    before = memory("VmRSS")
    with Clock() as opening:
        opened = [gateway.newchannel() for _ in range(number)]
        task.send(opened)
        found, there = task.receive()
    here = memory("VmRSS") - before
    assert found == number
    opened[-1].send("a word")
    assert opened[-1].receive() == "a word"
    with Clock() as closing:
        for channel in opened:
            channel.close()
        assert task.receive() == "all closed"
    peer.stop()
    return {
        "channels_open": opening.seconds / number * 1e6,
        "channels_close": closing.seconds / number * 1e6,
        "channels_here": here / number * 1024,
        "channels_there": there / number * 1024,
    }


def gateways(peer, setting):
    number = setting.pick(200, 20, 3)
    before, threads_before = memory("VmRSS"), len(os.listdir("/proc/self/task"))
    with Clock() as starting:
        group = peer.group = peer.module.Group(["popen"] * number)
        echoes = [gateway.remote_exec(ECHO) for gateway in group]
        for echo in echoes:
            echo.send(1)
            assert echo.receive() == 1
    found = {
        "gateways_start": starting.seconds,
        "gateways_threads": len(os.listdir("/proc/self/task")) - threads_before,
        "gateways_memory": (memory("VmRSS") - before) / number * 1024,
    }
    rounds = 5
    with Clock() as tripping:
        for _ in range(rounds):
            for echo in echoes:
                echo.send(1)
                echo.receive()
    found["gateways_trip"] = tripping.seconds / rounds / number * 1e6
    with Clock() as ending:
        peer.stop()
    found["gateways_end"] = ending.seconds
    return found


def latencies(echo, is_over):
    times = []
    while not times or not is_over():
        start = time.perf_counter()
        echo.send(1)
        echo.receive()
        times.append(time.perf_counter() - start)
    return sorted(times)


def in_flight(peer, setting):
    """Round trips on one channel while an item of 1 GiB is on its way on another channel of the same gateway."""
    mib = setting.pick(1024, 128, 2)
    data = bytes(mib * MIB)
    found = {}
    for name, text in (("to", TAKE), ("from", GIVE)):
        gateway = peer.group.makegateway("popen")
        large, echo = gateway.remote_exec(text), gateway.remote_exec(ECHO)
        echo.send(1)
        assert echo.receive() == 1
        done, answers = threading.Event(), []

        def move():
            large.send(mib)
            if name == "to":
                large.send(data)
            answers.append(large.receive())
            done.set()

        thread = threading.Thread(target=move)
        thread.start()
        times = latencies(echo, done.is_set)
        thread.join()
        assert answers[0] == (len(data) if name == "to" else data)
        found[f"flight_{name}"] = times[len(times) // 2] * 1e6
        found[f"flight_{name}_worst"] = times[-1] * 1e3
    peer.stop()
    return found


WORKS = {
    "scale-channels": Work(
        "20,000 open channels on one gateway",
        channels,
        peers.GATEWAYS,
        {
            "channels_open": Line("open one", "us"),
            "channels_close": Line("close one", "us"),
            "channels_here": Line("memory of one, here", "KiB"),
            "channels_there": Line("memory of one, there", "KiB"),
        },
        rounds=(2, 1),
    ),
    "scale-gateways": Work(
        "200 gateways of one process",
        gateways,
        peers.GATEWAYS,
        {
            "gateways_start": Line("start all, to an answer of each", "s"),
            "gateways_threads": Line("threads here for them", ""),
            "gateways_memory": Line("memory of one, here", "KiB"),
            "gateways_trip": Line("round trip to each in turn", "us"),
            "gateways_end": Line("end all", "s"),
        },
        rounds=(2, 1),
        limit=120,
    ),
    "scale-in-flight": Work(
        "1 GiB in flight on one channel, round trips on another",
        in_flight,
        peers.GATEWAYS,
        {
            "flight_to": Line("round trip, 1 GiB on its way there", "us"),
            "flight_to_worst": Line("  the longest one", "ms"),
            "flight_from": Line("round trip, 1 GiB on its way here", "us"),
            "flight_from_worst": Line("  the longest one", "ms"),
        },
        rounds=(2, 1),
    ),
}
