"""How a worker on the plain-Python core ends: a watcher process sees to it, because this one's threads see nothing
while a task's C code keeps the GIL.

A hang-up without a goodbye: SIGINT to the task at once, SIGKILL 1.5 seconds later. After a goodbye the timeouts are execnet's:
5 seconds, SIGINT, 10 seconds, SIGKILL.

The watcher is forked before there is any thread, and twice, so that it is no child of the task, whose os.waitpid(-1)
would see it. It polls the connection, which a goodbye ends in one direction, and a hang-up in both. To see that, it
holds the worker's writing end, too, and ends when the worker does, or nobody would see that one's end. What the worker
knows it tells over a pipe: `g` goodbye, `h` hang-up (of which the connection need not know), `i` no task runs any more.
The end of that pipe, or of the process, ends the watcher.
"""

import sys
from _signal import SIGINT, SIGKILL
from time import monotonic

from . import pypump
from ..models.native import os, select

GOODBYE_TIMEOUT, LAST_CHANCE, HANGUP_GRACE = 5.0, 10.0, 1.5  # seconds
WORD_GRACE = 0.25  # seconds that the worker has to say what a hang-up means


def start(fd_in, fd_out):
    """Fork the watcher of this process; return the fd to tell it by, None where there can be no such process, and the
    pid of a child that is about to end, for reap()."""
    worker = os.getpid()
    try:
        ear, mouth = os.pipe()
    except OSError:
        return None, None
    try:
        if worker == 1:
            return _start_under_init(fd_in, fd_out, ear, mouth), None
        child = os.fork()
    except OSError:
        os.close(ear)
        os.close(mouth)
        return None, None
    if child == 0:
        try:
            if os.fork() == 0:
                os.setsid()
                _leave(mouth)
                _watch(worker, fd_in, fd_out, ear)
        finally:
            os._exit(0)
    os.close(ear)
    pypump.own(mouth)
    return mouth, child


def reap(child):
    try:
        os.waitpid(child, 0)
    except ChildProcessError:
        pass  # SIGCHLD is ignored


def _start_under_init(fd_in, fd_out, ear, mouth):
    """Nobody inside a pid namespace can kill its process 1: that one is the watcher then, and the worker its child."""
    child = os.fork()
    if child == 0:
        os.close(ear)
        pypump.own(mouth)
        return mouth
    status = 1
    try:
        _leave(mouth)
        _watch(child, fd_in, fd_out, ear)
        while True:
            pid, ended = os.wait()
            if pid == child:
                status = 128 + (ended & 127) if ended & 127 else ended >> 8
                break
    finally:
        os._exit(status)


def _leave(mouth):
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    for fd in (mouth, null):
        os.close(fd)
    # What stands in PYTHONPATH or the current directory must not keep us from ending the worker.
    library = os.path.dirname(os.__file__)
    sys.path.sort(key=lambda entry: not (entry.startswith(library) or "lib-dynload" in entry))


def _watch(worker, fd_in, fd_out, ear):
    poll = select.poll()
    poll.register(fd_in, select.POLLHUP | getattr(select, "POLLRDHUP", 0))
    poll.register(fd_out, 0)  # nobody reads a pipe, or both directions of a socket are closed: that is told unasked
    poll.register(ear, select.POLLIN)
    end = -1
    if hasattr(os, "pidfd_open"):  # without it a fork of the task may hold the pipe's other end
        try:
            end = os.pidfd_open(worker)
            poll.register(end, select.POLLIN)
        except OSError:
            pass
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
                if fd_out >= 0:  # the worker knows: its own end is the only one from now on
                    if read:
                        poll.unregister(fd_out)
                    os.close(fd_out)
                    fd_out = -1
                word = os.read(ear, 16)
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
            # It cannot speak: a task keeps the GIL.
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
    now = now or monotonic()
    return [(now + first, SIGINT), (now + first + second, SIGKILL)]


def tell(mouth, word, busy):
    """On the I/O thread: tell the watcher; without one do its part, as far as the GIL lets us."""
    if mouth is not None:
        try:
            pypump.check(mouth)
            os.write(mouth, word)
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
