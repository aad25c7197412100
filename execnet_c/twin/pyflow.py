"""Flow control of the plain-Python core: a receiver that does not keep up stops its sender.

A channel may have a limit for each direction: so many bytes at most may be on their way and wait at the receiving end. An
item counts with its payload and ITEM_COST bytes more; one that is larger than the limit goes alone. The receiver tells the
sender by CREDIT how much was taken since the channel began, and the limit. The sender asks for that by WAITS when it has
to wait. See "Flow control" in ARCHITECTURE.rst.

What was sent, and what was received, is counted for all channels, because a limit may come at any time. The rest is here: it is
imported when a limit is set, and a far end that was sent its core does not compile it before.
"""

import sys
from _collections import deque
from time import monotonic

from . import pypump
from ..models.native import allocate_lock
from .pyserializer import DataFormatError
from .pywire import CLOSE, CLOSE_ERROR, CREDIT, DATA, ITEM_COST, WAITS, copied, frame

NO_LIMIT = (1 << 64) - 1


class Flow:
    """The limits of a channel. limit_in, limit_out: bytes, or None."""

    # As the receiver:
    limit_in = None
    told, said = 0, ()  # what the last CREDIT has said: so much was received, this is the limit
    owes = False  # a CREDIT will be sent soon
    sender_waits = None  # since when a sender at the other end waits
    mark = 0  # what had arrived when that was told: as soon as all of it is taken, a CREDIT is sent
    # As the sender:
    limit_out = None
    consumed = 0  # what the last CREDIT has said
    heard = False  # one has taken effect at once
    asked = False  # WAITS was sent, and no CREDIT has come since
    resume = None  # of a relay: called when a CREDIT has come

    def __init__(self, filed):
        self.filed = filed  # what has arrived so far. It may be a little less than that: then a CREDIT comes early
        self.line = deque()  # a Place for each sender, in the order in which they may send


class Place:
    """The place of a sender in the line. It counts as long as `lock` is held: an exception out of a signal handler may
    leave it in the line."""

    since = None  # since when it waits

    def __init__(self, who):
        self.who = who
        self.lock = allocate_lock()


def flow_of(gateway, chan):
    """The Flow of `chan`; it is made if there is none. Any thread."""
    if chan.flow is None:
        filed = chan.arrived  # before the backlog: what leaves that now is counted once or not at all
        filed += sum([ITEM_COST + len(data) for code, id, data in copied(gateway._backlog) if code == DATA and id == chan.id])
        vars(chan).setdefault("flow", Flow(filed))
    return chan.flow


def set_both(gateway, chan, limit):
    """Limit both directions of the channel, as the other end does, too."""
    flow = flow_of(gateway, chan)
    flow.limit_in = limit
    if not flow.heard:  # a CREDIT says more
        flow.limit_out = limit


def set_all(gateway, limit):
    """Limit both directions of all channels, now and from now on."""
    gateway._maxqueue = limit
    for chan in list(gateway._chans.values()):
        set_both(gateway, chan, limit)


def set_limit(channel, limit):
    """What Channel.set_limit() does."""
    if limit is not None:
        if not isinstance(limit, int) or isinstance(limit, bool):
            raise TypeError(f"limit must be an int of bytes or None, not {type(limit).__name__}")
        if limit < 1:
            raise ValueError(f"limit must be at least 1 byte, not {limit}")
        if limit > sys.maxsize:
            raise ValueError(f"limit must be at most {sys.maxsize} bytes, not {limit}")
    gateway, chan = channel.gateway, channel._chan
    gateway._check_usable()
    if chan.closed:
        raise OSError(f"cannot set a limit of {channel!r}")
    if gateway._takes_limits():
        gateway._limited = True
        flow_of(gateway, chan).limit_in = limit
        _tell_limit(gateway, chan)


def _tell_limit(gateway, chan):
    """Returns when it stands in front of all that is sent next: that may have the far end send."""
    flow = chan.flow
    flow.said = ()
    _owe(gateway, chan, CREDIT)
    gateway._wait(lambda: flow.said == flow.limit_in or gateway._eof or chan.recv_closed)


# --- receiving --------------------------------------------------------------------------------------------------------


def taken(chan):
    """What was taken from the channel since it began. Never more than has arrived, whatever a signal handler has raised in the
    middle of receive()."""
    return min(chan.taken[0], chan.arrived)


def took(gateway, chan):
    """An item was taken: send a CREDIT if it is time for that. Any thread."""
    flow, now = chan.flow, taken(chan)
    if now <= flow.told:
        return
    asked = flow.sender_waits is not None and now >= flow.mark
    if asked or flow.limit_in is not None and now - flow.told >= flow.limit_in / 2:
        _owe(gateway, chan, CREDIT)


def _owe(gateway, chan, debt):
    """Have CREDIT or WAITS sent soon. As a debt, because it must not wait for room; there is one CREDIT at a time."""
    if gateway._eof or chan.recv_closed and debt == CREDIT:
        return
    if debt == CREDIT:
        if chan.flow.owes:
            return
        chan.flow.owes = True
    gateway._owe(debt, chan.id)


def pay(gateway, id):
    """On the I/O thread: send the CREDIT that is owed."""
    chan = gateway._known(id)
    flow = chan and chan.flow or Flow(0)
    flow.owes = False  # first: who takes an item now owes the next one
    if chan is not None:
        flow.told = max(flow.told, taken(chan))
    if flow.told >= flow.mark:
        flow.sender_waits = None
    said = flow.limit_in
    limit = NO_LIMIT if said is None else said
    try:
        gateway._writer.post(frame(CREDIT, id, [flow.told.to_bytes(8, "big") + limit.to_bytes(8, "big")]))
    except MemoryError:
        gateway._lack_memory()
    flow.said = said
    gateway._wake()


def note(gateway, chan, code, payload):
    """On the I/O thread: a frame for a channel with limits has arrived. It may take effect later."""
    flow = chan.flow
    if code == DATA:
        flow.filed += ITEM_COST + len(payload)
    elif code in (CLOSE, CLOSE_ERROR):
        lift(gateway, chan)  # now: it may stand behind a callback that waits for credit


def lift(gateway, chan):
    """Limit the sending no more: no credit will come, or none that fits. What is sent too much is dropped there."""
    chan.flow.limit_out = None
    chan.whole = False
    _go_on(gateway, chan.flow)


def _go_on(gateway, flow):
    """Senders may go on."""
    gateway._wake()
    if flow.resume:
        flow.resume()


def control(gateway, code, id, payload):
    """On the I/O thread: CREDIT or WAITS has arrived. It takes effect now: a running callback may wait for it. But that of
    a channel which is not known yet takes effect behind what makes the channel."""
    chan = gateway._known(id)
    if chan is not None:
        apply(gateway, code, chan, payload)
        return True
    gateway._backlog.append((code, id, payload))
    gateway._work_off()
    return not gateway._eof


def apply_late(gateway, code, id, chan, payload):
    """A frame of control() takes effect behind others. Any thread. chan: None if there is no such channel."""
    if chan is None:
        if code == WAITS:
            gateway._owe(CREDIT, id)  # without a limit: what is sent is dropped
        return
    if code == CREDIT and chan.flow is not None and chan.flow.heard:
        return  # it is older than one that took effect at once
    try:
        apply(gateway, code, chan, payload, False)
    except DataFormatError as exc:
        error = exc.with_traceback(None)
        pypump.pump.post(lambda: gateway._end_by(error))


def apply(gateway, code, chan, payload, at_once=True):
    flow = flow_of(gateway, chan)
    if code == WAITS:
        flow.mark = flow.filed
        if flow.sender_waits is None:
            flow.sender_waits = monotonic()
        return took(gateway, chan)
    consumed, limit = (int.from_bytes(part, "big") for part in (payload[:8], payload[8:]))
    flow.heard = flow.heard or at_once
    flow.asked = False
    if not flow.consumed <= consumed <= chan.sent[0]:
        # A channel that one side has let go, and that an item then brought back, begins to count anew at that side.
        if limit != NO_LIMIT and chan.whole and not chan.closed and chan.holder() is not None:
            never_sent = consumed > chan.sent[0]
            raise DataFormatError("credit for bytes that were never sent" if never_sent else "credit for fewer bytes than before")
        return lift(gateway, chan)
    flow.consumed = consumed
    flow.limit_out = None if limit == NO_LIMIT else limit
    _go_on(gateway, flow)


# --- sending ----------------------------------------------------------------------------------------------------------


def fits(chan, cost):
    """Whether an item of that cost may be sent now."""
    flow = chan.flow
    outstanding = chan.sent[0] - flow.consumed
    return flow.limit_out is None or not outstanding or outstanding + cost <= flow.limit_out


def ask(gateway, chan):
    """Say that a sender waits."""
    if not chan.flow.asked:
        chan.flow.asked = True
        _owe(gateway, chan, WAITS)


def _is_first(flow, place):
    for other in copied(flow.line):
        # A signal handler that interrupts a send() may send: it does not wait for that.
        if other is place or other.lock.locked() and other.who != place.who:
            return other is place
    return True


def may_go(gateway, chan, place, cost):
    """Whether the sender at that place of the line need not wait any more for credit for an item of that cost."""
    if gateway._eof or gateway._writer.ending or chan.closed:
        return True
    # It asks again, if others have used up the credit.
    return _is_first(chan.flow, place) and (fits(chan, cost) or bool(ask(gateway, chan)))


class Carried:
    """Stands for the type Channel while an item is encoded, and notes the channels in it: when it was sent, the far end, which
    may have learnt of them by that, is told their limits. What it was told before it knew them it has ignored."""

    def __init__(self, gateway, kind):
        self.gateway, self.kind, self.channels = gateway, kind, []

    def __instancecheck__(self, item):
        is_channel = isinstance(item, self.kind)
        if is_channel:
            self.channels.append(item)
        return is_channel

    def tell(self):
        gateway = self.gateway
        for channel in self.channels:
            chan = gateway._chans.get(channel.id)
            if chan is not None and chan.flow is not None and chan.flow.limit_in != gateway._maxqueue:
                _tell_limit(gateway, chan)


def send(channel, item, pickled, kind, until, timeout):
    """What Channel.send() does if there are limits. kind: the type Channel."""
    carried = Carried(channel.gateway, kind)
    _send(channel, channel.gateway._encoded(item, carried, pickled, channel._chan), until, timeout)
    carried.tell()


def _send(channel, parts, until, timeout):
    gateway, chan = channel.gateway, channel._chan
    flow, cost = flow_of(gateway, chan), ITEM_COST + sum(map(len, parts))
    place = Place(gateway._who())

    def ready():
        return may_go(gateway, chan, place, cost)

    with place.lock:
        try:
            flow.line.append(place)
            if not ready():
                place.since = monotonic()
                if not gateway._wait(ready, until):
                    raise channel.TimeoutError(f"no room for the item after {timeout!r} seconds")
                place.since = None
                if chan.closed:
                    raise OSError(f"cannot send to {channel!r}")
            gateway._send_item(chan, parts)
        finally:
            if place in flow.line:
                flow.line.remove(place)
            if flow.line:
                gateway._wake()


# --- looking ----------------------------------------------------------------------------------------------------------


def stats(gateway):
    """What waits at this end: ([(channel id, items and bytes to receive, their limit, seconds that the other end has waited to
    send more, bytes that the other end has not taken, their limit, seconds that a sender has waited here)], (items, bytes)
    that wait for callbacks, bytes to be written). None: no limit, nobody waits."""
    gateway._check_usable()
    now, channels = monotonic(), []
    for id, chan in sorted({**gateway._rest, **gateway._chans}.items()):
        flow, items = chan.flow or Flow(0), len(chan.items)
        waiting = chan.arrived - taken(chan) if not chan.forward else flow.filed - chan.arrived
        if not (waiting > 0 or id in gateway._chans or not (chan.closed or gateway._fin)):
            continue
        since = [at for place in copied(flow.line) if (at := place.since) and place.lock.locked()]
        channels.append(
            (
                *(id, items, max(waiting, 0), flow.limit_in),
                None if flow.sender_waits is None else now - flow.sender_waits,
                None if flow.limit_out is None else chan.sent[0] - flow.consumed,
                flow.limit_out,
                now - min(since) if since else None,
            )
        )
    costs = [ITEM_COST + len(payload) for code, _, payload in copied(gateway._backlog) if code == DATA]
    to_write = sum([sum(map(len, batch.parts)) - sum(batch.written) for batch in copied(gateway._writer.out)])
    return channels, (len(costs), sum(costs)), to_write
