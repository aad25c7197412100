"""Gateways to Vagrant machines: a stand-in for the command `vagrant` logs in to the test suite's own sshd."""

import os
import signal
import sys

import pairing
import pytest

if pairing.name in ("C-Python", "Python-C"):
    pytest.skip("hosts over ssh have a core of their own: C-C and Python-Python do", allow_module_level=True)

import execnet_c
from execnet_c.near import transport
from execnet_c import xspec
from masters import is_gone, wait_until

SLOW_TIMEOUT = 60.0
ours = pytest.mark.ours

# What Vagrant does: its own options in front, the host, then what stands behind the --.
STAND_IN = """\
import os, sys
words = sys.argv[1:]
with open({log!r}, "a") as log:
    print(repr(words), file=log)
if words[:1] != ["ssh"] or words[2:3] != ["--"]:
    sys.exit("stand-in: not called as vagrant ssh MACHINE -- ...")
if words[1] not in ("h1", "no-python"):
    sys.exit("The machine with the name '%s' was not found configured for\\nthis Vagrant environment." % words[1])
config = [] if "-F" in words else ["-F", {config!r}]
os.execvp("ssh", ["ssh", *config, words[1], "-o", "LogLevel=ERROR", *words[3:]])
"""


@pytest.fixture
def vagrant(ssh_server, tmp_path, monkeypatch):
    """Is on PATH; calls it has had: vagrant()."""
    log = tmp_path / "log"
    program = tmp_path / "bin" / "vagrant"
    program.parent.mkdir()
    text = STAND_IN.format(log=str(log), config=str(ssh_server.ssh_config))
    program.write_text(f"#!{sys.executable}\n{text}")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    before = ssh_server.sessions()
    yield lambda: [eval(line) for line in log.read_text().splitlines()]
    assert wait_until(lambda: not ssh_server.sessions() - before), "processes are left over there"


def test_a_task(lib, vagrant, ssh_server, group):
    gateway = group.makegateway("vagrant_ssh=h1//python=python//id=box")
    assert gateway.id == "box" and gateway.remoteaddress == "h1"
    channel = gateway.remote_exec("import os\nchannel.send(channel.receive() + 1)\nchannel.send(os.getpid())")
    channel.send(41)
    assert channel.receive() == 42
    assert channel.receive() in ssh_server.sessions(), "it runs at the far end"
    assert vagrant()[0][:3] == ["ssh", "h1", "--"]


@ours
def test_settings_and_any_python(vagrant, group, ssh_server):
    gateway = group.makegateway(f"vagrant_ssh=h1//ssh_config={ssh_server.ssh_config}//env:NAME=value")
    assert gateway.remote_exec("import os; channel.send(os.environ['NAME'])").receive(SLOW_TIMEOUT) == "value"
    [words] = vagrant()
    assert words[3:5] == ["-F", str(ssh_server.ssh_config)]
    assert "ServerAliveInterval=10" in words and words[-1].startswith("exec /bin/sh -c ")


@ours
def test_through_another_gateway(vagrant, group):
    group.makegateway("popen//id=outer")
    gateway = group.makegateway("vagrant_ssh=h1//via=outer")
    assert gateway.remote_exec("channel.send(1)").receive(SLOW_TIMEOUT) == 1


@ours
def test_installvia_listens_where_the_login_came_to(vagrant, group, ssh_server):
    """Behind ssh 127.0.0.1 would be the machine's own."""
    group.makegateway("vagrant_ssh=h1//id=box")
    channel = group["box"].remote_exec("import os; channel.send(os.environ['SSH_CONNECTION'])")
    address = channel.receive(SLOW_TIMEOUT).split()[2]
    gateway = group.makegateway("socket//installvia=box")
    assert gateway.remoteaddress.rpartition(":")[0] == address
    pid = gateway.remote_exec("import os; channel.send(os.getpid())").receive(SLOW_TIMEOUT)
    group.terminate(timeout=SLOW_TIMEOUT)
    assert wait_until(lambda: is_gone(pid))


@ours
def test_the_worker_is_killed(vagrant, group):
    gateway = group.makegateway("vagrant_ssh=h1")
    pid = gateway.remote_exec("import os; channel.send(os.getpid())").receive(SLOW_TIMEOUT)
    channel = gateway.remote_exec("channel.receive()")
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(execnet_c.WorkerKilled, match="its worker on host 'h1' was killed by SIGKILL") as error:
        channel.receive(SLOW_TIMEOUT)
    assert error.value.host == "h1"


@ours
def test_where_there_is_none(vagrant, group, monkeypatch):
    match = "no connection to machine 'h9': vagrant ended with exit status 1"
    with pytest.raises(execnet_c.HostNotFound, match=match) as error:
        group.makegateway("vagrant_ssh=h9")
    assert "was not found configured" in str(error.value)
    with pytest.raises(execnet_c.PythonMissing, match="host 'no-python' has no such Python"):
        group.makegateway("vagrant_ssh=no-python")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(OSError, match="No such file or directory: vagrant"):
        group.makegateway("vagrant_ssh=h1")
    assert list(group) == []


def test_the_command_line():
    spec = xspec.XSpec("vagrant_ssh=box//ssh_config=/a/config//keepalive=0//python=python3")
    assert transport.argv_of(spec)[:-1] == ["vagrant", "ssh", "box", "--", "-F", "/a/config"]
    for text in ("vagrant_ssh", "vagrant_ssh=-c"):
        with pytest.raises(ValueError, match="vagrant_ssh needs a machine"):
            transport.argv_of(xspec.XSpec(text))
