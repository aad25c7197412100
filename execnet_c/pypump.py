"""The I/O thread of the plain-Python core. It alone reads connections, so that no exception out of a signal handler,
which hits the main thread, can tear a frame or lose a message.

Everything that must not be interrupted is a job of this thread. It runs as long as there is something to watch, to wait
for or to do. Other threads only append to deques, which is one step that no exception can split, and ring.
"""

import sys
from _collections import deque
from _signal import SIG_BLOCK, SIGINT, pthread_sigmask
from time import monotonic

from .native import RLock, get_ident, os, select, start_new_thread

POLLIN, POLLOUT = select.POLLIN, select.POLLOUT

fork_count = 0  # a gateway that was made before belongs to the parent
own_fds = set()  # a forked child closes them, or it would keep connections of its parent alive


class Pump:
    thread = None

    def __init__(self):
        self._jobs = deque()
        self._idle = deque([None])  # whoever takes the token out of it starts the thread
        self._ringing = RLock()  # a signal handler that interrupts a ring may ring
        self._bell = None
        self._poll = select.poll()
        self._watches = {}  # fd -> function(events)
        self._timers = {}  # function -> when it is due

    # Any thread.

    def post(self, job):
        """Have `job()` called by the I/O thread. Raises OSError or RuntimeError when that cannot be started."""
        self._jobs.append(job)
        for _ in range(2):
            try:
                self._idle.pop()
            except IndexError:
                if self._ring():
                    return
                continue  # it has just ended, or is only being started and looks for jobs first
            try:
                self._start()
            except BaseException:
                self._jobs.remove(job)
                self._idle.append(None)
                raise
            return

    def _start(self):
        try:
            self._bell = os.pipe()
        except OSError as exc:
            raise OSError(exc.errno, f"make a pipe: {os.strerror(exc.errno)}") from None
        try:
            os.set_blocking(self._bell[0], False)
            os.set_blocking(self._bell[1], False)
            own_fds.update(self._bell)
            self._poll.register(self._bell[0], POLLIN)
            start_new_thread(self._run, ())
        except BaseException:
            self._take_down()
            raise

    def _take_down(self):
        (ear, mouth), self._bell = self._bell, None
        self._poll.unregister(ear)
        close(ear)
        close(mouth)

    def _ring(self):
        with self._ringing:  # the fd must not be closed, and be another's, meanwhile
            if self._bell is None:
                return False
            try:
                os.write(self._bell[1], b"!")
            except BlockingIOError:
                pass  # it has been rung often enough
            return True

    # The I/O thread.

    def watch(self, fd, events, function):
        self._watches[fd] = function
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
        self.thread = get_ident()
        pthread_sigmask(SIG_BLOCK, (SIGINT,))  # for the processes that are started here
        while True:
            while self._jobs:
                _guarded(self._jobs.popleft())
            now = monotonic()
            for function, when in list(self._timers.items()):
                if when <= now and self._timers.pop(function, None) is not None:
                    _guarded(function)
            if self._jobs:
                continue
            if not self._watches and not self._timers:
                with self._ringing:
                    if self._jobs:
                        continue
                    self._take_down()
                    self._idle.append(None)
                    return
            pause = None
            if self._timers:
                pause = max(0, min(self._timers.values()) - monotonic()) * 1000 + 1
            for fd, events in self._poll.poll(pause):
                if fd == self._bell[0]:
                    try:
                        os.read(fd, 4096)
                    except BlockingIOError:
                        pass
                elif fd in self._watches:
                    _guarded(self._watches[fd], events)


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
    for fd in own_fds:
        try:
            os.close(fd)
        except OSError:
            pass
    own_fds.clear()
    pump = Pump()


def is_ready(fd, events):
    """Without waiting: whether a read (POLLIN) or a write (POLLOUT) would not wait, or the other end is gone."""
    poll = select.poll()
    poll.register(fd, events)
    return bool(poll.poll(0))


def readable(fd):
    """How many bytes are there to be read."""
    import fcntl
    import termios

    return int.from_bytes(fcntl.ioctl(fd, termios.FIONREAD, bytes(4)), sys.byteorder)


def close(fd):
    own_fds.discard(fd)
    os.close(fd)


os.register_at_fork(after_in_child=_after_fork)
