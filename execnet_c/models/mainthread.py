"""The main thread stays the main one where a thread of ours is the first to import `threading`.

Until Python 3.13 `threading` takes the thread that imports it for the main thread: main_thread() is wrong from then on,
and the end of the interpreter waits for a thread that may never end. To import it beforehand would take as long as a
third of a start does. So importing this, before a thread of ours is started, puts a finder in front of the others, and
that corrects the module before anybody can use it.
"""

import sys
from _thread import allocate_lock, get_ident


class _Finder:
    """Stands in sys.meta_path until `threading` is there. It is the module's loader, too."""

    def find_spec(self, name, path=None, target=None):
        if "threading" in sys.modules:
            # Into a new list: some import may be on its way along this one.
            sys.meta_path = [finder for finder in sys.meta_path if finder is not self]
        elif name == "threading":
            return self._find(name)

    def _find(self, name):
        # While that is only being loaded there are no threads of ours.
        self._main = getattr(sys.modules.get(__package__.partition(".")[0] + ".cores"), "main_thread_ident", get_ident)()
        for finder in sys.meta_path:
            if get_ident() != self._main and finder is not self and hasattr(finder, "find_spec"):
                spec = finder.find_spec(name, None)
                if spec:
                    self._loader, spec.loader = spec.loader, self
                    return spec

    def create_module(self, spec):
        """As usual."""

    def exec_module(self, module):
        loader = module.__loader__ = module.__spec__.loader = self._loader
        loader.exec_module(module)
        thread, lock = module._main_thread, allocate_lock()
        # The lock that it has is released when this thread ends. Whoever ends the interpreter releases the main
        # thread's, and must not wait for it.
        lock.acquire()
        module._shutdown_locks.discard(thread._tstate_lock)
        thread._tstate_lock = lock
        del module._active[get_ident()]
        module._active[self._main] = thread
        thread._ident = self._main
        # Elsewhere nobody but the thread itself could say.
        thread._native_id = module._os.getpid() if sys.platform == "linux" else None


if sys.version_info < (3, 13) and "threading" not in sys.modules:
    sys.meta_path.insert(0, _Finder())
