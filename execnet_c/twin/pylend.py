"""Lends our stderr to a worker on this machine: what the plain-Python core does for that.

src/core/system/xc_lend.h says how it works and what is in the file. The C core maps the file; here it is read by its fd.
"""

import fcntl

from . import pypump
from ..models.native import allocate_lock, os
from .pypump import lifted, pipe


class Lent:
    """The fds that one worker is lent. by_pipe: the worker's first stderr is a pipe, not the file."""

    def __init__(self, by_pipe):
        self._fds = []  # owned
        self._lock = allocate_lock()  # for _fds: any thread may read the file
        self._text, self._words = b"", False  # what end() found
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
        """What Gateway._lend() returns: (fd, device, inode) of the worker's first stderr, the file, and our stderr. The
        worker's fds have the same numbers as ours, but for its stderr."""
        found = []
        for over_there, fd in ((2, self.stderr), (self.file, self.file), (self.ours, self.ours)):
            about = os.fstat(fd)
            found.append((over_there, about.st_dev, about.st_ino))
        return tuple(found)

    def passed(self):
        """The worker has its copies: close all but the file. Return the reading end of the pipe, which the caller owns
        now, or -1."""
        self._fds = [fd for fd in self._fds if fd != self.pipe]
        self._close({self.file})
        return self.pipe

    def read(self):
        """(text in the file, whether these are last words, which the worker has written to no stderr)"""
        with self._lock:
            return self._read()

    def end(self):
        """As read(), for the last time: the worker has ended. Closes all."""
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
    """A copy of our stderr. If that is closed, /dev/null: the worker's fd 2 must be open, or the next file that it opens
    would become its stderr."""
    try:
        return fcntl.fcntl(2, fcntl.F_DUPFD_CLOEXEC, 3)
    except OSError:
        return lifted(os.open(os.devnull, os.O_WRONLY))
