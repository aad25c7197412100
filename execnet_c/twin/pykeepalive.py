"""Whether a far end has gone silent, for the plain-Python core; its I/O thread finds out. This does the same as
src/core/link/xc_keepalive.h, which says how and why.
"""

from _signal import SIGKILL
from termios import TIOCOUTQ

from . import pypump
from .pywire import STATUS

QUARTERS, TO_ANSWER = 4, 2


class Keepalive:
    """Looks after one gateway, until stop()."""

    def __init__(self, gateway, seconds):
        self._gateway = gateway
        self._seconds = seconds
        self._heard = True
        self._asked = self._backlog = False
        self._left = self._held_up = self._taken = 0
        # While data flows this is all that it costs; and nothing where nobody asked for it.
        pypump.pump.watch(gateway._in.fileno(), pypump.POLLIN, self._read)
        pypump.pump.after(seconds / QUARTERS, self._tick)

    def stop(self):
        pypump.pump.cancel(self._tick)

    def _read(self, events):
        self._heard = True
        self._gateway._read(events)

    def _backlog_shrank(self):
        writer = self._gateway._writer
        unread = pypump.readable(writer.fd, TIOCOUTQ)  # that of sockets first
        taken = writer.wrote - unread
        shrank = self._backlog and taken != self._taken
        self._backlog = bool(writer.out or unread)
        self._taken = taken
        return shrank

    def _tick(self):
        """The end of a quarter."""
        gateway = self._gateway
        if gateway._process is not None and gateway._process.gone:
            return
        shrank = self._backlog_shrank()
        if self._heard or pypump.is_ready(gateway._in.fileno(), pypump.POLLIN):
            self._heard = self._asked = False
        elif not self._asked:
            # After our goodbye nothing can be asked: what is asked no more is not judged.
            if not gateway._said_goodbye:
                self._asked = True
                self._left, self._held_up = TO_ANSWER, 0
                gateway._post(STATUS, 0)
        elif shrank:
            self._held_up += 1
            self._left = TO_ANSWER + (0 if self._backlog else self._held_up)
        else:
            self._left -= 1
            if self._left <= 0:
                gateway._end("XC_SILENT", f"the far end was silent for {self._seconds:g} seconds")
                if gateway._process is not None:
                    gateway._process.signal(SIGKILL)
                return
        pypump.pump.after(self._seconds / QUARTERS, self._tick)
