"""strict=False: enums and subclasses of plain types go as plain values, where that was asked for."""

import collections
import enum
import io
import threading

import execnet_c
import pytest
from conftest import TIMEOUT
from gateways import group_fixture  # noqa: F401
from pairing import module as core
from picklable import START, Colour, Level, Text

pytestmark = pytest.mark.timeout(120)


class Number(int):
    def __int__(self):
        return 99

    __repr__ = __str__ = __index__ = __int__


class Ratio(float):
    pass


class Items(list):
    pass


class Flags(enum.Flag):
    A, B = 1, 2


class Nested(enum.Enum):
    LIST = [Colour.RED, (Level.HIGH,)]
    INNER = Level.LOW


class Word(str, enum.Enum):
    ONE = "one"


Pair = collections.namedtuple("Pair", "a b")
CASES = [
    (Colour.RED, 1),
    (Level.HIGH, 2),
    (Word.ONE, "one"),
    (Flags.A | Flags.B, 3),
    (Nested.LIST, [1, (2,)]),
    (Nested.INNER, 1),
    (Text("ä"), "ä"),
    (Number(5), 5),
    (Number(1 << 70), 1 << 70),
    (Ratio(2.5), 2.5),
    (Pair(Colour.BLUE, Items([Number(1)])), ("b", [1])),
    (
        collections.OrderedDict([(Word.ONE, Pair(1, 2)), ("b", None)]),
        {"one": (1, 2), "b": None},
    ),
    (collections.defaultdict(list, a=Items()), {"a": []}),
    (collections.Counter("aab"), {"a": 2, "b": 1}),
    ({Level.LOW, 7}, {1, 7}),
    (frozenset([Pair(1, 2)]), frozenset([(1, 2)])),
    (
        [True, None, 1.5, b"x", 2j, {"k": [Level.LOW] * 3}],
        [True, None, 1.5, b"x", 2j, {"k": [1, 1, 1]}],
    ),
]


def exact(item):
    """With the types of all parts."""
    if isinstance(item, dict):
        return type(item), tuple(
            (exact(key), exact(value)) for key, value in item.items()
        )
    if isinstance(item, (list, tuple)):
        return type(item), tuple(map(exact, item))
    if isinstance(item, (set, frozenset)):
        return type(item), frozenset(map(exact, item))
    return type(item), item


@pytest.mark.parametrize("item, plain", CASES, ids=lambda value: type(value).__name__)
def test_dumps(item, plain):
    assert (
        core.dumps(item, strict=False)
        == core.dumps(plain, strict=False)
        == core.dumps(plain)
    )
    written = io.BytesIO()
    core.dump(written, item, strict=False)
    assert exact(core.loads(written.getvalue())) == exact(plain)


def test_the_default_is_strict():
    for item, _ in CASES[:-1]:
        with pytest.raises(execnet_c.DumpError, match="can't serialize"):
            core.dumps(item)
    with pytest.raises(TypeError):
        core.dumps(1, False)


@pytest.mark.parametrize("of", ["channel", "gateway"])
def test_both_ends_of_a_channel(group, of):
    gateway = group.makegateway("popen")
    if of == "gateway":
        gateway.reconfigure(strict=False)
    channel = gateway.remote_exec(
        START
        + "for item in channel:\n    channel.send((item, str(type(item))))\n    channel.send([picklable.Level.HIGH, picklable.Text('t')])"
    )
    if of == "channel":
        channel.reconfigure(strict=False)
    for item, plain in CASES:
        channel.send(item)
        got, kind = channel.receive(TIMEOUT)
        assert exact(got) == exact(plain) and kind == str(type(plain))
        assert exact(channel.receive(TIMEOUT)) == exact([2, "t"])
    channel.reconfigure()
    with pytest.raises(execnet_c.DumpError):
        channel.send(Colour.RED)
    channel.send(1)
    channel.receive(TIMEOUT)
    with pytest.raises(execnet_c.RemoteError, match="DumpError"):
        channel.receive(TIMEOUT)


def test_other_things_are_refused_as_ever_and_their_place_is_named():
    item = [Pair(1, {"key": Items([0, threading.Lock()])})]
    for value, where in ((item, r"\[0\]\[1\]\['key'\]\[1\]"), (object(), "")):
        with pytest.raises(
            execnet_c.DumpError,
            match=f"can't serialize <class '[\\w.]+'>{' at ' if where else ''}{where}; send",
        ):
            core.dumps(value, strict=False)
    loop = [Text("a")]
    loop.append(loop)
    with pytest.raises(execnet_c.DumpError):
        core.dumps(loop, strict=False)


def test_deep_and_shared_items():
    item = Items()
    for _ in range(1500):
        item = Items([item])
    assert len(core.dumps(item, strict=False)) > 1500
    shared = Pair(Level.LOW, 1)
    for _ in range(10):
        shared = [shared, shared]
    assert core.dumps(shared, strict=False).count(b"@\0\0\0\2") == 1024


def test_a_value_that_is_no_key():
    with pytest.raises(execnet_c.DumpError, match="can't serialize <enum 'Nested'>"):
        core.dumps({Nested.LIST: 1}, strict=False)


def test_before_a_pickle(group):
    channel = group.makegateway("popen//payload=pickle").remote_exec(
        START + "for item in channel: channel.send(repr(item))"
    )
    channel.reconfigure(strict=False)
    channel.send([Level.HIGH])
    assert channel.receive(TIMEOUT) == "[2]"
    channel.send([Level.HIGH, range(3)])
    assert channel.receive(TIMEOUT) == "[<Level.HIGH: 2>, range(0, 3)]"
