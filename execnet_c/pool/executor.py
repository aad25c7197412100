"""GatewayPoolExecutor: what stands in for ProcessPoolExecutor, on the workers of a crew.

One thread does the work of the pool; it begins with the first task. Tasks are pickled where they are submitted. A worker has one
at a time, so that none waits behind a long one while another worker is free.
"""

import copy
import itertools
import os
import threading
import time
import weakref
from collections import deque
from concurrent.futures import BrokenExecutor, Executor

from ..models.native import RLock
from ..near.gateway import Gateway
from . import failures
from .carry import pack, unpack
from .crew import KILL_AFTER, LONGEST_WAIT, Crew
from .functions import Ways, needs_cloudpickle
from .future import Future, seconds_of
from .options import options_of
from .places import whole, workers_of

_pools = weakref.WeakSet()  # with a thread, which the end of the interpreter waits for


class Call:
    """In the place of Ways: each task has its function with it."""

    what, why = "the function", ()

    def name(self):
        return "of a task"

    def number(self, n):
        return None if n else ("call",)


class Task:
    __slots__ = ("future", "items", "kills", "number", "seconds", "until", "why")

    def __init__(self, number, future, packed, seconds):
        self.number, self.future, self.items, self.kills = number, future, [packed], 0
        self.seconds, self.until = seconds, None  # it may take so many, and so is interrupted at that time
        self.why = None  # what it was interrupted for: "interrupt", "timeout"


def packed_task(task):
    try:
        return pack(task)
    except Exception as exc:
        try:
            import cloudpickle
        except ImportError:
            raise type(exc)(f"{exc}; {needs_cloudpickle()}") from exc
        return cloudpickle.dumps(task, 5)


def broken(error):
    """The death `error` of a worker, as an exception that is a BrokenExecutor, too."""
    if isinstance(error, BrokenExecutor):
        return error
    kind = type(error)
    try:
        named = type(kind.__name__, (kind, BrokenExecutor), {"__module__": kind.__module__})(str(error))
        vars(named).update(vars(error))
    except Exception:  # it takes other arguments than a text
        named = BrokenExecutor(str(error))
    named.__cause__ = error
    return named


def too_late(task):
    return failures.ItemTimeout(f"no result after {task.seconds!r} seconds")


class Pool:
    """What the executor and its thread share. The thread does not keep the executor alive."""

    seconds = None

    def __init__(self, start, options, per_child, initializer, initargs, retries):
        self.setup, self.options = (None, False), options
        self.ways = {"function": Call()}
        if initializer is not None:
            self.ways["initializer"] = Ways(initializer, "the initializer")
            self.arguments = pack(tuple(initargs))
        self.start, self.per_child, self.retries = start, per_child, retries
        self.lock = RLock()  # for what follows; the collector may call stop() at any time
        self.queue = deque()
        self.stops = deque()  # (task to be interrupted, kill_after)
        self.numbers = 0
        self.thread = None
        self.stopping = self.killing = False
        self.broken = None
        self.crew = None
        self.pid = os.getpid()

    def submit(self, task, seconds=None, on_cancel=False):
        if os.getpid() != self.pid:
            raise OSError("the executor belongs to the parent process: a forked child may have its own")
        future, packed = Future(on_cancel), None
        try:
            packed = packed_task(task)
        except Exception as exc:
            future.set_running_or_notify_cancel()
            future.set_exception(exc)
        with self.lock:
            if self.broken is not None:
                raise self.broken
            if self.stopping:
                raise RuntimeError("cannot schedule new futures after shutdown")
            if packed is None:
                return future
            if self.thread is None:
                self.begin()
            self.numbers += 1
            task = Task(self.numbers, future, packed, seconds)
            future.stop = lambda kill_after: self.stop_task(task, kill_after)
            self.queue.append(task)
        self.crew.ring()
        return future

    def stop_task(self, task, kill_after):
        self.stops.append((task, kill_after))
        self.crew.ring()

    def begin(self):
        self.crew = Crew(self, self)
        thread = threading.Thread(target=self.run, name="execnet_c-executor", daemon=True)
        try:
            thread.start()
        except BaseException:  # the next task tries again
            self.crew.end(True)
            self.crew = None
            raise
        self.thread = thread
        _pools.add(self)

    def stop(self, cancel=False, killing=False):
        if os.getpid() != self.pid:  # the lock may be held by a thread that is not here
            return
        with self.lock:
            self.stopping, self.killing = True, self.killing or killing
            dropped = [*self.queue] if cancel else ()
            if cancel:
                self.queue.clear()
        for task in dropped:
            task.future.cancel()
            task.future.set_running_or_notify_cancel()
        if self.crew is not None:
            self.crew.ring()

    def abort(self, why, seconds):
        """What is left fails for that reason; what runs is interrupted, and ended if it goes on for a second. Returns when workers
        have ended, or after so many seconds."""
        if os.getpid() == self.pid:
            self.fail(BrokenExecutor(why))
            if self.thread is not None:
                self.crew.ring()
                self.thread.join(seconds)

    # --- the thread ---------------------------------------------------------------------------------------------------

    def run(self):
        crew, in_order = self.crew, False
        try:
            self.start(crew)
            while self.broken is None and not self.killing:
                self.deal(crew)
                if self.stopping and not self.queue and not any(worker.has for worker in crew.workers.values()):
                    in_order = True
                    break
                crew.wait(self.heed(crew))
        except BaseException as exc:
            self.fail(exc)
        finally:
            self.give_up(crew)
            crew.end(in_order)

    def give_up(self, crew):
        """All futures that are left get the reason why there will be no result."""
        with self.lock:
            if self.broken is None and self.killing:
                self.broken = BrokenExecutor("the workers were ended by kill_workers() or terminate_workers()")
            left, self.stopping = [*self.queue], True
            self.queue.clear()
        if self.killing:
            crew.kill_all()
        for worker in crew.workers.values():
            left += worker.has
        for task in left:
            if not task.future.done() and (task.future.running() or task.future.set_running_or_notify_cancel()):
                task.future.finish(error=self.broken)

    def heed(self, crew):
        """Interrupt what is to be interrupted by now. Returns for how many seconds at most nothing is."""
        while self.stops:
            task, kill_after = self.stops.popleft()
            self.interrupt(crew, task, "interrupt", kill_after)
        now, left = time.monotonic(), LONGEST_WAIT
        for task in [worker.has[0] for worker in crew.workers.values() if worker.has]:
            if task.until is not None and task.why is None:
                if now >= task.until:
                    self.interrupt(crew, task, "timeout", KILL_AFTER)
                else:
                    left = min(left, task.until - now)
        return left

    def interrupt(self, crew, task, why, kill_after):
        task.why = task.why or why
        for worker in crew.workers.values():
            if worker.has and worker.has[0] is task:
                crew.interrupt(worker, task.number, kill_after)

    def deal(self, crew):
        for worker in crew.workers.values():
            while worker.is_ready and not worker.has:
                if self.per_child is not None and worker.items - worker.born >= self.per_child:
                    crew.replace(worker)
                    break
                try:
                    task = self.queue.popleft()
                except IndexError:
                    return
                if not task.future.running() and not task.future.set_running_or_notify_cancel():
                    task.future.stop = None
                    continue
                if task.why is not None:  # since the worker died that it was tried on
                    task.future.finish(error=KeyboardInterrupt())
                    continue
                task.until = None if task.seconds is None else time.monotonic() + task.seconds
                if not crew.give(worker, task, task.items[0]):
                    worker.stage = ""
                    self.queue.appendleft(task)

    # --- what the crew tells ------------------------------------------------------------------------------------------

    def done(self, worker, task, kind, what):
        worker.items += 1
        try:
            result, error = self.outcome(worker, task, kind, *what)
        except BaseException as exc:  # loading a pickle runs any code
            result, error = None, exc
        task.future.finish(result, error)

    def outcome(self, worker, task, kind, packed, failed, seconds=0.0):
        where = f"(gateway {worker.gateway.id!r}):"
        if kind == "unread":
            return None, failures.remote(packed, failed, where)
        worker.busy += seconds
        worker.bytes += len(packed)
        for _, error, text, late in failed:
            if late and task.why == "timeout":
                return None, too_late(task)
            return None, failures.remote(error, text, where)
        [result] = unpack(packed)
        return result, None

    def fail(self, error):
        with self.lock:
            self.broken = self.broken or broken(error)

    def lost(self, worker, error):
        tasks = [*worker.has]
        worker.has.clear()
        for task in tasks:
            task.kills += 1
            if task.why == "timeout" and worker.killed:
                task.future.finish(error=too_late(task))
            elif task.why is not None:
                error = failures.saying(error, "its task went on after interrupt()") if worker.killed else error
                task.future.finish(error=broken(error))
            elif task.kills > self.retries:
                task.future.finish(error=broken(error))
            else:
                self.queue.appendleft(task)
        if not worker.left and (tasks or worker.killed or worker.deaths <= self.retries + 1):
            self.crew.restart(worker, error)
        elif self.crew.is_hopeless():
            self.fail(error)


class GatewayPoolExecutor(Executor):
    """A concurrent.futures.Executor whose workers are gateways, with ProcessPoolExecutor's interface.

    - max_workers: as many popen; None: as many as CPUs may be used. specs: the spec of each worker. group: its gateways are
      the workers, and stay.
    - mp_context: None only; it is there so that positional arguments keep their meaning.
    - `initializer(*initargs)` runs once in each worker. One that fails breaks the pool.
    - max_tasks_per_child: a worker is replaced after so many tasks.
    - retries: how often a task of which a worker died is tried again.
    - worker_options: what a worker may use of its machine, see pipe().

    Its futures also have interrupt(), see there; with_options() gives tasks a time.

    A worker that dies fails its own task only, with an exception that is a BrokenExecutor and a GatewayDied; another one
    takes its place. What cannot be pickled fails its future alone. Results are unpickled here: only use workers that you
    trust.
    """

    def __init__(self, max_workers=None, mp_context=None, initializer=None, initargs=(), *, max_tasks_per_child=None,
                 specs=None, group=None, retries=0, worker_options=None):  # fmt: skip
        if mp_context is not None:
            raise ValueError("mp_context may only be None: workers are gateways, see specs")
        if max_tasks_per_child is not None:
            whole("max_tasks_per_child", max_tasks_per_child)
        whole("retries", retries, 0)
        start, self._max_workers = workers_of(specs, [group] if isinstance(group, Gateway) else group, max_workers)
        options = options_of(worker_options, group is None)
        self._pool = Pool(start, options, max_tasks_per_child, initializer, initargs, retries)
        weakref.finalize(self, self._pool.stop).atexit = False

    _options = ()  # of submit() of the pool, see with_options()

    def with_options(self, *, timeout=None, interrupt_on_cancel=False):
        """This executor, with the same workers, for tasks that are treated in another way.

        - timeout: seconds from when a worker begins a task (of map(): a chunk). Then it is interrupted, a second later its worker
          is ended and replaced; the future's exception is an ItemTimeout, which is a TimeoutError.
        - interrupt_on_cancel: cancel() of a future that runs interrupts it, as its interrupt() does, and returns True. The
          future is cancelled when that has ended.
        """
        view = copy.copy(self)
        view._whole = self  # with it the pool would end
        view._options = seconds_of("timeout", timeout), interrupt_on_cancel
        return view

    def submit(self, fn, /, *args, **kwargs):
        """Have a worker call fn with these arguments; return a Future. What cannot be pickled is that future's exception.

        Raises RuntimeError after shutdown(), BrokenExecutor when the pool is broken.
        """
        return self._pool.submit(("one", fn, args, kwargs), *self._options)

    def map(self, fn, *iterables, timeout=None, chunksize=1, buffersize=None):
        """As ProcessPoolExecutor's: the results of `fn(*items)` in order, chunksize calls together.

        buffersize: so many chunks at most are submitted whose results were not drawn; None: all at once.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if buffersize is not None and not isinstance(buffersize, int):
            raise TypeError("buffersize must be an integer or None")
        if buffersize is not None and buffersize < 1:
            raise ValueError("buffersize must be None or > 0")
        until = None if timeout is None else time.monotonic() + timeout
        calls = zip(*iterables)
        chunks = iter(lambda: [*itertools.islice(calls, chunksize)], [])
        futures = deque(self._pool.submit(("many", fn, chunk, None), *self._options) for chunk in itertools.islice(chunks, buffersize))
        return self._results(fn, chunks, futures, until)

    def _results(self, fn, chunks, futures, until):
        try:
            while futures:
                results = futures[0].result(None if until is None else until - time.monotonic())
                futures.popleft()
                futures.extend(self._pool.submit(("many", fn, chunk, None), *self._options) for chunk in itertools.islice(chunks, 1))
                yield from results
        finally:
            for future in futures:
                future.cancel()

    def shutdown(self, wait=True, *, cancel_futures=False):
        self._pool.stop(cancel_futures)
        thread = self._pool.thread
        if wait and thread is not None and os.getpid() == self._pool.pid:
            thread.join()

    shutdown.__doc__ = Executor.shutdown.__doc__

    def kill_workers(self):
        """End the workers at once: futures that are left fail with BrokenExecutor."""
        self._pool.stop(killing=True)

    terminate_workers = kill_workers

    def stats(self):
        """As Pipe.stats(): a dict for each worker."""
        crew = self._pool.crew
        return [] if crew is None else [worker.stats() for worker in crew.workers.values()]


def _finish_all():
    """At the end of the interpreter, before it is too late for threads: pending futures finish first."""
    pools = [*_pools]
    for pool in pools:
        pool.stop()
    for pool in pools:
        if pool.pid == os.getpid():
            pool.thread.join()


threading._register_atexit(_finish_all)
