"""How long pytest-xdist takes on execnet_c, beside execnet: `python xdist.py [ROUNDS [TESTS]]`.

Five thousand tests that do nothing (or as many as said), on two workers; and the start: one test, on eight workers. The
wall time of the whole pytest, seconds; the two libraries take turns; medians, and of the rounds' ratios. Beside it the
same without workers.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time

IN_A_FILE = 100
ROUNDS, TESTS = 7, 5000
WITHOUT = ["-p", "no:cacheprovider", "-p", "no:hypothesispytest"]  # whose import takes longer than the whole start
LIBRARIES = {"execnet_c": ["-p", "execnet_c.pytest_plugin"], "execnet": []}


def make_suite(directory, tests):
    for number in range(0, tests, IN_A_FILE):
        with open(f"{directory}/test_{number}.py", "w") as file:
            for test in range(min(IN_A_FILE, tests - number)):
                file.write(f"def test_{test}(): pass\n")


def measure(directory, tests, *arguments):
    start = time.perf_counter()
    command = [sys.executable, "-m", "pytest", "-q", *WITHOUT, *arguments]
    done = subprocess.run(command, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    spent = time.perf_counter() - start
    if done.returncode or f"{tests} passed" not in done.stdout:
        sys.exit(f"{' '.join(command)}: exit status {done.returncode}\n{done.stdout}")
    return spent


def compare(title, directory, tests, workers, rounds):
    found = {library: [] for library in LIBRARIES}
    for _ in range(rounds):
        for library, plugin in LIBRARIES.items():
            found[library].append(measure(directory, tests, "-n", workers, *plugin))
    ours, theirs = found.values()
    ratio = statistics.median(b / a for a, b in zip(ours, theirs))
    alone = statistics.median(measure(directory, tests, "-p", "no:xdist") for _ in range(min(rounds, 3)))
    print(f"{title:28} {statistics.median(ours):9.2f} {statistics.median(theirs):9.2f} {ratio:5.2f}x {alone:17.2f}")


def main(rounds=ROUNDS, tests=TESTS):
    print(f"{rounds} rounds, load {os.getloadavg()[0]:.1f}; seconds")
    print(f"{'':28} {'execnet_c':>9} {'execnet':>9} {'':6} {'without workers':>17}")
    with tempfile.TemporaryDirectory() as directory:
        os.mkdir(f"{directory}/many")
        os.mkdir(f"{directory}/one")
        make_suite(f"{directory}/many", tests)
        make_suite(f"{directory}/one", 1)
        compare(f"{tests} tests, -n 2", f"{directory}/many", tests, "2", rounds)
        compare("1 test, -n 8", f"{directory}/one", 1, "8", rounds)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
