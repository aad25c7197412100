"""pytest -p execnet_c.pytest_plugin: pytest-xdist runs on execnet_c, whichever way the plugin is named in time."""

import os
import subprocess
import sys

import pairing
import pytest

import execnet_c
from far_ends import PLAIN

pytest.importorskip("xdist")
pytestmark = pytest.mark.timeout(240)

TESTS = """
import sys
import warnings

import execnet
import pytest
import {package}

WORKER = "C" if execnet.Channel.__module__ == "execnet_c._core" else "Python"


def test_library(record_property):
    assert execnet is {package}
    assert WORKER == {far!r}


@pytest.mark.parametrize("number", range(20))
def test_number(number, tmp_path):
    assert number != 17
    assert sys.argv == ["-c"]


def test_warns():
    warnings.warn("a warning that travels")
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "test_it.py").write_text(TESTS.format(package="execnet_c", far=pairing.far))
    return tmp_path


def run(folder, *arguments, near=pairing.HEAD, **env):
    """Runs pytest there, over the cores of this pairing; (status, what it says)."""
    program = f"{near}import pytest; sys.argv[0] = 'pytest'; sys.exit(pytest.main())" if near else None
    start = ["-c", "import sys\n" + program] if near else ["-m", "pytest"]
    unset = ("PYTEST_ADDOPTS", "PYTEST_PLUGINS", "PYTEST_DISABLE_PLUGIN_AUTOLOAD")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST") and name not in unset}
    done = subprocess.run(
        [sys.executable, *start, "-p", "no:cacheprovider", *arguments],
        cwd=folder,
        env={**inherited, **env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=200,
    )
    return done.returncode, done.stdout


def check(status, said):
    assert status == 1, said
    assert "1 failed, 21 passed, 1 warning" in said, said
    assert "FAILED test_it.py::test_number[17]" in said
    assert f"execnet: execnet_c {execnet_c.__version__}, {pairing.near} core" in said


PLUGIN = "execnet_c.pytest_plugin"


def test_on_the_command_line(folder):
    check(*run(folder, "-p", PLUGIN, "-n", "2"))


@pytest.mark.any_core
@pytest.mark.parametrize("place", ["PYTEST_ADDOPTS", "addopts", "without entry points"])
def test_other_places_that_come_before_entry_points(folder, place):
    env = {}
    if place == "addopts":
        (folder / "pytest.ini").write_text(f"[pytest]\naddopts = -p {PLUGIN}\n")
    elif place == "PYTEST_ADDOPTS":
        env = {"PYTEST_ADDOPTS": f"-p {PLUGIN}"}
    else:
        env = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_PLUGINS": f"{PLUGIN},xdist.plugin"}
    check(*run(folder, "-n", "2", near="", **env))


@pytest.mark.any_core
@pytest.mark.parametrize("place", ["PYTEST_PLUGINS", "behind xdist", "conftest.py"])
def test_places_that_come_too_late(folder, place):
    arguments, env = [], {}
    if place == "PYTEST_PLUGINS":
        env = {"PYTEST_PLUGINS": PLUGIN}
    elif place == "conftest.py":
        (folder / "conftest.py").write_text(f"pytest_plugins = [{PLUGIN!r}]\n")
    else:
        arguments = ["-p", "xdist.looponfail", "-p", PLUGIN]
    status, said = run(folder, "-n", "2", *arguments, near="", **env)
    assert status == 4, said
    assert "loaded too late" in said and "Name it with -p" in said


@pytest.mark.parametrize("execnet_too", [False, True])
def test_workers_with_nothing_installed(folder, execnet_too):
    """They are sent what stands for execnet, unless that is installed there, and for the plugin that is named with -p there
    again."""
    there = [end for end in PLAIN if not end.missing and end.name.startswith(f"cpython3.{sys.version_info[1]}.")]
    if not there or "t" in sys.abiflags:
        pytest.skip("there is no Python of this version without execnet_c")
    package = "execnet" if execnet_too else "execnet_c"
    tests = TESTS.format(package=package, far="Python")
    (folder / "test_it.py").write_text(tests.replace("assert WORKER", "assert execnet.RSync #") if execnet_too else tests)
    site = folder / "site"
    site.mkdir()
    for entry in os.scandir(os.path.dirname(os.path.dirname(pytest.__file__))):
        if not entry.name.startswith("execnet_c") and (execnet_too or not entry.name.startswith("execnet")):
            (site / entry.name).symlink_to(entry.path)
    spec = f"popen//python=env PYTHONPATH={site} {there[0].command[0]}"
    check(*run(folder, "-p", PLUGIN, "-d", "--tx", f"2*{spec}", "--max-worker-restart=0", "test_it.py"))


@pytest.mark.any_core
def test_without_the_plugin_nothing_changes(folder):
    (folder / "test_it.py").write_text("import execnet\n\ndef test_it():\n    assert execnet.__name__ == 'execnet'\n")
    status, said = run(folder, "-n", "1", near="")
    assert status == 0, said
    assert "execnet_c" not in said
