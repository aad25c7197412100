"""The tasks of a worker on the plain-Python core: the queue of them, and what happens to those nobody comes to."""

from _collections import deque
from _signal import SIG_IGN, SIGINT, signal
from itertools import chain

from . import pypump
from .pychannel import until_of
from .pyserializer import LoadError
from .pywire import CLOSE_ERROR

MAX_CHANNELS = 65536  # no task, and no item that carries one, is taken beyond that
REFUSALS = {2: "execution disallowed", 3: "too many tasks wait"}

ONLY_MAIN = "main_thread_only"


class Tasks:
    """The part of a Gateway that concerns them."""

    _primary_waits = False
    _model = "thread"  # the name of the execution model
    _waiting = None  # the first of the tasks for the main thread, see _begin_patience()

    def _queue_task(self, id, payload):
        if not self._is_worker:
            return self._owe(2, id)
        if len(self._live) >= MAX_CHANNELS:
            return self._owe(3, id)
        channel = self._channel(id)
        try:
            item = self._load_plain(payload)
        except LoadError as exc:
            item = exc  # whoever takes the task tells of it
        except MemoryError:
            item = MemoryError
        if item is MemoryError:  # there is memory for words again, now that its traceback is gone
            item = MemoryError(f"no memory for a task of {len(payload)} bytes")
        channel._chan.task = True
        self._running.append(None)
        self._tasks.append((channel, item))
        if self._model == ONLY_MAIN and len(self._tasks) == 1:
            self._begin_patience()

    def _next_task(self, primary, slot):
        """Wait for a task: its channel and payload, or why that cannot be loaded, are put into the list `slot`. False:
        there will be none."""
        tasks = self._tasks
        if self._to_reap is not None:  # not at once: it takes its time, and no task has run yet
            from . import pywatch

            pywatch.reap(self._to_reap)
            self._to_reap = None
        if primary:
            self._primary_waits = True  # until it has taken one: the spare thread leaves the first task to it

        def ready():
            return len(tasks) > (not primary and self._primary_waits) or (self._fin and not tasks)

        while True:
            self._check_usable()
            self._wait(ready)
            with self._task_lock:
                if len(tasks) > (not primary and self._primary_waits):
                    # In one step for a signal handler: taken and kept.
                    slot.extend(chain.from_iterable(map(deque.popleft, (tasks,))))
                    if primary:
                        self._primary_waits = False
                        if tasks and self._model == ONLY_MAIN:
                            pypump.pump.post(self._begin_patience)
                    break
                if self._fin and not tasks:
                    return False
        self._wake()
        return True

    def _task_done(self, primary):
        if self._forks == pypump.fork_count and self._running:
            self._primary_waits = self._primary_waits or primary  # now, so that the next task is the main thread's
            self._running.pop()
            self._wake()

    def _begin_patience(self):
        """On the I/O thread: a task has become the first in the line for the main thread. execnet's patience: it is
        refused a second later, unless the main thread has become free until then."""
        self._waiting = self._tasks[0] if self._tasks else None
        pypump.pump.after(1.0, self._lose_patience)

    def _lose_patience(self):
        task, tasks = self._waiting, self._tasks
        if self._eof or not tasks:
            return
        if not self._task_lock.acquire(False):  # a signal handler may keep it for long
            return pypump.pump.after(0.02, self._lose_patience)
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
        self._begin_patience()

    def _wait_idle(self, timeout):
        """Wait until no task runs. At the end of a worker: what comes behind that is no business of the watcher's."""
        idle = self._wait(lambda: not self._running, until_of(timeout))
        if idle and self._watcher is not None:
            signal(SIGINT, SIG_IGN)
            from . import pywatch

            pywatch.tell(self._watcher, b"i", None)
        return idle
