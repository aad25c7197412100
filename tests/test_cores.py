"""Which core serves: the C one where it can be loaded, else its twin, which says so once."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import execnet_c.cores
import pytest

pytestmark = pytest.mark.any_core

PACKAGE = Path(execnet_c.__file__).parent
ROOT = Path(__file__).resolve().parent.parent

PROGRAM = """
import warnings
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    import execnet_c
    group = execnet_c.Group(["popen"] * 2)
    for gateway in group:
        channel = gateway.remote_exec("channel.send(channel.receive() + 1)")
        channel.send(41)
        assert channel.receive(30) == 42
        assert type(channel).__module__.startswith("execnet_c.")
    group.terminate(5)
    execnet_c.dumps(1)
print(execnet_c.core, len(seen), *[f"{one.filename}: {one.message}" for one in seen])
"""


@pytest.fixture
def program(tmp_path):
    """Runs the program, or Python with these arguments, over a copy of the package without the extension: its stdout.
    `errors`: what is on stderr then, a pattern."""
    shutil.copytree(PACKAGE, tmp_path / "execnet_c", ignore=shutil.ignore_patterns("__pycache__", "_core.*"))

    def run(*arguments, errors="", **env):
        inherited = {name: value for name, value in os.environ.items() if name != "EXECNET_C_PURE"}
        done = subprocess.run(
            [sys.executable, *(arguments or ("-c", PROGRAM))],
            cwd=tmp_path,
            env={**inherited, "PYTHONPATH": str(tmp_path), **env},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            timeout=60,
        )
        assert done.returncode == 0 and re.fullmatch(errors, done.stderr), done.stderr
        return done.stdout.strip()

    run.folder = tmp_path
    return run


def test_without_the_extension_the_twin_serves_and_says_so_once(program):
    said = program()
    assert said.startswith("Python 1 <string>: execnet_c works with its plain-Python core")
    assert "_core" in said and "EXECNET_C_PURE=1" in said


def test_an_extension_that_cannot_be_loaded(program):
    (program.folder / "execnet_c" / "_core.abi3.so").write_bytes(b"no such thing")
    said = program()
    assert said.startswith("Python 1 <string>: execnet_c works with its plain-Python core")
    assert "_core.abi3.so" in said


def test_the_command_that_checks_says_so_too(program):
    said = program("-m", "execnet_c", "check", errors=r"execnet_c works with its plain-Python core, .*_core.*\n")
    assert said.startswith("popen  ok  ") and ", plain Python, pipes, " in said
    program("-m", "execnet_c", "check", EXECNET_C_PURE="1")


def test_the_twin_when_it_is_asked_for_is_silent(program):
    assert program(EXECNET_C_PURE="1") == "Python 0"


def test_asked_for_where_there_is_an_extension(program):
    for extension in PACKAGE.glob("_core.*.so"):
        shutil.copy(extension, program.folder / "execnet_c")
    assert program(EXECNET_C_PURE="1") == "Python 0"
    assert program(EXECNET_C_PURE="0") == "C 0"
    assert program(EXECNET_C_PURE="") == "C 0"


# Keeps for itself what a build says, as pip does.
QUIET = """
import subprocess, sys
subprocess.run(sys.argv[1:], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=True)
"""


def test_it_is_installed_where_there_is_no_compiler_and_says_so(tmp_path):
    source, into = tmp_path / "source", tmp_path / "site"
    ignored = shutil.ignore_patterns(".git", ".venv*", "build", "tests", "*.egg-info", "__pycache__", "*.so")
    shutil.copytree(ROOT, source, ignore=ignored)
    build = [sys.executable, "setup.py", "-q", "build", "--build-lib", into, "--build-temp", tmp_path / "tmp"]
    done = subprocess.run(
        [sys.executable, "-c", QUIET, *build],
        cwd=source,
        env={**os.environ, "CC": "/bin/false"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    why = "command '/bin/false' failed with exit code 1"
    for name in ("_core", "_tagger"):
        assert f"*** execnet_c: its C extension {name} CANNOT BE BUILT: {why}\n" in done.stderr
    assert not list(into.glob("execnet_c/_core.*.so"))

    def said_by(program):
        done = subprocess.run(
            [sys.executable, "-W", "error::RuntimeWarning", "-c", program],
            cwd=into,
            env={name: value for name, value in os.environ.items() if name not in ("EXECNET_C_PURE", "PYTHONPATH")},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            timeout=60,
        )
        assert done.returncode == 1
        return done.stderr

    said = said_by("import execnet_c; execnet_c.makegateway")
    assert f"plain-Python core, which is slower: its C core was not built: {why} (`pip install -v" in said
    said = said_by("import execnet_c.tagging")
    assert f"its module execnet_c._tagger was not built: {why} (`pip install -v" in said
