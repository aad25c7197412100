"""dumps and loads, in memory: of tagged text, wide and deep structures, numbers, and dicts like pytest's reports."""

import time

import corpus
import peers
from base import Line, Work

TITLES = {
    "corpus": "tagged sentences",
    "sentence": "one tagged sentence",
    "reports": "dicts like pytest's reports",
    "ints": "10,000 ints",
    "floats": "10,000 floats",
    "wide": "a dict of 10,000 texts",
    "deep": "150 lists in each other",
    "bytes": "1 MiB of bytes",
}


def report(number):
    """What a worker of pytest-xdist sends about a test that passed."""
    nodeid = f"tests/test_module_{number % 40}.py::TestSomething::test_case[{number}]"
    return {
        "nodeid": nodeid,
        "location": (nodeid.partition("::")[0], 10 + number, "TestSomething.test_case"),
        "keywords": {"tests": 1, f"test_case[{number}]": 1, "TestSomething": 1, "parametrize": 1},
        "outcome": "passed",
        "longrepr": None,
        "when": ("setup", "call", "teardown")[number % 3],
        "sections": [],
        "duration": 0.00125 * number,
        "start": 1.5e9 + number,
        "stop": 1.5e9 + number + 0.00125,
        "user_properties": [("number", number)],
        "$report_type": "TestReport",
    }


def deep(depth):
    item = [42, "leaf"]
    for _ in range(depth):
        item = [item]
    return item


def cases(sentences, setting):
    many = setting.pick(10_000, 10_000, 50)
    return {
        "corpus": sentences,
        "sentence": sentences[0],
        "reports": [report(number) for number in range(setting.pick(200, 100, 5))],
        "ints": [number * 7919 for number in range(many)],
        "floats": [number / 7 for number in range(many)],
        "wide": {f"key {number}": f"the value of {number}" for number in range(many)},
        "deep": deep(150),
        "bytes": bytes(range(256)) * setting.pick(4096, 4096, 4),
    }


def tuples(item):
    """The item with all its lists as tuples: msgpack does not tell lists from tuples."""
    if isinstance(item, (list, tuple)):
        return tuple(map(tuples, item))
    if isinstance(item, dict):
        return {key: tuples(value) for key, value in item.items()}
    return item


def microseconds(function, argument, seconds):
    times, end = [], time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        result = function(argument)
        times.append(time.perf_counter() - start)
        del result
    return sorted(times)[len(times) // 2] * 1e6


def serializing(peer, setting):
    text, sentences = corpus.load(setting.pick(1000, 300, 5), setting.scratch)
    found, seconds = {"text": text}, setting.pick(0.02, 0.01, 0)
    for name, item in cases(sentences, setting).items():
        data = peer.dumps(item)
        back = peer.loads(data)
        assert back == item or back == tuples(item), name
        found[f"dumps_{name}"] = microseconds(peer.dumps, item, seconds)
        found[f"loads_{name}"] = microseconds(peer.loads, data, seconds)
    return found


LINES = {
    f"{what}_{name}": Line(f"{what}: {title}", "us")
    for name, title in TITLES.items()
    for what in ("dumps", "loads")
}

WORKS = {"serializer": Work("Serializer", serializing, peers.SERIALIZERS, LINES)}
