"""Items that the serializer of the plain-Python core cannot carry: see src/py/pickled.h. This module is imported when there
is such an item, or one that may be: a large item whose first opcode is TUPLE or CHANNEL is read into Pages.

Here the memory of a large item is that of its buffers, too. Those of a small one are a copy, and not aligned.
"""

from mmap import MAP_ANONYMOUS, MAP_PRIVATE, PROT_READ, PROT_WRITE, mmap

from ..common.pickles import packed, unpacked
from .pyserializer import LARGE, DumpError, LoadError, TruncatedError, dump_item

ALIGN = 64


class Pages(mmap):
    """Memory for a payload of `size` bytes, in the place of pywire.Memory."""

    def __new__(cls, size):
        try:
            return super().__new__(
                cls, -1, size, MAP_PRIVATE | MAP_ANONYMOUS, PROT_READ | PROT_WRITE
            )
        except OSError:
            raise MemoryError from None

    def getbuffer(self):
        return memoryview(self)

    def getvalue(self):
        return self


def encoded(gateway, item, channels, kind):
    """As dump_item(item, channels). kind: the type Channel."""
    if not gateway._is_worker:
        gateway._check_pickles()
    pickle, buffers, inside = packed(item, kind, DumpError)
    parts = [dump_item(inside, channels)[0][:-1]]
    lengths = [len(pickle), *map(len, buffers)]
    parts.append(
        b"W%b%b%b"
        % (
            _i8(lengths[0]),
            len(buffers).to_bytes(4, "big"),
            b"".join(map(_i8, lengths[1:])),
        )
    )
    parts.append(pickle)
    at = sum(map(len, parts))
    for buffer in buffers:
        parts += bytes(-at % ALIGN), buffer
        at += -at % ALIGN + len(buffer)
    parts.append(b"Q")
    return _joined(parts)


def _i8(n):
    return n.to_bytes(8, "big")


def _joined(parts):
    """The same with the small parts joined."""
    joined, small = [], []
    for part in parts:
        if len(part) < LARGE:
            small.append(part)
            continue
        joined += b"".join(small), part
        small = []
    return [*joined, b"".join(small)]


def load(trusted, data, p, *stack):
    """The object of a PICKLE whose operand begins at data[p]. `stack`: what stands in front of it."""
    end = len(data)

    def behind(at, n):
        if n > end - at:
            raise TruncatedError(f"input ends at offset {end}, within what begins")
        return at + n

    if len(stack) != 1 or type(stack[0]) is not tuple:
        raise LoadError("a pickle without its channels")
    at = behind(p, 12)
    n = int.from_bytes(data[p + 8 : at], "big")
    lengths = [
        data[p : p + 8],
        *[data[place : place + 8] for place in range(at, behind(at, 8 * n), 8)],
    ]
    places, at = [], at + 8 * n
    for length in lengths:
        places.append(slice(at, behind(at, int.from_bytes(length, "big"))))
        at = places[-1].stop + -places[-1].stop % ALIGN
    at = places[-1].stop
    if data[at : at + 1] != b"Q":
        raise LoadError("no STOP behind the pickle")
    if not trusted:
        raise LoadError(
            "a pickle, which this side does not load from this far end (payload=pickle in the gateway's spec allows it)"
        )
    memory = memoryview(data if type(data) is Pages or not n else bytearray(data))
    pickle, *buffers = [memory[place] for place in places]
    return unpacked(pickle, buffers, stack[0], LoadError)
