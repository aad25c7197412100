"""Objects that change while they are serialized, objects that nobody holds any more, and memory that runs out."""

import gc
import io
import subprocess
import sys

import pytest

from execnet_c import _core
from execnet_c.twin import pyserializer
from serializers import Unsendable, ser_fixture  # noqa: F401 (fixtures)

MUTATIONS = [
    pytest.mark.parametrize("change", ["clear", "grow"]),
    pytest.mark.parametrize("kind", [list, dict, set]),
    pytest.mark.parametrize("wrap", [lambda x: x, lambda x: [x], lambda x: (x, x), lambda x: {1: x}]),
]


def mutations(test):
    for mark in MUTATIONS:
        test = mark(test)
    return test


def fill(victim, trigger):
    if type(victim) is list:
        victim += [trigger, "a", "b"]
    elif type(victim) is dict:
        victim.update({"a": trigger, "b": "c"})
    else:
        victim |= {trigger, "a", "b"}


def alter(victim, change):
    if change == "clear":
        victim.clear()
    elif type(victim) is list:
        victim.extend(range(1000))
    else:
        victim.update(dict.fromkeys(range(1000)) if type(victim) is dict else range(1000))


class TestMutation:
    """Python code that runs in the middle of a dump, and changes what is being dumped."""

    @pytest.fixture(autouse=True)
    def threshold(self):
        before = gc.get_threshold()
        yield
        gc.set_threshold(*before)

    @pytest.fixture
    def interfere(self, monkeypatch):
        """Arranges for a function to be called while the object returned is dumped."""
        if sys.version_info >= (3, 12):
            import _pylong

            limit = sys.get_int_max_str_digits()
            sys.set_int_max_str_digits(0)

            def arrange(function):
                monkeypatch.setattr(_pylong, "int_to_decimal_string", lambda n: function() or "1" * 20000)
                return 10**20000, lambda: None

            yield arrange
            sys.set_int_max_str_digits(limit)
        else:
            added = []
            gc.disable()

            def arrange(function):
                added.append(lambda phase, info: function())
                gc.callbacks.append(added[0])
                gc.set_threshold(1)
                return frozenset([1]), gc.enable

            yield arrange
            gc.callbacks.remove(added[0])
            gc.enable()

    @mutations
    def test_changed(self, kind, wrap, change, interfere):
        victim = kind()
        calls = []

        def function():
            calls.append(change)
            alter(victim, change)

        trigger, start = interfere(function)
        fill(victim, trigger)
        value = wrap(victim)
        start()
        text = ""
        try:
            _core.dumps(value)
        except _core.DumpError as error:
            text = str(error)
        finally:
            gc.set_threshold(700)
        assert calls
        assert text.startswith("container changed its size while it was dumped")

    @mutations
    def test_changed_under_the_twin(self, kind, wrap, change):
        """Its id is what a channel is asked for."""
        victim = kind()

        class Trigger:
            @property
            def id(self):
                alter(victim, change)
                return 1

        fill(victim, Trigger())
        path = {"list": " at [0]", "tuple": " at [0]", "dict": " at [1]"}
        value = wrap(victim)
        where = "" if value is victim else path[type(value).__name__]
        with pytest.raises(pyserializer.DumpError) as caught:
            pyserializer.dump_item(value, Trigger)
        assert str(caught.value) == "container changed its size while it was dumped" + where

    @pytest.mark.parametrize("kind", [list, set])
    def test_a_change_that_keeps_the_size(self, kind):
        """What was there first is written, and as much of it as is announced."""
        victim = kind()

        class Trigger:
            @property
            def id(self):
                victim.clear()
                (victim.extend if kind is list else victim.update)([self, "x", "y"])
                return 1

        fill(victim, Trigger())
        before = [item if type(item) is str else 1 for item in victim]
        encoded = b"".join(pyserializer.dump_item(victim, Trigger))
        assert pyserializer.load_item(encoded, 0, lambda id: id) == kind(before)

    def test_errors_of_the_id_pass_through(self):
        for error in (ValueError("no id"), RuntimeError("no id")):

            class Broken:
                @property
                def id(self):
                    raise error

            with pytest.raises(type(error), match="^no id$"):
                pyserializer.dump_item([{"k": Broken()}], Broken)


class TestCollector:
    def test_a_loaded_list_is_tracked(self, ser):
        value = ser.loads(ser.dumps([[1], {"a": [2]}, ([3],)]))
        assert gc.is_tracked(value) and gc.is_tracked(value[0]) and gc.is_tracked(value[1]["a"])
        assert gc.is_tracked(value[2]), "it holds a list, so it can be part of a cycle"

    def test_a_cycle_through_a_loaded_list_goes(self, ser):
        class Marker:
            alive = 0

            def __init__(self):
                Marker.alive += 1

            def __del__(self):
                Marker.alive -= 1

        value = ser.loads(ser.dumps([([],)]))
        value[0][0].append(value)
        value.append(Marker())
        del value
        gc.collect()
        assert Marker.alive == 0

    def test_flat_tuples_are_not_tracked(self):
        flat, nested, mixed = _core.loads(_core.dumps([("a", 1, None), ((1, 2), 3), (1, frozenset([1]))]))
        assert not gc.is_tracked(flat)
        assert not gc.is_tracked(nested)
        assert flat == ("a", 1, None) and nested == ((1, 2), 3) and mixed == (1, frozenset([1]))


class TestLeaks:
    CALLS = [
        lambda ser: ser.loads(ser.dumps([1, "abc", ("x", 2.5), {"k": [None]}, {1}, 2**70, "\xe9" * 30, b"b" * 100])),
        lambda ser: ser.loads(ser.dumps(["word%d" % i for i in range(200)])),
        lambda ser: ser.dumps([b"p" * 70000, "q" * 70000]),
        lambda ser: ser.load(io.BytesIO(ser.dumps([1, (2, "x")]))),
        lambda ser: ser.dump(io.BytesIO(), [1]),
        lambda ser: ser.dumps([1, {"k": (1, [Unsendable()])}]),
        lambda ser: ser.dumps({"a": {(1, Unsendable()): 1}}),
        lambda ser: ser.dumps([b"p" * 70000, {Unsendable()}]),
        lambda ser: ser.dumps(["\ud800"]),
        lambda ser: ser.dumps([10**5000]),
        lambda ser: ser.loads(b"\x02K\0\0\0\2F\0\0\0\0K\0\0\0\0PQ" + b"\0" * 20),
        lambda ser: ser.loads(b"\x02K\0\0\0\3F\0\0\0\1N\0\0\0\2abPN\0\0\0\2cdZ............"),
        lambda ser: ser.loads(b"\x02N\0\0\0\2abN\0\0\0\2\xff\xffQ"),
        lambda ser: ser.loads(b"\x02JJLPQ"),
        lambda ser: ser.loads(b"\x02JN\0\0\0\2abKLPQ"),
        lambda ser: ser.loads(b"\x02H\0\0\0\2xxQ"),
        lambda ser: ser.loads(b"\x02N\0\0\0\2abJO\0\0\0\2Q"),
        lambda ser: ser.loads(b"\x02N\0\0\0\2abLRPQ"),
        lambda ser: ser.loads(b"\x02K\0\0\0\1H\0\0\0\x1499999999999999999999LPQ"),
        lambda ser: ser.loads(b"\x02K\0\0\0\1H\0\0\0\x010N\0\0\0\3abcPQ"),
        lambda ser: ser.load(io.StringIO("abc")),
    ]

    @pytest.mark.parametrize("number", range(len(CALLS)))
    def test_memory_stays(self, ser, number):
        call = self.CALLS[number]

        def repeat(n):
            for _ in range(n):
                try:
                    call(ser)
                except (ser.DataFormatError, TypeError):
                    pass

        repeat(100)
        gc.collect()
        gc.disable()
        try:
            counts = [sys.getallocatedblocks()]
            for _ in range(3):
                repeat(300)
                counts.append(sys.getallocatedblocks())
        finally:
            gc.enable()
        # One object leaked by each call would be 300 blocks a round; the interpreter's own caches grow but once.
        assert min(b - a for a, b in zip(counts, counts[1:])) < 100

    def test_references_to_what_was_dumped(self, ser):
        item, key = Unsendable(), ("k", 2)
        pinned = b"p" * 70000
        value = [1, {key: [item], "z": {item}}, (item,), pinned]
        counts = [sys.getrefcount(o) for o in (item, key, pinned, value, value[1], None)]
        for _ in range(100):
            for part in (value, value[1], {"z": {item}}, [pinned, item], [pinned, {"k": key}]):
                try:
                    ser.dumps(part)
                except ser.DumpError:
                    pass
            part = None
        after = [sys.getrefcount(o) for o in (item, key, pinned, value, value[1], None)]
        assert after[:-1] == counts[:-1]
        assert abs(after[-1] - counts[-1]) < 50


NO_MEMORY = """
import sys
import _testcapi
from execnet_c._core import dumps, loads, load
import io

value = [1, 2**70, 2.5, 1j, "a", "\\xe9", b"b", ("x", (1,)), {"k": [None], (1, 2): {3}}, frozenset([4])]
value += ["w%d" % i for i in range(40)] + [tuple(range(300)), [b"p" * 70000] * 6]
deep = []
for _ in range(60):
    deep = [deep]
value.append(deep)
data = dumps(value)
for call, want in ((lambda: dumps(value), data), (lambda: loads(data), value), (lambda: load(io.BytesIO(data)), value)):
    for n in range(1, 100000):
        _testcapi.set_nomemory(n, n + 1)
        try:
            result = call()
        except MemoryError:
            result = None
        finally:
            _testcapi.remove_mem_hooks()
        if result is not None:
            assert result == want
            print(n)
            break
"""


def test_out_of_memory_in_the_c_core():
    """Each allocation of the interpreter fails once; only a MemoryError may come of it."""
    pytest.importorskip("_testcapi")
    if "t" in sys.abiflags and sys.version_info < (3, 14):
        pytest.skip("where there is no memory for its items, PyList_New() itself crashes in a free-threaded Python 3.13")
    run = subprocess.run([sys.executable, "-c", NO_MEMORY], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert len(run.stdout.split()) == 3
