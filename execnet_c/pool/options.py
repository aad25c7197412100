"""worker_options: what they may be, and what each worker is told of them. limits.py does it there."""

from ..near.source import source_of
from ..near.ssh import host_of
from . import limits
from .places import whole

POSSIBLE = ("affinity", "memory", "threads")
MOST = (1 << 63) - 1


def options_of(options, owns):
    """`worker_options`, checked, with the defaults: whether the pool `owns` its workers decides about threads."""
    if options is None:
        options = {}
    if not isinstance(options, dict):
        raise ValueError(f"worker_options={options!r}: it is a dict")
    for name in options:
        if name not in POSSIBLE:
            raise ValueError(f"worker_options: {name!r} is unknown; it may have {', '.join(POSSIBLE)}")
    affinity, memory = options.get("affinity"), options.get("memory")
    threads = options.get("threads", "share" if owns else None)
    if affinity not in (None, "spread"):
        if not isinstance(affinity, (list, tuple)) or not affinity or any(type(cpu) is not int or cpu < 0 for cpu in affinity):
            raise ValueError(f"worker_options: affinity={affinity!r}: it may be 'spread', a list of CPUs' numbers, or None")
        affinity = list(affinity)
    if threads not in (None, "share") and (type(threads) is not int or threads < 1):
        raise ValueError(f"worker_options: threads={threads!r}: it may be a number, 'share', or None")
    if memory is not None and whole("worker_options: memory", memory) > MOST:
        raise ValueError(f"worker_options: memory={memory}: it may be {MOST} at most")
    return {"affinity": affinity, "threads": threads, "memory": memory}


def machine_of(gateway):
    """A name for the machine of a gateway; gateways of one machine have the same, as far as their specs tell."""
    spec = gateway.spec
    if spec.ssh or spec.vagrant_ssh:
        return host_of(spec).rpartition("@")[2]
    if spec.popen or spec.installvia:
        outer = gateway._outer or getattr(gateway, "_installer", None)
        return None if outer is None else machine_of(outer)
    return str(spec.socket).rpartition(":")[0]


def told(options, gateways):
    """For each gateway what its worker needs for Limits, and the source of that; None if there is nothing to do."""
    if not any(options.values()):
        return [None for _ in gateways]
    source, machines = source_of(limits)[0], [machine_of(gateway) for gateway in gateways]
    return [
        (source, {"place": machines[:n].count(machine), "workers": machines.count(machine), "kept": [*gateway.spec.env], **options})
        for n, (machine, gateway) in enumerate(zip(machines, gateways))
    ]
