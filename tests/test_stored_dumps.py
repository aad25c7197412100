"""Dumps that older releases of execnet made, under Python 2 and under Python 3: what they load to, and that execnet agrees.

Releases differ in what stands in front of a dump: 1.0.9 writes no version at all, 1.1 to 1.9.0 write version 1, the 2.x
write version 2, which is the only one that loads. What follows is the same bytes from every release that can dump the
value, and it is what such a far end puts on the wire; so each row here holds it once, with the expression it was made
of and the releases that made it.
"""

import io
import itertools

import pytest

import execnet_c
from execnet_c import _core, gateway_base
from execnet_c.twin import pyserializer
from test_serializer_oracle import shape

execnet = pytest.importorskip("execnet")

pytestmark = pytest.mark.any_core

# By release: what it has put in front of the bytes. Under Python 2 by 2.7.18; under Python 3 by 3.6.15 (1.x), 3.8.18
# (2.0.0 to 2.1.1), 3.11.7 and 3.13.0 (2.1.2).
UNDER_2 = {"1.0.9": "", "1.1": "01", "1.4.1": "01", "1.9.0": "01"}
UNDER_3 = {**UNDER_2, "2.0.0": "02", "2.0.2": "02", "2.1.0": "02", "2.1.1": "02", "2.1.2": "02"}
NO_COMPLEX = ("1.0.9", "1.1")

# (py2str_as_py3str, py3str_as_py2str)
OPTIONS = list(itertools.product([False, True], repeat=2))

INF = float("inf")
INTS = (
    "4b0000000546000000004600000000504600000001460000000150460000000246ffffffff504600000003467fffffff5046000000044680000000"
    "5051"
)
FLOATS = (
    "4b000000044600000000440000000000000000504600000001448000000000000000504600000002443ff8000000000000504600000003447ff000"
    "00000000005051"
)


def row(made_of, dump, value, but=()):
    """value(old, new): what it loads to, where old() is a Python 2 str and new() a Python 3 one under the options."""
    return pytest.param(dump, value, but, id=made_of)


# The order of a set's or a dict's members is the interpreter's, so those here have one at most.
ANY = [
    row("None", "4c51", lambda old, new: None),
    row("True", "5251", lambda old, new: True),
    row("False", "4351", lambda old, new: False),
    row("[0, 1, -1, 2**31-1, -2**31]", INTS, lambda old, new: [0, 1, -1, 2**31 - 1, -(2**31)]),
    row("2**40", "480000000d3130393935313136323737373651", lambda old, new: 2**40),
    row("[0.0, -0.0, 1.5, float('inf')]", FLOATS, lambda old, new: [0.0, -0.0, 1.5, INF]),
    row("complex(-0.0, 2.5)", "548000000000000000400400000000000051", lambda old, new: complex(-0.0, 2.5), NO_COMPLEX),
    row("[]", "4b0000000051", lambda old, new: []),
    row("{}", "4a51", lambda old, new: {}),
    row("set()", "4f0000000051", lambda old, new: set()),
]
FROM_2 = [
    *ANY,
    row(
        *("[0L, 7L, -7L]", "4b0000000346000000004700000000504600000001470000000750460000000247fffffff95051"),
        lambda old, new: [0, 7, -7],
    ),
    row("10**20", "490000001531303030303030303030303030303030303030303051", lambda old, new: 10**20),
    row("'old'", "4d000000036f6c6451", lambda old, new: old(b"old")),
    row("'caf\\xe9'", "4d00000004636166e951", lambda old, new: old(b"caf\xe9")),
    row("'\\x00\\x80\\xff'", "4d000000030080ff51", lambda old, new: old(b"\0\x80\xff")),
    row("''", "4d0000000051", lambda old, new: old(b"")),
    row("u'text'", "53000000047465787451", lambda old, new: "text"),
    row("u'caf\\xe9'", "5300000005636166c3a951", lambda old, new: "caf\xe9"),
    row("u'\\u20ac'", "5300000003e282ac51", lambda old, new: "\u20ac"),
    row("u'\\U0001f40d'", "5300000004f09f908d51", lambda old, new: "\U0001f40d"),
    row(
        "[None, 'a', u'b', [1, 2L]]",
        "4b0000000446000000004c5046000000014d00000001615046000000025300000001625046000000034b000000024600000000460000000150460000"
        "00014700000002505051",
        lambda old, new: [None, old(b"a"), "b", [1, 2]],
    ),
    row(
        "('a', u'b', (), (1,))",
        "4d0000000161530000000162400000000046000000014000000001400000000451",
        lambda old, new: (old(b"a"), "b", (), (1,)),
    ),
    row("{'key': u'value'}", "4a4d000000036b6579530000000576616c75655051", lambda old, new: {old(b"key"): "value"}),
    row("{u'key': 'value'}", "4a53000000036b65794d0000000576616c75655051", lambda old, new: {"key": old(b"value")}),
    row(
        "{1: {2L: ['x']}}",
        "4a46000000014a47000000024b0000000146000000004d000000017850505051",
        lambda old, new: {1: {2: [old(b"x")]}},
    ),
    row("{True: 'yes'}", "4a524d000000037965735051", lambda old, new: {True: old(b"yes")}),
    row("set(['a'])", "4d00000001614f0000000151", lambda old, new: {old(b"a")}),
    row("frozenset([u'a'])", "530000000161450000000151", lambda old, new: frozenset(["a"])),
    row(
        "set([frozenset([(1, 'a')])])",
        "46000000014d0000000161400000000245000000014f0000000151",
        lambda old, new: {frozenset([(1, old(b"a"))])},
    ),
]
FROM_3 = [
    *ANY,
    row("10**20", "480000001531303030303030303030303030303030303030303051", lambda old, new: 10**20),
    row("b'old'", "41000000036f6c6451", lambda old, new: b"old"),
    row("b'\\x00\\x80\\xff'", "41000000030080ff51", lambda old, new: b"\0\x80\xff"),
    row("b''", "410000000051", lambda old, new: b""),
    row("'text'", "4e000000047465787451", lambda old, new: new("text")),
    row("'caf\\xe9'", "4e00000005636166c3a951", lambda old, new: new("caf\xe9")),
    row("'\\u20ac'", "4e00000003e282ac51", lambda old, new: new("\u20ac")),
    row("'\\U0001f40d'", "4e00000004f09f908d51", lambda old, new: new("\U0001f40d")),
    row("''", "4e0000000051", lambda old, new: new("")),
    row(
        "[None, b'a', 'b', [1, 2]]",
        "4b0000000446000000004c5046000000014100000001615046000000024e00000001625046000000034b000000024600000000460000000150460000"
        "00014600000002505051",
        lambda old, new: [None, b"a", new("b"), [1, 2]],
    ),
    row(
        "(b'a', 'b', (), (1,))",
        "4100000001614e0000000162400000000046000000014000000001400000000451",
        lambda old, new: (b"a", new("b"), (), (1,)),
    ),
    row("{'key': b'value'}", "4a4e000000036b6579410000000576616c75655051", lambda old, new: {new("key"): b"value"}),
    row("{b'key': 'value'}", "4a41000000036b65794e0000000576616c75655051", lambda old, new: {b"key": new("value")}),
    row(
        "{1: {2: ['x']}}",
        "4a46000000014a46000000024b0000000146000000004e000000017850505051",
        lambda old, new: {1: {2: [new("x")]}},
    ),
    row("{True: 'yes'}", "4a524e000000037965735051", lambda old, new: {True: new("yes")}),
    row("{'a'}", "4e00000001614f0000000151", lambda old, new: {new("a")}),
    row("frozenset([b'a'])", "410000000161450000000151", lambda old, new: frozenset([b"a"])),
    row(
        "{frozenset([(1, 'a')])}",
        "46000000014e0000000161400000000245000000014f0000000151",
        lambda old, new: {frozenset([(1, new("a"))])},
    ),
]


@pytest.fixture(params=[_core, pyserializer], ids=["C", "Python"])
def ser(request):
    return request.param


def expected(value, py2str_as_py3str, py3str_as_py2str):
    def old(text):
        return text.decode("latin-1") if py2str_as_py3str else text

    def new(text):
        return text.encode() if py3str_as_py2str else text

    return shape(value(old, new))


def check(ser, front, dump, value):
    """A stored dump as it is, and its bytes as an item of a channel, under every option."""
    whole, item = bytes.fromhex(front + dump), bytes.fromhex(dump)
    for options in OPTIONS:
        wanted = expected(value, *options)
        assert shape(execnet.gateway_base.loads_internal(item, strconfig=options)) == wanted
        assert shape(ser.loads(b"\x02" + item, *options)) == wanted
        if front == "02":
            assert shape(execnet.loads(whole, *options)) == wanted
            assert shape(ser.loads(whole, *options)) == wanted
            assert shape(ser.load(io.BytesIO(whole), *options)) == wanted
            continue
        said = []
        for lib in (execnet, ser):
            with pytest.raises(lib.LoadError) as caught:
                lib.loads(whole, *options)
            said.append(str(caught.value))
            with pytest.raises(lib.LoadError) as caught:
                lib.load(io.BytesIO(whole), *options)
            said.append(str(caught.value))
        assert said == [f"wrong dumpformat version {whole[:1]!r}"] * 4


@pytest.mark.parametrize("dump, value, but", FROM_2)
def test_made_under_python_2(ser, dump, value, but):
    for release, front in UNDER_2.items():
        if release not in but:
            check(ser, front, dump, value)


@pytest.mark.parametrize("dump, value, but", FROM_3)
def test_made_under_python_3(ser, dump, value, but):
    for release, front in UNDER_3.items():
        if release not in but:
            check(ser, front, dump, value)


@pytest.mark.parametrize("dump, value, but", FROM_3)
def test_ours_are_those_of_the_2_x(ser, dump, value, but):
    """What is stored from now on is what the releases stored, so that they load it, too."""
    stored = bytes.fromhex("02" + dump)
    assert ser.dumps(value(None, lambda text: text)) == stored
    assert execnet.dumps(value(None, lambda text: text)) == stored


@pytest.mark.parametrize("dumps", [FROM_2, FROM_3], ids=["from 2", "from 3"])
def test_many_in_one_file(ser, dumps):
    """As a program writes them with dump(), one behind the other."""
    items = [one.values[:2] for one in dumps]
    file = io.BytesIO(b"".join(bytes.fromhex("02" + dump) for dump, _ in items))
    for _, value in items:
        assert shape(ser.load(file, True, False)) == expected(value, True, False)
    with pytest.raises(ser.LoadError):
        ser.load(file)


@pytest.mark.parametrize("dumps", [FROM_2, FROM_3], ids=["from 2", "from 3"])
def test_names_that_programs_load_them_by(dumps):
    """gateway_base's loader of items: a Python 2 str is text there, unless it is told otherwise."""
    for dump, value, _ in (one.values for one in dumps):
        item = bytes.fromhex(dump)
        for lib in (gateway_base, execnet.gateway_base):
            assert shape(lib.loads_internal(item)) == expected(value, True, False)
            for options in OPTIONS:
                assert shape(lib.loads_internal(item, None, options)) == expected(value, *options)
            assert shape(lib.Unserializer(io.BytesIO(item)).load()) == expected(value, True, False)


# The text of a Python 2 may hold half of a surrogate pair; every release dumps u'\ud800' under Python 2 like this.
def test_half_a_pair_is_no_text(ser):
    stored = bytes.fromhex("025300000003eda08051")
    with pytest.raises(UnicodeDecodeError) as theirs:
        execnet.loads(stored)
    with pytest.raises(ser.LoadError) as ours:
        ser.loads(stored)
    assert str(theirs.value) in str(ours.value)


@pytest.mark.parametrize("text", ["4d", "4e"], ids=["Python 2", "Python 3"])
def test_a_channel_can_not_be_stored(ser, text):
    """[channel, 'x'] as it goes over the wire; outside of a gateway neither can make a channel of it."""
    stored = bytes.fromhex("024b0000000246000000004200000001504600000001" + text + "00000001785051")
    with pytest.raises(AssertionError):
        execnet.loads(stored)
    with pytest.raises(ser.LoadError, match="channel"):
        ser.loads(stored)


def test_the_package_loads_them_by_its_core():
    assert execnet_c.loads(bytes.fromhex("024d000000036f6c6451")) == b"old"
    assert execnet_c.loads(bytes.fromhex("024d000000036f6c6451"), py2str_as_py3str=True) == "old"
    assert execnet_c.loads(bytes.fromhex("024e000000047465787451"), py3str_as_py2str=True) == b"text"
