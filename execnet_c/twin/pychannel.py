"""Channels of the plain-Python core, and the exceptions that they raise."""

import sys
from _collections import deque
from _weakref import ref
from time import monotonic

from . import pypump, pyserializer
from ..models.native import get_ident, os, start_new_thread
from .pyserializer import DataFormatError
from .pywire import CLOSE, CLOSE_ERROR, DATA, ITEM_COST, RECONFIGURE, tally

Gateway = None  # the type; pycore sets it

NO_ENDMARKER_WANTED = object()
INTERRUPT_TEXT = "keyboard-interrupted"
UNTOLD_TEXT = "how the task ended could not be told"
END_TEXT = "channel %d has ended, nothing had been sent (a task sends by channel.send())"


class RemoteError(Exception):
    """Code at the other side failed. str() of this exception, and its attribute `formatted`, is the traceback from there.

    remote_type, remote_message: the name of the exception's class there (with its module, if the traceback shows it) and
    str() of the exception; None if the other side has not said.
    """

    __module__ = "execnet_c"

    def __init__(self, formatted):
        super().__init__(formatted)
        self.formatted = formatted

    def __getattr__(self, name):
        if name not in ("remote_type", "remote_message"):
            raise AttributeError(name)
        from ..common.errors import said_by

        self.remote_type, self.remote_message = said_by(self.formatted)
        return vars(self)[name]

    def __str__(self):
        return self.formatted

    def __repr__(self):
        return f"{type(self).__name__}: {self.formatted}"

    def warn(self):
        """Writes to sys.stderr that nobody handled this error."""
        if self.formatted != INTERRUPT_TEXT and sys.stderr is not None:
            sys.stderr.write(f"[{os.getpid()}] Warning: unhandled {self!r}\n")


class TimeoutError(OSError):
    """The time given for an operation is over."""

    __module__ = "execnet_c"


class GatewayDied(OSError, EOFError):
    """The far end is gone. The text says how it ended."""

    __module__ = "execnet_c"


# --- errors for channels nobody holds ---------------------------------------------------------------------------------

MAX_ORPHANS = 1024 * 1024  # characters that may wait to be printed: a far end can send any number of errors
ORPHAN = 500  # what each error counts beside its characters, for the object itself

_orphans = deque()  # (size, error) of each error that waits to be printed
_printed = deque()  # the sizes of errors that were printed and are still counted in _waiting
_waiting = _too_many = 0  # sum of the sizes that wait; number of errors left out. Only the I/O thread changes them
_told = deque([0], 1)  # how many left out errors were reported; a thread takes it out to report the rest
_idle = deque([None], 1)  # a token: a thread that takes it out starts the thread that prints


def orphan(error):
    """Report an error of a channel that nobody holds, on stderr."""
    global _waiting, _too_many
    if sys.is_finalizing():
        return  # at the interpreter's end all channels are freed: that is no reason to report their errors
    if get_ident() != pypump.pump.thread:
        _orphans.append((0, error))
        return print_orphans()
    while _printed:
        _waiting -= _printed.popleft()
    if _waiting > MAX_ORPHANS:
        _too_many += 1
        return
    size = ORPHAN + len(error.formatted)
    _waiting += size
    _orphans.append((size, error))
    _print_aside()


def _print_aside():
    """Print in another thread: a full stderr must not block the I/O thread."""
    try:
        _idle.pop()
    except IndexError:
        return  # the thread that prints checks for more before it ends
    try:
        start_new_thread(_print_all, ())
    except RuntimeError:
        _idle.append(None)  # printed with the next one, or at the end of the program


def _print_all():
    try:
        print_orphans()
    finally:
        _idle.append(None)
    if _orphans:
        _print_aside()


def print_orphans():
    """Write to sys.stderr the errors that came for channels nobody holds any more."""
    while _orphans:
        try:
            size, error = _orphans.popleft()
        except IndexError:
            break
        _printed.append(size)
        error.warn()
    try:
        told = _told.pop()
    except IndexError:
        return
    more = _too_many - told
    _told.append(told + more)
    if more and sys.stderr is not None:
        sys.stderr.write(f"[{os.getpid()}] Warning: {more} more unhandled errors are left out\n")


def limits():
    """The module pyflow, which is imported when there is a limit."""
    from . import pyflow

    return pyflow


def aio():
    """The module for asyncio, which only a far end with the package has."""
    try:
        from ..common import aio
    except ImportError:
        raise NotImplementedError("asyncio needs the package, and this far end was sent its core alone") from None
    return aio


def until_of(timeout, negative_ok=True):
    """The time at which a wait of `timeout` seconds ends; None for None."""
    return None if timeout is None else _until(timeout, negative_ok)


def _until(timeout, negative_ok):
    try:
        seconds = float(timeout)
    except OverflowError:
        seconds = float("inf") if timeout > 0 else float("-inf")
    except (TypeError, ValueError):
        seconds = None
    if seconds is None or isinstance(timeout, (str, bytes, bytearray)):
        raise TypeError(f"timeout must be a number of seconds or None, not {type(timeout).__name__}")
    if seconds != seconds:
        raise ValueError("timeout is not a number (nan)")
    if seconds < 0 and not negative_ok:
        raise ValueError("'timeout' must be a non-negative number")
    return monotonic() + seconds if seconds > 0 else 0.0


class Chan:
    """The state of a channel. With a callback it outlives the Channel object that the program holds."""

    callback = endmarker = object = None  # object: a weak reference to the Channel object
    # A deque from the first item on: an empty deque takes as much memory as all the rest. Of what _held() returns, about 130
    # bytes beside each payload. No limit but the channel's, see pyflow.py.
    items = ()
    arrived = 0  # cost of all items that were put here, or that the callback has returned from
    sent = taken = (0,)  # cost of all items that were sent, and received: each a list from the first item on, see tally()
    flow = None  # its limits, see pyflow.py
    forward = None  # forwarded channel: function(code, payload) that gets its frames, then FIN, on the I/O thread
    closed = False  # no more sending
    recv_closed = False  # nothing more will arrive; set without `closed`: send-only
    cut = False  # it ended because the connection did, not in order
    whole = False  # both sides have counted what was sent since the channel began
    task = False  # it belongs to a task: the other end must learn how that ended
    interrupted = False  # that is to be interrupted, and was not yet
    used = False  # an item was received
    had_object = False  # there was a Channel object, which may be gone

    def __init__(self, id, coerce):
        self.id = id
        self.coerce = coerce  # how strings of items that arrive from now on are loaded
        self.errors = []  # RemoteErrors with which the far end closed it, not raised yet

    def put_item(self, held, cost):
        if type(self.items) is tuple:
            vars(self).setdefault("taken", [0])
            self.items = deque()
        self.items.append(held)
        self.arrived += cost

    def count_taken(self, gateway, payload):
        """The callback has got an item with that payload."""
        tally(vars(self).setdefault("taken", [0]), ITEM_COST + len(payload))
        if self.flow is not None:
            limits().took(gateway, self)

    def keep(self, rest):
        """Nothing more arrives. Keep the channel in `rest`, by its id, if there is something to receive or it may send."""
        if self.closed and not self.items:
            rest.pop(self.id, None)
        else:
            rest[self.id] = self
            if self.holder() is None:
                rest.pop(self.id, None)

    def holder(self):
        """The Channel object, or None if nobody holds one."""
        return self.object and self.object()


def _made(cls, gateway, id):
    if not isinstance(gateway, Gateway):
        raise TypeError(f"Channel() argument 1 must be a Gateway, not {type(gateway).__name__}")
    gateway._check_usable()
    if id in gateway._chans:
        raise ValueError(f"the gateway has a channel with id {id} already")
    if gateway._eof:
        raise gateway._death(True)
    return Channel._new(cls, gateway, gateway._open(id))


class Channel:
    """A conversation with code at the other side of a gateway; made by remote_exec() or newchannel()."""

    RemoteError = RemoteError
    TimeoutError = TimeoutError
    _executing = False
    _starts_task = False  # remote_exec() of this side has made it
    _has_callback = False

    def __new__(cls, gateway, id):
        return _made(cls, gateway, id)

    @staticmethod
    def _new(cls, gateway, chan):
        self = object.__new__(cls)
        self.gateway = gateway
        self.id = chan.id
        self._chan = chan
        chan.had_object = True
        chan.object = ref(self)
        gateway._live.append(None)
        return self

    def __del__(self):
        chan = self.__dict__.get("_chan")
        if chan is None or pypump is None:  # the interpreter has ended: without a GIL modules may go before objects
            return
        gateway, pump = self.gateway, pypump.pump
        gateway._live.pop()
        try:
            gateway._forget(chan, self)
        except MemoryError:  # the far end compiles functions when they are called: try again until there is memory

            def again():
                try:
                    gateway._forget(chan, None)
                except MemoryError:
                    pump._timers[again] = monotonic() + 0.05

            pump._timers[again] = 0
            with pump._ringing:  # without post(), which may have to be compiled, too
                if pump._bell and pypump.is_ours(pump._bell[1]):
                    os.write(pump._bell[1], b"!")

    def __repr__(self):
        closed = self._chan.closed or self.gateway._forks != pypump.fork_count
        return f"<Channel id={self.id} {'closed' if closed else 'open'}>"

    def send(self, item, *, timeout=None):
        """Send `item` to the other side, by value.

        None, bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset and channels, nested as you like.
        Returns when it is handed to the system. Raises DumpError (what cannot be sent, and where in the item it sits),
        and OSError when the channel or the connection is closed (GatewayDied says how the far end ended).

        timeout: seconds to wait, None for ever, where the other side has a limit (see set_limit) and has not received
        enough. Raises TimeoutError when they have passed; then nothing was sent.
        """
        self._send(item, timeout)

    def send_pickled(self, item, *, timeout=None):
        """As send(), for any object that pickle takes: an array, a dataclass, an enum, an exception. Its buffers (protocol 5)
        are not copied on the way: the other side's object has them where they arrived, writable if they were so here.
        Channels may be in it.

        A worker loads pickles of the process that started it. That process loads those of the worker only if the gateway's
        spec has payload=pickle; else its receive() raises LoadError, and nothing of the pickle has run. Raises DumpError for
        what cannot be pickled, and for a far end of another version; else as send().
        """
        self._send(item, timeout, True)

    def _send(self, item, timeout, pickled=False):
        gateway, chan = self.gateway, self._chan
        gateway._check_usable()
        until = until_of(timeout, False)
        if chan.closed:
            raise OSError(f"cannot send to {self!r}")
        if not gateway._limited and chan.flow is None:
            return gateway._send_item(chan, gateway._encoded(item, Channel, pickled, chan))
        limits().send(self, item, pickled, Channel, until, timeout)

    def receive(self, timeout=None):
        """The next item that the other side sent; waits for it.

        timeout: seconds, None to wait for ever. Raises TimeoutError when they have passed; RemoteError with the far
        end's traceback when its code failed; EOFError when the channel was closed and nothing is left to receive;
        GatewayDied, an EOFError, when the far end is gone; LoadError for an item that is not well formed; OSError on a
        channel with a callback.
        """
        gateway, chan = self.gateway, self._chan
        gateway._check_usable()
        until = until_of(timeout, False)
        while not chan.items:
            if self._has_callback:
                break
            if chan.recv_closed:
                if chan.items:
                    break
                self._raise_remote_error()
                raise self._end()
            self._refuse_endless_wait(until, "receive")
            if not gateway._wait(lambda: chan.items or chan.recv_closed, until):
                raise TimeoutError(f"no item after {timeout!r} seconds")
        if self._has_callback:
            raise OSError("cannot receive(), channel has receiver callback")
        taken, counted, items = [], [], chan.items
        try:
            taken.extend(map(deque.popleft, (items,)))  # one step, so that no signal handler can lose the item
            item, error = gateway._item(*taken[0])
            chan.used = True
            cost = ITEM_COST + len(taken[0][0])
            tally(chan.taken, cost, counted)
            if chan.flow is not None:
                limits().took(gateway, chan)
            if error is not None:
                raise error
            return item
        except (DataFormatError, MemoryError):
            raise
        except BaseException as exc:
            if isinstance(exc, IndexError) and not taken:  # another thread took the item
                return self.receive(None if until is None else max(0, until - monotonic()))
            if counted:
                tally(chan.taken, -cost)
            items.extendleft(taken)
            raise

    def close(self, error=None):
        """Close the channel for both sides; with `error`, the other side's next receive() or waitclose() raises
        RemoteError with it. Raises OSError for the channel of a task inside that task: it is closed by its end."""
        if self._executing:
            raise OSError("cannot explicitly close channel within remote_exec")
        gateway, chan = self.gateway, self._chan
        gateway._check_usable()
        if chan.closed:
            return
        # The far end is told first, as in execnet: an error that cannot be sent leaves the channel open.
        if not chan.recv_closed or chan.cut and gateway._left:
            if error is None:
                gateway._send(CLOSE, self.id)
            else:
                if isinstance(error, str):  # a text is sent in any case
                    error = str.encode(error, "utf-8", "backslashreplace").decode()
                gateway._send(CLOSE_ERROR, self.id, error)
        gateway._close(chan)
        gateway._end_callback(chan)
        gateway._wake()

    def _await_item(self, timeout=None):
        """Wait until there is an item to receive (true), or until none can come (false): the channel is closed or has a
        callback. Takes none. Raises TimeoutError."""
        gateway, chan = self.gateway, self._chan
        gateway._check_usable()
        until = until_of(timeout)
        if self._has_callback:
            return False
        if not (chan.items or chan.recv_closed):
            self._refuse_endless_wait(until, "receive")
        if not gateway._wait(lambda: chan.items or chan.recv_closed, until):
            raise TimeoutError(f"no item after {timeout!r} seconds")
        return bool(chan.items)

    def _notify(self, fd, number):
        from .pynotify import Registration

        return Registration(self, fd, number)

    def _send_soon(self, *args):
        from .pysoon import send_soon

        return send_soon(Channel, self.gateway, self, DATA, self.id, *args)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        """Close the channel; with the traceback, as close(error) does, when the block was left by an exception. The
        channel of a task, inside that task, is left to the task's end."""
        if not self._executing:
            try:
                if error is not None:
                    from ..common.errors import told

                    error = told(error)
                self.close(error)
            except OSError:
                if error is None:
                    raise  # else the exception that left the block says more

    def waitclose(self, timeout=None):
        """Wait until the other side has closed the channel or sends nothing more to it.

        timeout: seconds, None to wait for ever. Raises TimeoutError when they have passed, RemoteError when the far
        end's code failed, EOFError (GatewayDied) when the far end is gone.
        """
        gateway, chan = self.gateway, self._chan
        gateway._check_usable()
        until = until_of(timeout)
        if not chan.recv_closed:
            self._refuse_endless_wait(until, "waitclose")
        if not gateway._wait(lambda: chan.recv_closed, until):
            raise TimeoutError(f"Timeout after {timeout!r} seconds")
        self._raise_remote_error()

    def interrupt(self, kill_after=None):
        """Raise KeyboardInterrupt in the task of this channel at the far end, and in nothing else. Does not wait. Calls within
        half a second count as one. kill_after: seconds after which the far end is ended if the task has not; then its channels
        raise a GatewayDied that says so. Raises ValueError for a channel that is no task's, NotImplementedError for a far end
        that cannot do this, and OSError when this side has said goodbye."""
        self.gateway._check_usable()
        if not self._starts_task:
            raise ValueError(f"{self!r} belongs to no task started here")
        from ..models.interrupting import interrupt

        interrupt(self, kill_after)

    def setcallback(self, callback, endmarker=NO_ENDMARKER_WANTED):
        """Have `callback(item)` called for each item instead of receiving it: at once, in this thread, for items that
        are here already; then in a thread of the gateway's, in the order of arrival. With `endmarker`,
        callback(endmarker) comes last. Raises OSError when there is a callback already."""
        if not callable(callback):
            raise TypeError(f"callback must be callable, not {type(callback).__name__}")
        gateway = self.gateway
        gateway._check_usable()
        who = gateway._who()
        try:
            if gateway._parking:  # greenlets share one thread, for which the lock below is no obstacle: wait here
                gateway._wait(lambda: gateway._dispatcher in (None, who))
            with gateway._dispatcher_role:
                before, gateway._dispatcher = gateway._dispatcher, who
                try:
                    if self._has_callback:
                        raise OSError(f"{self!r} has callback already registered")
                    self._has_callback = True
                    self._hand_out(callback, endmarker)
                finally:
                    gateway._dispatcher = before
        finally:
            pypump.pump.post(gateway._work_off)

    def _hand_out(self, callback, endmarker):
        """Call the callback for the items that are here, then register it. The caller has the dispatcher role."""
        gateway, chan = self.gateway, self._chan
        while True:
            while chan.items:
                held = chan.items.popleft()
                try:
                    item, error = gateway._item(*held)
                except BaseException:
                    chan.items.appendleft(held)
                    raise
                try:
                    if error is not None:
                        raise error
                    callback(item)
                finally:
                    chan.count_taken(gateway, held[0])
            if chan.recv_closed:
                if endmarker is not NO_ENDMARKER_WANTED:
                    callback(endmarker)
                return
            if not gateway._has_thread:
                try:
                    run = gateway._run_callbacks
                    gateway._parking.spawn(run) if gateway._parking else start_new_thread(run, ())
                except BaseException:
                    self._has_callback = False
                    raise
                gateway._has_thread = True
            chan.endmarker = endmarker
            chan.callback = callback
            return

    def set_limit(self, limit):
        """Have no more than `limit` bytes wait here, or on their way here, to be received: then the other side's send()
        waits until some were received. None: no limit.

        An item counts with the bytes in which it is sent and 64 more; one that is larger than the limit is sent when
        nothing else waits. Raises TypeError or ValueError for what is no int from 1 to sys.maxsize, and OSError when the
        channel or the connection is closed. Warns (RuntimeWarning) where the far end knows no limits; then there is none.
        """
        limits().set_limit(self, limit)

    def reconfigure(self, py2str_as_py3str=True, py3str_as_py2str=False, *, strict=True):
        """Set the string coercion of this channel at both ends: what a Python 2 str arrives as (str, or bytes if
        false), and whether a str arrives as bytes. With strict=False, enums are sent as their values, and instances of
        subclasses of str, int, float, list, tuple, dict, set and frozenset as those."""
        self.gateway._check_usable()
        py2, py3 = bool(py2str_as_py3str), bool(py3str_as_py2str)
        self._chan.coerce = py2 | py3 << 1 | 4 * (not strict)
        self.gateway._send(RECONFIGURE, self.id, (py2, py3) if strict else (py2, py3, True))

    def makefile(self, mode="w", proxyclose=False):
        """A file-like object on this channel; see channelfile.py."""
        from ..common.channelfile import make

        return make(self, mode, proxyclose)

    def isclosed(self):
        """True if the channel is closed. It may still hold items to receive."""
        self.gateway._check_usable()
        return self._chan.closed

    def __iter__(self):
        return self

    def __next__(self):
        try:
            return self.receive()
        except EOFError as exc:
            if type(exc) is not EOFError:
                raise  # the far end died: a loop must not take a part of the results for all of them
            raise StopIteration from None

    def next(self):
        """As the built-in next() on the channel."""
        return self.__next__()

    def areceive(self, timeout=None):
        """As receive(), to be awaited in asyncio: the event loop watches for the item, without a thread. A call that is
        cancelled has taken none. Several may wait for one channel, also in several loops."""
        return aio().areceive(self, timeout)

    def asend(self, item):
        """As send(), to be awaited in asyncio: where it has to wait, for a limit or for room in the connection, the event
        loop goes on, without a thread. A call that is cancelled has sent nothing, one that has returned the whole item."""
        return aio().asend(self, item)

    def __aiter__(self):
        return self

    def __anext__(self):
        return aio().anext(self)

    def _end(self):
        """The exception for the end of the channel. It is marked: if a task lets it through, the task ends in order (see
        worker.py)."""
        error = EOFError(*[] if self._chan.used else [END_TEXT % self.id])
        error._end_of = id(self.gateway)
        return error

    def _refuse_endless_wait(self, until, method):
        if until is None and self.gateway._dispatcher == self.gateway._who():
            raise OSError(
                f"{method}() without a timeout inside a callback of the same gateway would wait for ever: nothing "
                f"arrives until the callback has returned"
            )

    def _getremoteerror(self):
        gateway, chan = self.gateway, self._chan
        gateway._check_usable()
        try:
            return chan.errors.pop(0)
        except IndexError:
            pass
        return gateway._death(False) if chan.cut and not gateway._left else None

    def _raise_remote_error(self):
        error = self._getremoteerror()
        if error is not None:
            raise error


pyserializer.channel_type = Channel
