"""The hosts that the tests of ssh log in to, and some to which no login succeeds.

h1 has a `python` and a `python3`, h2 only a `python3`, h3 a `python` that is too old and a `python3` that is not. They have
different Pythons as far as this machine has several. A test is skipped if something is missing here, but fails if CI is
"true" in the environment.
"""

import os
import shutil
import socket
from contextlib import contextmanager

import pytest
import sshd
from far_ends import PLAIN, TOO_OLD
from masters import wait_until

SHELLS = {
    "sh": "/bin/sh",
    "bash": "bash",
    "csh": "csh",
    "tcsh": "tcsh",
    "fish": "fish",
    "zsh": "zsh",
}
OPTIONAL_SHELLS = {"zsh"}  # if it is missing its test is skipped, even where CI is "true"

# {file in the home directory: text}: shells print these words before a command's output, on both streams.
TALKATIVE = {
    ".bashrc": "echo welcome from .bashrc\necho beware of .bashrc >&2\n",
    ".cshrc": "echo welcome from .cshrc\n",
    ".config/fish/config.fish": "echo welcome from config.fish\necho beware of config.fish >&2\n",
    ".zshenv": "echo welcome from .zshenv\n",
}
NOISE = "remote noise: a site that talks on stderr"


def missing(reason):
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def _pythons():
    """The paths of the CPythons that can serve, oldest first, and of the PyPys."""
    there = [end for end in PLAIN if not end.missing]
    cpythons = [end.command[0] for end in there if end.name.startswith("cpython")]
    others = [end.command[0] for end in there if end.name.startswith("pypy")]
    return cpythons, others


CPYTHONS, OTHERS = _pythons()
NEWEST = CPYTHONS[-1] if CPYTHONS else None
OLDEST = CPYTHONS[0] if CPYTHONS else None
OLD = [end.command[0] for end in TOO_OLD]


def both(python):
    return {"python": python, "python3": python}


def hosts():
    third = (OTHERS + CPYTHONS[len(CPYTHONS) // 2 :])[0]
    found = {
        "h1": sshd.Host(both(NEWEST)),
        "h2": sshd.Host({"python3": OLDEST}),
        "h3": sshd.Host({"python3": third, **({"python": OLD[0]} if OLD else {})}),
        "no-python": sshd.Host(),
        "noisy": sshd.Host(both(NEWEST), before=f"echo '{NOISE}' >&2"),
        "chatty": sshd.Host(both(NEWEST), before="i=0; while [ $i -lt 300 ]; do echo 'a banner on stdout'; i=$((i+1)); done"),
    }
    if OLD:
        found["too-old"] = sshd.Host({"python": OLD[0], "python3": OLD[-1]})
    for name, command in SHELLS.items():
        path = shutil.which(command)
        if path:
            found[f"shell-{name}"] = sshd.Host(both(NEWEST), shell=path, rc=TALKATIVE)
    return found


def elsewhere(closed_port, mute_port):
    master = {"ControlPath": "{directory}/m-%C"}
    return {
        "wrong-key": {"IdentityFile": "{directory}/other_key"},
        "changed-key": {"UserKnownHostsFile": "{directory}/other_known_hosts"},
        "unknown-key": {"UserKnownHostsFile": "/dev/null"},
        "refusing": {"Port": closed_port},
        "mute": {"Port": mute_port, "ConnectTimeout": 2},
        "unknown": {"HostName": "no-such-host.invalid"},
        "by-master": {"ControlMaster": "no", **master},
        "quiet": {"LogLevel": "QUIET"},
        "quiet-refusing": {"LogLevel": "QUIET", "Port": closed_port},
        "auto-master": {"ControlMaster": "auto", "ControlPersist": 60, **master},
    }


@contextmanager
def serving(hosts, **more):
    """A server with those hosts; skips the test if there can be none."""
    if reason := sshd.why_not():
        missing(reason)
    try:
        server = sshd.Server(hosts, **more)
    except sshd.CannotLogIn as error:
        missing(str(error))
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def running():
    """The server with all the hosts of this file."""
    if NEWEST is None:
        missing("there is no CPython that could serve as a foreign far end")
    with socket.socket() as closed, socket.socket() as mute:
        closed.bind(("127.0.0.1", 0))  # bound, so that no other process takes the port; nothing listens there
        mute.bind(("127.0.0.1", 0))
        mute.listen(16)  # connections are made, and never get an answer
        ports = closed.getsockname()[1], mute.getsockname()[1]
        with serving(hosts(), elsewhere=elsewhere(*ports)) as server:
            yield server


@pytest.fixture(name="server")
def server_fixture(ssh_server):
    """The server; after the test no process of it may be left at the hosts."""
    before = ssh_server.sessions()
    yield ssh_server
    assert wait_until(lambda: not ssh_server.sessions() - before), "processes are left over there"
