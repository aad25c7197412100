"""Execution models: where a worker runs its tasks, and the threads, locks and queues that go with it.

- `thread`: the first task gets the worker's main thread, and so does each later one that finds it free; the others get
  threads of their own.
- `main_thread_only`: tasks run in the main thread and nowhere else. One that comes while another runs is refused when
  the main thread has not become free within a second: whoever runs may be waiting for it.
- `gevent`, `eventlet`: each task is a greenlet of the main thread; see greenlets.py.

Programs reach the objects as `gateway.execmodel`, at both ends. They only hand out the standard library's own, or the
greenlet library's, so that a program need not know which model it runs under. This file travels to far ends that have
nothing installed.
"""

import time
from _thread import RLock, get_ident, start_new_thread


def _module(name):
    return property(lambda self: __import__(name))


class ExecModel:
    """What one execution model has in the place of the standard library's modules, functions and types."""

    queue, subprocess, socket = map(_module, ("queue", "subprocess", "socket"))
    get_ident, sleep, Lock, RLock = map(staticmethod, (get_ident, time.sleep, RLock, RLock))
    parking = None  # how greenlets wait

    def __init__(self, backend="thread"):
        self.backend = backend

    def __repr__(self):
        return f"<ExecModel {self.backend!r}>"

    def start(self, func, args=()):
        """Call `func(*args)` in a thread of its own."""
        start_new_thread(func, args)

    def aside(self, func, *args):
        """func(*args), where it holds up nobody else: greenlets share a thread."""
        return func(*args)

    def fdopen(self, fd, mode, bufsize=1, closefd=True):
        """A text file on `fd`, in UTF-8."""
        return open(fd, mode, bufsize, "utf-8", closefd=closefd)

    def Event(self):
        from threading import Event

        return Event()
