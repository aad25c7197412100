"""The program of a pool's worker, sent by remote_exec(). It runs on Python 3.8 and needs no package there.

What the near end sends, as plain items:

- ("setup", control channel, directories for sys.path, what Limits of limits.py needs and the source of that or None, seconds
  that an item may take or None, whether the first failure of a batch ends it). Answer: ("here",); or ("refused", text).
- ("func", role, way, *what): "function" or "initializer", see functions.py for the ways. Answer: ("ready",); or ("cannot",
  text, name of the missing module or None), and the near end may try another way.
- ("start", packed arguments): call the initializer. Answer: ("ready",), or ("failed", packed exception or None, traceback).
- ("batch", number, packed items). Answer: ("done", number, packed results, failures, seconds). A failure is (place in the
  batch, packed exception or None, traceback, whether the time was over); the result there is None. Or ("unread", number or None,
  packed exception or None, traceback).
- None: end.

("at", number) says that a batch goes on, ("late", number, place) that the time of an item is over and that it was interrupted.
The number of a batch that comes through the control channel interrupts the item of it that runs, or would run. Anything else, or
the end of that channel, interrupts what is running and ends the task.
"""

import pickle
import sys
import time
import traceback
from _thread import allocate_lock, start_new_thread

GOES_ON = 0.5  # seconds after which the near end is told that a batch goes on, where items have a time


unpack = pickle.loads


def pack(obj):
    try:
        return pickle.dumps(obj, 5)
    except Exception:
        by_value = sys.modules.get("cloudpickle")  # a class that came by value goes back so
        if by_value is None:
            raise
        return by_value.dumps(obj, 5)


memory = None  # bytes that this process may have
ours = set()  # file names of the code that calls functions


def told(exc):
    """(packed exception or None, traceback) of what a function raised."""
    if memory is not None and isinstance(exc, MemoryError):
        traceback.clear_frames(exc.__traceback__)  # what they hold is all there is
        text = "%s (worker_options: memory=%d)" % (str(exc) or "out of memory", memory)
        exc = MemoryError(text).with_traceback(exc.__traceback__)
    first = exc.__traceback__
    while first is not None and first.tb_frame.f_code.co_filename in ours:
        first = first.tb_next
    text = "".join(traceback.format_exception(type(exc), exc, first))
    try:
        packed = pack(exc)
        if type(unpack(packed)) is not type(exc):
            packed = None
    except BaseException:
        packed = None
    return packed, text.encode("utf-8", "backslashreplace").decode()


# --- functions --------------------------------------------------------------------------------------------------------


def call(task):
    """The function of an executor. Its items are ("one", function, arguments, keyword arguments) or ("many", function, [arguments of a call...], None)."""
    kind, func, args, kwargs = task
    return func(*args, **kwargs) if kind == "one" else [func(*each) for each in args]


def by_call():
    return call


def by_reference(data):
    return pickle.loads(data)


def by_source(source, file_name, name):
    """As remote_exec() runs a function's source."""
    import linecache

    scope = {"__name__": "__channelexec__", "__builtins__": __builtins__}
    linecache.cache[file_name] = len(source), None, source.splitlines(True), file_name
    exec(compile(source, file_name, "exec"), scope)
    return scope[name]


def by_value(data, version, source):
    """source: cloudpickle's own, for where it is not installed."""
    if tuple(version) != sys.version_info[:2]:
        here = "%d.%d" % sys.version_info[:2]
        raise RuntimeError(
            "it goes by value, as code of Python %d.%d, and Python %s runs here; put it in a module that can be "
            "imported here, or give it all that it needs as arguments" % (tuple(version) + (here,))
        )
    try:
        import cloudpickle  # noqa: F401
    except ImportError:
        import types

        package, module = types.ModuleType("cloudpickle"), types.ModuleType("cloudpickle.cloudpickle")
        package.__path__, module.__package__ = [], "cloudpickle"
        sys.modules["cloudpickle"], sys.modules["cloudpickle.cloudpickle"] = package, module
        try:
            exec(compile(source, "<cloudpickle>", "exec"), module.__dict__)
        except BaseException:
            del sys.modules["cloudpickle"], sys.modules["cloudpickle.cloudpickle"]
            raise
        package.__dict__.update({name: value for name, value in vars(module).items() if name[:2] != "__"})
        package.cloudpickle = module
    return pickle.loads(data)


WAYS = {"call": by_call, "reference": by_reference, "source": by_source, "value": by_value}


# --- interrupting -----------------------------------------------------------------------------------------------------


class Stopped(BaseException):
    """The near end wants no more."""


class Turn:
    """What runs on the task's thread now, so that it can be interrupted, and nothing else."""

    def __init__(self, channel, seconds):
        self.channel = channel
        self.seconds = seconds
        self.call, self.lock = channel.gateway._by_turns(channel)
        self.serial = 0
        self.running = self.hit = None  # serial numbers
        self.until = 0.0
        self.place = 0, 0  # (number of the batch, place in it)
        self.unwanted = None  # number of a batch
        self.stopping = False
        self.over = allocate_lock()  # held as long as the task runs
        self.over.acquire()

    def interrupt(self, serial=None):
        """Raise KeyboardInterrupt in what runs now; with `serial`, if that still runs. Returns whether it was sent."""
        with self.lock:
            if self.running is None or self.hit == self.running or serial not in (None, self.running):
                return False
            self.hit = self.running
            self.channel.gateway._mark(self.channel)
            return True

    def heed(self, message):
        """What came through the control channel."""
        if not isinstance(message, int):
            self.stopping = True
            return self.interrupt()
        with self.lock:
            self.unwanted = message
            serial = self.running if self.place[0] == message else None
        if serial is not None:
            self.interrupt(serial)

    def begins_unwanted(self, serial):
        """Whether what begins now was to be interrupted before it was here."""
        with self.lock:
            if self.unwanted != self.place[0] or self.hit == serial:
                return False
            self.hit = serial
            return True

    def watch(self):
        """On a thread of its own: interrupt each item whose time is over."""
        while not self.over.acquire(True, max(self.left(), 0.001)):
            serial, place = self.running, self.place
            if serial is not None and self.hit != serial and time.monotonic() >= self.until and self.interrupt(serial):
                try:
                    self.channel.send(("late",) + place)
                except OSError:
                    break  # the near end is gone, and this process ends
        self.over.release()

    def left(self):
        with self.lock:
            runs = self.running is not None and self.hit != self.running
            return min(self.until - time.monotonic(), 1e6) if runs else min(self.seconds, 0.5)

    def run(self, func, *args):
        """func(*args), which may be interrupted."""
        self.serial = serial = self.serial + 1
        if self.seconds is not None:
            self.until = time.monotonic() + self.seconds
        try:
            self.running = serial
            if self.stopping:  # since this was looked at last: nobody has interrupted what did not run
                raise Stopped
            if self.unwanted is not None and self.begins_unwanted(serial):
                raise KeyboardInterrupt
            return self.call(func, *args)
        finally:
            with self.lock:
                self.running = None
            self.channel.gateway._take_interrupt(self.channel)  # it came too late


# --- the work ---------------------------------------------------------------------------------------------------------


class Worker:
    def __init__(self, channel, seconds, first_only):
        self.channel = channel
        self.turn = Turn(channel, seconds)
        self.first_only = first_only
        self.roles = {}
        self.state = ()  # (what the initializer has returned,)

    def take(self, role, way, *what):
        try:
            self.roles[role] = WAYS[way](*what)
        except BaseException as exc:
            missing = exc.name if isinstance(exc, ImportError) else None
            self.channel.send(("cannot", "%s: %s" % (type(exc).__name__, exc), missing))
        else:
            self.channel.send(("ready",))

    def start(self, packed):
        try:
            self.state = (self.turn.run(self.roles["initializer"], *unpack(packed)),)
        except BaseException as exc:
            if self.turn.stopping:
                raise
            self.channel.send(("failed",) + told(exc))
        else:
            self.channel.send(("ready",))

    def each(self, items, results):
        """Append the result of each further item to `results`. It stops with what the function raises."""
        func = self.roles["function"]
        if self.state and func is not call:
            state, plain = self.state[0], func

            def func(item):
                return plain(state, item)

        if self.turn.seconds is None:
            self.turn.run(results.extend, map(func, items))
        else:
            number, told = self.turn.place[0], time.monotonic()
            for item in items:
                if time.monotonic() > told + GOES_ON:
                    told = time.monotonic()
                    self.channel.send(("at", number))
                self.turn.place = number, len(results)
                results.append(self.turn.run(func, item))

    def batch(self, number, packed):
        begin = time.perf_counter()
        results, failures = [], []
        try:
            items = unpack(packed)
            items = items if type(items) is list else [items]  # an executor's single task
        except BaseException as exc:
            return self.channel.send(("unread", number) + told(exc))
        self.turn.place = number, 0
        rest = iter(items)
        while len(results) < len(items):
            try:
                self.each(rest, results)
                if len(results) < len(items):
                    raise RuntimeError("the function raised StopIteration")
            except BaseException as exc:
                if self.turn.stopping:
                    raise
                late = isinstance(exc, KeyboardInterrupt) and self.turn.hit == self.turn.serial
                failures.append((len(results),) + told(exc) + (late,))
                results.append(None)
                exc = None
                if self.first_only:
                    break
        try:
            packed = pack(results)
        except Exception:
            packed = pack(self.those_that_go(results, failures))
        self.channel.send(("done", number, packed, failures, time.perf_counter() - begin))

    def those_that_go(self, results, failures):
        """The results, without those that cannot be pickled, which are failures."""
        for place, result in enumerate(results):
            try:
                pack(result)
            except Exception as exc:
                results[place] = None
                failures.append((place,) + told(exc) + (False,))
        return results

    def receive(self):
        while True:
            try:
                return self.channel.receive()
            except MemoryError as exc:  # one message is lost, which had no room here
                self.channel.send(("unread", None) + told(exc))

    def serve(self):
        if self.turn.seconds is not None:
            start_new_thread(self.turn.watch, ())
        try:
            while True:
                message = self.receive()
                if message is None or self.turn.stopping:
                    return
                getattr(self, {"func": "take"}.get(message[0], message[0]))(*message[1:])
                del message
        except BaseException:
            if not self.turn.stopping:
                raise
        finally:
            self.turn.over.release()


def limited(source, wanted):
    """The limits, from now on."""
    global memory
    scope = {}
    exec(compile(source, "<limits>", "exec"), scope)
    limits = scope["Limits"](**wanted)
    memory = wanted["memory"]
    return limits


def main(channel):
    _, control, directories, limits, seconds, first_only = channel.receive()
    sys.path += [directory for directory in directories if directory not in sys.path]
    worker = Worker(channel, seconds, first_only)
    ours.update((main.__code__.co_filename, worker.turn.call.__code__.co_filename))
    control.setcallback(worker.turn.heed, None)
    try:
        limits = limits and limited(*limits)
    except OSError as exc:
        limits = None
        channel.send(("refused", str(exc)))
    else:
        channel.send(("here",))
    try:
        worker.serve()
    finally:
        if limits is not None:
            limits.lift()


if __name__ == "__channelexec__":
    main(channel)
