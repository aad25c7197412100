"""Sends that do not wait, as the C core's (src/py/soon.c). Here the I/O thread writes all of it."""

from itertools import chain

from . import pyflow, pypump
from .pynotify import Bell
from .pywire import ITEM_COST, Batch, alone, copied, frame

MAX_PAYLOAD = 2**31 - 1  # of a single frame
MUCH, MUCH_BATCHES = 256 * 1024, 1000  # bytes, and batches: if more waits to be written, who may wait waits


def _is_full(writer):
    out = copied(writer.out)
    return len(out) > MUCH_BATCHES or sum([sum(map(len, batch.parts)) - sum(batch.written) for batch in out]) > MUCH


def _post(writer, code, id, parts, size, sent):
    """False: the connection takes nothing more."""
    if size > MAX_PAYLOAD:
        return writer.send_message(code, id, parts, sent)
    if writer.broken or writer.ending:
        return False
    cost = size + ITEM_COST
    counts = map(sent.__setitem__, (0,), map(cost.__add__, sent)) if sent else ()
    batch = Batch(frame(code, id, [part if type(part) is bytes else bytes(part) for part in parts]))
    try:
        alone(chain(counts, map(writer.out.append, (batch,))))
    finally:
        pypump.pump.post(writer.flush)
    return True


class Sending:
    """An item that is not sent yet. channel: None for a frame that is no item of one."""

    _waiter = _place = None
    _done = False

    def __init__(self, kind, gateway, channel, code, id, item, fd, number):
        gateway._check_usable()
        self._gateway, self._channel, self._frame = gateway, channel, (code, id)
        self._bell = fd, number
        self._carried = pyflow.Carried(gateway, kind) if gateway._limited else kind
        self._parts = gateway._encoded(item, self._carried, False, channel and channel._chan)
        self._size = sum(map(len, self._parts))

    @property
    def over(self):
        return self._waiter is None or self._waiter[1].over

    def again(self):
        if not self._done:
            self._end_wait()
            try:
                self._done = self._try()
            except BaseException:
                self._done = True
                raise
            finally:
                if self._done:
                    self._end()
        return self._done

    def _try(self):
        gateway, channel = self._gateway, self._channel
        gateway._check_usable()
        chan = channel and channel._chan
        if chan and chan.closed:
            raise OSError(f"cannot send to {channel!r}")
        if self._bell[0] >= 0 and not self._has_room(gateway, chan):
            return False
        sent = vars(chan).setdefault("sent", [0]) if chan else None
        if not _post(gateway._writer, *self._frame, self._parts, self._size, sent):
            raise gateway._death(True)
        if isinstance(self._carried, pyflow.Carried):
            self._carried.tell()
        return True

    def _has_room(self, gateway, chan):
        writer = gateway._writer
        if _is_full(writer) and self._waits(lambda: gateway._eof or not _is_full(writer)):
            return False
        if chan is None or not gateway._limited and chan.flow is None:
            return True
        flow = pyflow.flow_of(gateway, chan)
        if self._place is None:
            place = pyflow.Place(object())
            place.lock.acquire()
            self._place = place
            flow.line.append(place)
        place, cost = self._place, ITEM_COST + self._size

        def ready():
            return pyflow.may_go(gateway, chan, place, cost)

        return ready() or not self._waits(ready)

    def _waits(self, ready):
        """True: the number will be written when that is so. False: it is so now. `ready` must not keep this object."""
        gateway = self._gateway
        writer = gateway._writer
        self._waiter = ready, Bell(*self._bell)
        gateway._waiters.append(self._waiter)

        def drained():
            writer.drained = None
            gateway._wake()

        writer.drained = drained
        if not ready():
            return True
        self._end_wait()
        return False

    def _end_wait(self):
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            try:
                self._gateway._waiters.remove(waiter)
            except ValueError:
                pass

    def _end(self):
        """It leaves the line."""
        self._end_wait()
        place, self._place = self._place, None
        if place is not None:
            place.lock.release()
            flow = self._channel._chan.flow
            if place in flow.line:
                flow.line.remove(place)
            if flow.line:
                self._gateway._wake()

    def __del__(self):
        if "_size" in vars(self) and not self._done:
            self._end()


def send_soon(kind, gateway, channel, code, id, item, fd=-1, number=0):
    """kind: the type Channel."""
    sending = Sending(kind, gateway, channel, code, id, item, fd, number)
    return None if sending.again() else sending
