"""The C core's twin in plain Python: it has the same names as the C core, which `_core.pyi` lists.

It is sent to far ends without the package, and serves the near end where there is no C core. Some parts of Gateway have
files of their own: pyreader.py reads frames, pytasks.py has a worker's tasks, pynear.py has what only near ends need.

Mostly the I/O thread changes a gateway's state (see pypump.py). In another thread an exception out of a signal handler may
come between any two steps. So other threads change that state only in single steps: they append to a deque, or set an
attribute.

As in execnet, frames take effect one after the other, in the order in which they arrived. All go through the backlog,
and the thread that has the dispatcher role applies them. A frame that needs a callback waits for the gateway's callback
thread; the I/O thread applies the others.
"""

import sys
from _collections import deque
from _io import FileIO
from itertools import count
from time import monotonic

from . import pychannel, pypump, pyserializer, pywire
from ..models.native import LONGEST_SLEEP, RLock, allocate_lock, get_ident, os
from .pychannel import (
    NO_ENDMARKER_WANTED,
    UNTOLD_TEXT,
    Chan,
    Channel,
    GatewayDied,
    RemoteError,
    TimeoutError,
    limits,
    orphan,
    until_of,
)
from .pychannel import print_orphans as _print_orphans
from .pynear import NearEnd
from .pyreader import FIN, Reader
from .pyserializer import (
    DataFormatError,
    DumpError,
    LoadError,
    TruncatedError,
    dump_item,
)
from .pytasks import REFUSALS, Tasks
from .pytasks import compiled as _compile  # noqa: F401
from .pywire import (
    CHUNK,
    CLOSE,
    CLOSE_ERROR,
    CREDIT,
    DATA,
    EXEC,
    HELLO,
    INTERRUPT,
    ITEM_COST,
    LAST_MESSAGE,
    MARKER,
    RECONFIGURE,
    STATUS,
    Large,
    Writer,
    alone,
    frame,
    tally,
)
from .pywire import trace as _trace
from .pywire import trace_to as _trace_to

# None at far ends that were sent this file: the text leaves these functions out (NEAR in far/sent.py).
dump, dumps, load, loads = map(pyserializer.__dict__.get, ("dump", "dumps", "load", "loads"))

MAX_ANSWERS = 4000  # if so many frames wait to be written, answers wait in `_owed`, see src/core/link/xc_answer.c


def _main_thread_ident():
    """The main thread's ident. It is the oldest thread, and _current_frames() lists the oldest last."""
    return [*sys._current_frames()][-1]


class Gateway(NearEnd, Reader, Tasks):
    """The mechanism of a gateway: a connection and the process at its other end."""

    _writer = None
    _process = None  # near end: the far end's process, see pylaunch.py
    _keepalive_watch = None  # near end: ends the connection of a silent far end, see pykeepalive.py
    _to_reap = None  # far end: the pid of the child that forked the watcher, not reaped yet
    _watcher = None  # far end: the fd of the pipe to the watcher process, see pywatch.py
    _is_worker = False
    _pickles = False  # pickles are sent without being asked for, and those of the far end are loaded, see pypickled.py
    _facts = None
    _eof = _fin = False  # the connection has ended, nothing more is read; FIN has taken effect
    _broke = False  # the connection has ended by a fault of this side
    _words = property(None, lambda self, fd: setattr(self, "_tell_to", (fd, pypump.file_of(fd))))
    _tell_to = 2, None  # (fd, its file): there the reason of that is written, if fd still is that file; None: always
    _said_goodbye = _heard_goodbye = _greeted = False
    _left = False  # the near end has said goodbye: nothing more arrives, but what we send still gets there
    _ended_by = ("XC_OK", "", 0)
    _coerce = 1  # the string coercion of channels that are made from now on
    _maxqueue = None  # the limit of those, in both directions, see pyflow.py
    _limited = False  # a channel has, or had, another one
    _dispatcher = None  # the thread that has the dispatcher role
    _has_thread = False  # the callback thread runs
    _preamble = b""  # what came before the marker
    _large = None  # the large frame that is being read into its own memory
    _parking = None  # how greenlets wait, see greenlets.py

    def __new__(cls, *args, **kwargs):
        self = super().__new__(cls)
        self._forks = pypump.fork_count
        self._chans = {}  # id -> Chan, of the channels that something may arrive at
        self._rest = {}  # the same for others that a program holds and can still use
        self._waiters = []
        self._backlog = deque()  # frames that wait behind a callback, as many as come
        self._dispatcher_role = RLock()
        self._hellos = deque()  # see MAX_HELLOS
        self._owed = bytearray()  # answers that are still to be sent, five bytes each; a request has at least nine
        self._live = deque()  # one entry for each Channel object; MAX_CHANNELS, and those that the program makes
        self._tasks = deque()
        self._task_lock = allocate_lock()
        self._running = deque()  # one entry for each task that runs or waits
        self._interrupts = deque()  # the ids of channels whose tasks are to be interrupted, for a spare thread
        self._space = bytearray(CHUNK)
        self._buffer = bytearray()
        self._longs = {}  # number -> Large, of messages that come in pieces
        return self

    # --- starting ---

    def _connect(self, fd_in, fd_out, marked):
        """On the I/O thread: connect the gateway through these fds, which it owns from now on. marked: a marker comes
        first."""
        for fd in (fd_in, fd_out):
            os.set_blocking(fd, False)
        pypump.own(fd_in, fd_out)
        self._in = FileIO(fd_in, closefd=False)
        self._marked = not marked
        self._ids = count(2 if self._is_worker else 1, 2)
        pypump.pump.watch(fd_in, pypump.POLLIN, self._read)
        self._writer = Writer(fd_out, self._parking and self._parking.pause)

    def _serve(self, fd_in, fd_out):
        """Serve as the far end through these two fds, which it owns from now on. The process ends with the connection."""
        from . import pywatch

        self._is_worker = True
        self._watcher, self._to_reap = pywatch.start(fd_in, fd_out)
        self._forks = pypump.fork_count  # again: if this was process 1, start() has forked, and this is the child
        self._connect(fd_in, fd_out, False)
        self._read(0)  # usually the hello has come already; no signal handler can run here yet
        pypump.pump.post(self._wake)  # starts the I/O thread

    def _hello(self, timeout):
        """The next hello; None if the connection has ended or `timeout` seconds have passed."""
        self._check_usable()
        self._wait(lambda: self._hellos or self._fin, until_of(timeout))
        return self._load_plain(self._hellos.popleft()) if self._hellos else None

    def _set_facts(self, facts):
        self._facts = facts

    # --- frames take effect ---

    def _needs_callback(self, code, id):
        if code == FIN:
            return any([chan.callback is not None for chan in list(self._chans.values())])
        chan = self._chans.get(id)
        return chan is not None and chan.callback is not None and code in (DATA, CLOSE, CLOSE_ERROR, LAST_MESSAGE)

    def _work_off(self):
        """On the I/O thread: apply frames of the backlog up to the first that needs a callback."""
        backlog = self._backlog
        while backlog:
            if not self._dispatcher_role.acquire(False):
                # The thread that has the role does this. But it may just be leaving setcallback(): try again later.
                pypump.pump.after(0.02, self._work_off)
                return
            try:
                if self._needs_callback(*backlog[0][:2]):
                    break
                self._apply(*backlog.popleft())
            finally:
                self._dispatcher_role.release()
        self._wake()

    def _apply(self, code, id, payload):
        """One frame takes effect. The caller has the dispatcher role."""
        if code == EXEC:
            self._queue_task(id, payload)
        else:
            chan = self._chans.get(id)
            if code == INTERRUPT:
                self._interrupt(chan)
            elif code != DATA:
                self._apply_other(code, id, payload, chan)
            elif chan is not None:
                chan.put_item(self._held(payload, chan.coerce), len(payload) + ITEM_COST)
            else:
                self._refuse(payload)

    def _apply_other(self, code, id, payload, chan):
        if code in (CLOSE, LAST_MESSAGE):
            if chan is not None:
                self._close(chan, code == LAST_MESSAGE)
        elif code == CLOSE_ERROR:
            error = self._remote_error(payload)
            if chan is not None:
                self._close(chan)
            if chan is None or (chan.had_object and chan.holder() is None):
                orphan(error)
            else:
                chan.errors.append(error)
        elif code == STATUS:
            self._owe(len(payload) > 0, id)
        elif code == RECONFIGURE:
            self._reconfigured(id, payload)
        elif code == FIN:
            self._fin = True
            self._cut()  # first: a thread that sees recv_closed looks at `cut` for the reason
            for chan in list(self._chans.values()):
                chan.recv_closed = True
                chan.keep(self._rest)
            self._chans.clear()
        else:
            limits().apply_late(self, code, id, self._known(id), payload)

    def _cut(self):
        """The connection has ended: mark the channels that neither side had closed."""
        for chan in list(self._chans.values()):
            chan.cut = True

    def _held(self, payload, coerce):
        """What waits in a channel for an item: the arguments of _item(). The object is made when it is received: it may be
        70 times as large as its payload. But the channels that it carries are made now, so that what comes for them is
        kept."""
        return payload, coerce, self._carried(payload)

    def _encoded(self, item, channels, pickled=False, chan=None):
        """The parts of an item or a task, as dump_item() makes them; of what it refuses the plain value, if `chan` is not
        strict, or a pickle, if those are wanted."""
        try:
            if not pickled:
                return dump_item(item, channels)
        except DumpError:
            parts = self._encoded_plainly(item, channels, chan)
            if parts:
                return parts
        from .pypickled import encoded

        return encoded(self, item, channels, Channel)

    def _encoded_plainly(self, item, channels, chan):
        """The parts of the plain value, if `chan` is not strict; None: a pickle is wanted. Else raises what the caller caught."""
        if chan is not None and chan.coerce & 4:
            from ..common.plain import plain

            try:
                return dump_item(plain(item), channels)
            except DumpError:
                if not self._pickles:
                    raise
        elif not self._pickles:
            raise

    def _remote_error(self, payload):
        from ..common.errors import remote_error

        try:
            item = self._load(payload, 1)
        except (LoadError, MemoryError):
            item = None
        return remote_error(RemoteError, item)

    def _close(self, chan, send_only=False):
        chan.closed = chan.closed or not send_only
        chan.recv_closed = True
        self._chans.pop(chan.id, None)
        chan.keep(self._rest)

    def _known(self, id):
        return self._chans.get(id) or self._rest.get(id)

    def _owe(self, debt, id):
        """Send the far end an answer as soon as there is room for it. `debt`: 0, a status; 1, a status with facts;
        2 or 3, an error of REFUSALS; or more, the code of a frame without a payload. Any thread.

        Answers wait here because the far end may ask without reading. If we stopped reading instead, two ends that both
        ask would wait for each other for ever."""
        try:
            alone(map(self._owed.extend, (bytes((debt,)) + (id & 0xFFFFFFFF).to_bytes(4, "big"),)))
        except MemoryError:
            return self._lack_memory()
        pypump.pump.post(self._pay)

    def _pay(self):
        """On the I/O thread: send the answers of _owe() for which there is room."""
        owed = self._owed
        while owed and len(self._writer.out) < MAX_ANSWERS:
            first = []
            alone(map(first.extend, map(owed.__getitem__, (slice(5),))))
            alone(map(owed.__delitem__, (slice(5),)))
            debt, id = first[0], int.from_bytes(first[1:], "big", signed=True)
            if debt < 2:
                self._post(DATA, id, self._status(debt))
                debt = CLOSE  # behind the status
            if debt == CREDIT:
                limits().pay(self, id)
            elif debt in REFUSALS:
                self._post(CLOSE_ERROR, id, REFUSALS[debt])
            else:
                self._post(debt, id)
        if owed:
            pypump.pump.after(0.05, self._pay)

    def _status(self, facts):
        if not facts or self._facts is None:
            return {"numchannels": len(self._chans), "numexecuting": len(self._running), "execmodel": self._model}
        try:
            cwd = os.getcwd().encode("utf-8", "backslashreplace").decode()
        except OSError:
            cwd = None
        return {**self._facts, "cwd": cwd}

    def _reconfigured(self, id, payload):
        try:
            py2, py3, *loose = self._load(payload, 1)
        except Exception:
            return
        bits = (py2 is True) | (py3 is True) << 1 | (loose == [True]) << 2
        if id == 0:
            self._coerce = bits
        elif id in self._chans:
            self._chans[id].coerce = bits

    # --- waiting ---

    def _wake(self):
        """Wake the threads in _wait() whose condition is true."""
        for waiter in self._waiters[:]:
            ready, lock = waiter
            if lock.locked() and ready():
                try:
                    lock.release()
                except RuntimeError:
                    pass  # another thread has released it already

    def _wait(self, ready, until=None):
        """Wait until ready() is true. False: `until` was reached before. Sleeps in slices, because a signal that comes
        just before a sleep does not interrupt it."""
        if ready():
            return True
        if self._parking:
            parked = self._parking.wait(self._waiters, ready, until)
            if parked is not None:
                return parked
        lock = allocate_lock()
        lock.acquire()
        waiter = (ready, lock)
        self._waiters.append(waiter)
        slice = 0.01
        try:
            while not ready():
                left = slice if until is None else min(slice, until - monotonic())
                if left <= 0:
                    return False
                if not lock.acquire(True, left) and slice > LONGEST_SLEEP / 4:
                    pypump.pump.look()
                slice = min(slice * 2, LONGEST_SLEEP)
            return True
        finally:
            self._waiters.remove(waiter)

    def _check_usable(self):
        if self._writer is None or self._forks != pypump.fork_count:
            raise self._unusable()

    def _unusable(self):
        if self._writer is None:
            return OSError("the gateway was not started: make one with makegateway()")
        return OSError(
            "the gateway belongs to the parent process: a forked child cannot use it, but can make gateways of its own"
        )

    # --- channels and frames ---

    def newchannel(self):
        """A new channel, independent of any task: send it through another channel to have somebody at its other end.
        Raises OSError when the connection has ended."""
        self._check_usable()
        if self._eof:
            raise self._death(True)
        for id in self._ids:
            if id not in self._chans:
                channel = self._channel(id)
                channel._chan.whole = True
                return channel

    def _channel(self, id):
        """The Channel object for that id; it is made if there is none."""
        chan = self._chans.get(id) or self._open(id)
        channel = chan.holder()
        return channel if channel is not None else Channel._new(Channel, self, chan)

    def _open(self, id):
        chan = Chan(id, self._coerce)
        if self._maxqueue is not None:
            limits().set_both(self, chan, self._maxqueue)
        self._chans[id] = chan
        if self._fin:  # checked after the channel is in _chans: FIN closes all that are there
            self._cut()
            self._close(chan, True)
        return chan

    def _post(self, code, id, *item):
        """As _send(), but never waits: the I/O thread writes the frame."""
        try:
            parts = dump_item(*item, Channel) if item else ()
            chan = self._known(id) if code == DATA else None
            if chan is not None:
                tally(vars(chan).setdefault("sent", [0]), ITEM_COST + sum(map(len, parts)))
            self._writer.post(frame(code, id, parts))
        except MemoryError:
            self._lack_memory()

    def _lack_memory(self):
        """There is no memory for a frame that the far end waits for: end the connection, so that it does not wait for
        ever. Any thread."""
        pypump.pump.post(lambda: self._end_by(MemoryError("no memory for a frame")))

    def _send(self, code, id, *item):
        """Send a frame of that code whose payload is the encoding of `item`."""
        self._check_usable()
        channels = limits().Carried(self, Channel) if self._limited else Channel
        encode = self._encoded if code == EXEC else dump_item
        if not self._writer.send_message(code, id, encode(*item, channels) if item else ()):
            raise self._death(True)
        if channels is not Channel:
            channels.tell()

    def _send_item(self, chan, parts):
        if not self._writer.send_message(DATA, chan.id, parts, vars(chan).setdefault("sent", [0])):
            raise self._death(True)

    def _limit(self, limit):  # of both directions of all channels, now and from now on
        limits().set_all(self, limit or None)

    def _takes_limits(self):  # whether the far end knows limits
        return True

    def _stats(self):
        return limits().stats(self)

    # --- callbacks ---

    def _who(self):
        """What stands in _dispatcher if the caller has the dispatcher role: the greenlet, or the thread's ident."""
        return self._parking and self._parking.who() or get_ident()

    def _run_callbacks(self):
        """What the callback thread does until the end."""
        try:
            while not self._fin:
                self._wait(lambda: self._backlog or self._fin)
                with self._dispatcher_role:
                    self._dispatcher = self._who()
                    while self._backlog:
                        self._dispatch(*self._backlog.popleft())
                    self._dispatcher = None
                self._wake()
        except OSError:
            pass  # this is a forked child

    def _dispatch(self, code, id, payload):
        """One frame takes effect, with its callback. The caller is the callback thread, with the dispatcher role."""
        chan = self._chans.get(id)
        if not self._needs_callback(code, id):
            self._apply(code, id, payload)
        elif code == DATA:
            item, error = self._item(*self._held(payload, chan.coerce))
            try:
                if error is not None:
                    raise error
                chan.callback(item)
            except BaseException as exc:
                self._fail_callback(chan, exc)
            item = error = None
            chan.arrived += len(payload) + ITEM_COST
            chan.count_taken(self, payload)
        else:
            if code == FIN:
                self._cut()  # first: a callback that gets its endmarker may ask the channel for the reason
            for ended in list(self._chans.values()) if code == FIN else [chan]:
                self._end_callback(ended)
            self._apply(code, id, payload)
        self._wake()

    def _end_callback(self, chan):
        """Forget the callback, then call it for the last time."""
        callback, endmarker = chan.callback, chan.endmarker
        chan.callback = chan.endmarker = None
        if callback is not None and endmarker is not NO_ENDMARKER_WANTED:
            try:
                callback(endmarker)
            except BaseException:
                sys.excepthook(*sys.exc_info())
        if chan.holder() is None:
            self._unlist(chan)

    def _fail_callback(self, chan, exc):
        """The callback raised `exc`: close the channel with the error at both ends."""
        from ..common.errors import remote_error, told

        error = told(exc)
        try:
            self._send(CLOSE_ERROR, chan.id, error)
        except OSError:
            pass  # the far end is gone; this side still reports the error
        self._end_callback(chan)
        if not chan.closed:
            chan.errors.append(remote_error(RemoteError, error))
        self._close(chan)

    def _unlist(self, chan):
        if self._chans.get(chan.id) is chan:
            self._chans.pop(chan.id, None)  # the I/O thread may have taken it out now

    def _forget(self, chan, channel):
        """The Channel object of `chan` is being freed. Any thread may call this, between any two steps: it takes no lock.
        Called again if it raised MemoryError."""
        if self._forks != pypump.fork_count or chan.holder() not in (None, channel):
            return  # the garbage collector may call this late, when there is a new object for the channel
        chan.object = None
        if chan.callback is None:
            self._unlist(chan)
        self._rest.pop(chan.id, None)
        if not chan.closed and (chan.cut and self._left if chan.recv_closed else not self._eof):
            try:
                if chan.task and chan.callback is None:
                    self._post(CLOSE_ERROR, chan.id, UNTOLD_TEXT)
                else:
                    self._owe(LAST_MESSAGE if chan.callback is not None else CLOSE, chan.id)
            except (OSError, RuntimeError):
                pass  # the interpreter is ending: no thread can be started
        while chan.closed and chan.errors:
            orphan(chan.errors.pop(0))

    # --- the end ---

    def hasreceiver(self):
        """True as long as something may still arrive from the far end."""
        return self._writer is not None and self._forks == pypump.fork_count and not self._fin

    def join(self, timeout=None):
        """Wait until nothing more can arrive from the far end, for `timeout` seconds at most (None: for ever)."""
        self._check_usable()
        self._wait(lambda: self._fin, until_of(timeout))

    def _state(self):
        self._check_usable()
        reason, detail, errno = self._ended_by
        return {
            "fin": self._fin,
            "said_goodbye": self._said_goodbye,
            "heard_goodbye": self._heard_goodbye,
            "greeted": self._greeted,
            "channels": len(self._chans),
            "executing": len(self._running),
            "reason": reason,
            "detail": detail,
            "errno": errno,
            "preamble": self._preamble,
            "transport": "pipe",
            **(self._process.said() if self._process else {}),
        }

    def _death(self, sending):
        return GatewayDied("the connection has ended")


pychannel.Gateway = Gateway
