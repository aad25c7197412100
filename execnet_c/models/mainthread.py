"""Keeps threading.main_thread() right if a thread of ours is the first to import `threading`.

Before Python 3.13 `threading` takes the thread that imports it for the main thread: main_thread() is wrong from then on,
and the end of the interpreter waits for a thread that may never end. To import it beforehand would make a start a third
longer. So this module, which is imported before a thread of ours starts, puts a finder at the front of sys.meta_path. The
finder corrects `threading` when it is imported, before anybody can use it.
"""

import sys
from _thread import allocate_lock, get_ident


class _Finder:
    """Stands in sys.meta_path until `threading` has been imported. It is that module's loader, too."""

    def find_spec(self, name, path=None, target=None):
        if "threading" in sys.modules:
            # A new list: another thread's import may be walking through the old one.
            sys.meta_path = [finder for finder in sys.meta_path if finder is not self]
        elif name == "threading":
            return self._find(name)

    def _find(self, name):
        # As long as `cores` is not there yet, no thread of ours runs: this is the main thread.
        self._main = getattr(sys.modules.get(__package__.partition(".")[0] + ".cores"), "main_thread_ident", get_ident)()
        for finder in sys.meta_path:
            if get_ident() != self._main and finder is not self and hasattr(finder, "find_spec"):
                spec = finder.find_spec(name, None)
                if spec:
                    self._loader, spec.loader = spec.loader, self
                    return spec

    def create_module(self, spec):
        """None: Python makes the module as usual."""

    def exec_module(self, module):
        loader = module.__loader__ = module.__spec__.loader = self._loader
        loader.exec_module(module)
        thread, lock = module._main_thread, allocate_lock()
        # `thread` gets another lock, because the one it has is released when this thread ends. threading._shutdown()
        # releases the main thread's lock itself, and must not wait for it.
        lock.acquire()
        module._shutdown_locks.discard(thread._tstate_lock)
        thread._tstate_lock = lock
        del module._active[get_ident()]
        module._active[self._main] = thread
        thread._ident = self._main
        # On other systems only the main thread itself could find it out.
        thread._native_id = module._os.getpid() if sys.platform == "linux" else None


if sys.version_info < (3, 13) and "threading" not in sys.modules:
    sys.meta_path.insert(0, _Finder())
