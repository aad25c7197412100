"""python -m execnet_c check: a line for each spec, the status, and nothing left behind."""

import os
import re
import subprocess
import sys
import uuid

import pairing
import pytest

from conftest import TIMEOUT
from execnet_c import check
from masters import MARK, living, wait_until

HOME = {"C": "C core", "Python": "plain Python"}[pairing.far]


@pytest.fixture
def lines():
    """A function that checks specs: (whether all came up, the lines)."""

    def run(*specs):
        said = []
        return check.check(specs, said.append), said

    return run


def test_a_local_gateway(lines):
    up, (line,) = lines("popen")
    assert up
    version = ".".join(map(str, sys.version_info[:3]))
    found = re.fullmatch(
        rf"popen  ok  CPython {version}, {HOME}, pipes, start (\d+) ms, round trip (\d+) us, (\d+) MB/s", line
    )
    assert found, line
    assert all(int(figure) > 0 for figure in found.groups())


def test_one_that_does_not_come_up_fails_it_and_holds_up_no_other(lines):
    up, said = lines("popen", "popen//python=/bin/false", "popen//id=second", "no spec", "popen//id=")
    assert not up
    shown = [line.split("  ")[0].strip() for line in said]
    assert shown[:4] == ["popen", "popen//python=/bin/false", "popen//id=second", "no spec"]
    states = [re.search(r"  (ok|FAILED)  ", line)[1] for line in said]
    assert states[:4] == ["ok", "FAILED", "ok", "FAILED"]
    assert "WorkerExited: its worker ended with exit status 1" in said[1]
    assert "ValueError: no gateway type found for 'no spec'" in said[3]


@pytest.mark.parametrize(
    "spec, words",
    [
        ("popen//python=/no/such/python", "No such file or directory: /no/such/python"),
        ("popen//python=sh -c 'echo the reason >&2; exit 5'", "exit status 5"),
        ("popen//python=sh -c 'echo the reason >&2; exit 5'", "(the reason)"),
        ("popen//chdir=/proc/nowhere", "/proc/nowhere"),
        ("popen//nice=much", "nice must be an integer, not 'much'"),
    ],
)
def test_a_cause_is_one_line(lines, spec, words):
    up, (line,) = lines(spec)
    assert not up and "\n" not in line
    assert words in line


@pytest.mark.parametrize("specs, status", [(["popen"], 0), (["popen", "popen//python=/bin/false"], 1), ([], 2)])
def test_the_command(specs, status):
    mark = uuid.uuid4().hex
    program = f"{pairing.HEAD}import runpy; sys.argv = {['execnet_c', 'check', *specs]!r}; "
    program += "runpy.run_module('execnet_c', run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, MARK: mark},
        capture_output=True,
        encoding="utf-8",
        timeout=TIMEOUT,
    )
    assert done.returncode == status, done.stderr
    assert len(done.stdout.splitlines()) == len(specs)
    if not specs:
        assert "SPEC" in done.stderr
    assert wait_until(lambda: not living(mark), 10)
