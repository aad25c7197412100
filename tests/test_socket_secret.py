"""Gateways over sockets with a secret: who gets in, who cannot pose as the server, and how it ends."""

import os
import re
import signal
import socket
import sys

import pairing
import pytest

import execnet_c
from conftest import TIMEOUT, children_of
from execnet_c.far import tls
from execnet_c.near import sockets
from far_ends import PLAIN
from masters import Program, is_gone, stop_process, wait_until
from socket_servers import SECRET, SOON, answering, evaluate, our_server, refused, serves
from secrets_of_servers import guarded_fixture, hear, known_fixture, no_secret_fixture  # noqa: F401 (fixtures)

pytestmark = pytest.mark.ours

HERE = [end for end in PLAIN if not end.missing]


# --- the secret -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["environment", "file"])
def test_the_secret(guarded, monkeypatch, tmp_path, way):
    if way == "file":
        (tmp_path / "secret").write_text(SECRET + "\n")
        monkeypatch.setenv("EXECNET_C_SECRET_FILE", str(tmp_path / "secret"))
        with our_server() as other:
            assert other.wants_secret and serves(other.address)
    else:
        monkeypatch.setenv("EXECNET_C_SECRET", SECRET)
    assert serves(guarded.address)


def test_a_wrong_secret(guarded, monkeypatch):
    monkeypatch.setenv("EXECNET_C_SECRET", SECRET[:-1])
    error = refused(f"socket={guarded.address}", execnet_c.LoginDenied, f"{guarded.address} has another secret")
    assert SECRET[:-1] not in str(error) and error.host == guarded.address
    monkeypatch.setenv("EXECNET_C_SECRET", SECRET)
    assert serves(guarded.address)


def test_no_secret_where_one_is_wanted(guarded):
    match = f"{guarded.address} wants a secret, and this side has none: set EXECNET_C_SECRET_FILE"
    refused(f"socket={guarded.address}", execnet_c.LoginDenied, match)


def test_a_secret_where_none_is_wanted(no_secret, monkeypatch):
    monkeypatch.setattr(sockets, "SECRET_TIMEOUT", 1.0)
    with our_server() as server:
        monkeypatch.setenv("EXECNET_C_SECRET", SECRET)
        match = "asked for no secret within 1 seconds, and this side has one: .* or it stands still"
        error = refused(f"socket={server.address}", execnet_c.LoginDenied, match)
    assert "unset" not in str(error), "whoever has taken the port would ask for none"


def test_a_secret_that_cannot_be_read(no_secret, monkeypatch, tmp_path):
    monkeypatch.setenv("EXECNET_C_SECRET_FILE", str(tmp_path / "none"))
    refused("socket=127.0.0.1:1", OSError, "no secret from EXECNET_C_SECRET_FILE.*No such file")
    (tmp_path / "none").touch()
    refused("socket=127.0.0.1:1", OSError, "is empty")


@pytest.mark.parametrize("secret", ["", " \n", "x" * 15, " " * 20 + "fifteen letters\n"])
def test_a_short_secret_is_refused_here(no_secret, monkeypatch, tmp_path, secret):
    what = "is shorter than 16 bytes" if secret.strip() else "is empty"
    monkeypatch.setenv("EXECNET_C_SECRET", secret)
    match = f"^gateway '[^']*': the secret of EXECNET_C_SECRET {what}.*openssl rand"
    error = refused("socket=127.0.0.1:1", OSError, match)
    assert not secret.strip() or secret.strip() not in str(error)
    (tmp_path / "secret").write_text(secret)
    monkeypatch.setenv("EXECNET_C_SECRET_FILE", str(tmp_path / "secret"))
    refused("socket=127.0.0.1:1", OSError, f"^gateway '[^']*': the secret of the file '.*/secret' {what}")


def test_a_program_that_connects_has_no_ssl_in_it(known):
    with Program(
        f"""
        gateway = execnet_c.makegateway("socket={known.address}")
        assert gateway.remote_exec("channel.send(1)").receive(30) == 1
        print(*{{"ssl", "_ssl"}} & set(sys.modules), "none")
        """
    ) as program:
        assert program.finish()[0] == ["none"]


def test_a_python_without_ssl(known, monkeypatch):
    with_none = "import sys\nsys.modules['ssl'] = None\n"
    monkeypatch.setattr(sockets, "_OURS", with_none + sockets._OURS)
    match = "this Python has no ssl module, which a socket with a secret needs"
    refused(f"socket={known.address}", execnet_c.GatewayDied, match)


@pytest.mark.parametrize(
    "name, value, why", [("frozen", True, "is this frozen program"), ("executable", "", "is not known")]
)
def test_a_program_whose_python_is_not_known(known, monkeypatch, tmp_path, name, value, why):
    monkeypatch.setattr(sys, name, value, raising=False)
    assert serves(known.address), "any Python speaks TLS"
    monkeypatch.setenv("PATH", str(tmp_path))
    match = f"sys.executable, {why}.*; and there is no python3 in PATH, which is to speak TLS"
    refused(f"socket={known.address}", OSError, match)


def test_a_server_without_ssl(group, monkeypatch):
    source = sockets._server_source()
    monkeypatch.setattr(sockets, "_server_source", lambda: "import sys\nsys.modules['ssl'] = None\n" + source)
    group.makegateway("popen//id=first")
    with pytest.raises(OSError, match="no server on gateway 'first': this Python has no ssl module"):
        group.makegateway("socket//installvia=first")


# --- who poses as the server ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("says", "then", "kind", "match"),
    [
        (tls.BANNER + b"\n", b"no TLS", execnet_c.GatewayDied, "no connection came about: its TLS is not understood"),
        (tls.BANNER + b"\n", b"", execnet_c.GatewayDied, "ended the connection before it had proved"),
        (b"execnet_c-secret-1 " + b"0" * 64 + b"\n", b"", execnet_c.LoginDenied, "of another version than this side"),
        (b"welcome\n", b"", execnet_c.GatewayDied, "no socketserver; it says 'welcome'"),
        (b"", b"", execnet_c.GatewayDied, "ended the connection"),
    ],
)
def test_what_does_not_speak_as_it_should_gets_nothing_to_run(no_secret, monkeypatch, says, then, kind, match):
    monkeypatch.setenv("EXECNET_C_SECRET", SECRET)
    heard = []

    def pretend(connection):
        connection.sendall(says)
        if says.startswith(tls.BANNER):
            heard.append(connection.recv(1000))
            connection.sendall(then)
        connection.shutdown(socket.SHUT_WR)
        hear(connection, heard)

    with answering(pretend) as address:
        refused(f"socket={address}", kind, match)
    said = b"".join(heard)
    assert len(said) < 500 and SECRET.encode() not in said and b"import" not in said
    assert said == b"" or says.startswith(tls.BANNER), "who speaks another protocol hears nothing at all"


@pytest.mark.parametrize(
    "says", ["a proof of another secret", "the proof back", tls.DENIED + b"\n", b"\n", b"x" * 65, b"", "random"]
)
def test_who_speaks_tls_but_does_not_know_the_secret_gets_a_proof_and_nothing_to_run(no_secret, monkeypatch, says):
    """The proof is of this connection: what it is worth elsewhere is test_who_stands_in_the_middle_gets_nothing."""
    monkeypatch.setenv("EXECNET_C_SECRET", SECRET)
    heard = []

    def pretend(connection):
        connection.sendall(tls.BANNER + b"\n")
        secured = tls.new_context(True).wrap_socket(connection, server_side=True)
        heard.append(secured.recv(1000))
        answer = {
            "a proof of another secret": "0" * 64 + "\n",
            "the proof back": heard[0].decode().split()[0] + "\n",
            "random": os.urandom(32).hex() + "\n",
        }.get(says, says)
        secured.sendall(answer if isinstance(answer, bytes) else answer.encode())
        if answer == b"":
            secured.shutdown(socket.SHUT_WR)
        hear(secured, heard)
        secured.close()

    with answering(pretend) as address:
        is_proof = says not in (b"", b"x" * 65)
        kind, match = (execnet_c.LoginDenied, "another secret") if is_proof else (execnet_c.GatewayDied, "connection")
        refused(f"socket={address}", kind, match)
    assert re.fullmatch(rb"[0-9a-f]{64} \d+\n", b"".join(heard))


# --- what goes through, and how it ends -------------------------------------------------------------------------------


def speaker_here(pid=None):
    """The process of this side that speaks TLS."""
    found = []
    for child in children_of(pid or os.getpid()):
        with open(f"/proc/{child}/cmdline", "rb") as file:
            if b"execnet_c.far.tls" in file.read():
                found.append(child)
    (child,) = found
    return child


def speaker_there(server):
    (child,) = [child for child in children_of(server.pid) if not is_gone(child)]
    return child


@pytest.mark.skipif(pairing.name in ("C-Python", "Python-C"), reason="foreign far ends have a core of their own")
@pytest.mark.parametrize("end", HERE, ids=[end.name for end in HERE])
def test_much_in_both_directions_at_once(group, end):
    """And nobody waits for ever where both write before they read. The other Python speaks TLS, too."""
    group.makegateway(end.spec("id=first"))
    gateway = group.makegateway("socket//installvia=first")
    size = 8_000_000
    channel = gateway.remote_exec(
        "import os, hashlib\n"
        f"mine = os.urandom({size})\n"
        "channel.send(mine)\n"
        "channel.send((hashlib.sha256(mine).hexdigest(), hashlib.sha256(channel.receive()).hexdigest()))"
    )
    import hashlib

    mine = os.urandom(size)
    channel.send(mine)
    its = channel.receive(TIMEOUT)
    assert channel.receive(TIMEOUT) == (hashlib.sha256(its).hexdigest(), hashlib.sha256(mine).hexdigest())
    echo = gateway.remote_exec("for item in channel: channel.send(item)")
    for item in ["x" * n for n in (1, 16383, 16384, 16385, 262143, 262144, 262145, 1_000_000)]:
        echo.send(item)
        assert echo.receive(TIMEOUT) == item


def test_a_task_that_does_not_read_for_a_while(known, group):
    gateway = group.makegateway(f"socket={known.address}")
    start, channel = gateway.remote_exec("channel.receive()"), gateway.remote_exec(
        "channel.send(sum(len(item) for item in channel))"
    )
    for _ in range(20):
        channel.send(bytes(1_000_000))
    start.send(None)
    start.waitclose(TIMEOUT)
    channel.send(b"")
    assert evaluate(gateway, "1") == 1


@pytest.mark.parametrize("who", ["worker", "speaker here", "speaker there"])
def test_whoever_is_killed_all_end(known, group, who):
    gateway = group.makegateway(f"socket={known.address}")
    worker = evaluate(gateway, "os.getpid()")
    here, there = speaker_here(), speaker_there(known)
    channel = gateway.remote_exec("import time; time.sleep(100)")
    os.kill({"worker": worker, "speaker here": here, "speaker there": there}[who], signal.SIGKILL)
    match = f"connection to {known.address} was lost.*its worker .process {worker} there. is unknown"
    if who == "speaker here":
        match = rf"connection to {known.address} was lost \(the process that speaks TLS was killed by SIGKILL\)"
    with pytest.raises(execnet_c.LinkLost, match=match) as error:
        channel.receive(TIMEOUT)
    assert error.value.host == known.address
    assert wait_until(lambda: all(map(is_gone, (worker, here, there))), SOON)
    assert evaluate(group.makegateway(f"socket={known.address}"), "1") == 1


def test_the_server_is_killed_and_its_gateways_go_on(known, group):
    gateway = group.makegateway(f"socket={known.address}")
    known.kill()
    known.wait()
    assert evaluate(gateway, "1") == 1


def test_the_program_is_killed(known):
    with Program(
        f"""
        gateway = execnet_c.makegateway("socket={known.address}")
        channel = gateway.remote_exec("import os, time; channel.send(os.getpid()); time.sleep(100)")
        print(channel.receive(), flush=True)
        time.sleep(100)
        """
    ) as program:
        pid = int(program.line())
        speaker = speaker_here(program.pid)
        os.kill(program.pid, signal.SIGKILL)
        assert wait_until(lambda: is_gone(pid) and is_gone(speaker), SOON)


def test_exit_and_terminate_leave_nothing(known, group):
    gateway = group.makegateway(f"socket={known.address}")
    pids = [evaluate(gateway, "os.getpid()"), speaker_here(), speaker_there(known)]
    gateway.exit()
    with pytest.raises(OSError, match="was exited"):
        gateway.remote_exec("pass")
    assert wait_until(lambda: all(map(is_gone, pids)))
    gateway = group.makegateway(f"socket={known.address}")
    gateway.remote_exec("import time; time.sleep(100)")
    group.terminate(timeout=0.5)
    assert not gateway.hasreceiver()


def test_what_was_sent_last_is_not_lost(known, group, tmp_path):
    gateway = group.makegateway(f"socket={known.address}")
    channel = gateway.remote_exec(
        f"with open({str(tmp_path / 'all')!r}, 'wb') as file:\n    for item in channel: file.write(item)"
    )
    for _ in range(30):
        channel.send(bytes(100_000))
    channel.close()
    gateway.exit()
    assert wait_until(lambda: (tmp_path / "all").exists() and (tmp_path / "all").stat().st_size == 3_000_000)


@pytest.mark.parametrize("who", ["worker", "speaker there"])
def test_keepalive(known, group, who):
    if who == "worker" and pairing.far == "Python":
        pytest.skip("a far end with the plain-Python core has the kernel's keepalive alone, and its kernel lives")
    if pairing.far == "Python":
        pytest.skip("the kernel answers for a process that has stopped")
    gateway = group.makegateway(f"socket={known.address}//keepalive=1")
    pid = evaluate(gateway, "os.getpid()")
    stopped = pid if who == "worker" else speaker_there(known)
    channel = gateway.remote_exec("channel.receive()")
    os.kill(stopped, signal.SIGSTOP)
    try:
        with pytest.raises(execnet_c.HostSilent, match=f"silent for 1 second.*{known.address}"):
            channel.receive(TIMEOUT)
    finally:
        os.kill(stopped, signal.SIGKILL)


def test_a_speaker_that_stops_for_a_while(known, group):
    gateway = group.makegateway(f"socket={known.address}//keepalive=0")
    channel = gateway.remote_exec("for item in channel: channel.send(item)")
    for pid in (speaker_here(), speaker_there(known)):
        stop_process(pid)
        channel.send(b"x" * 300_000)
        os.kill(pid, signal.SIGCONT)
        assert channel.receive(TIMEOUT) == b"x" * 300_000


def test_the_kernel_looks_after_it_at_both_ends(known, group):
    port = int(known.address.rpartition(":")[2])

    def timers():
        """Of the established connections there: whether the kernel's keepalive is at work."""
        with open("/proc/net/tcp") as file:
            lines = [line.split() for line in file.readlines()[1:]]
        ports = [(line, {int(word.split(":")[1], 16) for word in line[1:3]}) for line in lines]
        ends = [line for line, both in ports if line[3] == "01" and port in both]
        return [line[5].split(":")[0] == "02" for line in ends]

    for key, expected in {"": True, "//keepalive=0": False}.items():
        gateway = group.makegateway(f"socket={known.address}{key}")
        assert evaluate(gateway, "1") == 1
        assert wait_until(lambda expected=expected: timers() == [expected, expected]), timers()
        group.terminate(timeout=TIMEOUT)


def test_ctrl_c_does_not_end_the_connection(known, group):
    gateway = group.makegateway(f"socket={known.address}")
    assert evaluate(gateway, "1") == 1
    os.kill(speaker_here(), signal.SIGINT)
    assert evaluate(gateway, "2") == 2


def test_several_at_once(known):
    group = execnet_c.Group([f"socket={known.address}"] * 6)
    try:
        assert len({evaluate(gateway, "os.getpid()") for gateway in group}) == 6
    finally:
        group.terminate(timeout=TIMEOUT)


def test_once(no_secret, monkeypatch):
    with our_server("--once", EXECNET_C_SECRET=SECRET) as server:
        monkeypatch.setenv("EXECNET_C_SECRET", SECRET[:-1])
        refused(f"socket={server.address}", execnet_c.LoginDenied, "another secret")
        monkeypatch.setenv("EXECNET_C_SECRET", SECRET)
        assert serves(server.address)
        assert server.wait(TIMEOUT) == 0
