"""A file that notes what a stream has yielded, so that a program which is started again goes on behind it.

It begins with MAGIC. Then come records: length and CRC-32 of what follows, and a pickle. The first one says which stream it is,
each other one is (index of the first item, results), noted before these are yielded. Whoever is killed while he writes leaves
less than a whole record; that is cut.
"""

import fcntl
import os
import struct
import zlib

from . import failures
from .carry import unpack
from .remote import pack

MAGIC = b"execnet_c checkpoint 1\n"
HEAD = struct.Struct(">QI")


class Checkpoint:
    def __init__(self, path, func, ordered):
        self.path = os.path.abspath(os.fspath(path))
        self._func = getattr(func, "__qualname__", None) or type(func).__qualname__
        self._ordered = ordered
        self._file = None

    def open(self):
        """Raises BlockingIOError if another stream has the file, ValueError if it is not this stream's."""
        self._file = open(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666), "rb")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise BlockingIOError(exc.errno, "the checkpoint is in use by a stream that runs", self.path) from None
        if not MAGIC.startswith(self._file.read(len(MAGIC))):
            raise ValueError(f"{self.path} is no checkpoint, and is left as it is")
        self._records = self._read()
        self._stream = next(self._records, None)  # None: it has nothing yet
        if self._stream is not None:
            func, ordered, _ = self._stream
            if func != self._func:
                raise self._other(f"of the function {func}, not of {self._func}")
            if ordered != self._ordered:
                raise self._other(f"with ordered={ordered}")

    def begin(self, first):
        """first: a list of the source's first item, [] if it has none. Raises ValueError if that is not this stream's."""
        if self._stream is not None:
            _, _, packed = self._stream
            if not first:
                raise self._other("whose source was not empty")
            if _packed(*first) != packed and not (packed and _are_equal(unpack(packed), *first)):
                raise self._other(f"whose first item was another than {failures.shown(*first)}")
        elif first:
            self._cut(0)
            self._write(MAGIC)
            self._add(pack((self._func, self._ordered, _packed(*first))))

    def records(self):
        """(index of the first item, results) for all that is noted. Behind that the file ends."""
        return self._records

    def _read(self):
        file = self._file
        size, good = os.fstat(file.fileno()).st_size, file.tell()
        while True:
            head = file.read(HEAD.size)
            if len(head) < HEAD.size:
                break
            length, check = HEAD.unpack(head)
            if length > size - file.tell():
                break
            data = file.read(length)
            if zlib.crc32(data) != check:
                break
            good = file.tell()
            try:
                record = unpack(data)
            except Exception as exc:
                raise ValueError(f"what the checkpoint {self.path} has cannot be loaded: {exc!r}") from exc
            yield record
        self._cut(good)

    def _cut(self, size):
        os.ftruncate(self._file.fileno(), size)
        os.lseek(self._file.fileno(), size, os.SEEK_SET)

    def _other(self, what):
        return ValueError(f"the checkpoint {self.path} is of another stream, {what}; remove it to begin anew")

    def note(self, start, results):
        """Raises TypeError if they cannot be pickled, OSError if they cannot be written."""
        try:
            data = pack((start, results))
        except Exception as exc:
            end = start + len(results) - 1
            raise TypeError(f"the results of items {start} to {end} cannot be noted in a checkpoint: {exc}") from exc
        self._add(data)

    def _add(self, data):
        self._write(HEAD.pack(len(data), zlib.crc32(data)) + data)

    def _write(self, data):
        left = memoryview(data)
        while left:
            left = left[os.write(self._file.fileno(), left) :]

    def close(self):
        if self._file is not None:
            fcntl.flock(self._file, fcntl.LOCK_UN)  # a forked child may have it, too
            self._file.close()


def _packed(item):
    """b"" for what cannot be pickled; it fails later, as an item."""
    try:
        return pack(item)
    except Exception:
        return b""


def _are_equal(one, other):
    """Equal items may have other pickles: a set's order changes from run to run."""
    try:
        return bool(one == other)
    except Exception:
        return False
