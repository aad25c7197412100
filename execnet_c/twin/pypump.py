"""The pump, or I/O thread, of the plain-Python core. It alone reads connections: signal handlers run in the main thread, so
no exception out of one can tear a frame or lose a message.

Everything that must not be interrupted is a job of this thread. It runs as long as there is an fd to watch, a timer or a
job. Other threads only append jobs to a deque, a single step that no exception can split, and ring the thread's doorbell,
which here is a pipe.

A program may close all fds of its process and go on; then its next files get the numbers that were ours. So we remember
which file each fd of ours is, and check that before we use the fd. The thread opens a new doorbell when it finds that the
old one was closed. If it sleeps at that moment it cannot be woken any more: it is left there, and another thread takes its
place. See src/core/system/xc_fd.h and xc_pump.c.
"""

import sys
from _collections import deque
from _signal import SIG_BLOCK, SIGINT, pthread_sigmask
from errno import EBADF
from time import monotonic

from ..models.native import RLock, get_ident, os, select, sleep, start_new_thread

POLLIN, POLLOUT, POLLNVAL = select.POLLIN, select.POLLOUT, select.POLLNVAL

fork_count = 0  # forks that led to this process; a gateway made at a lower count belongs to a parent process
CLOSED = "this process has closed the fds of the connection"
LOOK_EVERY = 0.001  # seconds between two checks of an fd, because a check takes as long as a write

own_fds = {}  # fd of ours -> file_of(fd). A forked child closes them, or it would keep its parent's connections open


class Pump:
    """The I/O thread, and what it has to do. There is one Pump for each process: `pump`."""

    thread = None  # its ident

    def __init__(self):
        self._jobs = deque()
        self._idle = deque([None], 1)  # a token while there is no thread; a thread that takes it out starts the I/O thread
        self._ringing = RLock()  # for _bell and _deaf; an RLock, because a signal handler may interrupt a ring, and ring
        self._bell = None  # the two fds of the doorbell; owned
        self._asleep = set()  # the I/O thread's token while it sleeps; if another thread takes it out, it is given up
        self._deaf = False  # the program has closed the doorbell: the I/O thread must open a new one
        self._poll = select.poll()
        self._watches = {}  # fd -> (events, function(events)); also called when the fd is not ours any more
        self._timers = {}  # function -> the time at which it is due

    # Any thread.

    def post(self, job):
        """Let the I/O thread call `job()`. Raises OSError or RuntimeError if that thread cannot be started."""
        self._jobs.append(job)
        for _ in range(2):  # the thread may end between the two calls; one that just starts finds the job by itself
            if self._start(job) or self._ring():
                return

    def _start(self, job):
        """Start the I/O thread. False: there is one."""
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
        """Open a new doorbell, and make a new poll object with all fds that are watched. The caller holds _ringing."""
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
        """Wake the I/O thread. False: there is none."""
        with self._ringing:  # so that nobody closes the fd, and another file gets its number, meanwhile
            if not self._hears():
                return False
            try:
                if not self._deaf:
                    os.write(self._bell[1], b"!")
            except OSError:
                pass  # the pipe is full: it wakes anyway; or the program is just closing it, which the thread notices
            return True

    def _hears(self):
        """False: there is no I/O thread, or it slept when the program closed the doorbell, and is given up now. The
        caller holds _ringing."""
        if self._bell is None:
            return False
        if not is_ours(self._bell[1]):
            self._deaf = True  # before the token is looked for: the thread puts the token there, then looks at this flag
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
        """Check that the I/O thread can be woken; start another one if not. A thread that waits for something that only
        the I/O thread notices calls this from time to time."""
        with self._ringing:
            heard = self._hears() or not (self._watches or self._timers or self._jobs)
        if not heard:
            try:
                self.post(int)  # starts the thread
            except (OSError, RuntimeError):
                pass  # perhaps the next call can

    # The I/O thread.

    def watch(self, fd, events, function):
        self._watches[fd] = events, function
        self._poll.register(fd, events)

    def forget(self, fd):
        if self._watches.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def after(self, seconds, function):
        """Call `function()` once, so many seconds from now. Another after() for the same function replaces this one."""
        self._timers[function] = monotonic() + seconds

    def cancel(self, function):
        self._timers.pop(function, None)

    def _run(self):
        self.thread, token = get_ident(), object()
        pthread_sigmask(SIG_BLOCK, (SIGINT,))  # the processes that this thread starts inherit that
        while True:
            try:
                return self._go_round(token)
            except MemoryError:
                sleep(0.01)  # try again until there is memory: all connections of the process need this thread

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
                return  # this thread was given up, and another one has taken its place
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
        """Call the functions that are due. Return the milliseconds until the next one is due; None: there is none."""
        now = monotonic()
        for function, when in list(self._timers.items()):
            if when <= now and self._timers.pop(function, None) is not None:
                _guarded(function)
        return max(0, min([*self._timers.values()]) - monotonic()) * 1000 + 1 if self._timers else None

    def _leave_unless_asked(self):
        """Close the doorbell, so that the thread can end. False: there is a new job."""
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
                self._leave()  # the next post() tries again, and raises the error
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
    """Whether a read (POLLIN) or a write (POLLOUT) would not wait, or the other end is gone. Waits for that for `pause`
    milliseconds at most."""
    poll = select.poll()
    poll.register(fd, events)
    try:
        return bool(poll.poll(pause))
    except OSError:
        return bool(selected({fd: events}, pause))


def selected(watched, pause):
    """As poll() for `watched`, fd -> events, with a timeout of `pause` milliseconds. For use when poll() has failed: it takes
    at most RLIMIT_NOFILE fds, and a task may have lowered that limit. select() does not check it."""
    reads, writes = ([fd for fd, events in watched.items() if events & one] for one in (POLLIN, POLLOUT))
    try:
        reads, writes, _ = select.select(reads, writes, [], None if pause is None else pause / 1000)
    except OSError:
        return [(fd, POLLNVAL) for fd in watched if not is_ours(fd)]
    return [(fd, POLLIN * (fd in reads) | POLLOUT * (fd in writes)) for fd in {*reads, *writes}]


def readable(fd, *requests):
    """How many bytes can be read from `fd`; 0 if the system does not say. `requests`: ioctls to try before FIONREAD."""
    from fcntl import ioctl
    from termios import FIONREAD

    for request in (*requests, FIONREAD) if is_ours(fd) else ():
        try:
            return int.from_bytes(ioctl(fd, request, bytes(4)), sys.byteorder)
        except OSError:
            pass
    return 0


def file_of(fd):
    """What identifies the open file of `fd`. None: the fd is not open."""
    try:
        about = os.fstat(fd)
        kind = about.st_mode >> 12 or os.readlink(f"/proc/self/fd/{fd}")  # pidfds and the like share one inode
        return about.st_dev, about.st_ino, kind
    except OSError:
        return None


def own(*fds):
    """These fds are ours from now on; remember which files they are."""
    for fd in fds:
        own_fds[fd] = file_of(fd)


def is_ours(fd):
    """False: the program has closed the fd; another file may have its number now."""
    return own_fds.get(fd, fd) == file_of(fd)


def check(fd):
    """Raises OSError if the fd is not ours any more. Returns the time of the next check; one is due earlier if poll() says
    POLLNVAL."""
    if not is_ours(fd):
        raise OSError(EBADF, CLOSED)
    return monotonic() + LOOK_EVERY


def close(fd):
    """Close the fd if it is ours, and forget it."""
    if own_fds.pop(fd, fd) == file_of(fd):
        os.close(fd)


def pipe():
    """As os.pipe(), with both fds lifted()."""
    try:
        fds = os.pipe()
    except OSError as exc:
        raise OSError(exc.errno, f"make a pipe: {os.strerror(exc.errno)}") from None
    return [*map(lifted, fds)]


def lifted(fd):
    """The fd, or a copy that replaces it if its number is 0-2, which a program that opens its standard streams again would
    take from us, or in own_fds: that one was closed by the program, and its owner does not know it yet."""
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
