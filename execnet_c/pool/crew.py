"""The workers of a stream: what each one has to do, how it ended, and who takes its place.

All is done by the thread that draws results, in wait(); only gateways are started anew on a thread of their own, one after
the other, because that may take seconds. So that thread never waits for a worker: what it sends (_send_soon) goes out when the
worker takes it, and is bounded by AHEAD.
"""

import atexit
import math
import os
import select
import signal
import sys
import threading
import time
from collections import deque

from ..cores import module as _core
from ..models.native import RLock
from . import failures, remote
from .options import told

AHEAD = 2  # batches that a worker may have, so that it need not wait for the next one
LEAVE = 10.0  # seconds that processes have to end by themselves, with what tasks have left in them
KILL_AFTER = 1.0  # seconds from an interrupt to the end of a worker that goes on
LONGEST_WAIT = 5.0  # seconds: then all workers are looked at, whether or not their numbers came
SILENT = 5.0  # seconds beyond the time for an item in which a worker must say something
JOIN = 5.0  # seconds that the end of a stream waits for gateways that are being started


class Worker:
    """A worker's place. `channel` is None while there is nobody in it."""

    channel = control = wait = None
    limits = None  # see told() of options.py
    stage = ""  # what it is at, see _next_stage(); "": it takes nothing
    way = 0  # the number of the way that is tried
    refusals = ()  # (text, missing module) of each way that did not work there
    late_until = None  # when it is ended if it goes on with an item whose time is over
    late_place = None  # that item's place in the oldest batch; None: nobody knows
    killed = False  # this side has ended it for that
    born = 0  # its number of items when its gateway began
    left = False  # the program has exited its gateway
    since = 0.0  # when the oldest batch became that, or it last said that it goes on
    deaths = 0  # in a row, without a result in between

    def __init__(self, number, gateway):
        self.number = number
        self.gateway = gateway
        self.has = deque()  # batches, oldest first
        self.items = self.bytes = 0
        self.busy = 0.0
        self.pace = None  # seconds for an item
        self.size = 1  # items in its next batch, if that is for us to choose

    def stats(self):
        return {"id": self.gateway.id, "items": self.items, "bytes": self.bytes, "busy": self.busy, "queue": len(self.has)}

    @property
    def is_ready(self):
        return self.stage == "ready"


class Crew:
    """job: has `setup` (what each worker is told first), `options` (see options.py), `ways` (role -> Ways), `arguments` (of the
    initializer, packed) and `seconds` (that an item may take, or None). owner: its methods done(worker, batch, message), lost(worker, error) and fail(error) are called in wait()."""

    def __init__(self, job, owner):
        self.job, self.owner = job, owner
        self.workers = {}
        self.group = None
        self.owns = False
        self._pid = os.getpid()
        self.fd, self._into = os.pipe()
        for fd in (self.fd, self._into):
            os.set_blocking(fd, False)
        self._poll = select.poll()
        self._poll.register(self.fd, select.POLLIN)
        self._lock = RLock()  # for `_into`, to which any thread writes, and the collector's calls of ring()
        self._fresh = deque()  # (worker, gateway or None, error) of the starter
        self._to_start = deque()
        self._starting = 0
        self._starter = None
        self._starter_runs = self._ended = False

    def ring(self):
        """Wake the thread in wait(). Any thread."""
        with self._lock:
            if self._into is not None:
                try:
                    os.write(self._into, bytes(8))
                except BlockingIOError:
                    pass

    # --- starting ---------------------------------------------------------------------------------------------------

    def start(self, specs):
        """Start gateways of our own."""
        from ..multi import Group

        self.owns = True
        self.group = Group()
        self.group._make_all(specs)
        self.take_on(self.group)

    def take_on(self, gateways):
        gateways = [*gateways]
        for number, (gateway, limits) in enumerate(zip(gateways, told(self.job.options, gateways)), 1):
            worker = self.workers[number] = Worker(number, gateway)
            worker.limits = limits
            try:
                self._begin(worker)
            except _core.GatewayDied as exc:
                self._gone(worker, exc)
        for worker in self.workers.values():
            if not self.owns and worker.wait is not None and not worker.wait.over:
                # Not by wait(): inside a callback of that gateway this says that nothing would ever arrive.
                worker.wait = None
                self._take(worker, *_received(worker.channel, None))

    def _begin(self, worker):
        worker.stage, worker.way, worker.killed = "here", 0, False
        worker.born = worker.items
        worker.late_until = worker.late_place = None
        worker.channel, _ = worker.gateway._begin_task(remote, {}, worker.gateway._send_soon)
        worker.control = worker.gateway.newchannel()
        spec = worker.gateway.spec
        here = spec.popen and not (spec.python or spec.via or spec.ssh)
        paths = [os.path.abspath(path) for path in sys.path] if here else []
        worker.channel._send_soon(("setup", worker.control, paths, worker.limits, *self.job.setup))
        self._expect(worker)

    def _next_stage(self, worker):
        stages = ["here", "function", "initializer", "start", "ready"]
        if "initializer" not in self.job.ways:
            stages[2:4] = []
        worker.stage, worker.way = stages[stages.index(worker.stage) + 1], 0
        if worker.stage == "start":
            worker.channel._send_soon(("start", self.job.arguments))
        elif worker.stage != "ready":
            worker.refusals = []
            self._offer(worker)

    def _offer(self, worker):
        """Send the function of this stage by the next way."""
        ways = self.job.ways[worker.stage]
        way = ways.number(worker.way)
        if way is not None:
            worker.way += 1
            worker.channel._send_soon(("func", worker.stage, *way))
            return
        where = _place_of(worker.gateway)
        missing = next((missing for _, missing in worker.refusals if missing), None)
        lacks = f"module {missing!r} is missing on {where}" if missing else f"not on {where}"
        why = "; ".join([*(text for text, _ in worker.refusals), *ways.why])
        error = f"{ways.what} {ways.name()} cannot run: {lacks} ({why})"
        self.owner.fail(ModuleNotFoundError(error, name=missing) if missing else RuntimeError(error))

    # --- what comes -------------------------------------------------------------------------------------------------

    def _expect(self, worker):
        worker.wait = worker.channel._notify(self._into, worker.number)

    def wait(self, seconds):
        """Deal with what has come, or comes within that time."""
        self._poll.poll(math.ceil(self.patience(seconds) * 1000))
        self.look()

    def patience(self, seconds):
        """For how many seconds of these nothing needs to be looked at, unless something can be read from `fd`."""
        if any(worker.wait is not None and worker.wait.over for worker in self.workers.values()):
            return 0.0
        now = time.monotonic()
        return max(0.0, min([seconds, LONGEST_WAIT, *(self._ends_at(worker) - now for worker in self.workers.values())]))

    def look(self):
        """Deal with what has come."""
        try:
            while len(os.read(self.fd, 65536)) == 65536:
                pass
        except BlockingIOError:
            pass
        for worker in [*self.workers.values()]:
            while worker.wait is not None and worker.wait.over:
                worker.wait = None
                self._take(worker, *_received(worker.channel, 0))
        while self._fresh:
            self._join(*self._fresh.popleft())
        self._look_for_late_ones()

    def _take(self, worker, message, error):
        if error is not None:
            return self._gone(worker, error)
        try:
            if message is not None:
                self._understand(worker, *message)
        except OSError:
            worker.stage = ""  # it cannot be sent what comes next; why that is comes through its channel
        if worker.channel is not None and worker.wait is None:
            self._expect(worker)

    def _understand(self, worker, kind, *what):
        if kind in ("here", "ready"):
            self._next_stage(worker)
        elif kind == "cannot":
            worker.refusals.append(what)
            self._offer(worker)
        elif kind == "failed":
            self.owner.fail(failures.remote(*what, f"the initializer failed (gateway {worker.gateway.id!r}):"))
        elif kind == "unread" and not worker.has:
            self.owner.fail(failures.remote(*what[1:], f"what a worker needs first cannot be read there (gateway {worker.gateway.id!r}):"))
        elif kind == "refused":
            self.owner.fail(OSError(f"worker_options: {_place_of(worker.gateway)}: {what[0]}"))
        elif kind == "at":
            worker.since = time.monotonic()
        elif kind == "late":
            number, place = what
            if worker.has and worker.has[0].number == number:
                worker.late_until = time.monotonic() + KILL_AFTER
                worker.late_place = place
        else:
            batch = worker.has.popleft()
            worker.late_until = worker.late_place = None
            worker.since = time.monotonic()
            worker.deaths = 0
            self.owner.done(worker, batch, kind, what[1:])

    def give(self, worker, batch, packed):
        """Send it a batch. False: it has ended, and the batch is still the caller's."""
        if not worker.has:
            worker.since = time.monotonic()
        worker.has.append(batch)
        try:
            worker.channel._send_soon(("batch", batch.number, packed))
        except OSError:
            worker.has.pop()  # why it ended comes through its channel
            return False
        worker.bytes += len(packed)
        return True

    def interrupt(self, worker, number, kill_after):
        """Interrupt the batch of that number, which the worker has. It is ended if it goes on for so many seconds; None: never."""
        if kill_after is not None:
            until = time.monotonic() + kill_after
            worker.late_until = min(until, worker.late_until or until)
        try:
            worker.control._send_soon(number)
        except OSError:
            pass  # it has ended; why comes through its channel

    # --- deaths -----------------------------------------------------------------------------------------------------

    def _ends_at(self, worker):
        """When it is ended unless it says something."""
        if worker.killed or not worker.has or worker.channel is None:
            return math.inf
        if worker.late_until is not None:
            return worker.late_until
        return math.inf if self.job.seconds is None else worker.since + self.job.seconds + SILENT

    def _look_for_late_ones(self):
        for worker in self.workers.values():
            if time.monotonic() >= self._ends_at(worker):
                if worker.late_until is None:  # it says nothing at all: it is stopped, or in C code that keeps the GIL
                    worker.late_place = 0 if len(worker.has[0].items) == 1 else None
                self._kill(worker)

    def kill_all(self):
        for worker in self.workers.values():
            if worker.channel is not None:
                self._kill(worker)

    def _kill(self, worker):
        worker.killed = True
        worker.late_until = None
        kill(worker.gateway)

    def _gone(self, worker, error):
        """The worker's task has ended, most often with its gateway."""
        worker.channel = worker.control = worker.wait = None
        worker.stage = ""
        worker.late_until = None
        worker.left = not worker.killed and worker.gateway not in worker.gateway._group
        if not worker.killed:
            worker.deaths += 1
            if self.job.options["memory"] is not None:
                error = failures.of_memory(error, self.job.options["memory"])
        self.owner.lost(worker, error)

    def replace(self, worker):
        """Have another gateway in the place of a worker that has nothing to do."""
        worker.killed, worker.stage = True, ""
        worker.channel = worker.control = worker.wait = None
        self.restart(worker, None)

    def restart(self, worker, error):
        """Have somebody in its place, soon: another gateway; or a new task, if only its task has ended. Returns at once."""
        self._starting += 1
        if isinstance(error, _core.RemoteError) and worker.gateway.hasreceiver() and not worker.killed:
            self._fresh.append((worker, worker.gateway, None))
            return self.ring()
        with self._lock:
            self._to_start.append(worker)
            starts, self._starter_runs = not self._starter_runs, True
        if starts:
            self._starter = threading.Thread(target=self._start_anew, name="execnet_c-starter", daemon=True)
            self._starter.start()

    def _start_anew(self):
        while True:
            with self._lock:
                if not self._to_start or self._ended:
                    self._starter_runs = False
                    break
                worker = self._to_start.popleft()
            gateway = error = None
            try:
                gateway = worker.gateway._group._renew(worker.gateway)
            except Exception as exc:
                error = exc
            self._fresh.append((worker, gateway, error))
            self.ring()
        if self._ended and self.owns:
            self.group.terminate(0.0)

    def _join(self, worker, gateway, error):
        self._starting -= 1
        if gateway is not None:
            worker.gateway = gateway
            try:
                return self._begin(worker)
            except OSError as exc:
                error = exc
        worker.killed = False
        worker.deaths += 1
        self.owner.lost(worker, error)

    def is_hopeless(self):
        """No worker lives, and none is being started."""
        return not self._starting and all(worker.channel is None for worker in self.workers.values())

    # --- the end ----------------------------------------------------------------------------------------------------

    def end(self, in_order):
        """Let the workers go, and end those that go on for a second. Not in order: interrupt them first."""
        if os.getpid() != self._pid:
            return
        try:
            busy = [worker for worker in self.workers.values() if worker.channel is not None]
            for worker in busy:
                try:
                    if not in_order:
                        worker.control._send_soon(None)
                    worker.channel._send_soon(None)
                except OSError:
                    pass
            if not self.owns:
                busy = [worker for worker in busy if not in_order and (worker.has or worker.stage == "start" or worker.killed)]
            self._end_those_that_go_on(busy)
        finally:
            self._ended = True
            if self._starter is not None:
                self._starter.join(JOIN)
            for worker in self.workers.values():
                worker.channel = worker.control = worker.wait = None
            self.owner = None  # which holds this
            with self._lock:
                os.close(self._into)
                self._into = None
            os.close(self.fd)
            if self.owns and self.group is not None:
                self.group.terminate(LEAVE)
                atexit.unregister(self.group._cleanup_atexit)  # a program may have many streams

    def _end_those_that_go_on(self, busy):
        until = time.monotonic() + KILL_AFTER
        for worker in busy:
            try:
                worker.channel.waitclose(max(0.0, until - time.monotonic()))
            except _core.TimeoutError:
                self._kill(worker)
            except (EOFError, OSError, _core.RemoteError):
                pass
            if worker.killed and not self.owns and worker.gateway in worker.gateway._group:
                worker.gateway._group._renew(worker.gateway)


def kill(gateway):
    try:
        gateway._signal(signal.SIGKILL)
    except OSError:
        gateway.exit()  # there is no process of ours


def _received(channel, timeout):
    """(message, None), or (None, why there will be none); (None, None) if there is none yet."""
    try:
        return channel.receive(timeout), None
    except _core.TimeoutError:
        return None, None
    except (EOFError, _core.RemoteError) as exc:
        return None, exc


def _place_of(gateway):
    host = getattr(gateway, "remoteaddress", None) or "this machine"
    return f"{host} (gateway {gateway.id!r})"
