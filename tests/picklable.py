"""Objects that only pickle can carry, for both ends of a channel: a far end that was sent START can import this, on Python 3.8,
too."""

import dataclasses
import enum
import os
import pickle

START = f"import sys\nsys.path.insert(0, {os.path.dirname(os.path.abspath(__file__))!r})\nimport picklable\n"


class Array:
    """As an array of numpy's: its memory is a buffer beside the pickle."""

    def __init__(self, data):
        self.data = data

    def __reduce_ex__(self, protocol):
        return Array, (pickle.PickleBuffer(self.data),)

    def __eq__(self, other):
        return type(other) is Array and bytes(self.data) == bytes(other.data)


@dataclasses.dataclass
class Point:
    x: object
    y: object


class Colour(enum.Enum):
    RED = 1
    BLUE = "b"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Failure(Exception):
    def __init__(self, what, code):
        super().__init__(what, code)
        self.what, self.code = what, code

    def __eq__(self, other):
        return type(other) is Failure and self.args == other.args


class Text(str):
    pass


class Runs:
    """Calls function(*args) where it is loaded."""

    def __init__(self, function, *args):
        self.what = function, args

    def __reduce__(self):
        return self.what


def refused(*args):
    raise Failure("not loaded", 3)


def address_of(buffer):
    """Of a writable buffer that is not empty."""
    import ctypes

    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))
