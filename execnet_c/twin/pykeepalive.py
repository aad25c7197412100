"""keepalive of the plain-Python core: ends a connection whose far end is silent for too long. It works as
src/core/link/xc_keepalive.h says, which also says why.
"""

from _signal import SIGKILL
from termios import TIOCOUTQ

from . import pypump
from .pywire import STATUS

QUARTERS, TO_ANSWER = 4, 2  # the time has four quarters; the far end has two of them to answer


class Keepalive:
    """Watches the far end of one gateway until stop() is called. All of it runs on the I/O thread."""

    def __init__(self, gateway, seconds):
        self._gateway = gateway
        self._seconds = seconds
        self._heard = True  # something has arrived in this quarter
        self._asked = False  # a status request was sent, and nothing has arrived since
        self._backlog = False  # at the end of the last quarter something of ours was not taken yet
        self._left = 0  # quarters until the connection is ended, if _asked
        self._held_up = 0  # quarters in which the backlog shrank since the request
        self._taken = 0  # bytes of ours that had been taken at the end of the last quarter
        # While data flows, the detour through our _read() is all that this costs.
        pypump.pump.watch(gateway._in.fileno(), pypump.POLLIN, self._read)
        pypump.pump.after(seconds / QUARTERS, self._tick)

    def stop(self):
        pypump.pump.cancel(self._tick)

    def _read(self, events):
        self._heard = True
        self._gateway._read(events)

    def _backlog_shrank(self):
        """Whether, in this quarter, some of what we had written and was not taken yet was taken."""
        writer = self._gateway._writer
        unread = pypump.readable(writer.fd, TIOCOUTQ)  # TIOCOUTQ is for sockets; a pipe has only FIONREAD
        taken = writer.wrote - unread
        shrank = self._backlog and taken != self._taken
        self._backlog = bool(writer.out or unread)
        self._taken = taken
        return shrank

    def _tick(self):
        """Called at the end of each quarter."""
        gateway = self._gateway
        if gateway._process is not None and gateway._process.gone:
            return
        shrank = self._backlog_shrank()
        if self._heard or pypump.is_ready(gateway._in.fileno(), pypump.POLLIN):
            self._heard = self._asked = False
        elif not self._asked:
            # After our goodbye no request can be sent, so silence proves nothing.
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
