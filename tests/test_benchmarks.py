"""The benchmarks run. What they say is not looked at: figures are no business of tests."""

import subprocess
import sys
from pathlib import Path

import pytest
import ssh_hosts
import sshd

pytestmark = [pytest.mark.ours, pytest.mark.any_core]

DIRECTORY = Path(__file__).parent.parent / "benchmarks"


COMMANDS = {
    "far_ends": "far_ends.py",
    "run": "run.py --quick --rounds 1 --only round-trips",
    "serializer": "serializer.py --rounds 1",
    "rsync": "rsync.py 1 20 1",
    "ssh": "ssh.py --rounds 1 --mib 1",
    "xdist": "xdist.py 1 20",
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", COMMANDS)
def test_it_runs(name):
    reason = name == "ssh" and sshd.why_not()
    if reason:
        ssh_hosts.missing(reason)
    done = subprocess.run([sys.executable, *COMMANDS[name].split()], cwd=DIRECTORY, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "execnet_c" in done.stdout or " core" in done.stdout
