"""What the tests with programs from PyPI share: running them as their users do, on either library."""

import ast
import contextlib
import importlib
import importlib.metadata
import os
import shlex
import shutil
import signal
import subprocess
import sys
import textwrap
import uuid
from pathlib import Path

import pairing
import pytest

from conftest import LIBS, TIMEOUT, wait_until
from masters import MARK, living

LIMIT = 120
USERS = Path(sys.prefix) / "users"  # here they are, and execnet, but not execnet_c

# Has `import execnet` mean the library that the program is to run on, and sees that it does.
BEGIN = {
    "execnet_c": pairing.HEAD + "import execnet_c; execnet_c.install_as_execnet()\n",
    "execnet": "",
}
CHECK = "import execnet; assert execnet.Group.__module__ == '{library}.multi', execnet.Group.__module__\n"


def needs(distribution):
    """Skips the test where that is not installed."""
    if not list(importlib.metadata.distributions(name=distribution, path=[str(USERS)])):
        pytest.skip(f"there is no {distribution} in {USERS} (`make test-needs` puts it there)")


class Runner:
    """Runs programs on one library. With ours, no process may be left after one."""

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
            for pid in living(mark):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        return done.stdout

    def program(self, text, **names):
        """What a program says last, a literal. names: what it finds by those names."""
        text = "".join(f"{name} = {value!r}\n" for name, value in names.items()) + textwrap.dedent(text)
        text = BEGIN[self.library] + CHECK.format(library=self.library) + text
        output = self.run(sys.executable, "-c", text)
        return ast.literal_eval(output.splitlines()[-1])

    def script(self, name, *arguments, status=0):
        """What a program's own script prints, run as it is."""
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
    """The hosts, which any ssh client finds that a program starts. Afterwards nothing of ours may run over there."""
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
