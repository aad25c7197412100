"""dumps, loads, dump and load of both cores: what goes through, within which limits, and how strings are coerced."""

import io
import math
import struct
import sys
import threading
import weakref

import pytest

from execnet_c.twin import pyserializer, pywire
from serializers import ser_fixture  # noqa: F401 (fixtures)

I4_MAX = 2**31 - 1

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


def name_of(value):
    """The same in each process: sets have another order there."""
    return repr(sorted(value, key=repr) if isinstance(value, set) else value)[:30]


@pytest.mark.parametrize("value", VALUES, ids=name_of)
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

    @pytest.mark.parametrize(
        "item, ids",
        [
            (["Bab", "B", b"B" * 9, {"Bob": 66}, 1.5, 2j, None, True, {2**70}, -1, frozenset()], []),
            ([Numbered(1), "BBBBBB", (Numbered(2**31 + 66), {"B": Numbered(66)})], [1, 2**31 + 66, 66]),
            ({1: Numbered(0x42424242)}, [0x42424242]),
            (Numbered(5), [5]),
        ],
    )
    def test_the_channel_ids_in_a_payload(self, item, ids):
        data = b"".join(pyserializer.dump_item(item, Numbered))
        assert pyserializer.channel_ids(data, 100) == ids
        assert pyserializer.channel_ids(data + b"following", 100) == ids
        assert pyserializer.channel_ids(data, 2) == ids[:2]
        for size in (1, 3, 4, len(data)):
            found = bytearray()
            sift = pywire.sift(found.extend).send
            sift(None)
            for at in range(0, len(data), size):
                sift(data[at : at + size])
            sift(b"B\0\0\0\1")  # behind STOP
            assert [*struct.unpack(f"!{len(found) // 4}I", found)] == ids
        loaded = []
        pyserializer.load_item(data, 0, loaded.append)
        assert loaded == ids

    @pytest.mark.parametrize("data", [b"B", b"B\0\0\0\1", b"B\0\0\0\1Z", b"B\0\0\0\1N\xff\xff\xff\xffQ", b"ZB\0\0\0\1Q"])
    def test_the_channel_ids_of_what_is_not_well_formed(self, data):
        assert pyserializer.channel_ids(data, 100) == []
