"""Workers' stderr, line by line, for a handler of the program's."""

import sys

from ..models.native import allocate_lock, get_ident, start_new_thread

LONGEST = 1 << 20  # bytes of a line; what is longer comes in pieces


class Reporter:
    """Calls `handler(gateway, line)` for each line of one worker's stderr, on a thread of its own. While the handler is
    slow the core keeps what arrives, and counts the bytes that it cannot keep."""

    def __init__(self, gateway, handler):
        self._gateway = gateway
        self._handler = handler
        self._thread = None
        self._line = b""  # the beginning of a line whose end has not arrived yet
        self._told = allocate_lock()  # held until the process has ended and the handler has got all that it said
        self._told.acquire()
        start_new_thread(self._run, ())

    def wait(self, seconds):
        """Wait until the handler has got all that the process said before it ended."""
        if self._thread != get_ident() and self._told.acquire(True, seconds):
            self._told.release()

    def _run(self):
        self._thread = get_ident()
        ended = closed = False
        try:
            while not closed:
                data, lost, now_ended, closed = self._gateway._stderr(ended)
                if lost:
                    self._flush()
                    self._tell(f"[{lost} bytes of stderr are lost here: its handler was too slow]")
                self._split(data)
                if closed or now_ended > ended:
                    self._flush()
                if now_ended > ended:
                    ended = True
                    self._told.release()
        except OSError:
            pass  # the handler has forked, and this is the child, which owns no gateway

    def _split(self, data):
        *lines, rest = data.split(b"\n")
        if lines:
            lines[0] = self._line + lines[0]
            self._line = b""
            for line in lines:
                self._tell(line.decode("utf-8", "replace"))
        self._line += rest
        if len(self._line) >= LONGEST:
            self._flush()

    def _flush(self):
        line, self._line = self._line, b""
        if line:
            self._tell(line.decode("utf-8", "replace"))

    def _tell(self, line):
        try:
            self._handler(self._gateway, line)
        except BaseException:
            try:
                sys.excepthook(*sys.exc_info())
            except BaseException:
                pass  # a hook that fails, or the interpreter is ending
