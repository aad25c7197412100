"""What a worker of this machine is lent so that it can have our own stderr: the plain-Python core's part.

The same as src/core/system/xc_lend.h, which says how the file is written, but that the file is read by its fd.
"""

import fcntl

from . import pypump
from ..models.native import allocate_lock, os
from .pypump import lifted, pipe


class Lent:
    def __init__(self, by_pipe):
        self._fds = []
        self._lock = allocate_lock()  # the file is read by any thread
        self._text, self._words = b"", False  # what it had in the end
        try:
            self.file = self._own(_nameless_file())
            self.ours = self._own(_ours())
            self.stderr = self.file
            self.pipe = -1
            if by_pipe:
                self.pipe, self.stderr = pipe()
                self._own(self.pipe)
                self._own(self.stderr)
        except BaseException:
            self.close()
            raise

    def _own(self, fd):
        self._fds.append(fd)
        pypump.own(fd)
        return fd

    def identities(self):
        """As Gateway._lend() returns them: subprocess keeps the numbers of fds."""
        found = []
        for over_there, fd in ((2, self.stderr), (self.file, self.file), (self.ours, self.ours)):
            about = os.fstat(fd)
            found.append((over_there, about.st_dev, about.st_ino))
        return tuple(found)

    def passed(self):
        """The worker has its copies. Return the reading end of the pipe, or -1; that is the caller's now."""
        self._fds = [fd for fd in self._fds if fd != self.pipe]
        self._close({self.file})
        return self.pipe

    def read(self):
        """(text in the file, whether that are last words, which stand in no stderr)"""
        with self._lock:
            return self._read()

    def end(self):
        """Nobody writes any more: the same, for the last time."""
        with self._lock:
            self._text, self._words = found = self._read()
            self._close()
            return found

    def close(self):
        with self._lock:
            self._close()

    def _read(self):
        if self.file not in self._fds or not pypump.is_ours(self.file):
            return self._text, self._words
        data = os.pread(self.file, 1 << 20, 0)
        words = not data[:1].strip(b"\0")
        return data[words:].partition(b"\0")[0], words

    def _close(self, but=()):
        for fd in self._fds[:]:
            if fd not in but:
                self._fds.remove(fd)
                pypump.close(fd)

    __del__ = close


def _nameless_file():
    try:
        return lifted(os.memfd_create("execnet_c stderr"))
    except (AttributeError, OSError):
        import tempfile

        fd, name = tempfile.mkstemp(prefix="execnet_c-")
        os.unlink(name)
        return lifted(fd)


def _ours():
    """Closed on purpose or not: a worker's is to be a file all the same, or the next one that it opens would be."""
    try:
        return fcntl.fcntl(2, fcntl.F_DUPFD_CLOEXEC, 3)
    except OSError:
        return lifted(os.open(os.devnull, os.O_WRONLY))
