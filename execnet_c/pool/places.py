"""How many workers a pool has, and where."""

from .limits import cpus


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
