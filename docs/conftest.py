"""Runs what the pages show, in the order of the page: `pytest docs`.

- What begins with >>> is a doctest.
- `.. code-block:: python` is run; with `:caption: NAME` it is the file of that name instead, in the page's directory.
- `.. code-block:: console`: each line that begins with "$ " is a command of the shell, and behind it stands what it prints, on
  either stream; "..." stands for anything.

All code of a page shares its names, and one empty directory. The hosts `heron` and `osprey`, which pages log in to by ssh, are an
sshd of the tests; where there is none, a page says `.. skip: start if(no_hosts, reason="no sshd")`.
"""

import doctest
import importlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

from sybil import Sybil
from sybil.parsers.rest import CodeBlockParser, DocTestParser, PythonCodeBlockParser, SkipParser

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "tests"), str(HERE.parent / "examples")]
sshd = importlib.import_module("sshd")

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
LIMIT = 100  # seconds for a command
no_hosts = sshd.why_not()
if no_hosts and os.environ.get("CI") == "true":
    raise RuntimeError(no_hosts)


class Python(CodeBlockParser):
    """Python that is run, or that is a file."""

    language = "python"

    def __init__(self):
        super().__init__()
        self.run = PythonCodeBlockParser().evaluate

    def evaluate(self, example):
        name = example.region.lexemes["options"].get("caption")
        if not name:
            return self.run(example)
        pathlib.Path(name).write_text(example.parsed)
        return None


class Console(CodeBlockParser):
    language = "console"

    def evaluate(self, example):
        command, wanted = None, []
        for line in [*example.parsed.splitlines(), "$ true"]:
            if command is not None and command.endswith("\\"):
                command += "\n" + line.removeprefix("> ")
            elif line.startswith("$ "):
                if command is not None:
                    check(command, "\n".join(wanted))
                command, wanted = line[2:], []
            else:
                wanted.append(line)


def check(command, wanted):
    done = subprocess.run(
        ["bash", "-c", command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=LIMIT,
    )
    checker = doctest.OutputChecker()
    if not checker.check_output(wanted + "\n", done.stdout, FLAGS):
        raise AssertionError(f"$ {command}\n{done.stdout}\n--- the page shows:\n{wanted}")


def command(path, words):
    """A program at that path which is those words and its arguments."""
    path.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
    path.chmod(0o755)
    return path


class Page:
    """What a page's code finds."""

    def __init__(self):
        self.back = os.getcwd(), dict(os.environ)
        self.directory = tempfile.mkdtemp(prefix="page-")
        programs = pathlib.Path(self.directory, ".bin")
        programs.mkdir()
        os.environ["PATH"] = f"{programs}:{os.path.dirname(sys.executable)}:{os.environ['PATH']}"
        os.environ["PYTHONPATH"] = str(HERE.parent / "examples")
        self.server = None
        if not no_hosts:
            python = {"python3": command(programs / "python3", sys.executable)}
            self.server = sshd.Server({"heron": sshd.Host(python), "osprey": sshd.Host(python)})
            command(programs / "ssh", f"{shutil.which('ssh', path=self.back[1]['PATH'])} -F {self.server.ssh_config}")
        os.chdir(self.directory)
        sys.path.insert(0, self.directory)

    def close(self):
        import execnet_c

        execnet_c.default_group.terminate(timeout=5)
        if self.server is not None:
            self.server.stop()
        sys.path.remove(self.directory)
        os.chdir(self.back[0])
        os.environ.clear()
        os.environ.update(self.back[1])
        shutil.rmtree(self.directory)


pages = {}


def setup(namespace):
    namespace.update(__name__="__page__", no_hosts=no_hosts)
    pages[id(namespace)] = Page()


def teardown(namespace):
    pages.pop(id(namespace)).close()


pytest_collect_file = Sybil(
    parsers=[DocTestParser(optionflags=FLAGS), Python(), Console(), SkipParser()],
    patterns=["*.rst"],
    setup=setup,
    teardown=teardown,
).pytest()
