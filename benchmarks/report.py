"""What the measurements say: facts about the machine, medians with their spread, ratios, and the table of them."""

import os
import platform
import statistics

import peers


def machine():
    """Facts that a number means nothing without."""
    return {
        "cpu": _cpu_model(),
        "cpus": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_before": os.getloadavg()[0],
    }


def _cpu_model():
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.machine()


def ratios(ours, theirs, more_is_better):
    """How many times better we are, round by round: what disturbs the machine for a while disturbs both sides."""
    return [a / b if more_is_better else b / a for a, b in zip(ours, theirs) if a is not None and b is not None]


def summary(values):
    """{"median", "min", "max", "rounds"} of the rounds that gave a number, or None."""
    values = [value for value in values if value is not None]
    if not values:
        return None
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "rounds": len(values)}


def number(value):
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def rows(line, values, absent):
    """The table's rows for one line: one a peer, ours first. `values`: peer -> a number (or None) for each round."""
    title = line.title
    for peer, numbers in values.items():
        found = summary(numbers)
        if found is None:
            yield f"{title:40} {peer:22} {absent.get(peer, 'no number')}"
        else:
            text = f"{number(found['median']):>8} {line.unit:7} ({number(found['min'])} - {number(found['max'])})"
            times = summary(ratios(values[peers.OURS], numbers, line.more_is_better))
            if peer != peers.OURS and times is not None:
                text = f"{text:38} {times['median']:7.2f}  ({times['min']:.2f} - {times['max']:.2f})"
            yield f"{title:40} {peer:22} {text}"
        title = ""


HEAD = f"{'':40} {'':22} {'median':>8} {'':7} {'(min - max)':21} {'x':>7}  (min - max)"
LEGEND = f"x: how many times better {peers.OURS} is than that peer (median of the rounds' own ratios); below 1: worse."
