"""Measures execnet_c beside execnet, multiprocessing.Pipe and pickle.

    python run.py [--quick] [--rounds N] [--only WORK ...] [--json FILE]

The peers take turns (A B C, A B C, ...), each measurement in a process of its own, so that nothing is shared and what
disturbs the machine disturbs all of them. Prints a table of medians; exits with 1 if a measurement failed.
"""

import argparse
import json
import os
import subprocess
import sys
import time

import corpus
import report
from measure import WORKS

HERE = os.path.dirname(os.path.abspath(__file__))
ROUNDS, QUICK_ROUNDS = 9, 3
PATIENCE = 120.0  # seconds for one measurement


def measure(work, peer, quick):
    """The numbers of one measurement, or {"missing": why} or {"failed": why}."""
    command = [sys.executable, os.path.join(HERE, "measure.py"), work, peer] + ["--quick"] * quick
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", timeout=PATIENCE
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"no result within {PATIENCE:.0f} seconds"}
    if done.returncode != 0:
        return {"failed": f"exit status {done.returncode}: {done.stderr.strip()[-2000:]}"}
    return json.loads(done.stdout)


class Results:
    def __init__(self):
        self.values = {}  # line -> peer -> a number or None for each round
        self.versions = {}
        self.missing = {}  # peer -> why
        self.failures = []

    def add(self, work, peer, outcome):
        for line in WORKS[work].lines:
            self.values.setdefault(line, {}).setdefault(peer, []).append(outcome.get(line))
        if "version" in outcome:
            self.versions[peer] = outcome["version"]
        if "missing" in outcome:
            self.missing[peer] = outcome["missing"]
        if "failed" in outcome:
            self.failures.append(f"{work} with {peer}: {outcome['failed']}")

    def as_json(self):
        lines = {}
        for work in WORKS.values():
            for name, line in work.lines.items():
                lines[name] = {
                    "title": line.title.strip(),
                    "unit": line.unit,
                    "more_is_better": line.more_is_better,
                    "peers": {
                        peer: {"rounds": numbers, "summary": report.summary(numbers)}
                        for peer, numbers in self.values.get(name, {}).items()
                    },
                }
        return {"versions": self.versions, "missing": self.missing, "failures": self.failures, "lines": lines}


def take_turns(works, rounds, quick):
    results = Results()
    for number in range(rounds):
        for work in works:
            for peer in WORKS[work].peers if number % WORKS[work].every == 0 else ():
                tell(f"round {number + 1} of {rounds}: {work}, {peer}")
                if peer in results.missing:
                    results.add(work, peer, {})
                else:
                    results.add(work, peer, measure(work, peer, quick))
    tell("")
    return results


def tell(text):
    """How far it is, for who watches."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_ROUNDS} short rounds, not {ROUNDS} long ones")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--only", nargs="+", choices=WORKS, default=list(WORKS), metavar="WORK", help=", ".join(WORKS))
    parser.add_argument("--json", metavar="FILE", help="all numbers, for programs")
    options = parser.parse_args()
    rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)

    facts = report.machine()
    start = time.monotonic()
    results = take_turns(options.only, rounds, options.quick)
    facts.update(load_after=os.getloadavg()[0], seconds=round(time.monotonic() - start), corpus=corpus.load()[0])

    print(f"{facts['cpu']}, {facts['cpus']} CPUs, Linux {facts['kernel']}, Python {facts['python']}")
    print(f"load average {facts['load_before']:.2f} before, {facts['load_after']:.2f} after; {rounds} rounds")
    print("versions:", ", ".join(f"{peer} {version}" for peer, version in results.versions.items()))
    print("corpus:", facts["corpus"])
    for peer, why in results.missing.items():
        print(f"missing: {peer} ({why})")
    print(f"\n{report.HEAD}")
    absent = {peer: "missing" for peer in results.missing}
    for work in options.only:
        for name, line in WORKS[work].lines.items():
            print("\n".join(report.rows(line, results.values[name], absent)))
    print(f"\n{report.LEGEND}")
    for failure in results.failures:
        print("failed:", failure)
    if options.json:
        with open(options.json, "w") as file:
            json.dump({"machine": facts, "rounds": rounds, **results.as_json()}, file, indent=1)
    return 1 if results.failures else 0


if __name__ == "__main__":
    sys.exit(main())
