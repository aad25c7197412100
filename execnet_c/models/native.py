"""The system's threads, locks, clocks and calls, also where gevent or eventlet have put their own in these places.

The I/O thread, and whoever holds a lock across a wait, must not be a greenlet. Like everything of theirs, this is to be
imported after the patching. A far end that is sent its core gets the names from where they come from (see pack.py).
"""

import atexit
import os
import select
import sys
from types import BuiltinFunctionType, SimpleNamespace

from . import mainthread  # noqa: F401  (threads of ours may start from now on)


def unpatched(name):
    """The module of that name with its own functions; the module itself where nobody has patched it."""
    module = __import__(name)
    gevent, eventlet = sys.modules.get("gevent.monkey"), sys.modules.get("eventlet.patcher")
    if gevent is not None and name in gevent.saved:
        if name == "subprocess":  # its own functions look for others in the module
            from importlib.util import find_spec, module_from_spec

            spec = find_spec(name)
            module = module_from_spec(spec)
            spec.loader.exec_module(module)
            module.os = os
            return module
        own = gevent.saved[name]
    elif eventlet is not None and eventlet.is_monkey_patched(name.strip("_")):
        own = {key: value for key, value in vars(eventlet.original(name)).items() if type(value) is BuiltinFunctionType}
    else:
        return module
    return SimpleNamespace(**{**vars(module), **own})


def in_main_interpreter():
    """False in one that this process has besides."""
    if hasattr(_thread, "_is_main_interpreter"):  # from Python 3.12 on
        return _thread._is_main_interpreter()
    try:
        import _xxsubinterpreters as interpreters
    except ImportError:
        return True
    return interpreters.get_current() == interpreters.get_main()


_thread = unpatched("_thread")
RLock, allocate_lock, get_ident = _thread.RLock, _thread.allocate_lock, _thread.get_ident
sleep = unpatched("time").sleep
os = unpatched("os")  # noqa: F811
select = unpatched("select")  # noqa: F811

# Seconds between two looks for signals. Where the main thread is not the process's first, they do not end its sleep.
is_first = sys.platform != "linux" or _thread.get_native_id() == os.getpid()
LONGEST_SLEEP = 5.0 if is_first else 0.05

if in_main_interpreter():
    at_exit, start_new_thread = atexit.register, _thread.start_new_thread
else:
    from .subinterpreter import at_exit, start_new_thread  # noqa: F401


class Thread:
    """func() in a system thread."""

    def __init__(self, func):
        self._func = func
        self._running = allocate_lock()

    def start(self):
        self._running.acquire()
        start_new_thread(self._run, ())

    def _run(self):
        try:
            self._func()
        finally:
            self._running.release()

    def join(self, timeout=-1):
        """Wait for its end, for so many seconds at most."""
        if self._running.acquire(True, timeout):
            self._running.release()
