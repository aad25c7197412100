"""The two serializers against each other: the same bytes, the same objects, the same errors to the letter."""

import gc
import io
import random
import sys

import pytest

from execnet_c import _core
from execnet_c.twin import pyserializer

hypothesis = pytest.importorskip("hypothesis")

from hypothesis import given, strategies as st  # noqa: E402

from test_serializer_oracle import corrupted, examples, opcodes, shape, values  # noqa: E402


class Stranger:
    pass


def outcome(function, *args):
    """("ok", shape) or all that there is to an error of theirs."""
    try:
        return "ok", shape(function(*args))
    except (_core.DataFormatError, pyserializer.DataFormatError) as error:
        cause = error.__cause__
        return type(error).__module__, type(error).__name__, error.args, type(cause), str(cause)


def same_load(data, *flags):
    """What both make of the bytes; from a stream, also how far they read."""
    theirs = outcome(_core.loads, data, *flags)
    assert outcome(pyserializer.loads, data, *flags) == theirs
    streams = io.BytesIO(data), io.BytesIO(data)
    from_streams = outcome(_core.load, streams[0], *flags)
    assert outcome(pyserializer.load, streams[1], *flags) == from_streams
    assert streams[0].tell() == streams[1].tell()
    return theirs


def same_dump(value):
    """What both make of the value."""
    theirs = outcome(_core.dumps, value)
    assert outcome(pyserializer.dumps, value) == theirs
    return theirs


def nest(depth, inner, wrap=lambda x: [x]):
    for _ in range(depth):
        inner = wrap(inner)
    return inner


bases = st.sampled_from([int, float, complex, str, bytes, list, tuple, dict, set])
unsendable = (
    st.sampled_from([Stranger(), Stranger, bytearray(b"x"), range(3), Ellipsis, "\ud800", "a" * 70 + "\udfff"])
    | bases.map(lambda base: type("Kind", (base,), {})())
    | st.sampled_from(["list", "Channel", "a.int", "plain"]).map(lambda name: type(name, (), {})())
)
hashable = (
    st.none() | st.integers() | st.text(max_size=50) | st.binary(max_size=50) | st.floats() | st.complex_numbers()
)
mixed = st.recursive(
    st.one_of(values, unsendable, st.sampled_from(["k" * 41, b"k" * 41, 10**1000])),
    lambda inner: st.lists(inner, max_size=5)
    | st.lists(inner, max_size=5).map(tuple)
    | st.dictionaries(hashable | st.tuples(hashable, st.just(Stranger())), inner, max_size=4)
    | st.frozensets(hashable | st.builds(Stranger), max_size=3),
    max_leaves=20,
)


@examples(200)
@given(mixed)
def test_dumps(value):
    same_dump(value)


@examples(100)
@given(mixed, st.integers(10, 15))
def test_dumps_where_paths_are_long(value, depth):
    for wrap in (lambda x: [0, x], lambda x: {"k": x}, lambda x: ((), x)):
        same_dump(nest(depth * 2, value, wrap))


@pytest.mark.parametrize(
    "inner",
    [
        *(None, 1, 2**31, "a", "\xe9", "a" * 65535, "a" * 65536, b"", 1j, True, 1.5, Stranger()),
        *([], [1], {}, {1: 2}, set(), {1}, frozenset(), frozenset([1]), (), ((),)),
        *((1, None, True, 2.5, "a"), (1, "\xe9"), ("a" * 65536,), (2**31,), (b"",), ([],), (1, 1j), ((1, 2),)),
    ],
    ids=lambda inner: repr(inner)[:30],
)
def test_dumps_at_the_greatest_depth(inner):
    for wrap in (lambda x: [x], lambda x: (x,)):
        results = [same_dump(nest(depth, inner, wrap))[0] for depth in (1998, 1999, 2000, 2001, 2002)]
        assert results[-1] == "execnet_c"


@pytest.mark.skipif(not hasattr(sys, "get_int_max_str_digits"), reason="no limit of digits")
@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: [x], lambda x: {x: 1}, lambda x: {"k": {(x,)}}])
def test_too_many_digits(wrap):
    limit = sys.get_int_max_str_digits()
    for digits in (limit - 1, limit, limit + 1, limit * 2):
        same_dump(wrap(10**digits))
        same_load(b"\x02H" + (digits + 1).to_bytes(4, "big") + b"1" + b"0" * digits + b"Q")
        same_load(b"\x02H" + (digits + 3).to_bytes(4, "big") + b"1" + b"0" * digits + b"\0xQ")


@pytest.mark.parametrize("n", [0, 1, 63, 64, 65, 255, 256, 1000, 1024, 1025, 65536, 70000])
def test_lengths(n):
    few = range(min(n, 5000))
    containers = [None] * n, (1,) * n, set(few), frozenset(few), dict.fromkeys(few)
    for value in ("a" * n, "\xe9" * n, b"b" * n, 10 ** min(n, 4000), *containers):
        assert same_dump(value)[0] == "ok"
        assert same_load(_core.dumps(value))[0] == "ok"


programs = st.lists(opcodes | st.sampled_from([b"B\0\0\0\1", b"B\0", b"Z", b"Q"]), max_size=30).map(b"".join)


@examples(400)
@given(programs, st.booleans(), st.booleans())
def test_programs(program, py2, py3):
    same_load(b"\x02" + program + b"Q" * 60, py2, py3)
    same_load(b"\x02" + program, py2, py3)


@examples(120)
@given(corrupted(), st.booleans(), st.booleans())
def test_corrupted(data, py2, py3):
    same_load(data, py2, py3)


@examples(200)
@given(st.binary(max_size=40))
def test_anything(data):
    same_load(data)
    same_load(b"\x02" + data)


def test_every_cut_and_every_change_of_one_byte():
    value = [1, "abc", {"k": [(1, "\xe9"), {2}]}, frozenset([2.5]), 2**40, [None, b"x"], 1j]
    data = _core.dumps(value)
    random.seed(7)
    for at in range(len(data)):
        same_load(data[:at])
        for byte in [*b"@ABCDEFGHIJKLMNOPQRST\0\1\2\x7f\x80\xff", random.randrange(256)]:
            same_load(data[:at] + bytes([byte]) + data[at + 1 :])


def deep(n, key=b"@\0\0\0\0"):
    return key + b"@\0\0\0\1" * (n - 1)


@pytest.mark.parametrize(
    "program",
    [
        *(b"K\0\0\0\1F\0\0\0\0" * n + b"L" + b"P" * n for n in (100_000, 100_001)),
        *(deep(n) for n in (100_000, 100_001)),
        *(b"JL" * n + b"L" + b"P" * n for n in (100_000, 100_001)),
        *(b"J" + deep(n) + b"LP" for n in (1000, 1001)),
        *(b"J" + deep(n) + b"KP" for n in (1001,)),
        *(deep(n) + b"O\0\0\0\1" for n in (1000, 1001)),
        *(deep(n) + b"E\0\0\0\1" for n in (1000, 1001)),
        *(b"J" + deep(1000) + b"LP" + b"@\0\0\0\1" * n for n in (98_999, 99_000)),
        deep(1001) + b"JE\0\0\0\2",
        b"J" + deep(1001) + b"E\0\0\0\2",
        b"L" + deep(1001) + b"J" + deep(1001) + b"O\0\0\0\4",
        deep(998) + b"LE\0\0\0\2@\0\0\0\1E\0\0\0\1E\0\0\0\1",
        b"JL" + deep(99_998) + b"P@\0\0\0\1@\0\0\0\1",
        b"JL" + deep(99_999) + b"PL@\0\0\0\1P@\0\0\0\1@\0\0\0\1",
        b"K\0\0\0\1F\0\0\0\1" + deep(100_000) + b"P",
        b"K\0\0\0\1F\0\0\0\0" + deep(99_999) + b"P",
        b"K\0\0\0\1F\0\0\0\0" + deep(100_000) + b"P",
        b"K\0\0\0\1K\0\0\0\0LP" + b"." * 20,
        b"K\0\0\0\1F\0\0\0\0K\0\0\0\1PF\0\0\0\0JP" + b"." * 20,
        b"J" + b"E\0\0\0\0" * 2 + b"P",
        b"J" * 3 + b"P",
        b"@\0\0\0\0" * 3 + b"P",
        b"L" + b"@\0\0\0\1" * 500 + b"K\0\0\0\0P",
    ],
    ids=lambda program: f"{program[:8]!r}{len(program)}",
)
@pytest.mark.parametrize("around", [b"Q", *(pytest.param(rest, marks=pytest.mark.deep) for rest in (b"@\0\0\0\1Q", b""))])
def test_depth(program, around):
    """Loaded where it may be; compared by what is written of it, or, being too deep for that, not at all."""
    data = b"\x02" + program + around
    results = []
    for ser in (_core, pyserializer):
        try:
            value = ser.loads(data)
        except ser.LoadError as error:
            results.append((str(error), type(error), type(error.__cause__)))
        else:
            results.append(outcome(ser.dumps, value))
            del value
    theirs, ours = results
    assert theirs[0] == ours[0] and str(theirs[1:]) == str(ours[1:]).replace("pyserializer", "_core")
    gc.collect()
