"""The benchmarks run: each work once, small, with its answers checked. What they say is no business of tests.

And what makes figures of numbers does it right.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import sshd

pytestmark = [pytest.mark.ours, pytest.mark.any_core, pytest.mark.deep]

DIRECTORY = Path(__file__).parent.parent / "benchmarks"
sys.path.append(str(DIRECTORY))

import report  # noqa: E402
import run as runner  # noqa: E402
from works import SUBJECTS, WORKS  # noqa: E402

sys.path.remove(str(DIRECTORY))

FLOORS = ["C, pipes", "C, shared memory", "python -c pass"]


def run(*arguments):
    return subprocess.run(
        [sys.executable, "run.py", *map(str, arguments)], cwd=DIRECTORY, capture_output=True, text=True, timeout=240
    )


@pytest.fixture(scope="module")
def limits(tmp_path_factory):
    """The directory with the C programs, compiled without a warning; empty where there is no compiler."""
    directory = tmp_path_factory.mktemp("limits")
    compiler = shutil.which(os.environ.get("CC") or "cc")
    for source in (DIRECTORY / "limits").glob("*.c") if compiler else ():
        strict = ["-std=c11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-Werror"]
        subprocess.run([compiler, *strict, "-o", directory / source.stem, source], check=True)
    return directory


@pytest.fixture(scope="module")
def small_run(limits, tmp_path_factory):
    """(what it printed, its results.json, its directory) of a run of all works."""
    directory = tmp_path_factory.mktemp("results")
    done = run("--small", "--peers", "execnet_c", *FLOORS, "--limits", limits, "--results", directory)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    return done.stdout, json.loads((directory / "results.json").read_text()), directory


def why_not(found, name):
    """Why that work has no numbers here, or None."""
    work = found["works"][name]
    if WORKS[name].needs_host and sshd.why_not():
        return work["left_out"]["execnet_c"]
    return work["missing"].get("execnet_c")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", WORKS)
def test_each_work_gives_a_number_for_each_of_its_lines(small_run, name):
    _, found, _ = small_run
    if reason := why_not(found, name):
        pytest.skip(reason)
    for line in found["works"][name]["lines"].values():
        numbers = line["peers"]["execnet_c"]["values"]
        assert len(numbers) == 1 and numbers[0] >= 0, line["title"]


@pytest.mark.timeout(300)
def test_the_c_programs_show_the_limits(small_run, limits):
    if not any(limits.iterdir()):
        pytest.skip("there is no C compiler")
    _, found, _ = small_run
    for work, line in (("round-trips", "kib"), ("bulk", "to_64")):
        for floor in FLOORS[:2]:
            assert found["works"][work]["lines"][line]["peers"][floor]["figures"]["median"] > 0


@pytest.mark.timeout(300)
def test_the_table_and_the_results_say_where_they_are_from(small_run):
    printed, found, directory = small_run
    assert (directory / "table.txt").read_text() == printed.partition("no plots: ")[0]  # matplotlib may be missing
    assert found["machine"]["cpu"] in printed and "execnet_c" in found["versions"]
    for work in found["works"].values():
        assert work["title"] in printed
    assert {"execnet", "mpi4py"} <= set(found["machine"]["not_asked"])
    text = json.dumps(found)
    assert os.uname().nodename not in found["machine"].values() and str(DIRECTORY.parent) not in text


def test_what_is_missing_is_named():
    done = run("--small", "--only", "round-trips", "--peers", "execnet_c", "C, pipes")
    assert done.returncode == 0, done.stderr
    assert "missing: C, pipes (the C programs are not compiled" in done.stdout


def test_what_is_left_out_is_named():
    done = run("--small", "--only", "one-way-100", "--peers", "execnet_c", "pyzmq")
    assert done.returncode == 0, done.stderr
    assert "left out: pyzmq (its connections have no channels)" in done.stdout


def test_a_measurement_that_fails_fails_the_run(tmp_path):
    (tmp_path / "execnet_c").mkdir()
    (tmp_path / "execnet_c" / "__init__.py").write_text("raise ValueError('this one is broken')")
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "run.py", "--small", "--only", "round-trips", "--peers", "execnet_c"],
        cwd=DIRECTORY,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "failed: round-trips, execnet_c: exit status 1: ValueError: this one is broken" in done.stdout


# --- figures ----------------------------------------------------------------------------------------------------------


def test_a_work_has_names_of_its_own():
    lines = [line for work in WORKS.values() for line in work.lines]
    assert len(lines) == len(set(lines))
    assert set(WORKS) == {name for works in SUBJECTS.values() for name in works}
    assert all("execnet_c" == work.names()[0] for work in WORKS.values())


def test_ratios_are_above_one_where_we_are_better():
    assert report.ratios([10, 20], [20, 10], more_is_better=False) == [2.0, 0.5]
    assert report.ratios([10, 20], [20, 10], more_is_better=True) == [0.5, 2.0]
    assert report.ratios([10, None, 20], [None, 5, 40], more_is_better=False) == [2.0]
    assert report.ratios([0], [4], more_is_better=False) == []


def test_figures_say_the_median_and_the_spread():
    assert report.figures([None, 3, 1, 2], report.quartiles) == {"median": 2, "spread": [1, 3], "rounds": 3}
    assert report.figures([1, 2, 3, 4, 5], report.quartiles) == {"median": 3, "spread": [2, 4], "rounds": 5}
    assert report.figures([None], report.quartiles) is None


def test_the_interval_of_a_ratio_holds_its_median():
    values = [1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 9.0]
    low, high = report.interval(values)
    assert 1.0 <= low < 1.3 < high <= 1.5  # one value out of seven does not move the median
    assert report.interval([2.0, 1.0]) == [1.0, 2.0]
    assert report.interval([1.0] * 9) == [1.0, 1.0]


@pytest.mark.parametrize("rounds", range(1, 16))
def test_works_take_part_all_over_the_run(rounds):
    taken = [number for number in range(15) if runner.takes_part(number, rounds, 15)]
    assert len(taken) == rounds and taken[0] == 0
    distances = [b - a for a, b in zip(taken, taken[1:])]
    assert not distances or max(distances) - min(distances) <= 1


def test_turns_are_taken_and_the_end_of_time_ends_them(monkeypatch):
    taken = []

    def measure(work, peer, setting):
        taken.append((work, peer))
        return {"missing": "not here"} if peer == "execnet" else {"import": len(taken)}

    monkeypatch.setattr(runner, "measure", measure)
    chosen = {"import": ["execnet_c", "execnet", "python -c pass"], "one-way": ["execnet_c"]}
    results = runner.take_turns(chosen, {"import": 2, "one-way": 1}, {}, seconds=60)
    first = [("import", "execnet_c"), ("import", "execnet"), ("import", "python -c pass"), ("one-way", "execnet_c")]
    assert taken == first + [first[0], first[2]]  # who is missing is not asked again
    assert results.values["import"] == {"execnet_c": [1, 5], "execnet": [None, None], "python -c pass": [3, 6]}
    assert results.missing == {"execnet": {"import": "not here"}}
    taken.clear()
    runner.take_turns(chosen, {"import": 2, "one-way": 1}, {}, seconds=-1)
    assert taken == first
