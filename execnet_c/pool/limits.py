"""What a worker may use of its machine: CPUs, threads, memory. It is sent to the workers, so it runs on Python 3.8 and needs no
package there.
"""

import os
import sys

# OpenBLAS, MKL, BLIS and numexpr fall back on the first one.
THREADS = (
    *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"),
    "BLIS_NUM_THREADS",
)


def _quota(own="/proc/self/cgroup", root="/sys/fs/cgroup"):
    """How many CPUs the cgroup of this process may use at a time; None where it says nothing."""
    try:
        with open(own) as file:
            lines = [line.rstrip("\n").split(":", 2) for line in file if line.count(":") > 1]
    except OSError:
        return None
    found = []
    for _, kinds, path in lines:
        if not kinds:
            while True:
                found.append(_numbers(f"{root}{path.rstrip('/')}/cpu.max"))
                if path in ("", "/"):
                    break
                path = os.path.dirname(path)
        elif "cpu" in kinds.split(","):
            for folder in (path.rstrip("/"), ""):
                at = f"{root}/{kinds}{folder}/cpu.cfs_"
                found.append(_numbers(f"{at}quota_us", f"{at}period_us"))
    return min((quota / period for quota, period in filter(None, found)), default=None)


def _numbers(*paths):
    """(quota, period) of the files; None if there is no limit."""
    words = []
    try:
        for path in paths:
            with open(path) as file:
                words += file.read().split()
        quota, period = int(words[0]), int(words[1])
    except (OSError, ValueError, IndexError):
        return None
    return (quota, period) if quota > 0 and period > 0 else None


def cpus():
    """How many CPUs this process may use: its affinity, and the limit of its cgroup, rounded up."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota()
    return count if quota is None else max(1, min(count, -int(-quota // 1)))


class Limits:
    """Those of one task, which is in the place `place` of `workers` on its machine. What it raises says why not."""

    def __init__(self, place, workers, affinity, threads, memory, kept):
        self._undo = []
        share = max(1, cpus() // workers)
        try:
            if affinity is not None:
                self._pin(affinity, place)
                share = 1
            if threads is not None:
                self._cap(share if threads == "share" else threads, os.environ if threads == "share" else kept)
            if memory is not None:
                self._bound(memory)
        except BaseException:
            self.lift()
            raise

    def lift(self):
        while self._undo:
            undo, *args = self._undo.pop()
            undo(*args)

    def _pin(self, affinity, place):
        if not hasattr(os, "sched_setaffinity"):
            raise OSError(f"affinity={affinity!r}: its system has no sched_setaffinity()")
        before = os.sched_getaffinity(0)  # of this thread, and those that it starts
        among = sorted(before) if affinity == "spread" else affinity
        cpu = among[place % len(among)]
        try:
            os.sched_setaffinity(0, [cpu])
        except (OSError, ValueError, OverflowError):
            raise OSError(f"affinity={affinity!r}: CPU {cpu} cannot be used, but of these one can: {sorted(before)}") from None
        self._undo.append((os.sched_setaffinity, 0, before))

    def _cap(self, number, kept):
        """`kept`: variables that the user has set."""
        if THREADS[0] in kept:
            return
        for name in THREADS:
            if name not in kept:
                self._undo.append((_set_variable, name, os.environ.get(name)))
                os.environ[name] = str(number)
        loaded = sys.modules.get("threadpoolctl")  # with libraries that read no variable any more
        if loaded is not None:
            self._undo.append((loaded.threadpool_limits(number).__exit__, None, None, None))

    def _bound(self, memory):
        try:
            import resource

            before = resource.getrlimit(resource.RLIMIT_AS)
        except (ImportError, AttributeError):
            raise OSError(f"memory={memory}: its system has no RLIMIT_AS") from None
        has = _address_space()
        if has > memory:
            raise OSError(f"memory={memory}: it has {has} bytes already")
        try:
            resource.setrlimit(resource.RLIMIT_AS, (memory, before[1]))
        except (OSError, ValueError) as exc:
            raise OSError(f"memory={memory}: {exc}") from None
        self._undo.append((resource.setrlimit, resource.RLIMIT_AS, before))


def _set_variable(name, value):
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


def _address_space():
    """Bytes; 0 where nobody knows."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0
