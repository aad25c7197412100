"""How many workers a pool has, and where."""

import os
from pathlib import Path


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
    try:
        words = [word for path in paths for word in Path(path).read_text().split()]
        quota, period = int(words[0]), int(words[1])
    except (OSError, ValueError, IndexError):
        return None
    return (quota, period) if quota > 0 and period > 0 else None


def cpus():
    """How many CPUs this process may use: its affinity, and the limit of its cgroup, rounded up."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota()
    return count if quota is None else max(1, min(count, -int(-quota // 1)))


def whole(name, number, least=1):
    """`number`, which must be an int. Raises ValueError otherwise."""
    if type(number) is not int or number < least:
        raise ValueError(f"{name}={number!r}: it may be {least} or a larger int")
    return number


def specs_of(specs, max_workers):
    """The spec of each worker. With more workers than specs, these take turns."""
    if max_workers is not None:
        whole("max_workers", max_workers)
    if specs is None:
        return ["popen"] * (cpus() if max_workers is None else max_workers)
    if isinstance(specs, str):
        raise ValueError(f"specs={specs!r}: it is a list of specs, as in specs=[{specs!r}]")
    specs = list(specs)
    if not specs:
        raise ValueError("specs=[]: it must have at least one spec, as in specs=['popen']; None: as many popen as there are CPUs")
    count = len(specs) if max_workers is None else max_workers
    return [specs[n % len(specs)] for n in range(count)]


def workers_of(specs, group, max_workers):
    """(what makes a crew have these workers, how many they are). The gateways of `group` stay."""
    if group is None:
        specs = specs_of(specs, max_workers)
        return (lambda crew: crew.start(specs)), len(specs)
    if specs is not None:
        raise ValueError("specs and group: it may be one of them")
    gateways = [*group][: None if max_workers is None else whole("max_workers", max_workers)]
    if not gateways:
        raise ValueError("the group has no gateways: make some with makegateway()")
    return (lambda crew: crew.take_on(gateways)), len(gateways)
