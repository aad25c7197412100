"""Where the C core's loads() does not take the long way: short strings that it has seen before, and runs of plain items
of lists and dicts. Each shortcut is taken here, and just missed; what comes out is what the twin makes of it.
"""

import gc
import importlib.util
import struct
import sys

import pytest
from execnet_c import _core
from test_serializer_twins import same_load

LONGEST = 24  # of the strings that are kept
KEPT = 512  # strings at most


def i4(n):
    return struct.pack("!i", n)


def text(s, op=b"N"):
    data = s.encode()
    return op + i4(len(data)) + data


def item(index, value):
    return b"F" + i4(index) + value + b"P"


def again(value):
    return _core.loads(_core.dumps(value))


# ---- strings


@pytest.mark.parametrize("n", range(1, LONGEST + 10))
def test_words_that_differ_in_one_place(n):
    word = "abcdefghijklmnopqrstuvwxyzabcdefghijklmnop"[:n]
    words = [word] + [word[:at] + "X" + word[at + 1 :] for at in range(n)] + [word + "b", word[:-1] + "\x7f"]
    for value in (words, [w for other in words for w in (word, other)]):
        assert again(value) == value
        assert again(tuple(value)) == tuple(value)
        assert again(dict.fromkeys(value, 1)) == dict.fromkeys(value, 1)


def test_short_ascii_is_the_same_object_again_and_nothing_else_is():
    for known in ("abc", "a" * LONGEST):
        assert again(known) is again(known)
    for strange in ("a" * (LONGEST + 1), "ab\xe9", "\U0001f40d"):
        assert again(strange) is not again(strange)
        assert again(strange) == strange
    assert again("") == ""


def test_same_bytes_of_another_kind():
    for value in (["ab", b"ab", "\xe9", b"\xc3\xa9", 97, "a"], [b"ab", "ab"], {"ab": b"ab", b"ab": "ab"}):
        assert again(value) == value
    data = _core.dumps(["ab", {"ab": "ab"}])
    for _ in range(2):
        assert _core.loads(data, py3str_as_py2str=True) == [b"ab", {b"ab": b"ab"}]
        assert _core.loads(data) == ["ab", {"ab": "ab"}]


def test_words_after_many_that_were_all_different():
    many = [f"all different {n}" for n in range(5000)]
    value = [many, ["one", "two"] * 500, many[:3], ["\xe9\xe9", "b\xe9"] * 20]
    for _ in range(3):
        assert again(value) == value


def test_the_strings_that_are_kept_are_few():
    again([f"{n} before" for n in range(20_000)])
    blocks = sys.getallocatedblocks()
    for turn in range(10):
        again([f"{n} in turn {turn}" for n in range(5000)])
    assert sys.getallocatedblocks() - blocks < KEPT + 200


def test_they_go_with_their_module():
    data = _core.dumps([f"number {n}" for n in range(60)] * 2)

    def turn():
        spec = importlib.util.find_spec("execnet_c._core")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        assert module is not _core
        assert len(module.loads(data)) == 120

    for _ in range(5):
        turn()
        gc.collect()
    blocks = sys.getallocatedblocks()
    for _ in range(20):
        turn()
        gc.collect()
    assert sys.getallocatedblocks() - blocks < 20 * 30


# ---- runs of items

PLAIN = {
    "int": b"F" + i4(-7),
    "float": b"D" + struct.pack("!d", 1.5),
    "None": b"L",
    "True": b"R",
    "False": b"C",
    "str": text("ab"),
    "empty str": text(""),
    "long str": text("x" * 30),
    "other str": text("\xe9\xe9"),
}
NOT_PLAIN = {
    "bytes": b"A" + i4(1) + b"x",
    "str of Python 2": text("ab", b"M"),
    "unicode of Python 2": text("ab", b"S"),
    "long": b"G" + i4(5),
    "longint": b"H" + i4(2) + b"12",
    "complex": b"T" + struct.pack("!2d", 1, 2),
    "pair": text("a") + text("b") + b"@" + i4(2),
    "pair of long str": text("x" * 30) + text("\xe9" * 30) + b"@" + i4(2),
    "pair with bad str": text("a") + b"N" + i4(2) + b"a\xff" + b"@" + i4(2),
    "pair of two kinds": text("a") + text("b", b"S") + b"@" + i4(2),
    "triple": text("a") + text("b") + text("c") + b"@" + i4(3),
    "one of two": text("a") + text("b") + b"@" + i4(1),
    "two, and no tuple": text("a") + text("b"),
    "pair and more": text("a") + text("b") + b"@" + i4(2) + b"@" + i4(1),
    "list": b"K" + i4(0),
    "dict": b"J",
    "bad str": b"N" + i4(2) + b"a\xff",
    "negative str": b"N" + i4(-1) + b"ab",
    "channel": b"B" + i4(1),
    "nothing": b"Z",
}
VALUES = {**PLAIN, **NOT_PLAIN}
a, b = PLAIN["int"], PLAIN["str"]
key = text("key")
PROGRAMS = {
    "in order": b"K" + i4(3) + item(0, a) + item(1, b) + item(2, b"L"),
    "backwards": b"K" + i4(3) + item(2, a) + item(1, b) + item(0, b"L"),
    "a slot twice": b"K" + i4(2) + item(0, a) + item(0, b) + item(1, a),
    "a slot is left": b"K" + i4(3) + item(0, a) + item(2, b),
    "more than slots": b"K" + i4(1) + item(0, a) + item(1, b),
    "from behind": b"K" + i4(2) + item(-1, a) + item(-2, b),
    "beyond": b"K" + i4(2) + item(0, a) + item(-3, b),
    "other indices": b"K" + i4(2) + b"C" + a + b"P" + b"R" + b + b"P",
    "an index alone": b"K" + i4(1) + b"F" + i4(0),
    "no setitem": b"K" + i4(1) + b"F" + i4(0) + a,
    "something between": b"K" + i4(2) + item(0, a) + b"L@" + i4(1) + item(1, b),
    "empty list": b"K" + i4(0) + item(0, a),
    "list of lists": b"K" + i4(2) + item(0, b"K" + i4(1) + item(0, a)) + item(1, b),
    "dict": b"J" + key + a + b"P" + text("other") + b + b"P",
    "a key twice": b"J" + key + a + b"P" + key + b + b"P",
    "other keys": b"J" + a + b + b"P" + key + a + b"P" + b"L" + b + b"P",
    "a key alone": b"J" + key,
    "a key and no value": b"J" + key + b"P",
    "dict of dicts": b"J" + key + b"J" + key + a + b"P" + b"P" + text("b") + b + b"P",
    "bad key": b"J" + b"N" + i4(1) + b"\xff" + a + b"P",
    "negative key": b"J" + b"N" + i4(-2) + b"ab" + a + b"P",
    "unicode key": b"J" + text("ab", b"S") + a + b"P" + text("ab", b"M") + a + b"P",
    "list in dict": b"J" + key + b"K" + i4(1) + item(0, a) + b"P" + text("b") + b + b"P",
    "dict in list": b"K" + i4(1) + item(0, b"J" + key + a + b"P"),
    "pairs": b"K" + i4(2) + item(0, text("ab") + text("N") + b"@" + i4(2)) + item(1, text("") + key + b"@" + i4(2)),
}


@pytest.mark.parametrize("first", VALUES)
@pytest.mark.parametrize("second", VALUES)
def test_two_values(first, second):
    first, second = VALUES[first], VALUES[second]
    same_load(b"\x02K" + i4(2) + item(0, first) + item(1, second) + b"Q")
    same_load(b"\x02J" + text("a") + first + b"P" + text("b") + second + b"PQ")


@pytest.mark.parametrize("value", PLAIN)
def test_plain_values_arrive(value):
    plain = _core.loads(b"\x02" + PLAIN[value] + b"Q")
    assert _core.loads(b"\x02K" + i4(1) + item(0, PLAIN[value]) + b"Q") == [plain]
    assert _core.loads(b"\x02J" + key + PLAIN[value] + b"PQ") == {"key": plain}


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_and_all_cuts_and_changes_of_them(name):
    data = b"\x02" + PROGRAMS[name] + b"Q"
    same_load(data)
    same_load(data, True, True)
    for at in range(len(data)):
        same_load(data[:at])
        for byte in b"@ABCDFHJKLNPQRS\0\1\xff":
            same_load(data[:at] + bytes([byte]) + data[at + 1 :])


def test_pairs_of_str():
    pairs = [("a", "NN"), ("", ""), ("\xe9", "x" * 50), ("a", "NN")]
    for value in (pairs, pairs * 100, [*pairs, 1, "a", *pairs], [pairs, [pairs]]):
        assert again(value) == value
    assert not any(map(gc.is_tracked, again(pairs)))
    data = _core.dumps(pairs)
    assert _core.loads(data, py3str_as_py2str=True) == [(w.encode(), t.encode()) for w, t in pairs]


@pytest.mark.parametrize("inner", [[("a", "b")], [("a", "b", "c")]], ids=["pair", "triple"])
def test_a_pair_is_as_deep_as_any_tuple(inner):
    def nested(n):
        data = _core.dumps(inner)[1:-1]
        return b"\x02" + (b"K" + i4(1) + b"F" + i4(0)) * n + data + b"P" * n + b"Q"

    deepest = 100_000 - 2  # the list with the tuple in it makes it 100,000
    value = _core.loads(nested(deepest))
    while value != inner:
        (value,) = value
    with pytest.raises(_core.LoadError, match="nested too deeply"):
        _core.loads(nested(deepest + 1))
