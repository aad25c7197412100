"""Functions that the tests of the pool run in workers, and streams to watch what is drawn."""

import atexit
import collections
import functools
import os
import signal
import threading
import time


def square(n):
    return n * n


def pid(_=None):
    return os.getpid()


def same(item):
    return item


def pid_or_fail(item):
    """item: (what to do, more)."""
    if item[0] == "fail":
        raise ZeroDivisionError
    return os.getpid()


def divide(n):
    return 100 // n


def sleep(seconds):
    time.sleep(seconds)
    return seconds


def doze(seconds):
    """As sleep(), in any thread an interrupt ends it."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(0.01)
    return seconds


def sleep_in_main_thread(seconds):
    """As sleep(), or not at all: in other threads no interrupt ends a wait."""
    try:
        signal.signal(signal.SIGINT, signal.getsignal(signal.SIGINT))
    except ValueError:
        return seconds
    return sleep(seconds)


def deaf(item):
    """As sleep(), and no interrupt ends it, if `item` is a tuple (seconds, file to make at the beginning or none)."""
    if not isinstance(item, tuple):
        return item
    for path in item[1:]:
        open(path, "w").close()
    until = time.monotonic() + item[0]
    while time.monotonic() < until:
        try:
            time.sleep(until - time.monotonic())
        except KeyboardInterrupt:
            pass
    return item[0]


def keep_the_gil(n):
    """For a long time, if it is 2: nothing else runs in that process."""
    return sum(range(10**13 if n == 2 else n))


def add_one(array):
    array += 1
    return array


def die(n):
    """Dies of 13."""
    if n == 13:
        os.kill(os.getpid(), 9)
    return n


def die_once(item):
    """Dies when it gets the path of a file that is not there yet."""
    if isinstance(item, str):
        try:
            os.close(os.open(item, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return "survived"
        os.kill(os.getpid(), 9)
    return item


class Unfit(Exception):
    """Its pickle cannot be loaded: it needs two arguments and keeps one."""

    def __init__(self, one, two):
        super().__init__(one)


class Fit(Exception):
    def __init__(self, one, two=None):
        super().__init__(one, two)
        self.more = {"two": two}


class Unchanging(Exception):
    """It takes no attributes, as an exception that is a frozen dataclass."""

    def __setattr__(self, name, value):
        raise TypeError("it cannot be changed")


class EndsWhoLoads(Exception):
    """Its pickle, loaded in another process than this, raises SystemExit."""

    def __reduce__(self):
        return exit_elsewhere, (os.getpid(),)


def exit_elsewhere(pid):
    if os.getpid() != pid:
        raise SystemExit(3)
    return EndsWhoLoads()


def ends_who_loads(_):
    return EndsWhoLoads()


def raises_what_ends_who_loads(_):
    raise EndsWhoLoads


def raises_unchanging(item):
    raise Unchanging(item)


def fail(item):
    raise item


def exit_with(_):
    raise SystemExit(3)


def stop_iteration(n):
    if n == 2:
        raise StopIteration
    return n


def load(a, b):
    return {"pid": os.getpid(), "sum": a + b}


def use(state, item):
    return state["pid"] == os.getpid(), state["sum"] + item


def lock_if_two(n):
    return threading.Lock() if n == 2 else n


class Adder:
    def __init__(self, n):
        self.n = n

    def add(self, other):
        return self.n + other

    __call__ = add


class Referring:
    """An object that has a function of a module: no way goes but by reference."""

    def __init__(self, func):
        self.func = func

    def __call__(self, n):
        return self.func(n)

    def __reduce__(self):
        return functools.partial, (self.func,)


class Watched:
    """An endless stream of 0, 1, 2... that knows how far it was drawn."""

    def __init__(self, end=None):
        self.drawn, self.end = 0, end

    def __iter__(self):
        return self

    def __next__(self):
        if self.drawn == self.end:
            raise StopIteration
        self.drawn += 1
        return self.drawn - 1


def wait_for(path):
    """Until there is that file."""
    until = time.monotonic() + 30
    while not os.path.exists(path) and time.monotonic() < until:
        time.sleep(0.005)
    return path


def set_word(word):
    os.environ["EXECNET_TEST_WORD"] = word


def get_word():
    return os.environ.get("EXECNET_TEST_WORD")


def slowly(n):
    sum(range(20_000))
    return n


def pid_after(seconds):
    time.sleep(seconds)
    return os.getpid()


def logged(n):
    """As square(), slowly. Adds a line to a log: the number of the run, and n."""
    with open(os.environ["EXECNET_TEST_LOG"], "a") as file:
        file.write(f"{os.environ['EXECNET_TEST_RUN']} {n}\n")
    sum(range(20_000))
    return n * n


def size_of(item):
    """Of a file, if it gets a path."""
    return os.stat(item).st_size if isinstance(item, str) else item


class OnceOnly:
    """It can be pickled where it was made, and nowhere else."""

    def __init__(self):
        self.pid = os.getpid()

    def __reduce__(self):
        if self.pid != os.getpid():
            raise ValueError("it was made elsewhere")
        return _once_only, (self.pid,)


def _once_only(pid):
    it = OnceOnly()
    it.pid = pid
    return it


def once_only(n):
    return OnceOnly() if n else n


def affinity(_):
    time.sleep(0.05)
    return os.getpid(), sorted(os.sched_getaffinity(0))


def variables(*_):
    from execnet_c.pool.limits import THREADS

    return os.getpid(), {name: os.environ.get(name) for name in THREADS}


def use_variables(state, _):
    return state[1]


def threads_of_libraries(_):
    import threadpoolctl

    return os.getpid(), [library["num_threads"] for library in threadpoolctl.threadpool_info()]


def allocate(megabytes):
    bytearray(megabytes << 20)
    return megabytes


def fill(endlessly):
    """Take memory in pieces until there is none for another. Small ones would have Python itself crash at the last one."""
    pieces = collections.deque()
    while endlessly:
        pieces.append(bytes(1 << 16))
    return endlessly


def zeros(megabytes):
    return bytes(megabytes << 20)


def memory_limit(_):
    import resource

    return os.getpid(), resource.getrlimit(resource.RLIMIT_AS)[0]


def die_saying(text):
    os.write(2, text.encode())
    os.kill(os.getpid(), 9)


def pid_or_error(n):
    if not n:
        raise ValueError
    return os.getpid()


def nested(n):
    """A call of joblib in a call of joblib."""
    from joblib import Parallel, delayed

    parallel = Parallel(n_jobs=2)
    return type(parallel._backend).__name__, parallel(delayed(pow)(m, 2) for m in range(n)), os.getpid()


def at_exit(path):
    """Have this process make a file when it ends, not at once."""

    def make():
        time.sleep(0.3)
        open(path, "w").close()

    atexit.register(make)
    return os.getpid()


def at_exit_or_sleep(item):
    return at_exit(item) if isinstance(item, str) else sleep(item)


def tell_and(path, func, *args):
    open(path, "w").close()
    return func(*args)


def loop(_):
    while True:
        pass


def catch(seconds, wait=time.sleep):
    try:
        wait(seconds)
    except KeyboardInterrupt:
        time.sleep(0.2)
        return 1


def catch_dozing(seconds):
    return catch(seconds, doze)
