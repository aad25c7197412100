"""The relay of the plain-Python core: carries the bytes of one gateway's connection through a channel of another gateway.

src/core/start/xc_relay.h says what goes over the wire. This module is sent to a far end when that is first asked to start
a process (see near/via.py). All methods of a Relay are called by the I/O thread.
"""

from _collections import deque
from time import monotonic

from . import pyflow, pypump
from ..models.native import os
from .pylaunch import Process, by_pump
from .pypump import pipe
from .pywire import CLOSE, DATA, ITEM_COST, LAST_MESSAGE, copied

PIECE = 48 * 1024  # bytes in one message at most
FRAMED = 6 + ITEM_COST  # what a message counts beside its bytes: it is an item, one bytes object
RELAY_WINDOW = 1024 * 1024  # the limit of a stream's channel, at both ends and in both directions
PIECES = 8  # pieces at most that are read before other jobs of the I/O thread get their turn
MANY = 8  # if more frames wait to be written to the channel's connection, nothing is read
PAUSE = 0.002  # seconds until that is checked again


def relay(gateway, stream, control, argv):
    """Start the process `argv`, with the channel `stream` as its standard input and output; return its pid. An int that
    arrives at the channel `control` is a signal for the process. When that has ended, its status and the end of its
    stderr are sent through `control`."""
    argv = [os.fsencode(arg) for arg in argv]
    there = Relay(gateway, stream, control)
    by_pump(lambda: Process(there, argv), there)
    return there._process.pid


def connect(gateway, stream):
    """Connect `gateway` through `stream`, a channel of another gateway."""

    def job():
        down, up = pipe(), []
        try:
            up += pipe()
        except BaseException:
            for fd in down:
                os.close(fd)
            raise
        gateway._connect(up[0], down[1], True)
        Relay(stream.gateway, stream)._connect(down[0], up[1], True)

    by_pump(job, gateway)


class Relay:
    """Carries bytes between a pair of fds and the channel `stream`. If there is a Process, this stands in the place of its
    Gateway."""

    _process = None
    _said = None  # no handler for its stderr at this end
    _in = _out = -1
    _look_in = _look_out = 0  # the time of the next check of each fd
    _left = -1  # once the process has ended: bytes in the pipe that were not sent yet
    _ended = False  # nothing more will arrive at the channel

    def __init__(self, gateway, stream, control=None):
        self._gateway = gateway
        self._stream = stream
        self._control = control
        self._arrived = deque()  # payloads: what the other end sends, which waits for credit if it is a relay
        self._written = 0  # bytes of the first one's piece

    def _connect(self, fd_in, fd_out, marked):
        for fd in (fd_in, fd_out):
            os.set_blocking(fd, False)
        pypump.own(fd_in, fd_out)
        self._in, self._out = fd_in, fd_out
        self._watched = False
        pypump.pump.watch(fd_in, pypump.POLLIN, self._read)
        gateway, chan = self._gateway, self._stream._chan
        pyflow.set_both(gateway, chan, RELAY_WINDOW)
        chan.flow.resume = self._resume
        if self._control is not None:
            self._control._chan.forward = self._take_signal
            for payload, *_ in self._control._chan.items:
                self._take_signal(DATA, payload)
        self._begin()

    def _begin(self):
        gateway, chan = self._gateway, self._stream._chan
        if chan.id in [id for _, id, _ in copied(gateway._backlog)]:
            return pypump.pump.after(PAUSE, self._begin)  # it came before, and takes effect first
        chan.forward = self._take
        while chan.items:
            payload, *_ = chan.items.popleft()
            chan.arrived -= ITEM_COST + len(payload)  # counted when it is written
            self._take(DATA, payload)
        if gateway._eof or chan.recv_closed:
            self._take(LAST_MESSAGE if not (gateway._eof or chan.closed) else CLOSE, b"")

    # --- from the channel ---

    def _take(self, code, payload):
        """A frame of the channel has arrived; code FIN: the connection has ended."""
        piece = code == DATA and isinstance(payload, bytes) and payload[:1] == b"A"
        if piece and int.from_bytes(payload[1:5], "big") == len(payload) - 6:
            self._arrived.append(payload)
        else:
            self._ended = True
            self._gateway._close(self._stream._chan, code == LAST_MESSAGE)
            if code == DATA:  # not a piece: the other end is no relay
                self._gateway._post(CLOSE, self._stream.id)
            if code != LAST_MESSAGE:
                self._close_in()
        self._write()

    def _write(self, events=0):
        while self._arrived and self._out >= 0:
            try:
                if monotonic() >= self._look_out or events & pypump.POLLNVAL:
                    self._look_out = pypump.check(self._out)
                piece = memoryview(self._arrived[0])[5 + self._written : -1]
                n = os.write(self._out, piece)
            except BlockingIOError:
                if not self._watched:
                    self._watched = True
                    pypump.pump.watch(self._out, pypump.POLLOUT, self._write)
                return
            except OSError:
                return self._close_out()
            if n < len(piece):
                self._written += n
            else:
                self._drop_piece()
        if self._watched:
            self._watched = False
            pypump.pump.forget(self._out)
        if self._ended or self._out < 0:
            self._close_out()

    def _drop_piece(self):
        """A piece was written, or nobody will read it: the other end may send more."""
        payload, chan = self._arrived.popleft(), self._stream._chan
        self._written = 0
        chan.arrived += ITEM_COST + len(payload)
        chan.count_taken(self._gateway, payload)

    def _close_out(self):
        while self._arrived:
            self._drop_piece()
        if self._out >= 0:
            pypump.pump.forget(self._out)
            fd, self._out, self._watched = self._out, -1, False
            pypump.close(fd)
        self._release()

    # --- to the channel ---

    def _read(self, events=0):
        gateway, ended = self._gateway, self._process is not None and self._process.gone
        for _ in range(PIECES):
            if self._in < 0:
                return
            if not pyflow.fits(self._stream._chan, PIECE + FRAMED):
                pypump.pump.forget(self._in)  # until a credit comes, see _resume()
                return pyflow.ask(gateway, self._stream._chan)
            if len(gateway._writer.out) > MANY:
                pypump.pump.forget(self._in)
                pypump.pump.after(PAUSE, self._resume)
                return
            try:
                if monotonic() >= self._look_in or events & pypump.POLLNVAL:
                    self._look_in = pypump.check(self._in)
                data = os.read(self._in, min(PIECE, self._left) if ended else PIECE)
            except BlockingIOError:
                if not ended:
                    return
                data = b""
            except OSError:
                data = b""
            if not data or gateway._writer.broken:
                self._close_in()
                gateway._post(LAST_MESSAGE, self._stream.id)
            else:
                self._left -= len(data) if ended else 0
                gateway._post(DATA, self._stream.id, data)

    def _resume(self):
        """There may be room for more."""
        if self._in >= 0:
            pypump.pump.watch(self._in, pypump.POLLIN, self._read)
            self._read()

    def _close_in(self):
        if self._in >= 0:
            pypump.pump.forget(self._in)
            fd, self._in = self._in, -1
            pypump.close(fd)
        self._release()

    def _release(self):
        """Once both directions have ended: let the channel go, which the gateway would else keep as long as we hold it."""
        if self._in < 0 and self._out < 0:
            chan = self._stream._chan
            chan.forward = chan.flow.resume = None

    # --- the process ---

    def _take_signal(self, code, payload):
        if code == DATA and isinstance(payload, bytes) and payload[:1] == b"F":
            self._process.signal(int.from_bytes(payload[1:5], "big"))
        elif code != DATA:
            self._gateway._close(self._control._chan)

    def _peer_gone(self):
        """The process has ended. Send what is in its pipe now, then end: a child of that process may hold the pipe open,
        and is not waited for."""
        if self._left < 0 <= self._in:
            self._left = pypump.readable(self._in)
        self._read()
        if self._in >= 0:
            return pypump.pump.after(PAUSE, self._peer_gone)
        self._close_out()
        gateway, process, control = self._gateway, self._process, self._control
        gateway._post(DATA, control.id, (process.status, process.tail))
        gateway._post(CLOSE, control.id)
        gateway._close(control._chan)

    def _goodbye(self):
        """relay() was interrupted: kill the process that it had started."""
        self._process.signal(9)
