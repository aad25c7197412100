"""The report of a run: facts about the machine, medians with their spread, ratios; as JSON, as a table and as plots."""

import json
import os
import platform
import random
import re
import statistics
import subprocess

import peers

SAMPLES = 2000  # that the bootstrap draws


def machine():
    """Facts about this machine, without which the numbers mean nothing."""
    return {
        "cpu": _first("/proc/cpuinfo", r"model name\s*: (.*)") or platform.machine(),
        "cpus": len(os.sched_getaffinity(0)),
        "memory_mib": int(_first("/proc/meminfo", r"MemTotal:\s*(\d+)") or 0) // 1024,
        "kernel": platform.release().split("-")[0],
        "python": platform.python_version(),
        "compiler": platform.python_compiler(),
        "ssh": _said(["ssh", "-V"]),
        "load_before": os.getloadavg()[0],
    }


def _first(path, pattern):
    try:
        with open(path) as file:
            found = re.search(pattern, file.read())
    except OSError:
        return None
    return found and found[1].strip()


def _said(command):
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    except OSError:
        return None
    return (done.stdout + done.stderr).strip()


def ratios(ours, theirs, more_is_better):
    """How many times better we are, for each round: what disturbs the machine for a while disturbs both numbers of a
    round."""
    return [
        a / b if more_is_better else b / a
        for a, b in zip(ours, theirs)
        if a is not None and b is not None and (b if more_is_better else a) > 0
    ]


def quartiles(values):
    if len(values) < 4:
        return [min(values), max(values)]
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return [first, third]


def interval(values):
    """The interval that has the median in 95 of 100 cases, by bootstrap. Of fewer than five values: the least and the
    most."""
    if len(values) < 5:
        return [min(values), max(values)]
    source = random.Random(1)
    medians = sorted(statistics.median(source.choices(values, k=len(values))) for _ in range(SAMPLES))
    return [medians[int(SAMPLES * 0.025)], medians[int(SAMPLES * 0.975) - 1]]


def figures(values, spread):
    """{"median", "spread", "rounds"} of the values that are not None; None if there are none."""
    values = [value for value in values if value is not None]
    if not values:
        return None
    ends = [rounded(end) for end in spread(values)]
    return {"median": rounded(statistics.median(values)), "spread": ends, "rounds": len(values)}


def collected(facts, results, works):
    """The whole report as a dict, ready for JSON."""
    found = {"machine": facts, "versions": results.versions, "failures": results.failures, "works": {}}
    for name, work in works.items():
        found["works"][name] = {
            "title": work.title,
            "missing": {peer: why[name] for peer, why in results.missing.items() if name in why},
            "left_out": results.left_out.get(name, {}),
            "lines": {line: _line(work.lines[line], results.values.get(line, {})) for line in work.lines},
        }
    return found


def _line(line, values):
    found = {"title": line.title, "unit": line.unit, "more_is_better": line.more_is_better, "peers": {}}
    for peer, numbers in values.items():
        found["peers"][peer] = {"values": [rounded(number) for number in numbers], "figures": figures(numbers, quartiles)}
        if peer != peers.OURS and peers.OURS in values:
            times = ratios(values[peers.OURS], numbers, line.more_is_better)
            found["peers"][peer]["ratio"] = figures(times, interval)
    return found


def rounded(value):
    """The value with five digits: a measurement is not more exact."""
    return None if value is None else float(f"{value:.5g}")


def number(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


ROW = "{:42} {:22} {:>9} {:7} {:21} {:>8}  {}"


def rows(line):
    """The rows of the table for one line of the report: one for each peer, ours first."""
    title = line["title"]
    for peer, found in line["peers"].items():
        if found["figures"] is None:
            continue
        low, high = map(number, found["figures"]["spread"])
        ratio, within = "", ""
        if found.get("ratio"):
            ratio = number(found["ratio"]["median"])
            within = "({} - {})".format(*map(number, found["ratio"]["spread"]))
        median = number(found["figures"]["median"])
        yield ROW.format(title, peer, median, line["unit"], f"({low} - {high})", ratio, within).rstrip()
        title = ""


def table(found):
    facts = found["machine"]
    lines = [
        f"{facts['cpu']}, {facts['cpus']} CPUs, {facts['memory_mib']} MiB, Linux {facts['kernel']}",
        f"Python {facts['python']} ({facts['compiler']}), {facts['ssh'] or 'no ssh'}",
        "versions: " + ", ".join(f"{peer} {version}" for peer, version in found["versions"].items()),
        f"tagged text: {', '.join(facts['texts']) or 'none'}",
        f"{facts['seconds']} seconds; load average {facts['load_before']:.2f} before, {facts['load_after']:.2f} after",
        *([f"{facts['size']}: the works are smaller than their titles say"] if facts["size"] != "full" else []),
        *([f"not asked for: {', '.join(facts['not_asked'])}"] if facts["not_asked"] else []),
        "",
        ROW.format("", "", "median", "", "(quartiles)", "x", "(95 % of it)"),
    ]
    for work in found["works"].values():
        lines += ["", work["title"]]
        for line in work["lines"].values():
            lines += rows(line)
        for kind, whys in (("missing", work["missing"]), ("left out", work["left_out"])):
            lines += [f"  {kind}: {peer} ({why})" for peer, why in whys.items()]
    lines += [
        "",
        f"x: how many times better {peers.OURS} is than that one, the median of the rounds' own ratios with its 95 %",
        "confidence interval by bootstrap (of fewer than five rounds: the least and the most); below 1: worse. Of fewer",
        "than four rounds the least and the most stand for the quartiles, too.",
    ]
    lines += [f"failed: {failure}" for failure in found["failures"]]
    return "\n".join(lines) + "\n"


def write(found, subjects, directory):
    """Write results.json, table.txt, and a plot for each subject."""
    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, "results.json"), "w") as file:
        json.dump(found, file, indent=1)
        file.write("\n")
    with open(os.path.join(directory, "table.txt"), "w") as file:
        file.write(table(found))
    try:
        import plots
    except ImportError as error:
        print(f"no plots: {error}")
        return
    for subject, works in subjects.items():
        path = os.path.join(directory, f"{subject.replace(' ', '-')}.svg")
        plots.draw([found["works"][work] for work in works if work in found["works"]], path)
