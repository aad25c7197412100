"""The tasks of a worker on the plain-Python core: their queue, and what happens to a task that no thread takes."""

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
    _waiting = None  # the first of the tasks for the main thread, see _start_task_timeout()

    def _queue_task(self, id, payload):
        if not self._is_worker:
            return self._owe(2, id)
        if len(self._live) >= MAX_CHANNELS:
            return self._owe(3, id)
        channel = self._channel(id)
        try:
            item = self._load_plain(payload)
        except LoadError as exc:
            item = exc  # the thread that takes the task reports it
        except MemoryError:
            item = MemoryError
        if item is MemoryError:  # its traceback is gone: now there is memory for a text
            item = MemoryError(f"no memory for a task of {len(payload)} bytes")
        channel._chan.task = True
        self._running.append(None)
        self._tasks.append((channel, item))
        if self._model == ONLY_MAIN and len(self._tasks) == 1:
            self._start_task_timeout()

    def _next_task(self, primary, slot):
        """Wait for a task: its channel and payload, or why that cannot be loaded, are put into the list `slot`. False:
        there will be none."""
        tasks = self._tasks
        if self._to_reap is not None:  # not earlier: reaping takes time, and the first task should not wait for it
            from . import pywatch

            pywatch.reap(self._to_reap)
            self._to_reap = None
        if primary:
            self._primary_waits = True  # until it has taken a task: the spare thread leaves the first one to it

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
                            pypump.pump.post(self._start_task_timeout)
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

    def _start_task_timeout(self):
        """On the I/O thread: a task has become the first that waits for the main thread. As in execnet, it is refused a
        second later if the main thread is not free by then."""
        self._waiting = self._tasks[0] if self._tasks else None
        pypump.pump.after(1.0, self._refuse_late_task)

    def _refuse_late_task(self):
        task, tasks = self._waiting, self._tasks
        if self._eof or not tasks:
            return
        if not self._task_lock.acquire(False):  # a signal handler may keep it for long
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
        """Wait until no task runs. Called at the end of a worker; after that the watcher has nothing to do."""
        idle = self._wait(lambda: not self._running, until_of(timeout))
        if idle and self._watcher is not None:
            signal(SIGINT, SIG_IGN)
            from . import pywatch

            pywatch.tell(self._watcher, b"i", None)
        return idle
