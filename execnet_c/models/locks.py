"""Locks for Python 3.14, where `with lock:` may lose a lock: if a signal handler raises right behind __enter__, nobody calls
__exit__ (https://github.com/python/cpython/issues/148874). Each function written in C has such a moment behind it.
"""

ONCE = (True,)


class Lock:
    """A lock or RLock. In __enter__ an instruction takes it that is no call, and none that looks for signals comes behind."""

    __slots__ = ("__exit__", "_is_owned", "acquire", "locked", "release")

    def __init__(self, lock):
        for name in self.__slots__:
            if hasattr(lock, name):
                setattr(self, name, getattr(lock, name))

    def __enter__(self):
        [_] = map(self.acquire, ONCE)


def safe(make):
    return lambda: Lock(make())
