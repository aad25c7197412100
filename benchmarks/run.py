"""Compares execnet_c with execnet, the standard library, other libraries, and the best that the system itself can do.

    python run.py [--quick] [--only WORK ...] [--peers PEER ...] [--results DIR]

The peers take turns (A B C, A B C, ...), so that what disturbs the machine for a while disturbs all of them. Each
measurement has a process of its own, so that they share nothing. Works have different numbers of rounds. When the time is
over, the works that have begun their turn complete it, and no other turn begins. Prints a table of medians, which also
names what is missing; the exit status is 1 if a measurement failed.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import time

import hosts
import peers
import report
from base import SIZES
from works import SUBJECTS, WORKS

HERE = os.path.dirname(os.path.abspath(__file__))
MINUTES = {"full": 9.0, "quick": 0.75, "small": 5.0}


@dataclasses.dataclass
class Results:
    """The results of all measurements."""

    values: dict = dataclasses.field(default_factory=dict)  # line -> peer -> a number or None for each round
    versions: dict = dataclasses.field(default_factory=dict)
    missing: dict = dataclasses.field(default_factory=dict)  # peer -> {work: why}
    left_out: dict = dataclasses.field(default_factory=dict)  # work -> {peer: why}
    failures: list = dataclasses.field(default_factory=list)
    texts: set = dataclasses.field(default_factory=set)  # where the tagged text is from

    def add(self, work, peer, outcome):
        for line in WORKS[work].lines:
            self.values.setdefault(line, {}).setdefault(peer, []).append(outcome.get(line))
        if "version" in outcome:
            self.versions[peer] = outcome["version"]
        if "text" in outcome:
            self.texts.add(outcome["text"])
        if "missing" in outcome:
            self.missing.setdefault(peer, {})[work] = outcome["missing"]
        if "failed" in outcome:
            self.failures.append(f"{work}, {peer}: {outcome['failed']}")


def command_of(work, peer, setting):
    words = [os.path.join(HERE, "measure.py"), work, peer, json.dumps(setting)]
    launched = getattr(WORKS[work].peers.get(peer), "launched", None)
    return launched(sys.executable, *words) if launched else [sys.executable, *words]


def measure(work, peer, setting):
    """The numbers of one measurement, or {"missing": why} or {"failed": why}."""
    pipe, limit = subprocess.PIPE, WORKS[work].limit
    with subprocess.Popen(
        command_of(work, peer, setting),
        stdin=subprocess.DEVNULL,
        stdout=pipe,
        stderr=pipe,
        encoding="utf-8",
        start_new_session=True,
    ) as process:
        try:
            out, err = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return {"failed": f"no result within {limit} seconds"}
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    if process.returncode != 0:
        return {"failed": f"exit status {process.returncode}: {one_line(err)}"}
    return json.loads(out.splitlines()[-1])


def one_line(err):
    """The last line of a stderr that tells the error. All of it is printed only to a terminal or in CI, because it has
    paths, which no report may have."""
    if sys.stderr.isatty() or os.environ.get("CI"):
        print(err, file=sys.stderr)
    said = [line.strip() for line in err.splitlines() if line.strip() and not line.startswith(" ")]
    return next((line for line in reversed(said) if "Error" in line or "Exception" in line), (said or [""])[-1])


def take_turns(chosen, rounds, setting, seconds):
    """Measure. chosen: {work: names of peers and floors}; rounds: {work: number of rounds at most}."""
    results, end, most = Results(), time.monotonic() + seconds, max(rounds.values())
    for number in range(most):
        for work, names in chosen.items():
            # All works have their first round, even if the time is over: else a line would have no number.
            if not takes_part(number, rounds[work], most) or (number > 0 and time.monotonic() > end):
                continue
            for peer in names:
                tell(f"round {number + 1}: {work}, {peer}")
                gone = work in results.missing.get(peer, ())
                results.add(work, peer, {} if gone else measure(work, peer, setting))
    tell("")
    return results


def takes_part(number, rounds, most):
    """Whether a work with `rounds` rounds takes part in round `number` of `most`. Its rounds are spread over the run, and
    the first is one of them."""
    return number == 0 or number * rounds // most > (number - 1) * rounds // most


def tell(text):
    """Show the progress, if stderr is a terminal."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def choose(options):
    """{work: names of the peers and floors that take part}"""
    chosen = {}
    for work in options.only or WORKS:
        if options.size == "quick" and not options.only and not WORKS[work].rounds[1]:
            continue
        names = WORKS[work].names()
        if options.peers:
            names = [name for name in names if name in options.peers]
        elif options.size != "full":
            names = [name for name in names if name not in peers.HEAVY]
        if names:
            chosen[work] = names
    return chosen


def everybody(works=WORKS):
    return list(dict.fromkeys(name for work in works for name in WORKS[work].names()))


def not_asked(options, chosen):
    """Names of peers of the chosen works that do not take part; and of works that were not chosen, unless the user has
    named works or peers."""
    taking_part = {name for names in chosen.values() for name in names}
    works = [] if options.only or options.peers else [work for work in WORKS if work not in chosen]
    return [name for name in everybody(chosen) if name not in taking_part] + works


@contextlib.contextmanager
def setting_of(options, scratch, chosen, without_host):
    """The setting for each measurement. If there is no host, the works that need one are moved from `chosen` to
    `without_host`."""
    setting = {"size": options.size, "limits": options.limits, "scratch": scratch}
    setting.update(python=options.remote_python, pythons=options.python)
    needing = [work for work in chosen if WORKS[work].needs_host]
    if options.host:
        yield {**setting, "host": options.host, "ssh_config": options.ssh_config}
    elif needing:
        with hosts.own() as (host, config_or_reason):
            if host is None:
                for work in needing:
                    without_host[work] = {name: config_or_reason for name in chosen.pop(work)}
                yield setting
            else:
                yield {**setting, "host": host, "ssh_config": config_or_reason}
    else:
        yield setting


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    sizes = parser.add_mutually_exclusive_group()
    for size in SIZES[1:]:
        sizes.add_argument(f"--{size}", dest="size", action="store_const", const=size, help="shorter, and says less")
    parser.set_defaults(size="full")
    parser.add_argument("--rounds", type=int, help="at most, of each work")
    parser.add_argument("--minutes", type=float, help="no turn begins after them, but for those of the first round")
    parser.add_argument("--only", nargs="+", choices=WORKS, metavar="WORK", help=", ".join(WORKS))
    parser.add_argument("--peers", nargs="+", choices=everybody(), metavar="PEER", help=", ".join(everybody()))
    parser.add_argument("--results", metavar="DIR", help="write results.json, table.txt and plots there")
    parser.add_argument("--limits", metavar="DIR", help="where the compiled C programs are")
    parser.add_argument("--host", help="for the works over ssh (default: a private sshd here)")
    parser.add_argument("--ssh-config", metavar="FILE")
    parser.add_argument("--remote-python", default="python3", help="the command at that host")
    parser.add_argument("--python", action="append", default=[], metavar="COMMAND LINE", help="for start-pythons")
    return parser.parse_args()


def main():
    options = arguments()
    chosen, left_out = choose(options), {}
    most = {work: options.rounds or max(1, WORKS[work].rounds[options.size != "full"]) for work in chosen}
    if options.size == "small":
        most = dict.fromkeys(chosen, options.rounds or 1)
    facts, start = report.machine(), time.monotonic()
    minutes = options.minutes or MINUTES[options.size]
    with tempfile.TemporaryDirectory() as scratch, setting_of(options, scratch, chosen, left_out) as setting:
        results = take_turns(chosen, most, setting, minutes * 60) if chosen else Results()
    for work in chosen:
        left_out[work] = {peer: why for peer, why in WORKS[work].left_out.items() if not options.peers or peer in options.peers}
    results.left_out = left_out
    facts.update(load_after=os.getloadavg()[0], seconds=round(time.monotonic() - start), size=options.size)
    facts.update(texts=sorted(results.texts), not_asked=not_asked(options, chosen))
    works = [work for work in WORKS if work in chosen or left_out.get(work)]
    found = report.collected(facts, results, {work: WORKS[work] for work in works})
    print(report.table(found), end="")
    if options.results:
        report.write(found, SUBJECTS, options.results)
    return 1 if results.failures else 0


if __name__ == "__main__":
    sys.exit(main())
