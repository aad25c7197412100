"""The tasks of a worker on the plain-Python core: their queue, and what happens to a task that no thread takes. The channels
that tasks and items carry.
"""

import sys
from _collections import deque
from _signal import SIG_IGN, SIGINT, SIGURG, signal
from itertools import chain

from . import pypump
from ..models.native import os
from .pychannel import until_of
from .pyserializer import LoadError, channel_ids
from .pywire import CLOSE_ERROR, Large, sift

MAX_CHANNELS = 65536  # with so many Channel objects no task is taken, and no item that carries a channel
REFUSALS = {2: "execution disallowed", 3: "too many tasks wait"}  # see Gateway._owe()

ONLY_MAIN = "main_thread_only"
KICK_AGAIN = 0.05  # seconds; a signal that comes just before a wait does not end it

def _no_channel(id):
    """Called for a payload that is not well formed, if at all: loading it goes on, and then says why."""


def _crowded(id):
    raise LoadError(f"{MAX_CHANNELS} channels are here already")


def _no_memory(id):
    raise MemoryError


_first = deque([None])  # a token while no text was compiled yet


def compiled(*args):
    """The built-in compile(source, file_name, mode); faster at its first call, for the reason in src/py/compile.c. exec()
    does without the types of the module ast, too: it compiles the text, and a profile function takes the code from the
    frame in which it is about to run. All errors and warnings are compile()'s own."""
    scope, codes = {}, []

    def take(frame, event, arg):
        if frame.f_globals is scope:
            codes.append(frame.f_code)
            raise InterruptedError  # so nothing runs

    if _first and [*map(type, args)] == [str, str, str] and args[2] == "exec" and "\0" not in args[1] and _by_exec():
        _first.clear()
        warnings = sys.modules.get("warnings") or __import__("_warnings")
        filters, errors = warnings.filters, ("error", None, Warning, None, 0)

        def undo():
            sys.setprofile(None)
            filters[:] = [kept for kept in filters if kept is not errors]
            warnings._filters_mutated()

        try:
            try:
                filters.insert(0, errors)
                warnings._filters_mutated()
                sys.setprofile(take)
                exec(args[0], scope)
            except Exception:
                pass
            finally:
                undo()
        finally:
            undo()  # again: an interrupt may have ended the first one
    return _named(codes[0], args[1]) if codes else compile(*args)


def _by_exec():
    """Other interpreters do not have that cost, newer ones change filters in another way, and the program may have a
    profile function of its own. Without a GIL, what other threads warn of meanwhile would be an error."""
    has_gil = getattr(sys, "_is_gil_enabled", lambda: True)
    return sys.implementation.name == "cpython" and sys.version_info < (3, 14) and not sys.getprofile() and has_gil()


def _named(code, file_name):
    consts = [_named(const, file_name) if type(const) is type(code) else const for const in code.co_consts]
    return code.replace(co_filename=file_name, co_consts=tuple(consts))


class Tasks:
    """The part of a Gateway that concerns tasks: a base class of it."""

    _primary_waits = False  # the main thread waits for a task
    _model = "thread"  # the name of the execution model
    _primary = None  # the Chan of the task that the main thread runs
    _waiting = None  # the task for which the task timeout runs, see _start_task_timeout()

    def _queue_task(self, id, payload):
        """An EXEC frame takes effect."""
        if not self._is_worker or len(self._live) >= MAX_CHANNELS:
            self._owe(3 if self._is_worker else 2, id)
            return self._refuse(payload, id)
        is_new = id not in self._chans
        channel = self._channel(id)
        channel._chan.whole = is_new
        try:
            # A pickle, which runs code of the program's, is left to the thread that takes the task.
            first = (payload.payload() if type(payload) is Large else payload)[:1]
            item = [*self._held(payload, 1)] if first in (b"@", b"B") else self._load_plain(payload)
        except LoadError as exc:
            item = exc  # the thread that takes the task reports it
        except MemoryError:
            item = MemoryError
        if item is MemoryError:  # the traceback has been freed, so there is memory for a text
            item = MemoryError(f"no memory for a task of {len(payload)} bytes")
        channel._chan.task = True
        self._running.append(None)
        self._tasks.append((channel, item))
        if self._model == ONLY_MAIN and len(self._tasks) == 1:
            self._start_task_timeout()

    def _next_task(self, primary, slot):
        """Wait for a task, and put its channel and its item, or the exception that loading it raised, into the list
        `slot`. False: there will be no more. primary: the caller is the main thread; others may get an interrupt instead: the
        id of a task's channel alone."""
        tasks = self._tasks
        if self._to_reap is not None:  # only now: before the hello it would have delayed the first task
            from . import pywatch

            pywatch.reap(self._to_reap)
            self._to_reap = None
        if primary:
            self._primary_waits = True  # so the spare thread leaves the first task in the queue to this thread

        def ready():
            waits = len(tasks) > (not primary and self._primary_waits) or (self._fin and not tasks)
            return waits or bool(self._interrupts) and not primary

        while True:
            self._check_usable()
            self._wait(ready)
            with self._task_lock:
                if self._interrupts and not primary:
                    slot.extend(map(deque.popleft, (self._interrupts,)))
                    return True
                if len(tasks) > (not primary and self._primary_waits):
                    # One step, so that no signal handler can lose the task.
                    slot.extend(chain.from_iterable(map(deque.popleft, (tasks,))))
                    if primary:
                        self._primary_waits = False
                        self._primary = slot[0]._chan
                        if tasks and self._model == ONLY_MAIN:
                            pypump.pump.post(self._start_task_timeout)
                    break
                if self._fin and not tasks:
                    return False
        self._wake()
        if type(slot[1]) is list:
            slot[1] = self._late(*slot[1])
        return True

    def _late(self, *held):
        item, error = self._item(*held)
        return error or item

    def _task_done(self, primary):
        """A task has ended."""
        self._primary = None if primary else self._primary
        if self._forks == pypump.fork_count and self._running:
            self._primary_waits = self._primary_waits or primary  # already here, so that the next task is left to it
            self._running.pop()
            self._wake()

    def _interrupt(self, chan):
        """An INTERRUPT frame takes effect. It marks the channel of a task, as in src/core/link/xc_tasks.c."""
        if chan and chan.task and not chan.interrupted:
            chan.interrupted = True
            if chan is self._primary:
                pypump.pump.post(self._kick_primary)
            elif self._model != ONLY_MAIN:
                self._interrupts.append(chan.id)
                self._wake()
        return True

    def _mark(self, channel):
        """Have the channel's task interrupted, as the far end's interrupt() does."""
        self._interrupt(channel._chan)

    def _take_interrupt(self, channel):
        """Whether the channel's task is to be interrupted. From now on it counts as interrupted."""
        taken = channel._chan.interrupted and self._forks == pypump.fork_count
        channel._chan.interrupted = False
        return taken

    def _raise_in(self, ident, kind):
        """Raise an exception of that type in that thread, between two steps of its Python code. None: the one that has not
        come yet does not come. Nothing happens without ctypes, or where the interpreter is not CPython."""
        try:
            from ctypes import c_ulong, py_object, pythonapi

            pythonapi.PyThreadState_SetAsyncExc(c_ulong(ident), kind and py_object(kind))
        except Exception:
            pass

    def _kick_primary(self):
        if self._primary and self._primary.interrupted:
            os.kill(os.getpid(), SIGURG)
            pypump.pump.after(KICK_AGAIN, self._kick_primary)

    def _start_task_timeout(self):
        """On the I/O thread: start the task timeout for the task that is now the first in the queue. As in execnet, it is
        refused if it still waits for the main thread after a second."""
        self._waiting = self._tasks[0] if self._tasks else None
        pypump.pump.after(1.0, self._refuse_late_task)

    def _refuse_late_task(self):
        task, tasks = self._waiting, self._tasks
        if self._eof or not tasks:
            return
        if not self._task_lock.acquire(False):  # do not wait: a signal handler may interrupt the thread that holds it
            return pypump.pump.after(0.02, self._refuse_late_task)
        try:
            if tasks and tasks[0] is task and len(self._running) > len(tasks):
                tasks.popleft()
                self._running.pop()
                chan = task[0]._chan
                if not chan.recv_closed:
                    text = f"concurrent remote_exec would cause deadlock for {ONLY_MAIN} execmodel"
                    self._post(CLOSE_ERROR, chan.id, text)
                self._close(chan)
        finally:
            self._task_lock.release()
        self._start_task_timeout()

    def _wait_idle(self, timeout):
        """Wait until no task runs; then tell the watcher that it is not needed any more. Called at the end of a worker."""
        idle = self._wait(lambda: not self._running, until_of(timeout))
        if idle and self._watcher is not None:
            signal(SIGINT, SIG_IGN)
            from . import pywatch

            pywatch.tell(self._watcher, b"i", None)
        return idle

    def _carried(self, payload):
        """The function that gives the Channel object for each id in the payload."""
        failed = _crowded
        try:
            if type(payload) is not Large or not payload.ids:
                ids = channel_ids(payload.payload() if type(payload) is Large else payload, MAX_CHANNELS + 1)
                if not ids:
                    return _no_channel
                if len(self._live) + len(ids) <= MAX_CHANNELS:
                    return {id: self._channel(id) for id in ids}.__getitem__
        except MemoryError:
            failed = _no_memory
        self._refuse(payload)
        return failed

    def _refuse(self, payload, task=None):
        """Nobody will get what the payload carries: close the channels that are not known here, at which somebody may wait.
        task: the id of its own channel, which is told more."""

        def close(four):
            id = int.from_bytes(four, "big")
            if id != task and id not in self._chans:
                self._owed += b"\5" + four  # as _owe(CLOSE, id), but there may be many

        try:
            if type(payload) is Large and payload.ids:
                for at in range(0, len(payload.ids), 4):
                    close(payload.ids[at : at + 4])
            else:
                look = sift(close).send
                look(None)
                look(payload.payload() if type(payload) is Large else payload)
            if self._owed:
                pypump.pump.post(self._pay)
        except MemoryError:
            self._lack_memory()
