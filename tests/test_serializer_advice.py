"""What a DumpError says to send instead, of both cores."""

import array
import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import os
import pathlib
import re

import pytest

from execnet_c import _core
from execnet_c.twin import pyserializer

try:
    import numpy  # it starts threads of its own: before the tests count them
except ImportError:
    numpy = None


@pytest.fixture(params=[_core, pyserializer], ids=["C", "Python"])
def ser(request):
    return request.param


@dataclasses.dataclass
class Pair:
    one: int = 1


class Frame:
    """As a table of pandas: a list of it would lose what is in it."""

    def to_dict(self):
        return {}

    def __iter__(self):
        return iter(["column"])


@pytest.mark.parametrize(
    "value, way",
    [
        (datetime.datetime.now(), ".isoformat()"),
        (datetime.date.today(), ".isoformat()"),
        (datetime.timedelta(1), ".total_seconds()"),
        (decimal.Decimal("1.5"), "str()"),
        (fractions.Fraction(1, 3), "str()"),
        (pathlib.Path("x"), "str()"),
        (ValueError("x"), "str()"),
        (enum.Enum("Colour", "red").red, ".value"),
        (enum.IntEnum("Colour", "red").red, ".value"),
        (Pair(), "dataclasses.asdict()"),
        (Frame(), ".to_dict()"),
        (array.array("d", [1]), ".tolist()"),
        (bytearray(b"x"), "bytes()"),
        (memoryview(b"x"), "bytes()"),
        (range(3), "list()"),
        (iter([1]), "list()"),
        ({}.keys(), "list()"),
        (collections.deque(), "list()"),
        (collections.defaultdict(list), "dict()"),
        (collections.OrderedDict(), "dict()"),
        (os.environ, "dict()"),
        (type("Text", (str,), {})(), "str()"),
        (type("Data", (bytes,), {})(), "bytes()"),
        (type("Number", (int,), {})(), "int()"),
        (collections.namedtuple("Named", "a")(1), "list()"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else value,
)
def test_text_says_what_to_send_instead(ser, value, way):
    for wrapped, path in ((value, ""), ([0, value], " at [1]"), ({"k": (value,)}, " at ['k'][0]")):
        with pytest.raises(ser.DumpError) as caught:
            ser.dumps(wrapped)
        assert str(caught.value) == f"can't serialize {type(value)!r}{path}; send {way} or pickle.dumps() of it"


@pytest.mark.skipif(numpy is None, reason="numpy is not installed")
def test_what_there_is_in_numpy(ser):
    for value in (numpy.arange(3), numpy.float64(1), numpy.int32(3), numpy.datetime64(1, "s")):
        with pytest.raises(ser.DumpError, match=r"; send \.tolist\(\) or pickle\.dumps\(\) of it$"):
            ser.dumps({"k": value})


def test_the_advice_asks_nobody_s_code(ser):
    class Meta(type):
        def __getattr__(cls, name):
            raise RuntimeError(name)

    with pytest.raises(ser.DumpError, match=re.escape("; send pickle.dumps() of it") + "$"):
        ser.dumps(Meta("Odd", (), {"__getattr__": lambda self, name: 1 / 0})())
