"""Workers' stderr, line by line, for a handler of the program's."""

import sys

from ..models.native import allocate_lock, get_ident, start_new_thread

LONGEST = 1 << 20  # bytes of a line; what is longer comes in pieces


class Reporter:
    """Calls `handler(gateway, line)` for what the far end of one gateway says, on a thread of its own. The core keeps
    what a slow handler has not taken yet, and counts what it could not keep."""

    def __init__(self, gateway, handler):
        self._gateway = gateway
        self._handler = handler
        self._thread = None
        self._line = b""  # the beginning of one
        self._told = allocate_lock()  # held until the handler has got all that the process had said
        self._told.acquire()
        start_new_thread(self._run, ())

    def wait(self, seconds):
        """Until the handler has got all that the process had said when it ended."""
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
            pass  # a forked child's

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
