"""What the tests with programs from PyPI share: running them as their users do, on either library."""

import ast
import importlib
import importlib.metadata
import os
import shlex
import shutil
import subprocess
import sys
import textwrap
import uuid
from pathlib import Path

import pairing
import pytest

from conftest import LIBS, TIMEOUT, wait_until
from masters import MARK, kill_all, living

LIMIT = 120
USERS = Path(sys.prefix) / "users"  # these programs, and execnet, are installed here, but not execnet_c

# Makes `import execnet` mean the library that the program is to run on; CHECK sees that it does.
BEGIN = {
    "execnet_c": pairing.HEAD + "import execnet_c; execnet_c.install_as_execnet()\n",
    "execnet": "",
}
CHECK = "import execnet; assert execnet.Group.__module__ == '{library}.multi', execnet.Group.__module__\n"


def needs(distribution):
    """Skip the test if `distribution` is not installed in USERS."""
    if not list(importlib.metadata.distributions(name=distribution, path=[str(USERS)])):
        pytest.skip(f"there is no {distribution} in {USERS} (`make test-needs` puts it there)")


class Runner:
    """Runs programs on one library. With execnet_c no process may be left after a program."""

    def __init__(self, library, directory):
        self.library = library
        path = [str(USERS), *filter(None, [os.environ.get("PYTHONPATH")])]
        self.environment = {**os.environ, "PYTHONPATH": ":".join(path)}
        self.directory = directory

    def run(self, *command, status=0):
        mark = uuid.uuid4().hex
        try:
            done = subprocess.run(
                [str(word) for word in command],
                cwd=self.directory,
                env={**self.environment, MARK: mark},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                timeout=LIMIT,
            )
            assert done.returncode == status, done.stdout
            if self.library == "execnet_c":
                assert wait_until(lambda: not living(mark)), "processes are left"
        finally:
            kill_all(living(mark))
        return done.stdout

    def program(self, text, **names):
        """Run a program; return the literal that its last line of output is. names: variables of the program."""
        text = "".join(f"{name} = {value!r}\n" for name, value in names.items()) + textwrap.dedent(text)
        text = BEGIN[self.library] + CHECK.format(library=self.library) + text
        output = self.run(sys.executable, "-c", text)
        return ast.literal_eval(output.splitlines()[-1])

    def script(self, name, *arguments, status=0):
        """Run the script `name` that an installed program has; return its output."""
        runner = ["-m", "execnet_c", "run"] if self.library == "execnet_c" else []
        return self.run(sys.executable, *runner, USERS / "bin" / name, *arguments, status=status)


@pytest.fixture(name="runner", params=LIBS)
def runner_fixture(request, tmp_path):
    runner = Runner(request.param, tmp_path)
    if pairing.near == "Python":
        runner.environment["EXECNET_C_PURE"] = "1"
    return runner


@pytest.fixture(name="server")
def server_fixture(ssh_server, runner):
    """The hosts, known to each ssh that the programs start. Afterwards no process of ours may run at the far ends."""
    programs = runner.directory / "programs"
    programs.mkdir()
    ssh = programs / "ssh"
    ssh.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {shlex.quote(str(ssh_server.ssh_config))} "$@"\n')
    ssh.chmod(0o755)
    runner.environment["PATH"] = f"{programs}:{os.environ['PATH']}"
    before = ssh_server.sessions()
    yield ssh_server
    gone = wait_until(lambda: not ssh_server.sessions() - before, 0.2 if runner.library == "execnet" else TIMEOUT)
    assert gone or runner.library == "execnet", "processes are left over there"
