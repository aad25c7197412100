"""The I/O thread of the plain-Python core. It alone reads connections, so that no exception out of a signal handler,
which hits the main thread, can tear a frame or lose a message.

Everything that must not be interrupted is a job of this thread. It runs as long as there is something to watch, to wait
for or to do. Other threads only append to deques, which is one step that no exception can split, and ring.

A program may close all its fds and go on: other files get our numbers then. What is behind each fd of ours is remembered,
and looked at before it is used. The thread opens its own anew; where it sleeps on numbers, it is left there, and another
one takes its place. See src/core/system/xc_fd.h and xc_pump.c.
"""

import sys
from _collections import deque
from _signal import SIG_BLOCK, SIGINT, pthread_sigmask
from errno import EBADF
from time import monotonic

from ..models.native import RLock, get_ident, os, select, sleep, start_new_thread

POLLIN, POLLOUT, POLLNVAL = select.POLLIN, select.POLLOUT, select.POLLNVAL

fork_count = 0  # a gateway that was made before belongs to the parent
CLOSED = "this process has closed the fds of the connection"
LOOK_EVERY = 0.001  # seconds: a look at what is behind an fd costs as much as a write

own_fds = {}  # fd -> the file; a forked child closes them, or it would keep connections of its parent alive


class Pump:
    thread = None

    def __init__(self):
        self._jobs = deque()
        self._idle = deque([None], 1)  # whoever takes the token out of it starts the thread
        self._ringing = RLock()  # a signal handler that interrupts a ring may ring
        self._bell = None
        self._asleep = set()  # the thread's token while it sleeps: who takes that away has given up on it
        self._deaf = False  # the thread is to open its own anew
        self._poll = select.poll()
        self._watches = {}  # fd -> (events, function(events)); also called when the fd is ours no more
        self._timers = {}  # function -> when it is due

    # Any thread.

    def post(self, job):
        """Have `job()` called by the I/O thread. Raises OSError or RuntimeError when that cannot be started."""
        self._jobs.append(job)
        for _ in range(2):  # the thread may have just ended, or is only being started and looks for jobs first
            if self._start(job) or self._ring():
                return

    def _start(self, job):
        """The thread; False where there is one."""
        taken, started = [], []  # each is filled in one step: a signal handler may raise between any two
        try:
            taken.extend(map(deque.pop, [self._idle]))
            with self._ringing:
                self._open()
                started.extend(map(start_new_thread, [self._run], [()]))
        except BaseException as exc:
            if taken and not started:
                with self._ringing:
                    self._take_down()
                self._jobs.remove(job)
                self._idle.append(None)
            if taken or not isinstance(exc, IndexError):
                raise
            return False
        return True

    def _open(self):
        """A doorbell, and a poll with all that is watched."""
        self._take_down()
        self._bell = pipe()
        own(*self._bell)
        self._deaf = False
        self._poll = select.poll()
        self._poll.register(self._bell[0], POLLIN)
        for fd in self._bell:
            os.set_blocking(fd, False)
        for fd, (events, _) in self._watches.items():
            self._poll.register(fd, events)
            if not is_ours(fd):
                self._jobs.append(lambda fd=fd: fd in self._watches and self._watches[fd][1](POLLNVAL))

    def _take_down(self):
        bell, self._bell = self._bell, None
        for fd in bell or ():
            close(fd)

    def _ring(self):
        with self._ringing:  # the fd must not be closed, and be another's, meanwhile
            if not self._hears():
                return False
            try:
                if not self._deaf:
                    os.write(self._bell[1], b"!")
            except OSError:
                pass  # it has been rung often enough; or the program is closing it, which the thread sees
            return True

    def _hears(self):
        """False: there is no thread. One that sleeps on fds that the program has closed is left alone."""
        if self._bell is None:
            return False
        if not is_ours(self._bell[1]):
            self._deaf = True  # first: it looks when it has laid its token down
            try:
                self._asleep.pop()
            except KeyError:
                return True
            self._leave()
            return False
        return True

    def _leave(self):
        self._take_down()
        self._idle.append(None)

    def look(self):
        """See that the thread can be woken. For who waits for what only that can notice, every now and then."""
        with self._ringing:
            heard = self._hears() or not (self._watches or self._timers or self._jobs)
        if not heard:
            try:
                self.post(int)  # starts it
            except (OSError, RuntimeError):
                pass  # later, perhaps

    # The I/O thread.

    def watch(self, fd, events, function):
        self._watches[fd] = events, function
        self._poll.register(fd, events)

    def forget(self, fd):
        if self._watches.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def after(self, seconds, function):
        """Call `function()` so many seconds from now, once; a later call for the same function replaces that."""
        self._timers[function] = monotonic() + seconds

    def cancel(self, function):
        self._timers.pop(function, None)

    def _run(self):
        self.thread, token = get_ident(), object()
        pthread_sigmask(SIG_BLOCK, (SIGINT,))  # for the processes that are started here
        while True:
            try:
                return self._go_round(token)
            except MemoryError:
                sleep(0.01)  # all connections of the process wait for this thread: it waits for memory

    def _go_round(self, token):
        sleeps, wakes = self._asleep.add, self._asleep.remove
        while True:
            while self._jobs:
                _guarded(self._jobs.popleft())
            pause = self._run_timers() if self._timers else None
            if self._jobs:
                continue
            if not self._watches and not self._timers:
                if self._leave_unless_asked():
                    return
                continue
            sleeps(token)
            try:
                found = () if self._deaf else self._poll.poll(pause)
            except OSError:
                found = self._select(pause)
            try:
                wakes(token)
            except KeyError:
                return  # another one has taken its place
            if self._deaf:
                if not self._open_anew():
                    return
                continue
            for fd, events in found:
                if fd == self._bell[0]:
                    self._hear(fd, events)
                elif fd in self._watches:
                    _guarded(self._watches[fd][1], events)

    def _run_timers(self):
        """Call the functions that are due. Return for how long there will be none, in milliseconds; None: for ever."""
        now = monotonic()
        for function, when in list(self._timers.items()):
            if when <= now and self._timers.pop(function, None) is not None:
                _guarded(function)
        return max(0, min(self._timers.values()) - monotonic()) * 1000 + 1 if self._timers else None

    def _leave_unless_asked(self):
        with self._ringing:
            if self._jobs:
                return False
            self._leave()
            return True

    def _select(self, pause):
        return selected({self._bell[0]: POLLIN, **{fd: events for fd, (events, _) in self._watches.items()}}, pause)

    def _hear(self, fd, events):
        if events != POLLIN or not is_ours(fd):
            self._deaf = True
            return
        try:
            os.read(fd, 4096)
        except OSError:
            pass

    def _open_anew(self):
        with self._ringing:
            try:
                self._open()
                return True
            except OSError:
                self._leave()  # who starts another one is told
                return False


def _guarded(function, *args):
    try:
        function(*args)
    except BaseException:
        try:
            sys.excepthook(*sys.exc_info())
        except BaseException:
            pass  # the interpreter is ending


pump = Pump()


def _after_fork():
    global pump, fork_count
    fork_count += 1
    for fd in [*own_fds]:
        close(fd)
    pump = Pump()


def is_ready(fd, events, pause=0):
    """Whether a read (POLLIN) or a write (POLLOUT) would not wait, or the other end is gone; waits for that, `pause`
    milliseconds at most."""
    poll = select.poll()
    poll.register(fd, events)
    try:
        return bool(poll.poll(pause))
    except OSError:
        return bool(selected({fd: events}, pause))


def selected(watched, pause):
    """What poll() gives for `watched`, fd -> events, in `pause` milliseconds. For where it fails: it takes no more fds than a
    process may have, and a task may have lowered that (RLIMIT_NOFILE). select() does not ask."""
    reads, writes = ([fd for fd, events in watched.items() if events & one] for one in (POLLIN, POLLOUT))
    try:
        reads, writes, _ = select.select(reads, writes, [], None if pause is None else pause / 1000)
    except OSError:
        return [(fd, POLLNVAL) for fd in watched if not is_ours(fd)]
    return [(fd, POLLIN * (fd in reads) | POLLOUT * (fd in writes)) for fd in {*reads, *writes}]


def readable(fd, *requests):
    """How many bytes are there to be read; 0 where the system does not say. `requests`: ioctls to be tried before."""
    from fcntl import ioctl
    from termios import FIONREAD

    for request in (*requests, FIONREAD) if is_ours(fd) else ():
        try:
            return int.from_bytes(ioctl(fd, request, bytes(4)), sys.byteorder)
        except OSError:
            pass
    return 0


def file_of(fd):
    """What is behind it. None: nothing."""
    try:
        about = os.fstat(fd)
        kind = about.st_mode >> 12 or os.readlink(f"/proc/self/fd/{fd}")  # a pidfd or the like looks like any other
        return about.st_dev, about.st_ino, kind
    except OSError:
        return None


def own(*fds):
    """They are ours as they are now."""
    for fd in fds:
        own_fds[fd] = file_of(fd)


def is_ours(fd):
    """False: the program has closed it, and it may be another's now."""
    return fd in own_fds and own_fds[fd] == file_of(fd)


def check(fd):
    """Raises OSError when it is ours no more. Returns when to look again, unless poll() says POLLNVAL."""
    if not is_ours(fd):
        raise OSError(EBADF, CLOSED)
    return monotonic() + LOOK_EVERY


def close(fd):
    ours = is_ours(fd)
    own_fds.pop(fd, None)
    if ours:
        os.close(fd)


def pipe():
    """As os.pipe()."""
    try:
        fds = os.pipe()
    except OSError as exc:
        raise OSError(exc.errno, f"make a pipe: {os.strerror(exc.errno)}") from None
    return [lifted(fd) for fd in fds]


def lifted(fd):
    """Never 0-2: whoever reopens the standard streams would take it from us. Nor the number of one that the program has
    closed, whose owner does not know it yet."""
    return _lift(fd) if fd <= 2 or fd in own_fds else fd


def _lift(fd):
    while fd <= 2 or fd in own_fds:
        from fcntl import F_DUPFD_CLOEXEC, fcntl

        low = fd
        try:
            fd = fcntl(low, F_DUPFD_CLOEXEC, max(low + 1, 3))
        finally:
            os.close(low)
    return fd


os.register_at_fork(after_in_child=_after_fork)
