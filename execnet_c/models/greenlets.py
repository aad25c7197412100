"""The execution models gevent and eventlet: while a greenlet waits, the others of its thread run.

A greenlet that waits is *parked*. A gateway of such a model has a Parking as `_parking`; the cores call it whenever they
have to wait (the C core: see src/py/park.c). Each thread with greenlets has a Lot. That keeps the thread's parked
greenlets by their numbers, and has a pipe that the thread's hub watches. To end a wait, the I/O thread (or any other)
writes the greenlet's number into the pipe.

Calls that hold locks while they wait (starting a gateway, ending a group) run on a system thread instead, and the
greenlet waits for that thread.

This file travels to far ends that have nothing installed; it runs on Python 3.8.
"""

import sys
from importlib import import_module
from time import monotonic
from weakref import WeakSet

from .execmodel import ExecModel
from .native import allocate_lock, os, select, start_new_thread

_RINGS = 64 * 1024  # bytes, 8 for each number: the most that is read from the pipe at once
_FULL = select.PIPE_BUF  # bytes: the smallest size of a pipe, which a user with very many pipes gets
_PAUSE = 0.001  # seconds between two tries of a sender whose connection is full


class Lot:
    """The parked greenlets of one thread. There is a subclass for each library."""

    def __init__(self, hub):
        self._hub = hub
        self._parked = {}  # number -> (what it waits for, greenlet)
        self._last = 0
        self._open()
        hub._execnet_c_lot = self
        _lots.add(self)

    def _open(self):
        self._pid = os.getpid()
        self._fd, self._into = os.pipe()
        for fd in (self._fd, self._into):
            os.set_blocking(fd, False)
        self._watch(self._fd, self._rung)

    def _close(self):
        for fd in (self._fd, self._into):
            os.close(fd)

    __del__ = _close

    def renew(self):
        """In a forked child: take a new pipe, because the parent uses the old one."""
        self._unwatch()
        self._close()
        self._open()

    def park(self, registration, seconds):
        """Let other greenlets run until `registration` is over, or so many seconds have passed (None: wait for ever), or
        an exception is thrown into this greenlet. It may also return before any of these."""
        number = self._last = self._last + 1
        if registration.ring(self._into, number):
            return
        greenlet = self.current()
        timer = None
        try:
            self._parked[number] = registration, greenlet
            self._keep(True)
            if seconds is not None:
                timer = self._call_later(seconds, greenlet.switch)
            self._hub.switch()
        finally:
            if timer is not None:
                self._cancel(timer)
            self._parked.pop(number, None)
            self._keep(bool(self._parked))

    def _rung(self, *args):
        if self._pid != os.getpid():
            return
        try:
            data = os.read(self._fd, _RINGS)
        except BlockingIOError:
            return
        numbers = memoryview(data).cast("Q")
        if len(data) >= _FULL:  # the pipe may have been full, and numbers may be missing
            numbers = [number for number, (registration, _) in self._parked.items() if registration.over]
        for number in numbers:
            _, greenlet = self._parked.pop(number, (None, None))
            if greenlet is not None:
                try:
                    greenlet.switch()
                except BaseException as exc:  # raised in that greenlet, for the hub: it must not leave this callback
                    self._report(greenlet, exc)


def _raise(exc):
    raise exc


class _GeventLot(Lot):
    def _watch(self, fd, callback):
        self._watcher = self._hub.loop.io(fd, 1, ref=False)
        self._watcher.start(callback)

    def _unwatch(self):
        self._watcher.stop()

    def _keep(self, wanted):
        """Whether a hub that has nothing else to do goes on waiting for the pipe."""
        if self._watcher.ref != wanted:
            self._watcher.ref = wanted

    def _report(self, greenlet, exc):
        self._hub.handle_error(greenlet, type(exc), exc, exc.__traceback__)

    def _call_later(self, seconds, callback):
        timer = self._hub.loop.timer(seconds)
        timer.start(callback)
        return timer

    def _cancel(self, timer):
        timer.stop()
        timer.close()

    def current(self):
        from gevent import getcurrent

        return getcurrent()


class _EventletLot(Lot):
    def _watch(self, fd, callback):
        self._listener = self._hub.add("read", fd, callback, callback, callback)

    def renew(self):
        """The child shares the hub's epoll set with the parent. So the child has to make a new hub, which gets a new Lot."""
        self._hub._execnet_c_lot = None

    def _keep(self, wanted):
        pass  # eventlet's hub always goes on

    def _report(self, greenlet, exc):
        self._hub.schedule_call_global(0, _raise, exc)

    def _call_later(self, seconds, callback):
        return self._hub.schedule_call_global(seconds, callback)

    def _cancel(self, timer):
        timer.cancel()

    def current(self):
        from eventlet import getcurrent

        return getcurrent()


class Gevent:
    """What this file needs of the library; Eventlet has the same methods."""

    lot = _GeventLot

    def __init__(self):
        import gevent
        from gevent._hub_local import get_hub_if_exists

        self.sleep, self.make_hub, self.find_hub = gevent.sleep, gevent.get_hub, get_hub_if_exists
        self._spawn = gevent.spawn

    def spawn(self, func, *args):
        return self._spawn(func, *args)

    def interrupt(self, greenlet):
        greenlet.kill(KeyboardInterrupt, block=False)


class Eventlet:
    lot = _EventletLot

    def __init__(self):
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns of itself
            import eventlet
            from eventlet import hubs

        self.sleep, self.make_hub = eventlet.sleep, hubs.get_hub
        self.find_hub = lambda: getattr(hubs._threadlocal, "hub", None)
        self._eventlet = eventlet

    def spawn(self, func, *args):
        return self._eventlet.spawn(func, *args)

    def interrupt(self, greenlet):
        self._eventlet.kill(greenlet, KeyboardInterrupt)


class Bell:
    """Ends the wait of one parked greenlet: any thread may call release(). It has the methods of a lock, because the twin's
    other waiters are locks."""

    over = False
    _into = None

    def __init__(self, lot):
        self._lot = lot  # keeps the pipe open as long as somebody may call release()

    def ring(self, into, number):
        """Have release() write `number` into the pipe `into`. Returns whether the wait is over already. As the C core's
        Registration.ring()."""
        self._number = number.to_bytes(8, sys.byteorder)
        self._into = into
        return self.over

    def locked(self):
        return not self.over

    def release(self):
        self.over = True
        if self._into is not None:
            try:
                os.write(self._into, self._number)
            except OSError:
                pass  # the pipe is full: its reader then checks all registrations


class _Call(Bell):
    """func(*args), on a system thread."""

    _error = _result = None
    _given_up = False

    def __init__(self, lot, func, args):
        super().__init__(lot)
        self._func, self._args = func, args
        self._lock = allocate_lock()

    def run(self):
        try:
            self._result = self._func(*self._args)
        except BaseException as exc:
            self._error = exc
        with self._lock:
            given_up = self._given_up
            self.release()
        if given_up:
            self._undo()

    def give_up(self):
        with self._lock:
            self._given_up = True
            undo = self.over
        if undo:
            self._undo()

    def _undo(self):
        """End the gateway that the call has made: the greenlet has given up, so that nobody knows of it."""
        if hasattr(self._result, "exit"):
            self._result.exit()

    def result(self):
        try:
            if self._error is not None:
                raise self._error
            return self._result
        finally:
            self._error = self._result = None


class Parking:
    """How the greenlets of one library wait."""

    def __init__(self, backend):
        self.library = _libraries[backend]()
        self.execmodel = MODELS[backend](backend)

    def lot(self):
        """The Lot of this thread; None if it has no greenlets."""
        hub = self.library.find_hub()
        if hub is None:
            return None
        lot = getattr(hub, "_execnet_c_lot", None)
        if lot is None:
            lot = self.library.lot(hub)
        return lot

    # --- what the cores call ---

    def __call__(self, registration, seconds):
        """Park the running greenlet, as Lot.park() does. False: this thread has no greenlets, and the caller has to wait."""
        lot = self.lot()
        if lot is None:
            return False
        if seconds == 0.0:
            self.library.sleep(0)
        else:
            lot.park(registration, seconds)
        return True

    def pause(self):
        """Let others run before the next try to send. False: this thread has no greenlets."""
        if self.lot() is None:
            return False
        self.library.sleep(_PAUSE)
        return True

    def who(self):
        """The running greenlet; None on a thread without any."""
        lot = self.lot()
        return None if lot is None else lot.current()

    def spawn(self, func, *args):
        """Run func(*args) in a greenlet of this thread."""
        return self.library.spawn(func, *args)

    def wait(self, waiters, ready, until):
        """For the twin: wait until ready() is true, as one of its `waiters`. True; False if `until` came first; None: this
        thread has no greenlets."""
        lot = self.lot()
        if lot is None:
            return None
        while not ready():
            left = None if until is None else until - monotonic()
            if left is not None and left <= 0:
                self.library.sleep(0)
                return ready()
            waiter = ready, Bell(lot)
            waiters.append(waiter)
            try:
                if not ready():
                    lot.park(waiter[1], left)
            finally:
                waiters.remove(waiter)
        return True

    # --- for the package ---

    def aside(self, func, *args):
        """func(*args) on a system thread, where it may sleep while it holds locks; other greenlets run meanwhile."""
        lot = self.lot()
        if lot is None:
            return func(*args)
        call = _Call(lot, func, args)
        start_new_thread(call.run, ())
        try:
            while not call.over:
                lot.park(call, None)
        except BaseException:
            call.give_up()
            raise
        return call.result()


_libraries = {"gevent": Gevent, "eventlet": Eventlet}
_parkings = {}
_lots = WeakSet()


def parking_for(backend):
    """The Parking of that model. Raises ImportError if its library cannot be imported."""
    if backend not in _parkings:
        try:
            _parkings[backend] = Parking(backend)
        except ImportError as exc:
            raise ImportError(f"the execution model {backend!r} needs the package of that name: {exc}") from None
    return _parkings[backend]


def _renew_lots():
    for lot in list(_lots):
        lot.renew()


os.register_at_fork(after_in_child=_renew_lots)


# --- what programs see ------------------------------------------------------------------------------------------------


def _found(path):
    module, _, name = path.partition(":")
    return property(lambda self: getattr(import_module(module), name) if name else import_module(module))


class GreenletModel(ExecModel):
    """An execution model whose members are a greenlet library's."""

    @property
    def parking(self):
        return parking_for(self.backend)

    def aside(self, func, *args):
        return self.parking.aside(func, *args)

    def start(self, func, args=()):
        """Call `func(*args)` in a greenlet of its own."""
        self.parking.spawn(func, *args)


class GeventExecModel(GreenletModel):
    def __init__(self, backend="gevent"):
        super().__init__(backend)

    queue, subprocess, socket = map(_found, ("gevent.queue", "gevent.subprocess", "gevent.socket"))
    get_ident, sleep = map(_found, ("gevent.thread:get_ident", "gevent:sleep"))
    Lock, RLock, Event = map(_found, ("gevent.lock:RLock", "gevent.lock:RLock", "gevent.event:Event"))

    def fdopen(self, fd, mode, bufsize=1, closefd=True):
        from gevent.fileobject import FileObjectThread

        return FileObjectThread(fd, mode, bufsize, closefd=closefd)


class EventletExecModel(GreenletModel):
    def __init__(self, backend="eventlet"):
        super().__init__(backend)

    queue, subprocess, socket = map(_found, ("eventlet.queue", "eventlet.green.subprocess", "eventlet.green.socket"))
    get_ident, sleep = map(_found, ("eventlet.green.thread:get_ident", "eventlet:sleep"))
    Lock, RLock, Event = map(_found, [f"eventlet.green.threading:{name}" for name in ("RLock", "RLock", "Event")])

    def fdopen(self, fd, mode, bufsize=1, closefd=True):
        from eventlet.green.os import fdopen

        return fdopen(fd, mode, bufsize, closefd=closefd)


MODELS = {"gevent": GeventExecModel, "eventlet": EventletExecModel}


# --- at a worker ------------------------------------------------------------------------------------------------------


def serve(gateway, tasks):
    """At a worker: run each task in a greenlet of the main thread, until no more can come. `tasks`: a worker._Tasks, whose
    run() runs one."""
    parking = gateway._parking
    parking.library.make_hub()
    running = {}  # greenlet -> its task

    def run(task):
        running[parking.who()] = task
        try:
            tasks.run(task)
        finally:
            del running[parking.who()]

    more = True
    while more:
        try:
            task = []
            more = gateway._next_task(False, task)
            if len(task) == 2:
                parking.spawn(run, task)
            for greenlet, (channel, _) in list(running.items()) if len(task) == 1 else ():
                if channel.id == task[0] and gateway._take_interrupt(channel):
                    parking.library.interrupt(greenlet)
        except KeyboardInterrupt:
            for greenlet in list(running):
                parking.library.interrupt(greenlet)
    gateway._wait_idle(None)
