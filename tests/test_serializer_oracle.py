"""Both serializers against execnet's own, over values and over bytes that hypothesis makes up."""

import io
import os
import struct

import pytest

from execnet_c import _core
from execnet_c.twin import pyserializer

execnet = pytest.importorskip("execnet")
hypothesis = pytest.importorskip("hypothesis")

from hypothesis import given, settings, strategies as st  # noqa: E402

pytestmark = pytest.mark.deep

I4_MIN = -(2**31)

# What we refuse and execnet takes: its own encoder never writes it.
REFUSED = ("too early to fill the list", "negative length", "too few objects", "nested too deeply")

# EXECNET_C_EXAMPLES=20 looks twenty times as long.
MORE = int(os.environ.get("EXECNET_C_EXAMPLES", "1"))


over_both = pytest.mark.parametrize("ser", [_core, pyserializer], ids=["C", "Python"])


def examples(n):
    return settings(deadline=None, max_examples=n * MORE, suppress_health_check=list(hypothesis.HealthCheck))


keys = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(min_value=I4_MIN)
    | st.floats()
    | st.complex_numbers()
    | st.text(alphabet=st.characters(exclude_categories=["Cs"]))
    | st.binary(),
    lambda inner: st.lists(inner, max_size=4).map(tuple) | st.frozensets(inner, max_size=4),
    max_leaves=10,
)
values = st.recursive(
    keys,
    lambda inner: st.lists(inner, max_size=8)
    | st.lists(inner, max_size=8).map(tuple)
    | st.dictionaries(keys, inner, max_size=8)
    | st.sets(keys, max_size=8),
    max_leaves=40,
)


def shape(value):
    """What tells two values apart where == does not: types, the sign of a zero, the bits of a NaN."""
    if isinstance(value, (list, tuple)):
        return type(value), [shape(item) for item in value]
    if isinstance(value, dict):
        return dict, [(shape(k), shape(v)) for k, v in value.items()]
    if isinstance(value, (set, frozenset)):
        return type(value), sorted(repr(shape(item)) for item in value)
    if isinstance(value, float):
        return float, struct.pack("!d", value)
    if isinstance(value, complex):
        return complex, struct.pack("!dd", value.real, value.imag)
    return type(value), value


def outcome(load, data, *flags):
    """("ok", shape) or ("error", class, text)."""
    try:
        return "ok", shape(load(data, *flags))
    except (_core.DataFormatError, pyserializer.DataFormatError, execnet.DataFormatError, EOFError) as error:
        return "error", type(error), str(error)
    except Exception as error:
        # What execnet raises for bytes it did not write: struct.error, TypeError, IndexError, ...
        if load is execnet.loads:
            return "error", type(error), str(error)
        raise


def compare(ser, data, *flags):
    """Equal where execnet loads; an error of ours where it fails. Ours comes first: it is safe with any length."""
    ours = outcome(ser.loads, data, *flags)
    if ours[0] == "error" and any(text in ours[2] for text in REFUSED):
        return ours
    theirs = outcome(execnet.loads, data, *flags)
    assert ours[0] == theirs[0], (ours, theirs)
    if ours[0] == "ok":
        assert ours == theirs
    return ours


@over_both
@examples(100)
@given(values)
def test_the_same_bytes(ser, value):
    data = execnet.dumps(value)
    assert ser.dumps(value) == data
    assert shape(ser.loads(data)) == shape(execnet.loads(data))
    sink = io.BytesIO()
    ser.dump(sink, value)
    assert sink.getvalue() == data


@over_both
@examples(100)
@given(st.text(), st.text(alphabet=st.characters(codec="utf-8")))
def test_text(ser, anything, encodable):
    assert ser.dumps(encodable) == execnet.dumps(encodable)
    results = []
    for lib in (execnet, ser):
        try:
            results.append(lib.dumps(anything))
        except lib.DumpError as error:
            results.append((str(error), type(error.__cause__)))
    assert results[0] == results[1]


@over_both
@examples(100)
@given(st.integers(max_value=I4_MIN - 1))
def test_ints_that_execnet_cannot_pack(ser, number):
    with pytest.raises(struct.error):
        execnet.dumps(number)
    assert execnet.loads(ser.dumps(number)) == number


@over_both
@examples(100)
@given(values, st.booleans(), st.booleans())
def test_coercion(ser, value, py2, py3):
    compare(ser, execnet.dumps(value), py2, py3)


def i4(low=-3, high=40):
    return st.integers(low, high).map(lambda n: struct.pack("!i", n))


def counted(op, content):
    return content.map(lambda c: op + struct.pack("!i", len(c)) + c)


decimals = st.integers().map(lambda n: str(n).encode()) | st.text("0123456789_+- \tx\0", max_size=8).map(str.encode)
utf8 = st.text(max_size=6).map(lambda s: s.encode("utf-8", "surrogatepass"))
opcodes = (
    st.sampled_from([b"L", b"R", b"C", b"J", b"P", b"P", b"P"])
    | st.builds(bytes.__add__, st.sampled_from([b"@", b"O", b"E", b"K"]), i4(-1, 4))
    | st.builds(bytes.__add__, st.sampled_from([b"F", b"G"]), i4())
    | st.builds(bytes.__add__, st.just(b"D"), st.binary(min_size=8, max_size=8))
    | st.builds(bytes.__add__, st.just(b"T"), st.binary(min_size=16, max_size=16))
    | st.sampled_from([b"A", b"M", b"N", b"S"]).flatmap(lambda op: counted(op, st.binary(max_size=6)))
    | st.sampled_from([b"N", b"S"]).flatmap(lambda op: counted(op, utf8))
    | st.sampled_from([b"H", b"I"]).flatmap(lambda op: counted(op, decimals))
)


@over_both
@examples(600)
@given(st.lists(opcodes, max_size=30).map(b"".join), st.booleans(), st.booleans())
def test_programs(ser, program, py2, py3):
    """Opcodes in any order: mostly errors, sometimes objects that execnet's encoder would write otherwise."""
    compare(ser, b"\x02" + program + b"Q" * 60, py2, py3)
    compare(ser, b"\x02" + program, py2, py3)


def counted_int(n):
    digits = str(n).encode()
    return b"H" + struct.pack("!i", len(digits)) + digits


list_items = st.tuples(
    st.one_of(
        st.integers(-5, 5).map(lambda n: b"F" + struct.pack("!i", n)),
        st.integers(-5, 5).map(counted_int),
        st.sampled_from([b"R", b"C", b"L", b"H\0\0\0\x1499999999999999999999", b"D" + bytes(8), b"J", b"K\0\0\0\0"]),
    ),
    st.sampled_from([b"L", b"R", b"N\0\0\0\1x", b"F\0\0\0\7", b"K\0\0\0\0", b"J"]),
).map(lambda pair: pair[0] + pair[1] + b"P")


@over_both
@examples(500)
@given(st.integers(0, 4), st.lists(list_items, max_size=5))
def test_list_indices(ser, size, items):
    """Any key and any order; slots that nobody set are None."""
    compare(ser, b"\x02K" + struct.pack("!i", size) + b"".join(items) + b"Q" + b"." * 40)


@st.composite
def corrupted(draw):
    data = bytearray(execnet.dumps(draw(values)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        what = draw(st.integers(0, 3))
        if what == 0:
            data[at:at] = draw(st.binary(min_size=1, max_size=5))
        elif what == 1:
            del data[at : at + draw(st.integers(1, 6))]
        elif what == 2:
            data[at : at + 1] = draw(st.sampled_from(list(b"@ABCDEFGHIJKLMNOPQRST\0\xff"))).to_bytes(1, "big")
        else:
            data = data[:at] + data[draw(st.integers(0, len(data))) :]
    return bytes(data)


@over_both
@examples(250)
@given(corrupted())
def test_corrupted(ser, data):
    compare(ser, data)


@over_both
@examples(150)
@given(corrupted())
def test_load_as_loads(ser, data):
    """The same object, or the same class of error, and never a byte beyond what makes it certain."""

    class Source:
        at = 0

        def read(self, n):
            assert n > 0
            piece = data[self.at : self.at + n]
            self.at += n
            return piece

    source = Source()
    from_bytes = outcome(ser.loads, data)
    from_stream = outcome(lambda _: ser.load(source), data)
    assert from_stream[0] == from_bytes[0]
    if from_bytes[0] == "ok":
        assert from_stream == from_bytes
        stream = io.BytesIO(data)
        execnet.load(stream)
        assert source.at == stream.tell()
