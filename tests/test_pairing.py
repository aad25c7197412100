"""The run is over the cores that its pairing names, in this process, in programs and in the far ends of both."""

import subprocess
import sys

import execnet_c
import pairing
import pytest
from conftest import TIMEOUT
from execnet_c import cores
from gateways import group_fixture  # noqa: F401 (fixtures)
from masters import run


def core_of(channel):
    return "Python" if hasattr(type(channel).send, "__code__") else "C"


TASK = "channel.send('Python' if hasattr(type(channel).send, '__code__') else 'C')"

# Prints the core of the near end and that of a far end.
PROGRAM = f"""
import execnet_c
channel = execnet_c.makegateway().remote_exec({TASK!r})
print("Python" if hasattr(type(channel).send, "__code__") else "C", channel.receive(30))
"""


def test_both_ends_have_the_core_that_was_asked_for(gw):
    channel = gw.remote_exec(TASK)
    assert (core_of(channel), channel.receive(TIMEOUT)) == (pairing.near, pairing.far)
    assert cores.core == pairing.near
    assert cores.module.Channel is execnet_c.Channel is type(channel)


def test_programs_follow():
    assert run(PROGRAM) == [f"{pairing.near} {pairing.far}"]


def python(*arguments, cwd):
    return subprocess.run(
        arguments, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", timeout=TIMEOUT
    )


@pytest.mark.parametrize("how", ["by its text", "by command"])
def test_scripts_follow(how, tmp_path):
    text = PROGRAM + "import sys; print(sys.argv, sys.path[0], __name__, sys.modules['__main__'].__file__)\n"
    script = tmp_path / "script.py"
    script.write_text(pairing.HEAD + text if how == "by its text" else text)
    command = [sys.executable, str(script), "1", "x"] if how == "by its text" else pairing.command(script, 1, "x")
    done = python(*command, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        f"{pairing.near} {pairing.far}",
        f"{[str(script), '1', 'x']} {tmp_path} __main__ {script}",
    ]


@pytest.mark.parametrize("name", pairing.PAIRINGS)
def test_each_pairing_can_be_asked_for(name, tmp_path):
    head = f"import os; os.environ['EXECNET_C_TEST_PAIRING'] = {name!r}\n{pairing.HEAD}"
    done = python(sys.executable, "-c", head + PROGRAM, cwd=tmp_path)
    assert (done.stdout, done.stderr) == (name.replace("-", " ") + "\n", "")


@pytest.mark.parametrize("name", ["C", "C-C-C", "Python-PyPy"])
def test_a_pairing_that_there_is_not_is_an_error(name, tmp_path):
    head = f"import os; os.environ['EXECNET_C_TEST_PAIRING'] = {name!r}\n{pairing.HEAD}"
    done = python(sys.executable, "-c", head, cwd=tmp_path)
    expected = f"ValueError: EXECNET_C_TEST_PAIRING={name}: it may be C-C, C-Python, Python-C, Python-Python\n"
    assert done.stderr.endswith(expected), done.stderr
