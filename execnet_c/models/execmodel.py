"""Execution models: where a worker runs its tasks, and the threads, locks and queues that go with it.

- `thread`: the first task runs in the worker's main thread, and so does each later one that finds it free; other tasks
  run in threads of their own.
- `main_thread_only`: tasks run in the main thread only. A task that comes while another one runs waits for a second and
  is then refused: the running task may be waiting for it, for ever.
- `gevent`, `eventlet`: each task is a greenlet of the main thread; see greenlets.py.

`gateway.execmodel`, at both ends, is an ExecModel. Its members are those of the standard library or of the greenlet
library, so that a program need not know under which model it runs. This file travels to far ends that have nothing
installed.
"""

import time
from _thread import RLock, get_ident, start_new_thread


def _module(name):
    return property(lambda self: __import__(name))


class ExecModel:
    """The modules, functions and types of one execution model, which programs use instead of the standard library's."""

    queue, subprocess, socket = map(_module, ("queue", "subprocess", "socket"))
    get_ident, sleep, Lock, RLock = map(staticmethod, (get_ident, time.sleep, RLock, RLock))
    parking = None  # of a greenlet model: its Parking, see greenlets.py

    def __init__(self, backend="thread"):
        self.backend = backend

    def __repr__(self):
        return f"<ExecModel {self.backend!r}>"

    def start(self, func, args=()):
        """Call `func(*args)` in a thread of its own."""
        start_new_thread(func, args)

    def aside(self, func, *args):
        """func(*args). In a greenlet model on another thread, so that the other greenlets of this one go on."""
        return func(*args)

    def fdopen(self, fd, mode, bufsize=1, closefd=True):
        """A text file on `fd`, in UTF-8."""
        return open(fd, mode, bufsize, "utf-8", closefd=closefd)

    def Event(self):
        from threading import Event

        return Event()
