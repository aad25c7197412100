"""What four threads do at once, compared with one: round trips on four gateways and on one, dumps, loads, tagging.

With a GIL only what is done without it can take less than four times as long. So this is for a free-threaded Python: `make
bench PYTHON=python3.13t BENCH_ARGS="--only threads --peers execnet_c"`. It can be no faster than the machine has CPUs, of
which a far end needs its own.
"""

import os
import threading
import time

import corpus
import peers
import serializing
from base import Line, Work, only
from perceptron import nltk_tagger

THREADS = 4
ECHO = "for item in channel: channel.send(item)"


def a_second(functions, seconds):
    """How often these are called in a second, altogether, each in a thread of its own."""
    counts, start = [0] * len(functions), threading.Barrier(len(functions) + 1)
    over = threading.Event()
    failures = []

    def run(number, function):
        try:
            start.wait()
            while not over.is_set():
                function()
                counts[number] += 1
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(functions)]
    for thread in threads:
        thread.start()
    start.wait()
    begin = time.perf_counter()
    time.sleep(seconds)
    over.set()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return sum(counts) / (time.perf_counter() - begin)


def echo(gateway):
    channel = gateway.remote_exec(ECHO)

    def trip():
        channel.send(1)
        assert channel.receive() == 1

    trip()
    return trip


def tagging(sentences, setting):
    """The function that tags these sentences, with the one tagger of all threads."""
    peer = peers.TAGGERS[peers.OURS](setting)
    peer.start(nltk_tagger())
    return lambda: peer.tag_sents(sentences)


def works(peer, setting):
    """{name: a function that makes what one thread calls}"""
    _, sentences = corpus.load(setting.pick(300, 100, 5), setting.scratch)
    words = [[word for word, _ in sentence] for sentence in sentences]
    reports = [serializing.report(number) for number in range(20)]
    gateways = iter([peer.group.makegateway(peer.spec) for _ in range(THREADS + 1)])
    one = peer.group.makegateway(peer.spec)
    tag = tagging(words, setting)
    data = peer.module.dumps(reports)

    def dumping():
        own = peer.module.loads(data)  # threads that encode one object wait for its lock
        return lambda: peer.module.dumps(own)

    return {
        "gateways": lambda: echo(next(gateways)),
        "gateway": lambda: echo(one),
        "dumps": dumping,
        "loads": lambda: lambda: peer.module.loads(data),
        "tag": lambda: tag,
    }


def threads(peer, setting):
    found, seconds = {"threads_cpus": len(os.sched_getaffinity(0))}, setting.pick(1.0, 0.3, 0.02)
    for name, make in works(peer, setting).items():
        alone = a_second([make()], seconds)
        together = a_second([make() for _ in range(THREADS)], seconds)
        found[f"threads_{name}"] = alone
        found[f"threads_{name}_times"] = together / alone
    peer.stop()
    return found


TITLES = {
    "gateways": "round trips, a gateway each",
    "gateway": "round trips, one gateway",
    "dumps": "dumps of 20 reports",
    "loads": "loads of 20 reports",
    "tag": "tag_sents of 300 sentences",
}
LINES = {"threads_cpus": Line("CPUs", "", more_is_better=True)}
for _name, _title in TITLES.items():
    LINES[f"threads_{_name}"] = Line(_title, "1/s", more_is_better=True)
    LINES[f"threads_{_name}_times"] = Line("  times that with four threads", "", more_is_better=True)

WORKS = {"threads": Work("Four threads", threads, only(peers.GATEWAYS, peers.OURS), LINES, rounds=(0, 0))}
