"""remoto runs commands on hosts with execnet_c in execnet's place, and the same on execnet (see test_users.py)."""

import os
import re
import sys
import textwrap

import pairing
import pytest

if pairing.name in ("C-Python", "Python-C"):
    pytest.skip("C-C and Python-Python have each core at both ends", allow_module_level=True)

from programs_of_users import needs, runner_fixture, server_fixture  # noqa: F401 (fixtures)

pytestmark = [pytest.mark.timeout(240), pytest.mark.deep]

SHELL_COMMAND = """\
import sys
text = sys.stdin.read()
print(text.upper(), end="")
print("not all is well", file=sys.stderr)
sys.exit(3)
"""


@pytest.fixture
def tree(tmp_path):
    """A directory to be sent elsewhere: {relative path: content} of its files, and where it is."""
    files = {"one": b"1\n", "empty": b"", "below/two": bytes(range(256)) * 300, "below/below/run": b"#!/bin/sh\n"}
    for name, content in files.items():
        path = tmp_path / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (tmp_path / "source/below/below/run").chmod(0o755)
    (tmp_path / "source/link").symlink_to("below/two")
    return files, tmp_path / "source"


# --- remoto: commands on hosts -----------------------------------------------------------------------------------------

REMOTO = """
    import logging, os, sys
    import remoto
    from remoto import process

    said = []

    class Kept(logging.Handler):
        def emit(self, record):
            said.append((record.levelname, record.getMessage()))

    logger = logging.getLogger("kept")
    logger.setLevel(logging.DEBUG)
    logger.addHandler(Kept())
    logger.propagate = False

    def heard():
        heard, said[:] = said[:], []
        return heard
"""

COMMANDS = """
    def refused(function, *arguments, **more):
        try:
            function(*arguments, **more)
        except Exception as exc:
            return type(exc).__name__, str(exc)

    outcome = {}
    Connection = remoto.connection.get("ssh" if HOST != "localhost" else "local")
    with Connection(hostname=HOST, logger=logger, interpreter=PYTHON) as connection:
        command = [sys.executable, "-c", COMMAND]
        outcome["check"] = process.check(connection, command, stdin=b"one\\n\\xc3\\xa4\\n")
        outcome["environment"] = process.check(connection, ["sh", "-c", "echo $ADDED"], extend_env={"ADDED": "an addition"})
        outcome["far away"] = process.check(connection, ["sh", "-c", "echo $PPID"])[0] != [str(os.getpid())]
        heard()
        outcome["no such"] = refused(process.check, connection, ["/no/such/command"])
        outcome["no such, said"] = [text for _, text in heard() if "Error:" in text]

        process.run(connection, ["sh", "-c", "echo one line"])  # of two at once remoto may lose the second
        process.run(connection, ["sh", "-c", "echo a warning >&2"])
        outcome["run"] = heard()
        outcome["status"] = refused(process.run, connection, ["sh", "-c", "exit 7"])
        outcome["status, said"] = heard()[1:]
        process.run(connection, ["sh", "-c", "exit 7"], stop_on_nonzero=False)
        outcome["any status"] = heard()[1:]

        waits = ["sh", "-c", 'while [ -e "$0" ]; do sleep 0.02; done', WAITS]
        open(WAITS, "w").close()
        outcome["late"] = process.check(connection, waits, timeout=0.2)
        outcome["late, said"] = heard()[1:]
        os.unlink(WAITS)

        sys.path.insert(0, MODULES)
        import with_a_loop, without_one
        module = connection.import_module(with_a_loop)
        outcome["module"] = [module.add(1, 2), module.add("a", "b"), module.platform()]
        outcome["module, failing"] = refused(module.add, 1, "b")
        connection.remote_import_system = "json"
        module = connection.import_module(without_one, python_executable=sys.executable)
        outcome["json"] = [module.add(1, 2), module.add([1], ["b"])]
        outcome["connected"] = [connection.has_connection()]
    outcome["connected"] += [connection.has_connection()]
    print(outcome)
"""

FUNCTIONS = "def add(a, b):\n    return a + b\n\ndef platform():\n    import sys\n    return sys.platform\n"
LOOP = "\nif __name__ == '__channelexec__':\n    for call in channel:\n        channel.send(eval(call))\n"


@pytest.fixture
def remoto():
    needs("remoto")


def commands_with_remoto(runner, host, python):
    modules = runner.directory / "modules"
    modules.mkdir()
    (modules / "with_a_loop.py").write_text(FUNCTIONS + LOOP)
    (modules / "without_one.py").write_text(FUNCTIONS)
    names = {"HOST": host, "PYTHON": python, "COMMAND": SHELL_COMMAND, "MODULES": str(modules)}
    found = runner.program(REMOTO + COMMANDS, WAITS=str(runner.directory / "waits"), **names)
    no_such = "FileNotFoundError: [Errno 2] No such file or directory: '/no/such/command'"
    failed = "RuntimeError: command returned non-zero exit status: 7"
    assert found == {
        "check": (["ONE", "\N{LATIN CAPITAL LETTER A WITH DIAERESIS}"], ["not all is well"], 3),
        "environment": (["an addition"], [], 0),
        "far away": True,
        "no such": ("RuntimeError", "Failed to execute command: /no/such/command"),
        "no such, said": found["no such, said"],
        "run": [
            ("INFO", "Running command: sh -c echo one line"),
            ("DEBUG", "one line"),
            ("INFO", "Running command: sh -c echo a warning >&2"),
            ("WARNING", "a warning"),
        ],
        "status": ("RuntimeError", "Failed to execute command: sh -c exit 7"),
        "status, said": [("ERROR", failed)],
        "any status": [("WARNING", failed.partition(": ")[2])],
        "late": ([], [], -1),
        "late, said": [("WARNING", "No data was received after 0.2 seconds, disconnecting...")],
        "module": [3, "ab", sys.platform],
        "module, failing": ("RuntimeError", found["module, failing"][1]),
        "json": [3, [1, "b"]],
        "connected": [True, False],
    }
    assert no_such in found["no such, said"]
    assert re.match(r"TypeError: unsupported operand type\(s\) for \+", found["module, failing"][1])


def test_remoto_runs_commands_here(remoto, runner):
    commands_with_remoto(runner, "localhost", sys.executable)


def test_remoto_runs_commands_on_a_host(remoto, runner, server):
    commands_with_remoto(runner, "h1", "python3")


@pytest.mark.parametrize("host", ["localhost", "h1"])
def test_remoto_sends_a_directory(remoto, runner, server, tree, host):
    files, source = tree
    runner.environment["PATH"] += f":{os.path.dirname(sys.executable)}"
    program = "remoto.rsync([HOST], SOURCE, TARGET, logger)\nprint(sorted(said))\n"
    program = textwrap.dedent(REMOTO) + program
    target = runner.directory / "target"
    said = runner.program(program, HOST=host, SOURCE=str(source), TARGET=str(target))
    assert_same_tree(target, files)
    assert [level for level, _ in said] == ["INFO"] * len(said)
    assert sorted(re.split("[ /]", text)[-1] for _, text in said) == sorted(name.rpartition("/")[2] for name in files)


def assert_same_tree(target, files):
    assert {str(path.relative_to(target)) for path in target.rglob("*") if not path.is_dir()} == {*files, "link"}
    assert {name: (target / name).read_bytes() for name in files} == files
    assert os.readlink(target / "link") == "below/two"
    assert (target / "below/below/run").stat().st_mode & 0o777 == 0o755
