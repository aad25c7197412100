"""The watcher: a process that ends a worker on the plain-Python core. The worker's own threads cannot do that while C code
of a task holds the GIL.

After a hang-up (the connection ended without a goodbye) it sends SIGINT at once, SIGKILL 1.5 seconds later. After a goodbye
it has execnet's timeouts: 5 seconds, SIGINT, 10 seconds, SIGKILL.

The watcher is forked before there is any thread. It is forked twice, so that it is not the worker's child: os.waitpid(-1)
in a task would return it. It polls both fds of the connection: a goodbye ends only the direction to the worker, a hang-up
both. For that it holds a copy of the fd to which the worker writes. So it has to end when the worker does, or else the near
end would see no end of file.

The worker tells the watcher, through a pipe, what it learns itself: `g` goodbye, `h` hang-up (if a frame was broken, say,
the fds show nothing of it), `i` no task runs any more. The watcher ends when the worker or that pipe does.
"""

import sys
from _signal import SIGINT, SIGKILL
from time import monotonic

from . import pypump
from ..models.native import os, select

GOODBYE_TIMEOUT, LAST_CHANCE, HANGUP_GRACE = 5.0, 10.0, 1.5  # seconds
NAP = 30  # milliseconds; the watcher has to compile what it runs, and the first task's word comes first
WORD_GRACE = 0.25  # seconds that the worker has to tell whether an end that the watcher saw was a goodbye


def start(fd_in, fd_out):
    """Fork the watcher of this process. Returns the writing end of the pipe to it (None if no process could be forked), and
    the pid of the child in between, for reap()."""
    worker = os.getpid()
    try:
        r, w = os.pipe()
    except OSError:
        return None, None
    try:
        if worker == 1:
            return _start_under_init(fd_in, fd_out, r, w), None
        child = os.fork()
    except OSError:
        os.close(r)
        os.close(w)
        return None, None
    if child == 0:
        try:
            if os.fork() == 0:
                os.setsid()
                os.close(w)
                poll = select.poll()
                poll.register(r, select.POLLIN)
                poll.poll(NAP)
                _leave()
                _watch(worker, fd_in, fd_out, r)
        finally:
            os._exit(0)
    os.close(r)
    pypump.own(w)
    return w, child


def reap(child):
    try:
        os.waitpid(child, 0)
    except ChildProcessError:
        pass  # SIGCHLD is ignored


def _start_under_init(fd_in, fd_out, r, w):
    """This is process 1 of a pid namespace, to which no process of the namespace can send SIGKILL. So this process becomes
    the watcher, and its child the worker."""
    child = os.fork()
    if child == 0:
        os.close(r)
        pypump.own(w)
        return w
    status = 1
    try:
        os.close(w)
        _leave()
        _watch(child, fd_in, fd_out, r)
        while True:
            pid, ended = os.wait()
            if pid == child:
                status = 128 + (ended & 127) if ended & 127 else ended >> 8
                break
    finally:
        os._exit(status)


def _leave():
    """In the watcher: give up the standard streams."""
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.close(null)
    # Import from the standard library first: PYTHONPATH or the current directory may have modules of the same names.
    library = os.path.dirname(os.__file__)
    sys.path.sort(key=lambda entry: not (entry.startswith(library) or "lib-dynload" in entry))


def _watch(worker, fd_in, fd_out, r):
    """What the watcher does until the worker has ended. r: the end of the pipe through which the worker tells it."""
    poll = select.poll()
    poll.register(fd_in, select.POLLHUP | getattr(select, "POLLRDHUP", 0))
    poll.register(fd_out, 0)  # poll() still reports POLLERR (nobody reads the pipe) and POLLHUP (a socket has ended)
    poll.register(r, select.POLLIN)
    end = -1
    if hasattr(os, "pidfd_open"):  # the end of the pipe is not enough: a forked child of the task may hold it open
        try:
            end = os.pidfd_open(worker)
            poll.register(end, select.POLLIN)
        except OSError:
            pass
    # words: what the worker has told. plan: signals to send, see _plan(). asked: until when the worker may tell what the
    # end that we saw was. read: the near end still reads what the worker writes.
    words, plan, asked, read = b"", [], None, True
    while True:
        pause = None
        if plan or asked:
            pause = max(0, ((plan[0][0] if plan else asked) - monotonic()) * 1000)
        for ready, _ in poll.poll(pause):
            if ready == fd_in:
                poll.unregister(fd_in)
                asked = monotonic() + WORD_GRACE
            elif ready == end:
                return
            elif ready == fd_out:
                poll.unregister(fd_out)
                read = False
            else:
                if fd_out >= 0:  # the worker knows of the end: from now on it alone decides when fd_out is closed
                    if read:
                        poll.unregister(fd_out)
                    os.close(fd_out)
                    fd_out = -1
                word = os.read(r, 16)
                words += word
                if not word or (b"g" in words and b"i" in words):
                    return
                if b"g" in word:
                    plan = _plan(GOODBYE_TIMEOUT, LAST_CHANCE)
                elif b"h" in word:
                    plan = plan or _plan(0, HANGUP_GRACE)
                asked = None
        now = monotonic()
        if asked and not plan and now >= asked:
            # The worker has told nothing: a task holds the GIL.
            asked = None
            plan = _plan(GOODBYE_TIMEOUT, LAST_CHANCE) if read else _plan(0, HANGUP_GRACE, now - WORD_GRACE)
        if plan and now >= plan[0][0]:
            try:
                os.kill(worker, plan.pop(0)[1])
            except ProcessLookupError:
                return
            if not plan:
                return


def _plan(first, second, now=None):
    """SIGINT `first` seconds from now, SIGKILL `second` seconds after that, as [(time, signal)]."""
    now = now or monotonic()
    return [(now + first, SIGINT), (now + first + second, SIGKILL)]


def tell(w, word, busy):
    """On the I/O thread: tell the watcher. If there is none, do its work in this thread, as far as the GIL allows.
    busy(): whether a task runs."""
    if w is not None:
        try:
            pypump.check(w)
            os.write(w, word)
        except OSError:
            pass
        return
    me, pump = os.getpid(), pypump.pump

    def interrupt():
        if busy():
            os.kill(me, SIGINT)
        pump.after(LAST_CHANCE if word == b"g" else HANGUP_GRACE, kill)

    def kill():
        if word == b"h" or busy():
            os.kill(me, SIGKILL)

    if word in b"gh":
        pump.after(GOODBYE_TIMEOUT if word == b"g" else 0, interrupt)
