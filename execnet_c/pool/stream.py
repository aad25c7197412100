"""pipe(): a function over a stream, in workers: lazily, in order, and nothing is lost.

The thread that draws results does the work of the pool, while it waits for them; see crew.py for the workers, and source.py
for the thread that draws the source.
"""

import heapq
import itertools
import math
import os
import threading
import time
from collections import deque

from . import failures
from .carry import pack, unpack
from .crew import AHEAD, LONGEST_WAIT, Crew
from .functions import Ways
from .options import options_of
from .places import whole, workers_of
from .source import source_of

WORK = 0.05  # seconds of work in a batch whose size is for us to choose
MOST = 1 << 14  # items in it
MOST_BYTES = 1 << 20  # in it, and in its results
GROWTH = 8  # times larger than the last one, at most
SPLIT_AFTER = 2  # a batch that has ended so many workers goes on item by item


class Batch:
    __slots__ = ("contexts", "items", "kills", "number", "start")

    def __init__(self, number, start, items, contexts, kills=0):
        self.number, self.start, self.items, self.contexts, self.kills = number, start, items, contexts, kills

    def __lt__(self, other):
        return self.start < other.start


class Job:
    """What the crew needs to know."""


class Stream:
    """One run of pipe(). run() is the generator that users draw from."""

    def __init__(self, start, func, stream, *, options, batch_size, buffersize, ordered, as_tuples, initializer, initargs, retries,
                 timeout, max_tasks_per_child, return_exceptions, progress, checkpoint):  # fmt: skip
        if batch_size != "auto":
            whole("batch_size", batch_size)
        if buffersize is not None:
            whole("buffersize", buffersize)
        self._retries = whole("retries", retries, 0)
        if max_tasks_per_child is not None:
            whole("max_tasks_per_child", max_tasks_per_child)
        self._per_child = max_tasks_per_child or math.inf
        if timeout is not None:
            if not isinstance(timeout, (int, float)) or not 0 < timeout < math.inf:
                raise ValueError(f"timeout={timeout!r}: it may be a number of seconds larger than 0, or None")
        job = self._job = Job()
        job.setup, job.options = (timeout, not return_exceptions), options
        job.seconds = timeout
        job.ways = {"function": Ways(func, "the function")}
        if initializer is not None:
            job.ways["initializer"] = Ways(initializer, "the initializer")
            try:
                job.arguments = pack(tuple(initargs))
            except Exception as exc:
                raise TypeError(f"initargs cannot be sent to a worker: {exc}") from exc
        self._checkpoint = self._replaying = None
        if checkpoint is not None:
            from .checkpoint import Checkpoint

            self._checkpoint = Checkpoint(checkpoint, func, bool(ordered))
            self._replaying = self._replay()
        self.source = source_of(stream)
        self._bar = None
        if progress:
            from .progress import Bar

            self._bar = Bar(len(stream) if hasattr(stream, "__len__") else None)
        self._starts = start
        self._batch_size = None if batch_size == "auto" else batch_size
        self._buffersize, self._ordered = buffersize, ordered
        self._as_tuples, self._return_exceptions = as_tuples, return_exceptions
        self._timeout = timeout
        self._pid = os.getpid()
        self._numbers = 0  # batches so far
        self._sent = self._yielded = self._drawn = 0  # items; drawn: of those that results() has returned last
        self._todo = []  # a heap: batches that have to be sent again
        self._done = {}  # index of the first item -> (that index, number of items, results, contexts, whether there is a Failed)
        self._next = 0  # index of the item to be yielded next, if in order
        self._out = deque()  # of what _done has
        self._fatal = None
        self._stopped = self._in_order = False
        self.crew = None

    # --- what users draw ----------------------------------------------------------------------------------------------

    def run(self):
        try:
            self.open()
            self.start()
            while (results := self.results()) is not None:
                yield from results
                if not results:
                    self.crew.wait(self.patience())
        finally:
            self.end()

    def open(self):
        if self._checkpoint is not None:
            self._checkpoint.open()
        self.crew = Crew(self._job, self)
        self.source.start(self.crew.ring)

    def start(self):
        self._starts(self.crew)

    def results(self):
        """Those that are there, an iterable; () if it is to be waited for them; None at the end. What it returned last was drawn."""
        self._check_fork()
        if self._drawn:
            self._yielded += self._drawn
            if self._bar is not None:
                self._bar.update(self._drawn, self.crew.workers.values())
            self._drawn = 0
            self.crew.wait(0)
        while not (self._stopped or threading.main_thread().is_alive()) and threading.current_thread().daemon:
            time.sleep(0.1)  # the program ends, and its workers do: that is no error, and no end of the stream
        if self._stopped:
            return None
        if self._replaying is not None:
            results = next(self._replaying, None)
            if results is not None:
                return results
            self._replaying = None
        self._deal()
        if self._out:
            start, self._drawn, results, contexts, has_failed = self._out.popleft()
            if self._checkpoint is not None:
                self._note(start, results, has_failed)
            return self._as_wanted(results, contexts, has_failed)
        if self._fatal is not None:
            raise self._fatal
        if not self._is_over():
            return ()
        self._in_order = True
        if self.source.error is not None:
            raise self.source.error
        return None

    def end(self):
        if os.getpid() == self._pid:
            self.source.stop()
            if self.crew is not None:
                self.crew.end(self._in_order)
            if self._bar is not None:
                self._bar.close()
            if self._checkpoint is not None:
                self._checkpoint.close()

    def _check_fork(self):
        if os.getpid() != self._pid:
            raise OSError("the stream belongs to the parent process: a forked child cannot draw from it, but may have its own")

    def _as_wanted(self, results, contexts, has_failed):
        if has_failed:
            return self._one_by_one(results, contexts)
        return results if contexts is None else zip(results, contexts)

    def _one_by_one(self, results, contexts):
        for place, result in enumerate(results):
            if isinstance(result, failures.Failed):
                if not self._return_exceptions:
                    raise result.error
                result = result.error
            yield result if contexts is None else (result, contexts[place])

    def _is_over(self):
        return (
            self.source.ended
            and not (self._todo or self._done)
            and not any(worker.has for worker in self.crew.workers.values())
        )

    def patience(self):
        by = self.source.more_by
        return LONGEST_WAIT if by is None else max(0.0, by - time.monotonic())

    def stop(self):
        """End the stream. Any thread."""
        self._stopped = True
        if self.crew is not None:
            self.crew.ring()

    # --- the checkpoint -----------------------------------------------------------------------------------------------

    def _replay(self):
        """What results() returns first: what an earlier run has noted. The stream begins behind that, and with what is left of what
        was drawn for it."""
        checkpoint, undone = self._checkpoint, {}
        yield from self._draw(1, undone)
        checkpoint.begin([self._separate([one])[0][0] for one in undone.values()])
        for start, results in checkpoint.records():
            end = start + len(results)
            yield from self._draw(end, undone)
            try:
                items, contexts = self._separate([undone.pop(index) for index in range(start, end)])
            except KeyError:
                raise self.source.error or ValueError(
                    f"the checkpoint {checkpoint.path} has results of {end} items, and the source ends before"
                ) from None
            self._drawn = len(items)
            yield self._as_wanted(results, contexts, any(type(result) is failures.Failed for result in results))
        self._todo = [self._batch(index, *self._separate([one])) for index, one in sorted(undone.items())]
        self._next = self._yielded

    def _draw(self, end, undone):
        """Take what is missing of the first `end` items into `undone`, by index. It yields () where it is to be waited for them."""
        while self._sent < end and not self.source.ended:
            self.source.allow(end)
            some = self.source.take(end - self._sent)
            undone.update(enumerate(some, self._sent))
            self._sent += len(some)
            if not some and not self.source.ended:
                yield ()

    def _note(self, start, results, has_failed):
        """Before they are yielded. One that is raised is no result: its item is tried again by the next run."""
        if has_failed and not self._return_exceptions:
            results = [*itertools.takewhile(lambda result: type(result) is not failures.Failed, results)]
        if results:
            self._checkpoint.note(start, results)

    def _separate(self, drawn):
        """(items, contexts) of what was drawn."""
        if not self._as_tuples:
            return drawn, None
        try:
            items, contexts = map(list, zip(*[(item, context) for item, context in drawn]))
        except (TypeError, ValueError):
            raise TypeError("as_tuples=True: the source must give pairs (item, context)") from None
        return items, contexts

    # --- dealing ------------------------------------------------------------------------------------------------------

    def _deal(self):
        self.source.more_by = None
        workers = self.crew.workers.values()
        if self._todo or not self.source.ended:
            for worker in workers:
                if worker.is_ready and not worker.has and not self._room(worker):
                    self.crew.replace(worker)
        while True:
            free = [worker for worker in workers if worker.is_ready and len(worker.has) < AHEAD and self._room(worker)]
            if not free:
                return
            worker = min(free, key=self._finish)
            batch = self._next_batch(worker)
            if batch is None:
                return
            try:
                packed = pack(batch.items)
            except Exception as exc:
                self._refuse(batch, lambda item, index, exc=exc: failures.cannot_pickle(exc, index, item))
                continue
            if not self.crew.give(worker, batch, packed):
                worker.stage = ""
                heapq.heappush(self._todo, batch)

    def _room(self, worker):
        """How many items it may still be given."""
        return self._per_child - (worker.items - worker.born) - sum(len(batch.items) for batch in worker.has)

    def _finish(self, worker):
        """When it would have done another batch."""
        left = sum(len(batch.items) for batch in worker.has)
        size = self._size(worker)
        return len(worker.has) if worker.pace is None else (left + size) * worker.pace

    def _size(self, worker):
        size = self._batch_size or worker.size
        if self._buffersize is None:
            return size
        return min(size, max(1, self._buffersize // (AHEAD * len(self.crew.workers))))

    def _buffer(self):
        """How many items may be sent and not yielded."""
        workers = self.crew.workers.values()
        return self._buffersize or AHEAD * len(workers) * max(map(self._size, workers))

    def _next_batch(self, worker):
        room = self._room(worker)
        if self._todo:
            batch = heapq.heappop(self._todo)
            if len(batch.items) > room:
                heapq.heappush(self._todo, self._part(batch, room, len(batch.items), batch.kills))
                batch = self._part(batch, 0, room, batch.kills)
            return batch
        if self.source.ended or self._fatal is not None:
            return None
        size, buffer = min(self._size(worker), room), self._buffer()
        self.source.allow(self._yielded + buffer)
        if buffer - (self._sent - self._yielded) < size:
            return None
        drawn = self.source.take(size)
        if not drawn:
            return None
        try:
            items, contexts = self._separate(drawn)
        except TypeError as exc:
            self._fatal = exc
            return None
        batch = self._batch(self._sent, items, contexts)
        self._sent += len(items)
        return batch

    def _batch(self, start, items, contexts, kills=0):
        self._numbers += 1
        return Batch(self._numbers, start, items, contexts, kills)

    # --- what comes of it ---------------------------------------------------------------------------------------------

    def _deliver(self, batch, results, has_failed):
        done = batch.start, len(batch.items), results, batch.contexts, has_failed
        if not self._ordered:
            return self._out.append(done)
        self._done[batch.start] = done
        while self._next in self._done:
            done = self._done.pop(self._next)
            self._next += done[1]
            self._out.append(done)

    def _part(self, batch, begin, end, kills=0):
        contexts = batch.contexts and batch.contexts[begin:end]
        return self._batch(batch.start + begin, batch.items[begin:end], contexts, kills)

    def _split(self, batch, kills=0):
        """Have its items sent one by one."""
        for place in range(len(batch.items)):
            heapq.heappush(self._todo, self._part(batch, place, place + 1, kills))

    def _refuse(self, batch, error_of):
        """The batch cannot be sent or understood. A single item fails; in a larger batch it may be any of them."""
        if len(batch.items) > 1:
            self._split(batch)
        else:
            self._deliver(batch, [failures.Failed(error_of(batch.items[0], batch.start))], True)

    def done(self, worker, batch, kind, what):
        gateway = worker.gateway
        if kind == "unread":
            return self._refuse(batch, lambda item, index: failures.of_item(*what, index, item, gateway))
        packed, failed, seconds = what
        try:
            results = unpack(packed)
        except Exception as exc:
            return self._refuse(batch, lambda item, index, exc=exc: failures.cannot_pickle(exc, index, item))
        for place, error, text, late in failed:
            index, item = batch.start + place, batch.items[place]
            if late:
                error = failures.late(self._timeout, index, item)
            else:
                error = failures.of_item(error, text, index, item, gateway)
            results[place] = failures.Failed(error)
        number = len(results)
        worker.items += number
        worker.busy += seconds
        worker.bytes += len(packed)
        pace = seconds / number
        worker.pace = pace if worker.pace is None else (worker.pace + pace) / 2
        wanted = min(WORK / max(worker.pace, 1e-9), MOST, MOST_BYTES * (worker.items / worker.bytes))
        worker.size = max(1, min(int(wanted), GROWTH * number if number >= worker.size else worker.size))
        self._deliver(batch, results, bool(failed))

    def fail(self, error):
        self._fatal = self._fatal or error

    def lost(self, worker, error):
        batches = [*worker.has]
        worker.has.clear()
        suspect = None
        if batches and worker.killed:
            self._late(batches.pop(0), worker.late_place)
        elif batches:
            suspect = batches.pop(0)
            self._suspect(worker, suspect, error)
        for batch in batches:
            heapq.heappush(self._todo, batch)
        if worker.killed or self._retries and worker.deaths <= self._retries and not worker.left:
            self.crew.restart(worker, error)
        elif self.crew.is_hopeless():
            self.fail(error if suspect is None else failures.ended(error, suspect.start, suspect.items))

    def _late(self, batch, place):
        """The time of that item was over, and its worker was ended. None: one of the items, nobody knows which."""
        if place is None:
            return self._split(batch)
        error = failures.late(self._timeout, batch.start + place, batch.items[place])
        self._deliver(self._part(batch, place, place + 1), [failures.Failed(error)], True)
        for begin, end in ((0, place), (place + 1, len(batch.items))):
            if begin < end:
                heapq.heappush(self._todo, self._part(batch, begin, end))

    def _suspect(self, worker, batch, error):
        """The worker died while it had that batch."""
        batch.kills += 1
        single = len(batch.items) == 1
        if single and batch.kills > self._retries:
            self._deliver(batch, [failures.Failed(failures.ended(error, batch.start, batch.items))], True)
        elif not single and batch.kills >= min(SPLIT_AFTER, self._retries + 1):
            self._split(batch, min(1, self._retries))
        else:
            return heapq.heappush(self._todo, batch)
        for other in self.crew.workers.values():  # it is known now whose fault it was, or will be soon
            other.deaths = 0


class Pipe:
    """What pipe() returns: an iterator over the results. Used in a `with` block, or by close(), it ends at once."""

    def __init__(self, stream):
        self._stream = stream
        self._results = stream.run()

    def __iter__(self):
        return self._results

    def __next__(self):
        return next(self._results)

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.close()

    def close(self):
        """End the stream: what runs is interrupted, and ended if it goes on for a second."""
        self._stream.stop()
        try:
            self._results.close()
        except ValueError as exc:
            if "already executing" not in str(exc):  # else another thread is drawing, and will end it
                raise

    def stats(self):
        """A dict for each worker: `id` of its gateway, `items`, `bytes` both ways, seconds `busy`, batches in its `queue`."""
        crew = self._stream.crew
        return [] if crew is None else [worker.stats() for worker in crew.workers.values()]

    def _stop(self):
        self._stream.stop()


def pipe(func, stream, *, specs=None, group=None, max_workers=None, batch_size="auto", buffersize=None, ordered=True,
         as_tuples=False, initializer=None, initargs=(), retries=1, timeout=None, max_tasks_per_child=None, worker_options=None,
         return_exceptions=False, progress=False, checkpoint=None):  # fmt: skip
    """func(item) for each item of `stream`, in workers; an iterator over the results.

    Any picklable items; any function that can be sent: by reference where a worker can import it, else by its source, as
    remote_exec() sends it, else by cloudpickle. Results are unpickled here: only use workers that you trust.

    - specs: the spec of each worker. None: as many popen as CPUs may be used, or max_workers.
    - group: a Group or a list of gateways. These are the workers then, at most max_workers of them, and stay; one that dies
      is started anew in its group, with its id.
    - batch_size: items that are sent together; "auto": about 50 ms of work, beginning with 1. Less than a batch goes after
      0.1 s.
    - buffersize: so many items at most are sent and not yet drawn from here; by default two batches a worker. The stream is
      drawn no further, by a thread of its own.
    - ordered: the results come in the order of the items. False: as they come.
    - as_tuples: the stream gives (item, context), and the results are (result, context).
    - initializer: `initializer(*initargs)` runs once in each worker, and the function is called as func(state, item) with
      what that returned.
    - retries: how often in a row, without a result in between, a worker that died is started anew, and how often an item
      that it died of is tried again. So func may run more than once for an item; each result comes once.
    - timeout: seconds that func may take for an item. Then it is interrupted, a second later its worker is ended and
      replaced; the item is an ItemTimeout, which is a TimeoutError.
    - max_tasks_per_child: a worker is replaced after so many items.
    - worker_options: what a worker may use of its machine, a dict. "affinity": "spread", and workers of one machine are
      pinned to its CPUs in turn, or a list of their numbers. "threads": of numerical libraries (OpenMP, BLAS); by default a
      worker's share of the CPUs there, unless the environment there says otherwise; a number holds but for variables that a
      spec sets; None leaves them alone, as is the default with group=. "memory": bytes of its address space; an item that
      needs more is a MemoryError. What a machine cannot do is an OSError.
    - return_exceptions: what func raises is yielded as the item's result. Else it is raised there, with the item's index
      and repr, and the workers are interrupted, as when this iterator is closed.
    - progress: show tqdm's bar.
    - checkpoint: the path of a file. Results are noted there before they are yielded. A program that was killed, and is
      started again with that file and the same source, has the whole stream again: first what was noted, in the order in
      which it was yielded, and then the rest. The source is drawn from its beginning; func is not called for items whose
      results are noted. So each run yields each result once, and none differs from what an earlier run has had; who adds to
      output of earlier runs leaves out as many results as he finds there (itertools.islice). With return_exceptions
      exceptions are noted as results; one that is raised is not, and its item is tried again. The file is not synced: if the
      machine itself fails, the last results may be missing, and are computed again. The first next() raises BlockingIOError
      while another stream uses the file, ValueError if it is of another function, another order or another first item, or no
      checkpoint. It is unpickled: use only files that you trust.

    Raises ValueError or TypeError for what makes no sense, and for a function that cannot be sent, before anything is
    started. Gateways start with the first next(), and end with the last one.
    """
    start, _ = workers_of(specs, group, max_workers)
    return Pipe(
        Stream(
            start, func, stream, batch_size=batch_size, buffersize=buffersize, ordered=ordered, as_tuples=as_tuples,
            initializer=initializer, initargs=initargs, retries=retries, timeout=timeout,
            max_tasks_per_child=max_tasks_per_child, options=options_of(worker_options, group is None),
            return_exceptions=return_exceptions, progress=progress, checkpoint=checkpoint,
        )
    )  # fmt: skip
