"""The processes that the plain-Python core starts, on pipes. The I/O thread watches and reaps them.

What a worker writes to its stderr is passed on to ours, or kept for the program's handler (see near/stderr.py); its end
is kept for the error that says how the worker died. Or the worker is lent our stderr (see pylend.py). Our stderr may be a
pipe that nobody reads, or a terminal that was stopped. So we write what it takes without waiting, and the rest later.
See also src/core/start/xc_launch.c and src/core/system/xc_stderr.h.
"""

import errno
import fcntl
import signal
import socket
import stat

from . import pypump, pywire
from ..models.native import allocate_lock, os, unpatched
from .pypump import lifted, pipe

TAIL = 4096  # bytes of a worker's stderr that are kept for an error text
UNHEARD = 1 << 20  # bytes that are kept for the handler; if there are more, the oldest are dropped
AT_ONCE = 64 * 1024  # bytes that the handler gets in one call
PAGE = 4096
RETRY = 0.02  # seconds until our stderr, if it is full, or a process without a pidfd is checked again


def launch(gateway, argv):
    """Start `argv` on pipes and connect `gateway` to it. Returns after the exec. Raises OSError."""
    argv = [os.fsencode(arg) for arg in argv]
    if not argv:
        raise ValueError("argv is empty")
    try:
        by_pump(lambda: Process(gateway, argv), gateway)
    except BaseException:
        lent = getattr(gateway, "_lends", None)
        if lent and gateway._process is None:
            lent.close()
        raise


def connect(gateway, fd):
    """Connect `gateway` through the socket `fd`; this call takes the fd, whatever happens. Raises OSError."""
    if gateway._writer is not None:
        os.close(fd)
        raise OSError("the gateway was started before")

    def job():
        own = lifted(fd)
        try:
            out = lifted(fcntl.fcntl(own, fcntl.F_DUPFD_CLOEXEC, 3))
        except BaseException:
            os.close(own)
            raise
        gateway._process = Absent(gateway)
        gateway._connect(own, out, True)
        writer, close = gateway._writer, gateway._writer.close

        def close_direction():  # close() of one of two copies of a socket does not end that direction: shut it down first
            if writer.fd >= 0:
                _shut(writer.fd, socket.SHUT_WR)
            close()

        writer.close = close_direction

    by_pump(job, gateway)


def _shut(fd, how):
    if not pypump.is_ours(fd):
        return
    with socket.socket(fileno=os.dup(fd)) as peer:
        try:
            peer.shutdown(how)
        except OSError:
            pass  # it has ended


class Absent:
    """Stands for a Process if this side has only the connection to the far end, and no process of it."""

    gone = False
    pid, status = 0, None

    def __init__(self, gateway):
        self._gateway = gateway

    def said(self):
        return {"pid": 0, "ended": False, "status": None, "stderr": b"", "words": False, "passed": True}

    def signal(self, number):
        """A signal cannot be sent to the far end, so end the connection."""

        def job():
            self.gone = True
            if not self._gateway._eof:
                _shut(self._gateway._in.fileno(), socket.SHUT_RDWR)
            self._gateway._peer_gone()

        pypump.pump.post(job)


def by_pump(start, gateway):
    """Call start() on the I/O thread, and wait for it. If an interrupt comes meanwhile, this still waits for start(), then
    undoes it by gateway._goodbye(), and raises the interrupt."""
    done, results, wanted = allocate_lock(), [], [None]  # wanted: the token is taken by the job, or by who cancels it
    done.acquire()

    def job():
        try:
            wanted.pop()
        except IndexError:
            return
        try:
            results.append(start())
        except BaseException as exc:
            results.append(exc)
        done.release()

    interrupt = None
    try:
        pypump.pump.post(job)
    except BaseException as exc:
        try:
            wanted.pop()
        except IndexError:
            interrupt = exc  # the job has begun already
        else:
            raise
    while not results:
        try:
            if not done.acquire(True, 5.0):
                pypump.pump.look()
        except BaseException as exc:
            interrupt = exc  # raised below, when it is known whether there is something to undo
    if isinstance(results[0], BaseException):
        raise results[0]
    if interrupt is not None:
        gateway._goodbye()
        raise interrupt


class Said:
    """What a far end has written to its stderr, for the program's handler. One thread calls take(); all else is called by
    the I/O thread."""

    def __init__(self):
        self._lock = allocate_lock()  # for _bytes and _lost; held for a moment only
        self._bytes = bytearray()
        self._lost = 0  # bytes that were dropped in front of _bytes
        self.ended = self.closed = False  # the process has ended; nobody can write to its stderr any more

    def add(self, data):
        with self._lock:
            self._bytes += data
            over = max(len(self._bytes) - UNHEARD, 0)
            del self._bytes[:over]
            self._lost += over

    def has_news(self, knows_end):
        return self._bytes or self._lost or (self.ended and (self.closed or not knows_end))

    def take(self):
        with self._lock:
            data = bytes(memoryview(self._bytes)[:AT_ONCE])
            del self._bytes[: len(data)]
            lost, self._lost = self._lost, 0
            ended = self.ended and not self._bytes
            return data, lost, ended, ended and self.closed


class Process:
    gone = False
    status = None  # exit status, -signal, None: unknown
    tail = b""
    _passing = False  # something was read from its stderr and not passed on yet

    def __init__(self, gateway, argv):
        fds, lent = [], getattr(gateway, "_lends", None)  # see pylend.py
        try:
            for _ in range(2 if lent else 3):
                fds += pipe()
            for fd in (fds[1], fds[2]):
                try:
                    fcntl.fcntl(fd, 1031, 1 << 20)  # F_SETPIPE_SZ
                except OSError:
                    pass  # not on Linux, or this user may have no more memory in pipes
            stderr, kept = (lent.stderr, (lent.file, lent.ours)) if lent else (fds[5], ())
            self.pid = _spawn(argv, fds[0], fds[3], stderr, kept)
        except BaseException:
            for fd in fds:
                os.close(fd)
            if lent:
                lent.close()
            raise
        for fd in (fds[0], fds[3], *fds[5:]):
            os.close(fd)
        self._gateway = gateway
        self._said = gateway._said
        self._lent = lent
        self._err = lent.passed() if lent else fds[4]
        self._pending = b""  # what was read from its stderr and not passed on yet
        if self._err >= 0:
            os.set_blocking(self._err, False)
        try:
            self._pidfd = lifted(os.pidfd_open(self.pid))
        except (AttributeError, OSError):
            self._pidfd = -1
        pypump.own(*{self._err, self._pidfd} - {-1})
        pywire.trace(f"started process {self.pid}: {os.fsdecode(argv[0])}")
        gateway._process = self
        gateway._connect(fds[2], fds[1], True)
        pump = pypump.pump
        if self._err >= 0:
            pump.watch(self._err, pypump.POLLIN, lambda events: self._read_stderr())
        if self._pidfd >= 0:
            pump.watch(self._pidfd, pypump.POLLIN, lambda events: self._look())
        else:
            pump.after(RETRY, self._look)

    def signal(self, number):
        """Send the process a signal, unless it has ended."""
        try:
            if self.gone:
                pass
            elif pypump.is_ours(self._pidfd):
                signal.pidfd_send_signal(self._pidfd, number)
            else:
                os.kill(self.pid, number)
        except OSError:
            pass

    def _look(self):
        """Check whether the process has ended; if so, reap it and tell the gateway."""
        if self._pidfd >= 0 and not pypump.is_ours(self._pidfd):
            self._drop_pidfd()
        try:
            pid, ended = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:
            pass  # other code of the program has reaped it, or SIGCHLD is ignored: the status stays unknown
        else:
            if pid == 0:
                if self._pidfd < 0:
                    pypump.pump.after(RETRY, self._look)
                return
            self.status = -(ended & 127) if ended & 127 else ended >> 8  # Python 3.8 has no waitstatus_to_exitcode()
        self._read_stderr(True)
        if self._lent:
            self._pass_on_unserved()
        self._drop_pidfd()
        pywire.trace(f"process {self.pid} ended: {self.status}")
        self.gone = True
        if self._said:
            self._said.ended = True
        self._gateway._peer_gone()

    def _drop_pidfd(self):
        if self._pidfd >= 0:
            pypump.pump.forget(self._pidfd)
            fd, self._pidfd = self._pidfd, -1
            pypump.close(fd)

    def said(self):
        """The entries of the gateway's _state() about the process. Any thread."""
        err = self._err  # the I/O thread may close it meanwhile
        ready = err >= 0 and pypump.is_ready(err, pypump.POLLIN)
        passed = not ready and not self._passing  # first `ready`: the I/O thread sets _passing before it reads
        text, words = self._lent.read() if self._lent else (b"", False)
        text = text[:TAIL] if words else text[-TAIL:]
        return {
            "pid": self.pid,
            "ended": self.gone,
            "status": self.status,
            "stderr": text or self.tail,
            "words": words and bool(text),
            "passed": passed,
        }

    def _pass_on_unserved(self):
        """The process has ended, perhaps before it became a worker: pass on what it wrote to the lent file until then."""
        text, words = self._lent.end()
        if not words:
            self._pending = text
            self._pass_on()
            self._pending = b""

    def _read_stderr(self, all=False):
        """Read the process's stderr and pass it on. `all`: the process has ended; read everything, even what our stderr
        cannot take now, because the error text needs the end of it."""
        self._passing = True
        for _ in range(512 if all else 16):
            passed = self._err >= 0 and self._pass_on()
            if self._err < 0 or not passed and not all:
                break
            try:
                data = pypump.is_ours(self._err) and os.read(self._err, PAGE)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            if not data:
                pypump.pump.forget(self._err)
                fd, self._err = self._err, -1
                pypump.close(fd)
                if self._said:
                    self._said.closed = True
                break
            self.tail = (self.tail + data)[-TAIL:]
            if self._said:
                self._said.add(data)
            elif passed:
                self._pending = data
        if self._said:
            self._gateway._wake()
        self._passing = not self._pass_on()
        if self._passing:
            if self._err >= 0:
                pypump.pump.forget(self._err)
            pypump.pump.after(RETRY, self._retry)

    def _retry(self):
        if self._err >= 0:
            pypump.pump.watch(self._err, pypump.POLLIN, lambda events: self._read_stderr())
        self._read_stderr()

    def _pass_on(self):
        """Write _pending to our stderr. False: our stderr takes nothing now."""
        while self._pending:
            try:
                self._pending = self._pending[_write_stderr(self._pending) :]
            except BlockingIOError:
                return False
            except OSError:
                self._pending = b""  # our stderr is closed or broken: nobody reads it
        return True


def _write_stderr(data):
    """As os.write(2, data), but never waits. O_NONBLOCK is not set on fd 2, because other processes may share it."""
    mode = os.fstat(2).st_mode
    if stat.S_ISSOCK(mode):
        with socket.socket(fileno=os.dup(2)) as peer:
            return peer.send(data, socket.MSG_DONTWAIT)
    if stat.S_ISFIFO(mode) or os.isatty(2):
        try:
            fd = os.open("/proc/self/fd/2", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
        except OSError as exc:
            if exc.errno == errno.ENXIO:
                raise
        else:
            try:
                return os.write(fd, data)
            finally:
                os.close(fd)
    if not pypump.is_ready(2, pypump.POLLOUT):
        raise BlockingIOError
    return os.write(2, data)


def _spawn(argv, stdin, stdout, stderr, kept):
    """Start a process and return its pid. As in the I/O thread, SIGINT is blocked in it; a worker unblocks SIGINT when it
    can handle that."""
    # While subprocess reads os.environ another thread may change it. So it gets a copy, which is made in one step.
    env = getattr(os.environ, "_data", None)
    env = env and env.copy()
    try:
        process = unpatched("subprocess").Popen(
            argv, stdin=stdin, stdout=stdout, stderr=stderr, env=env, pass_fds=kept
        )
    except OSError as exc:
        name = os.fsdecode(argv[0])
        raise OSError(exc.errno, f"start a process: {os.strerror(exc.errno)}: {name}") from None
    process.returncode = 0  # so that subprocess does not wait for it: the I/O thread does
    return process.pid
