"""dumps, loads, dump and load of both cores: what goes through, what is refused, and how the refusal reads."""

import copy
import enum
import gc
import importlib.util
import io
import math
import pickle
import struct
import subprocess
import sys
import threading
import weakref

import pytest

import execnet_c
from execnet_c import _core
from execnet_c.twin import pyserializer

I4_MAX = 2**31 - 1


@pytest.fixture(params=[_core, pyserializer], ids=["C", "Python"])
def ser(request):
    return request.param


class Unsendable:
    pass


GENERAL = "; send pickle.dumps() of it"


VALUES = [
    None,
    True,
    False,
    0,
    1,
    -1,
    I4_MAX,
    -I4_MAX - 1,
    I4_MAX + 1,
    -I4_MAX - 2,
    2**63 - 1,
    -(2**63),
    2**63,
    -(10**400),
    0.0,
    -0.0,
    1.5,
    math.inf,
    5e-324,
    1j,
    complex(-0.0, math.inf),
    b"",
    b"\0\xff",
    bytes(range(256)) * 300,
    "",
    "a",
    "abc",
    "a" * 24,
    "a" * 25,
    "a" * 70000,
    "\x7f",
    "\x80",
    "\xff" * 40,
    "\u07ff\u0800\ud7ff\ue000\uffff",
    "\U00010000\U0010ffff",
    "a\0b",
    [],
    [None],
    [1, [2, [3, []]]],
    list(range(1000)),
    (),
    (1,),
    ((), ((),), [()]),
    ("a", 1, None, 2.5, b"x"),
    {},
    {"a": 1, 2: [3], (4, (5,)): {"b": {}}, frozenset([6]): None, None: (), 1.5: 1j, b"k": True},
    set(),
    {1, "a", (2, 3)},
    frozenset(),
    frozenset([frozenset([frozenset()]), 1]),
    [{"list": [(1, {2}), "x"]}, ({"k": [[]]},)],
]


def same(a, b):
    """Equal, of the same types all the way down, and the same zero."""
    if type(a) is not type(b):
        return False
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return len(a) == len(b) and all(same(j, k) and same(a[j], b[k]) for j, k in zip(a, b))
    if isinstance(a, (set, frozenset)):
        return a == b and sorted(map(repr, map(type, a))) == sorted(map(repr, map(type, b)))
    return repr(a) == repr(b)


@pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value)[:30])
class TestThroughAndBack:
    def test_loads(self, ser, value):
        assert same(ser.loads(ser.dumps(value)), value)

    def test_load_leaves_what_follows(self, ser, value):
        stream = io.BytesIO(ser.dumps(value) + b"rest")
        assert same(ser.load(stream), value)
        assert stream.read() == b"rest"

    def test_dump_writes_once(self, ser, value):
        written = []

        class Sink:
            def write(self, data):
                written.append(data)

        assert ser.dump(Sink(), value) is None
        assert written == [ser.dumps(value)]

    def test_every_cut_is_truncated(self, ser, value):
        data = ser.dumps(value)
        cuts = range(len(data)) if len(data) < 300 else [0, 1, 2, 5, 6, 100, len(data) - 1]
        for n in cuts:
            with pytest.raises(ser.TruncatedError):
                ser.loads(data[:n])
            with pytest.raises(ser.TruncatedError):
                ser.load(io.BytesIO(data[:n]))


def test_known_bytes(ser):
    assert ser.dumps(None) == b"\x02LQ"
    assert ser.dumps([True, -2]) == b"\x02K\0\0\0\2F\0\0\0\0RPF\0\0\0\1F\xff\xff\xff\xfePQ"
    assert ser.dumps({"a": (1.0,)}) == b"\x02JN\0\0\0\1aD" + struct.pack("!d", 1.0) + b"@\0\0\0\1PQ"
    assert ser.dumps(-(2**31) - 1) == b"\x02H\0\0\0\x0b-2147483649Q"
    assert ser.dumps({b"x"}) == b"\x02A\0\0\0\1xO\0\0\0\1Q"
    assert ser.dumps(frozenset()) == b"\x02E\0\0\0\0Q"
    assert ser.dumps(1 - 2j) == b"\x02T" + struct.pack("!dd", 1, -2) + b"Q"


def test_bits_of_a_nan_survive(ser):
    odd = struct.unpack("!d", bytes.fromhex("fff8000000001234"))[0]
    assert struct.pack("!d", ser.loads(ser.dumps(odd))) == struct.pack("!d", odd)


def test_keywords_as_in_execnet(ser):
    data = ser.dumps(obj="x")
    assert ser.loads(bytestring=data) == "x"
    assert ser.loads(data, py3str_as_py2str=True) == b"x"
    assert ser.load(io=io.BytesIO(data), py2str_as_py3str=True) == "x"
    sink = io.BytesIO()
    ser.dump(byteio=sink, obj="x")
    assert sink.getvalue() == data
    for call in (
        lambda: ser.dumps(),
        lambda: ser.dumps(1, 2),
        lambda: ser.dumps(1, obj=2),
        lambda: ser.dumps(other=1),
        lambda: ser.dump(sink),
        lambda: ser.loads(),
        lambda: ser.loads(data, False, False, False),
        lambda: ser.load(),
    ):
        with pytest.raises(TypeError):
            call()


class TestStringCoercion:
    OLD = b"\x02M\0\0\0\2a\xe9Q"
    NEW = b"\x02N\0\0\0\3a\xc3\xa9Q"
    UNICODE = b"\x02S\0\0\0\3a\xc3\xa9Q"

    def test_python_2_str(self, ser):
        assert ser.loads(self.OLD) == b"a\xe9"
        assert ser.loads(self.OLD, py2str_as_py3str=True) == "a\xe9"
        assert ser.loads(self.OLD, False, True) == b"a\xe9"

    def test_python_3_str(self, ser):
        assert ser.loads(self.NEW) == "a\xe9"
        assert ser.loads(self.NEW, False, True) == b"a\xc3\xa9"

    def test_python_2_unicode_is_text_always(self, ser):
        assert ser.loads(self.UNICODE, True, True) == ser.loads(self.UNICODE) == "a\xe9"

    def test_python_2_numbers(self, ser):
        assert ser.loads(b"\x02G\xff\xff\xff\xffQ") == -1
        assert ser.loads(b"\x02I\0\0\0\x0b12345678901Q") == 12345678901


class TestBytesLike:
    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, type("B", (bytes,), {})])
    def test_contiguous(self, ser, kind):
        assert ser.loads(kind(ser.dumps([1, "a"]))) == [1, "a"]

    def test_others(self, ser):
        with pytest.raises(BufferError):
            ser.loads(memoryview(ser.dumps([1, "a"]))[::2])
        for other in ("text", None, [2]):
            with pytest.raises(TypeError):
                ser.loads(other)

    def test_a_buffer_is_released(self, ser):
        data = bytearray(ser.dumps("abc"))
        ser.loads(data)
        data.append(0)
        with pytest.raises(ser.LoadError):
            ser.loads(data[:1] + b"Z")
        data.append(0)


class TestVersion:
    def test_wrong(self, ser):
        with pytest.raises(ser.LoadError, match=r"^wrong dumpformat version b'\\x03'$"):
            ser.loads(b"\x03LQ")
        with pytest.raises(ser.LoadError, match=r"^wrong dumpformat version b'\\x03'$"):
            ser.load(io.BytesIO(b"\x03LQ"))

    def test_missing(self, ser):
        for call in (lambda: ser.loads(b""), lambda: ser.load(io.BytesIO())):
            with pytest.raises(ser.LoadError, match=r"^wrong dumpformat version b''$") as caught:
                call()
            assert isinstance(caught.value, EOFError)


class TestUnsendable:
    @pytest.mark.parametrize(
        "make, path",
        [
            (lambda x: x, ""),
            (lambda x: [x], " at [0]"),
            (lambda x: [1, 2, 3, {"key": [x]}], " at [3]['key'][0]"),
            (lambda x: (1, 2, x), " at [2]"),
            (lambda x: ([], x), " at [1]"),
            (lambda x: [[], [[1], (2, [x])]], " at [1][1][1][0]"),
            (lambda x: {1: 2, (1, x): 3}, " at <key>[1]"),
            (lambda x: {x: 3}, " at <key>"),
            (lambda x: {x}, " at <member>"),
            (lambda x: [frozenset([(x,)])], " at [0]<member>[0]"),
            (lambda x: {None: {2.5: {b"b": {True: x}}}}, " at [None][2.5][b'b'][True]"),
            (lambda x: {(1, 2): x}, " at [<tuple>]"),
            (lambda x: {"k" * 100: x}, " at ['" + "k" * 40 + "'...]"),
            (lambda x: {10**4000: {"a": x}}, f" at [{10**4000}]['a']"),
        ],
    )
    def test_text_names_type_and_place(self, ser, make, path):
        with pytest.raises(ser.DumpError) as caught:
            ser.dumps(make(Unsendable()))
        assert str(caught.value) == f"can't serialize {Unsendable}{path}{GENERAL}"

    def test_a_long_path_shows_its_ends(self, ser):
        value = [Unsendable()]
        for _ in range(500):
            value = [0, value]
        with pytest.raises(ser.DumpError) as caught:
            ser.dumps(value)
        assert str(caught.value) == f"can't serialize {Unsendable} at " + "[1]" * 12 + "..." + "[1]" * 11 + "[0]" + GENERAL

    @pytest.mark.parametrize("base", [int, float, complex, str, bytes, list, tuple, dict, set, frozenset])
    def test_subclasses(self, ser, base):
        kind = type("Derived", (base,), {})
        with pytest.raises(ser.DumpError, match="can't serialize <class '.*Derived'> at"):
            ser.dumps([kind()])

    def test_enum_members(self, ser):
        with pytest.raises(ser.DumpError):
            ser.dumps(enum.IntEnum("Colour", "red").red)

    @pytest.mark.parametrize("name", ["list", "int", "bool", "str", "dict", "NoneType", "Channel", "long"])
    def test_strangers_of_a_known_name(self, ser, name):
        for stranger in (type(name, (), {}), type(name, (list,), {"__module__": "builtins"})):
            with pytest.raises(ser.DumpError, match="^can't serialize <class .* name with the known type"):
                ser.dumps(stranger())

    @pytest.mark.parametrize("value", [bytearray(b"x"), memoryview(b"x"), range(3), object(), len, Ellipsis, type])
    def test_other_builtins(self, ser, value):
        with pytest.raises(ser.DumpError, match="^can't serialize <class"):
            ser.dumps(value)

    def test_dump_writes_nothing(self, ser):
        sink = io.BytesIO()
        with pytest.raises(ser.DumpError):
            ser.dump(sink, [1, Unsendable()])
        assert sink.getvalue() == b""


@pytest.mark.parametrize("text", ["\ud800", "abc\udfff", "\U00010000\ud900", "x" * 70000 + "\udc80"])
def test_surrogates(ser, text):
    with pytest.raises(ser.DumpError, match=r"^strings must be utf-8 encodable at \['k'\]$") as caught:
        ser.dumps({"k": text})
    assert isinstance(caught.value.__cause__, UnicodeEncodeError)


def test_dumping_text_leaves_no_copy_in_it(ser):
    text = "\xe9" * 1000
    before = sys.getsizeof(text)
    ser.dumps(text)
    assert sys.getsizeof(text) == before


class TestLimits:
    def test_digits_out(self, ser):
        limit = sys.get_int_max_str_digits()
        assert ser.loads(ser.dumps(10 ** (limit - 1))) == 10 ** (limit - 1)
        with pytest.raises(ser.DumpError, match=rf"\({limit}( digits)?\).* at \[0\]$") as caught:
            ser.dumps([10**limit])
        assert isinstance(caught.value.__cause__, ValueError)

    def test_digits_in(self, ser):
        limit = sys.get_int_max_str_digits()
        data = b"\x02H" + struct.pack("!i", limit + 1) + b"9" * (limit + 1) + b"Q"
        with pytest.raises(ser.LoadError, match=rf"at offset 1: .*\({limit}( digits)?\)") as caught:
            ser.loads(data)
        assert isinstance(caught.value.__cause__, ValueError)

    def test_too_long_a_string(self, ser):
        with pytest.raises(ser.DumpError, match="^string is too long at .0.$"):
            ser.dumps([bytes(2**31)])  # never touched, so it takes no memory

    @pytest.mark.parametrize(
        "wrap",
        [
            lambda x: [x],
            lambda x: (x,),
            lambda x: {1: x},
            lambda x: {"k": [x]},
            lambda x: ([], x),
        ],
    )
    def test_deep_out(self, ser, wrap):
        value = None
        for _ in range(1000):
            value = wrap(value)
        data = ser.dumps(value)
        assert ser.dumps(ser.loads(data)) == data

    def test_too_deep_out(self, ser):
        value = []
        for _ in range(1999):
            value = [value]
        ser.dumps(value)
        with pytest.raises(ser.DumpError, match="nested deeper than 2000, or it contains itself"):
            ser.dumps([[value]])

    def test_contains_itself(self, ser):
        value = []
        value.append({"a": (value,)})
        with pytest.raises(ser.DumpError, match="nested deeper than 2000, or it contains itself"):
            ser.dumps(value)

    def test_deep_frozensets(self, ser):
        value = frozenset()
        for _ in range(900):
            value = frozenset([value])
        data = ser.dumps(value)
        assert ser.dumps(ser.loads(data)) == data

    def test_deep_in(self, ser):
        n = 100_000
        value = ser.loads(b"\x02" + b"K\0\0\0\1F\0\0\0\0" * n + b"L" + b"P" * n + b"Q")
        for _ in range(n):
            value = value[0]
        assert value is None
        ser.loads(b"\x02@\0\0\0\0" + b"@\0\0\0\1" * (n - 1) + b"Q")
        ser.loads(b"\x02" + b"JL" * n + b"L" + b"P" * n + b"Q")

    @pytest.mark.parametrize(
        "data",
        [
            b"K\0\0\0\1F\0\0\0\0" * 100_001 + b"L" + b"P" * 100_001,
            b"@\0\0\0\0" + b"@\0\0\0\1" * 100_001,
            b"JL" * 100_001 + b"L" + b"P" * 100_001,
            b"JF\0\0\0\1" * 50_001 + b"L" + b"P@\0\0\0\1" * 50_001,
        ],
    )
    def test_too_deep_in(self, ser, data):
        with pytest.raises(ser.LoadError, match="nested too deeply at offset"):
            ser.loads(b"\x02" + data + b"Q")

    def test_depth_on_a_small_thread(self, ser):
        """Neither way may live on the C stack."""
        deep = []
        for _ in range(1999):
            deep = [deep]
        n = 100_000
        key = b"@\0\0\0\0" + b"@\0\0\0\1" * 999
        done = []

        def work():
            done.append(ser.dumps(deep))
            done.append(ser.loads(b"\x02" + b"K\0\0\0\1F\0\0\0\0" * n + b"L" + b"P" * n + b"Q"))
            done.append(ser.loads(b"\x02J" + key + b"LPQ"))

        before = threading.stack_size(256 * 1024)
        try:
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
        finally:
            threading.stack_size(before)
        # They die here: since 3.12 CPython itself takes some C stack to free what is so deep.
        assert len(done) == 3


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


class Numbered:
    """Stands for a channel."""

    def __init__(self, id):
        self.id = id


class TestItems:
    """What the twin's gateways call: the contents of messages."""

    def test_small_ones_are_one_part(self):
        assert pyserializer.dump_item([1, "a"], Numbered) == [pyserializer.dumps([1, "a"])[1:]]

    def test_large_ones_are_not_copied(self):
        data, text = bytes(65536), "x" * 70000
        value = [data, b"s" * 65535, {"k": text}, data]
        parts = pyserializer.dump_item(value, Numbered)
        assert b"".join(parts) == pyserializer.dumps(value)[1:]
        assert parts[1] is data and parts[5] is data and parts[3] == text.encode()
        assert len(parts) == 7

    def test_channels(self):
        class Special(Numbered):
            pass

        parts = pyserializer.dump_item([Numbered(5), (Special(2**31 + 1),)], Numbered)
        assert pyserializer.load_item(b"".join(parts), 0, lambda id: ("made", id)) == [
            ("made", 5),
            (("made", 2**31 + 1),),
        ]
        with pytest.raises(pyserializer.DumpError, match="Numbered'> at .0.; send"):
            pyserializer.dumps([Numbered(5)])

    def test_dumps_of_a_channel(self, monkeypatch):
        monkeypatch.setattr(pyserializer, "channel_type", Numbered)
        assert pyserializer.dumps([Numbered(7)]) == b"\x02K\0\0\0\1F\0\0\0\0B\0\0\0\7PQ"
        with pytest.raises(pyserializer.LoadError, match="^a channel, where none can be at offset 11$"):
            pyserializer.loads(pyserializer.dumps([Numbered(7)]))

    def test_what_makes_channels_may_fail(self):
        def make(id):
            raise KeyError(id)

        with pytest.raises(KeyError):
            pyserializer.load_item(b"B\0\0\0\1Q", 0, make)

    @pytest.mark.parametrize("size", [0, 5, 65535, 65536, 100000])
    @pytest.mark.parametrize("kind", [bytes, memoryview])
    def test_bytes(self, kind, size):
        payload = b"".join(pyserializer.dump_item(b"x" * size, Numbered))
        result = pyserializer.load_item(kind(payload), 0, None)
        assert type(result) is bytes and result == b"x" * size
        with pytest.raises(pyserializer.TruncatedError):
            pyserializer.load_item(kind(payload[:-1]), 0, None)
        with pytest.raises(pyserializer.LoadError, match="^unknown opcode b'Z' at offset %d - wire" % (size + 5)):
            pyserializer.load_item(kind(payload[:-1] + b"Z"), 0, None)

    def test_coercion(self):
        payload = b"M\0\0\0\1\xe9N\0\0\0\1a@\0\0\0\2Q"
        load = pyserializer.load_item
        results = [load(memoryview(payload), coerce, None) for coerce in range(4)]
        assert results == [(b"\xe9", "a"), ("\xe9", "a"), (b"\xe9", b"a"), ("\xe9", b"a")]

    def test_empty(self):
        with pytest.raises(pyserializer.TruncatedError, match="^input ends at offset 0, without STOP at offset 0$"):
            pyserializer.load_item(b"", 0, None)

    def test_an_error_keeps_nothing_of_what_was_half_loaded(self):
        made = []

        def make(id):
            made.append(weakref.ref(channel := Numbered(id)))
            return channel

        with pytest.raises(pyserializer.LoadError) as caught:
            pyserializer.load_item(b"B\0\0\0\1Z", 0, make)
        assert str(caught.value).startswith("unknown opcode")
        assert made[0]() is None

    @pytest.mark.parametrize(
        "key, words",
        [
            (b"F\0\0\0\1", "unknown opcode"),
            (b"F\0\0\0\2", "list index out of range"),
            (b"N\0\0\0\1a", "list index is not an int"),
        ],
    )
    def test_an_error_keeps_nothing_of_a_half_loaded_list(self, key, words):
        made = []

        def make(id):
            made.append(weakref.ref(channel := Numbered(id)))
            return channel

        data = b"K\0\0\0\2F\0\0\0\0B\0\0\0\1P" + key + b"B\0\0\0\2PZ" + bytes(20)
        with pytest.raises(pyserializer.LoadError) as caught:
            pyserializer.load_item(data, 0, make)
        assert words in str(caught.value)
        assert [ref() for ref in made] == [None, None]


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
    run = subprocess.run([sys.executable, "-c", NO_MEMORY], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert len(run.stdout.split()) == 3


NUMPY = """
import numpy
from SERIALIZER import DumpError, dumps, loads

for value in (numpy.int64(1), numpy.float64(1), numpy.str_("a"), numpy.zeros(1)):
    try:
        dumps(value)
    except DumpError:
        continue
    raise AssertionError(value)
# Before numpy 2 its bool had a name of its own, and was refused.
if type(numpy.True_).__name__ == "bool":
    assert loads(dumps([numpy.True_, numpy.False_])) == [True, False]
"""


def test_numpy(ser):
    """In a process of its own: numpy leaves threads behind."""
    if importlib.util.find_spec("numpy") is None:
        pytest.skip("there is no numpy here")
    program = NUMPY.replace("SERIALIZER", ser.__name__)
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr


class TestErrors:
    def test_classes(self, ser):
        assert issubclass(ser.DumpError, ser.DataFormatError) and issubclass(ser.LoadError, ser.DataFormatError)
        assert issubclass(ser.TruncatedError, (ser.LoadError,)) and issubclass(ser.TruncatedError, EOFError)
        assert ser.DataFormatError.__bases__ == (Exception,)
        for cls in (ser.DataFormatError, ser.DumpError, ser.LoadError, ser.TruncatedError):
            assert cls.__module__ == "execnet_c"
            assert cls.__doc__ == getattr(_core, cls.__name__).__doc__

    def test_classes_of_the_package(self):
        assert issubclass(execnet_c.TimeoutError, OSError)
        assert issubclass(execnet_c.GatewayDied, EOFError) and issubclass(execnet_c.GatewayDied, OSError)
        for cls in (execnet_c.DumpError, execnet_c.LoadError, execnet_c.RemoteError, execnet_c.GatewayDied):
            assert cls.__module__ == "execnet_c"
            assert cls.__doc__

    def test_gateway_died_holds_an_errno(self):
        error = execnet_c.GatewayDied(104, "killed by SIGKILL")
        assert error.errno == 104 and "killed by SIGKILL" in str(error)
        assert str(execnet_c.GatewayDied("gone")) == "gone"

    def test_remote_error(self, capsys):
        error = execnet_c.RemoteError("Traceback:\nValueError: x")
        assert error.formatted == str(error) == "Traceback:\nValueError: x"
        assert repr(error) == "RemoteError: Traceback:\nValueError: x"
        error.warn()
        text = capsys.readouterr().err
        assert text.startswith("[") and text.endswith("] Warning: unhandled RemoteError: Traceback:\nValueError: x\n")
        execnet_c.RemoteError("keyboard-interrupted").warn()
        assert capsys.readouterr().err == ""

    def test_remote_error_without_stderr(self, monkeypatch):
        monkeypatch.setattr(sys, "stderr", None)
        execnet_c.RemoteError("x").warn()

    def test_remote_error_arguments(self):
        assert execnet_c.RemoteError(formatted="x").formatted == "x"
        for args in ((), (1, 2)):
            with pytest.raises(TypeError):
                execnet_c.RemoteError(*args)

    @pytest.mark.parametrize("make", [lambda: execnet_c.RemoteError("x"), lambda: execnet_c.RemoteError(formatted="x")])
    def test_remote_error_is_copied(self, make):
        error = make()
        error.note = 1
        for other in (copy.copy(error), pickle.loads(pickle.dumps(error))):
            assert type(other) is execnet_c.RemoteError
            assert other.formatted == "x" and other.note == 1

    def test_remote_error_is_subclassed(self):
        class Mine(execnet_c.RemoteError):
            def __init__(self, a, b):
                super().__init__(a + b)

        error = Mine("x", "y")
        assert str(error) == "xy" and repr(error) == "Mine: xy"
        with pytest.raises(execnet_c.RemoteError):
            raise error
