"""python -m execnet_c check: a line for each spec, the status, and nothing left behind."""

import os
import re
import subprocess
import sys
import uuid

import pairing
import execnet_c
import pytest

from conftest import TIMEOUT
from execnet_c.tools import check
from masters import MARK, living, wait_until

STREAM = "ring" if pairing.name == "C-C" else "pipes"
HOME = {"C": "C core", "Python": "plain Python"}[pairing.far]


@pytest.fixture
def lines(monkeypatch):
    """A function that checks specs: (whether all came up, the lines)."""
    monkeypatch.setattr(check, "MEASURE", 0.03)

    def run(*specs):
        said = []
        return check.check(specs, said.append), said

    return run


def test_a_local_gateway(lines):
    up, (line,) = lines("popen")
    assert up
    version = ".".join(map(str, sys.version_info[:3]))
    found = re.fullmatch(
        rf"popen  ok  CPython {version}, {HOME}, {STREAM}, start (\d+) ms, round trip (\d+) us, (\d+) MB/s", line
    )
    assert found, line
    assert all(int(figure) > 0 for figure in found.groups())


@pytest.mark.parametrize(
    "spec, stream",
    [
        ("popen//transport=pipe", "pipes"),
        (f"popen//python={sys.executable}", STREAM),
        ("popen//via=first", "pipes via first"),
        ("socket//installvia=first", "socket"),
    ],
)
def test_it_says_how_what_is_sent_travels(lines, spec, stream):
    up, (_, line) = lines("popen//id=first", spec)
    assert up and f", {stream}, start " in line, line


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


def execnet_c_does(*arguments):
    """What `python -m execnet_c` leaves of such a call: exit status, stdout and stderr."""
    mark = uuid.uuid4().hex
    program = f"{pairing.HEAD}import runpy; sys.argv = {['execnet_c', *arguments]!r}; "
    program += "runpy.run_module('execnet_c', run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, MARK: mark},
        capture_output=True,
        encoding="utf-8",
        timeout=TIMEOUT,
    )
    assert wait_until(lambda: not living(mark), 10)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("specs, status", [(["popen"], 0), (["popen", "popen//python=/bin/false"], 1), ([], 0)])
def test_the_command(specs, status):
    code, said, errors = execnet_c_does("check", *specs)
    assert code == status, errors
    checked = [line.split("  ")[0] for line in said.splitlines()]
    assert checked == (specs or ["popen"])


def test_a_warning_about_a_spec_names_no_line_of_ours():
    spec = "popen//pyton=x"
    code, said, errors = execnet_c_does("check", spec)
    assert code == 0 and said.startswith(f"{spec}  ok  ")
    assert errors.startswith(f"spec {spec!r}: 'pyton' is no key; did you mean 'python'?") and errors.count("\n") == 1


@pytest.mark.any_core
def test_without_arguments_it_says_what_there_is():
    code, said, errors = execnet_c_does()
    assert (code, errors) == (0, "")
    commands = re.findall(r"(?m)^    (\w+)\b", said)
    assert commands == ["check", "run", "socketserver"]


@pytest.mark.any_core
def test_version():
    assert execnet_c_does("--version") == (0, f"execnet_c {execnet_c.__version__}\n", "")


@pytest.mark.any_core
def test_a_command_that_there_is_not():
    code, said, errors = execnet_c_does("chekc")
    assert (code, said) == (2, "") and "chekc" in errors and "check" in errors
