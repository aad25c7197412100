"""The system's own threads, locks, clocks and calls, also in a program that gevent or eventlet has patched.

The I/O thread, and code that holds a lock while it waits, must not run in a greenlet. This module has to be imported after
the patching. A far end that is sent its core gets these names without this file (see pack.py).
"""

import atexit
import os
import select
import sys
from types import BuiltinFunctionType, SimpleNamespace

from . import mainthread  # noqa: F401  (has to be imported before a thread of ours starts)


def unpatched(name):
    """The module of that name with its own functions; the module itself if it has not been patched."""
    module = __import__(name)
    gevent, eventlet = sys.modules.get("gevent.monkey"), sys.modules.get("eventlet.patcher")
    if gevent is not None and name in gevent.saved:
        if name == "subprocess":  # its functions use each other through the module
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
    """Whether this is the process's main interpreter, and no subinterpreter."""
    if hasattr(_thread, "_is_main_interpreter"):  # from Python 3.12 on
        return _thread._is_main_interpreter()
    try:
        import _xxsubinterpreters as interpreters
    except ImportError:
        return True
    return interpreters.get_current() == interpreters.get_main()


_thread = unpatched("_thread")
RLock, allocate_lock, get_ident = _thread.RLock, _thread.allocate_lock, _thread.get_ident
if sys.version_info[:2] == (3, 14):
    from .locks import safe

    RLock, allocate_lock = safe(RLock), safe(allocate_lock)
sleep = unpatched("time").sleep
os = unpatched("os")  # noqa: F811
select = unpatched("select")  # noqa: F811

# Seconds after which a sleep ends to look for signals. If Python's main thread is not the process's first thread, signals
# do not end its sleeps.
is_first = sys.platform != "linux" or _thread.get_native_id() == os.getpid()
LONGEST_SLEEP = 5.0 if is_first else 0.05

if in_main_interpreter():
    at_exit, start_new_thread = atexit.register, _thread.start_new_thread
else:
    from .subinterpreter import at_exit, start_new_thread  # noqa: F401


class Thread:
    """Runs func() in a system thread."""

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
        """Wait for the thread's end, for `timeout` seconds at most."""
        if self._running.acquire(True, timeout):
            self._running.release()
