"""Gateways over sockets: our server and execnet's, what goes through, how each end ends. See also test_socket_secret.py."""

import fcntl
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pairing
import pytest

import execnet_c
from conftest import TIMEOUT
from execnet_c.near import bootstrap
from execnet_c.far import socketserver
from far_ends import PLAIN
from masters import Program, is_gone, wait_until
from socket_servers import SECRET, SOON, answering, converse, evaluate, our_server, refused, running, serves

HERE = [end for end in PLAIN if not end.missing]

ours = pytest.mark.ours


@contextmanager
def execnet_s_server():
    program = pytest.importorskip("execnet.script.socketserver").__file__
    for _ in range(5):  # the port may be taken meanwhile
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        with running([sys.executable, program, f"127.0.0.1:{port}"]) as (process, line):
            if "Entering Accept loop" in line:
                process.address = f"127.0.0.1:{port}"
                yield process
                return
    pytest.fail("no port for execnet's server")


@pytest.fixture(params=["ours", "execnet"])
def any_server(request):
    with our_server() if request.param == "ours" else execnet_s_server() as server:
        yield server


@pytest.fixture
def server():
    with our_server() as server:
        yield server


# --- what goes through ------------------------------------------------------------------------------------------------


def test_items_go_there_and_back(lib, group, any_server):
    gateway = group.makegateway(f"socket={any_server.address}//id=far")
    assert gateway.id == "far" and gateway.remoteaddress == any_server.address
    channel = gateway.remote_exec("while True: channel.send(channel.receive())")
    for item in (None, 1, "text", b"\0" * 100000, [1, (2.5, {"a": None})], {1, 2}, b"x" * 5_000_000):
        channel.send(item)
        assert channel.receive() == item
    channel.close()
    with pytest.raises(lib.RemoteError, match="ZeroDivisionError"):
        gateway.remote_exec("1 / 0").waitclose(TIMEOUT)


@ours
def test_many_at_once(group, any_server):
    """Also with execnet's server, which for execnet serves one after the other."""
    gateways = [group.makegateway(f"socket={any_server.address}") for _ in range(4)]
    pids = [evaluate(gateway, "os.getpid()") for gateway in gateways]
    assert len({*pids, any_server.pid}) == 5
    group.terminate(timeout=TIMEOUT)
    assert wait_until(lambda: all(map(is_gone, pids)))
    assert any_server.poll() is None


@ours
def test_settings(group, server, tmp_path):
    keys = f"chdir={tmp_path}//env:NAME=value//nice=1//dont_write_bytecode"
    gateway = group.makegateway(f"socket={server.address}//{keys}")
    facts = evaluate(gateway, "[os.getcwd(), os.environ['NAME'], sys.dont_write_bytecode]")
    assert facts == [str(tmp_path), "value", True]
    with pytest.raises(execnet_c.RemoteError, match="FileNotFoundError"):
        group.makegateway(f"socket={server.address}//chdir={tmp_path}/not/there")


@ours
def test_a_handler_of_stderr_has_no_part_in_it(group, server):
    group.set_stderr_handler(print)
    assert evaluate(group.makegateway(f"socket={server.address}"), "1") == 1


@ours
def test_the_far_end_runs_the_core_that_is_asked_for(group, server):
    gateway = group.makegateway(f"socket={server.address}")
    module = gateway.remote_exec("channel.send(type(channel).__module__)").receive(TIMEOUT)
    assert ("pychannel" in module) == (pairing.far == "Python")


@ours
def test_ipv6(group):
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no ::1")
    with our_server(address="[::1]:0") as server:
        assert server.address.startswith("[::1]:")
        gateway = group.makegateway(f"socket={server.address}")
        assert evaluate(gateway, "1") == 1 and gateway.remoteaddress == server.address


# --- how it ends ------------------------------------------------------------------------------------------------------


@ours
def test_the_worker_is_killed_and_the_server_goes_on(group, server):
    gateway = group.makegateway(f"socket={server.address}")
    pid = evaluate(gateway, "os.getpid()")
    channel = gateway.remote_exec("channel.receive()")
    os.kill(pid, signal.SIGKILL)
    match = rf"connection to {server.address} was lost.*process {pid} there"
    with pytest.raises(execnet_c.LinkLost, match=match) as error:
        channel.receive(TIMEOUT)
    assert error.value.host == server.address and error.value.status is None
    assert evaluate(group.makegateway(f"socket={server.address}"), "os.getpid()") != pid


@ours
def test_a_reset_is_a_lost_link(group, server):
    gateway = group.makegateway(f"socket={server.address}")
    channel = gateway.remote_exec(
        "import os, socket, struct\n"
        "for name in os.listdir('/proc/self/fd'):\n"
        "    try: peer = socket.socket(fileno=os.dup(int(name)))\n"
        "    except OSError: continue\n"
        "    if peer.type == socket.SOCK_STREAM and peer.family == socket.AF_INET:\n"
        "        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))\n"
        "    peer.close()\n"
        "os.kill(os.getpid(), 9)"
    )
    with pytest.raises(execnet_c.LinkLost, match=server.address):
        channel.receive(TIMEOUT)


@ours
def test_a_task_gets_the_time_that_terminate_has(group, server):
    gateway = group.makegateway(f"socket={server.address}")
    pid = evaluate(gateway, "os.getpid()")
    gateway.remote_exec("import time; time.sleep(100)")
    start = time.monotonic()
    group.terminate(timeout=1.0)
    assert 1.0 <= time.monotonic() - start < SOON
    assert not gateway.hasreceiver()
    assert wait_until(lambda: is_gone(pid), 30.0), "execnet's timeouts: five seconds and ten"


@ours
def test_exit(group, server):
    gateway = group.makegateway(f"socket={server.address}")
    pid = evaluate(gateway, "os.getpid()")
    gateway.exit()
    with pytest.raises(OSError, match="was exited"):
        gateway.remote_exec("pass")
    assert wait_until(lambda: is_gone(pid))
    gateway.join(TIMEOUT)
    assert not gateway.hasreceiver()


@ours
def test_the_program_is_killed(server):
    with Program(
        f"""
        gateway = execnet_c.makegateway("socket={server.address}")
        channel = gateway.remote_exec("import os, time; channel.send(os.getpid()); time.sleep(100)")
        print(channel.receive(), flush=True)
        time.sleep(100)
        """
    ) as program:
        pid = int(program.line())
        os.kill(program.pid, signal.SIGKILL)
    assert wait_until(lambda: is_gone(pid), SOON)


@ours
def test_keepalive(group, server):
    if pairing.far == "Python":
        pytest.skip("a far end with the plain-Python core has the kernel's keepalive alone, and its kernel lives")
    gateway = group.makegateway(f"socket={server.address}//keepalive=1")
    pid = evaluate(gateway, "os.getpid()")
    channel = gateway.remote_exec("channel.receive()")
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(execnet_c.HostSilent, match=f"silent for 1 second.*{server.address}"):
            channel.receive(TIMEOUT)
    finally:
        os.kill(pid, signal.SIGKILL)


@ours
def test_the_kernel_looks_after_it_at_both_ends(group, server):
    look = (
        "import os, socket\n"
        "def look():\n"
        "    found = set()\n"
        "    names = ['/proc/self/fd/' + name for name in os.listdir('/proc/self/fd')]\n"
        "    for name in [name for name in names if os.path.exists(name) or os.path.islink(name)]:\n"
        "        if not os.readlink(name).startswith('socket:'): continue\n"
        "        peer = socket.socket(fileno=os.dup(int(name.split('/')[-1])))\n"
        "        try: to = peer.getpeername()\n"
        "        except OSError: to = None\n"
        "        if to and peer.family == socket.AF_INET:\n"
        "            get = lambda name: peer.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))\n"
        "            alive = peer.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)\n"
        "            found.add((bool(get('TCP_NODELAY')), bool(alive), get('TCP_KEEPIDLE') if alive else 0))\n"
        "        peer.close()\n"
        "    return list(found)\n"
    )
    scope = {}
    exec(look, scope)
    cases = {"": (True, True, 10), "//keepalive=0": (True, False, 0), "//keepalive=60": (True, True, 20)}
    cases["//keepalive=1e300"] = True, True, 32767
    for key, expected in cases.items():
        gateway = group.makegateway(f"socket={server.address}{key}")
        assert scope["look"]() == [expected]
        assert gateway.remote_exec(look + "channel.send(look())").receive(TIMEOUT) == [expected]
        group.terminate(timeout=TIMEOUT)


# --- where there is no server -----------------------------------------------------------------------------------------


@pytest.mark.any_core
@pytest.mark.parametrize(
    "text",
    ["8888", "host", "host:", "host:x", "host:-1", "host:65536", "host:0", "::1:8888", "[::1]", "h:\N{THAI DIGIT THREE}"],
)
def test_a_bad_address(text):
    error = refused(f"socket={text}", ValueError, "^spec 'socket=")
    assert "HOST:PORT" in str(error) or "brackets" in str(error) or "port 0" in str(error)


@ours
def test_what_does_not_go_with_it(group):
    group.makegateway("popen//id=outer")
    for spec in ("socket=127.0.0.1:1//python=python3", "socket=127.0.0.1:1//via=outer"):
        with pytest.raises(ValueError, match="does not go with socket="):
            group.makegateway(spec)
    with pytest.raises(ValueError, match="socket needs an address"):
        group.makegateway("socket")
    with pytest.raises(ValueError, match="no gateway type found"):
        group.makegateway("installvia=outer")


def test_nobody_listens():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = "127.0.0.1:%d" % closed.getsockname()[1]
        match = f"{address} refuses the connection: no server listens"
        error = refused(f"socket={address}", execnet_c.HostRefused, match)
    assert isinstance(error, execnet_c.GatewayDied) and error.host == address


def test_an_unknown_host():
    match = "'no-such-host.invalid' cannot be resolved"
    refused("socket=no-such-host.invalid:8888", execnet_c.HostUnknown, match, within=60.0)


def test_an_http_server():
    command = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", "0"]
    with running(command) as (_, line):
        address = "127.0.0.1:" + re.search(r"port (\d+)", line)[1]
        refused(f"socket={address}", execnet_c.GatewayDied, f"what answers at {address} is no socketserver; it says '")


def test_one_that_greets_first():
    def greet(connection):
        connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
        connection.recv(100000)

    with answering(greet) as address:
        refused(f"socket={address}", execnet_c.GatewayDied, "no socketserver; it says 'SSH-2.0-OpenSSH_9.2'")


def test_one_that_floods():
    def flood(connection):
        while True:
            connection.sendall(b"flood\n" * 1000)

    with answering(flood) as address:
        refused(f"socket={address}", execnet_c.GatewayDied, "no socketserver; it says 'flood'")


def test_one_that_hangs_up():
    with answering(lambda connection: None) as address:
        match = f"{address} ended the connection before a worker could serve"
        refused(f"socket={address}", execnet_c.GatewayDied, match)


@pytest.mark.parametrize("says", [b"", b"hold the line"])
def test_one_that_stays_silent(says, monkeypatch):
    monkeypatch.setattr(bootstrap, "HELLO_TIMEOUT", 1.0)
    done = threading.Event()

    def wait(connection):
        connection.sendall(says)
        done.wait(TIMEOUT)

    with answering(wait) as address:
        match = f"did not answer within 1.0 seconds; it was reached at {address}"
        try:
            error = refused(f"socket={address}", execnet_c.HostSilent, match)
        finally:
            done.set()
    assert says.decode() in str(error)


@ours
def test_a_gateway_that_was_started_closes_what_it_does_not_take(group):
    ours, other = socket.socketpair()
    other.settimeout(TIMEOUT)
    with other:
        with pytest.raises(OSError, match="was started before"):
            group.makegateway()._start_on(ours.detach())
        assert other.recv(1) == b""


# --- who gets in ------------------------------------------------------------------------------------------------------


@pytest.fixture
def no_secret(monkeypatch):
    for name in ("EXECNET_C_SECRET", "EXECNET_C_SECRET_FILE"):
        monkeypatch.delenv(name, raising=False)


def test_what_is_no_program_is_refused(server):
    for saying in (b"GET / HTTP/1.1\r\n", b"\n", b"__import__('os')\n", b"'" + b"x" * (socketserver.MAX_LINE + 10)):
        assert converse(server.address, saying) == b""
    assert serves(server.address)


def test_silent_connections_hold_up_nobody(server):
    host, port = socketserver.address_of(server.address)
    silent = [socket.create_connection((host, port)) for _ in range(socketserver.PENDING + 5)]
    try:
        assert serves(server.address)
        silent[0].settimeout(TIMEOUT)
        assert silent[0].recv(1) == b"", "the oldest go when there are too many, and each of them in the end"
    finally:
        for peer in silent:
            peer.close()


# --- the server's command line ----------------------------------------------------------------------------------------


def ended(*options, **env):
    command = [sys.executable, "-m", "execnet_c", "socketserver", *options]
    done = subprocess.run(command, env={**os.environ, **env}, capture_output=True, text=True, timeout=TIMEOUT)
    return done.returncode, done.stderr


@pytest.mark.any_core
def test_elsewhere_than_on_loopback_it_wants_a_secret(no_secret, tmp_path):
    for address in ("0.0.0.0:0", "[::]:0"):
        status, said = ended(address)
        assert status == 2 and ("there is no secret" in said or "Address family" in said), said
    with our_server("--no-secret", address="0.0.0.0:0") as server:
        assert not server.wants_secret
    with our_server(address="0.0.0.0:0", EXECNET_C_SECRET=SECRET) as server:
        assert server.wants_secret
    (tmp_path / "secret").write_text(SECRET)
    with our_server("--secret-file", str(tmp_path / "secret"), address="0.0.0.0:0") as server:
        assert server.wants_secret


@pytest.mark.any_core
def test_a_command_line_that_makes_no_sense(no_secret, tmp_path):
    (tmp_path / "empty").touch()
    (tmp_path / "short").write_text("x" * 15)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for options, match in (
            (["host"], "HOST:PORT"),
            (["127.0.0.1:%d" % taken.getsockname()[1]], "in use"),
            ([":0", "--secret-file", str(tmp_path / "none")], "No such file"),
            ([":0", "--secret-file", str(tmp_path / "empty")], "is empty"),
            ([":0", "--secret-file", str(tmp_path / "short")], "is shorter than 16 bytes"),
            ([":0", "--secret-file", "x", "--no-secret"], "not allowed with"),
            ([":0", "--secret", SECRET], "unrecognized arguments|ambiguous|No such file"),
        ):
            status, said = ended(*options)
            assert status == 2 and re.search(match, said), said
    status, said = ended(":0", EXECNET_C_SECRET="x" * 15)
    assert status == 2 and "EXECNET_C_SECRET is shorter than 16 bytes" in said, said


def test_once(no_secret):
    with our_server("--once") as server:
        converse(server.address, b"no program\n")
        assert serves(server.address)
        assert server.wait(TIMEOUT) == 0


@pytest.mark.any_core
def test_the_console_script(no_secret):
    script = os.path.join(os.path.dirname(sys.executable), "execnet-c-socketserver")
    with running([script, ":0"]) as (process, line):
        assert line.startswith("listening on 127.0.0.1:"), "loopback unless told otherwise"
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT) == 130


def test_nobody_reads_what_the_server_says(no_secret):
    with our_server() as server:
        server.stdout.close()
        for _ in range(3):
            converse(server.address, b"no program\n")
            assert serves(server.address)


def test_nobody_empties_the_pipe_that_the_server_writes_to(no_secret):
    with our_server() as server:
        fcntl.fcntl(server.stdout, 1031, 8192)  # F_SETPIPE_SZ
        for _ in range(200):
            assert converse(server.address, b"no program\n") == b""
        assert serves(server.address)
        assert select.select([server.stdout], [], [], 0)[0], "there were lines"
        os.set_blocking(server.stdout.fileno(), False)
        said = os.read(server.stdout.fileno(), 1 << 20).decode()
        assert 1000 < len(said) <= 8192 and re.fullmatch(r"(127\.0\.0\.1:\d+: refused: .*\n)+", said), said
        assert serves(server.address)
        said = os.read(server.stdout.fileno(), 1 << 20).decode()
        assert re.fullmatch(r"127\.0\.0\.1:\d+: process \d+\n", said), "what can be said is said"


# --- installvia -------------------------------------------------------------------------------------------------------


def test_installvia(lib, group):
    group.makegateway("popen//id=first")
    gateway = group.makegateway("socket//installvia=first//id=second")
    assert evaluate(gateway, "1 + 1") == 2
    assert re.match(r"(127\.0\.0\.1|localhost):\d+$", gateway.remoteaddress)


@ours
def test_installvia_leaves_the_gateway_as_it_was(group):
    first = group.makegateway("popen//id=first")
    pid = evaluate(first, "os.getpid()")
    second = group.makegateway("socket//installvia=first")
    assert evaluate(second, "os.getpid()") != pid
    assert first.remote_status().numexecuting == 0
    assert evaluate(first, "__import__('threading').get_native_id() == os.getpid()"), "the main thread is free"
    first.exit()
    assert evaluate(second, "1") == 1, "it is a process of its own"
    host, port = socketserver.address_of(second.remoteaddress)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, port)).close()


@ours
@pytest.mark.skipif(pairing.name in ("C-Python", "Python-C"), reason="foreign far ends have a core of their own")
@pytest.mark.parametrize("end", HERE, ids=[end.name for end in HERE])
def test_installvia_another_python(group, end):
    group.makegateway(end.spec("id=first"))
    gateway = group.makegateway("socket//installvia=first")
    assert evaluate(gateway, "sys.executable") == evaluate(group["first"], "sys.executable")


@ours
def test_installvia_behind_another_gateway_and_at_a_place(group):
    group.makegateway("popen//id=first")
    group.makegateway("popen//via=first//id=second")
    third = group.makegateway("socket=127.0.0.1:0//installvia=second//id=third")
    fourth = group.makegateway("socket//installvia=third")
    assert third.remoteaddress.startswith("127.0.0.1:") and evaluate(fourth, "1") == 1
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with pytest.raises(OSError, match="no server on gateway 'first': .*in use"):
            group.makegateway("socket=127.0.0.1:%d//installvia=first" % taken.getsockname()[1])


@ours
def test_installvia_of_no_use(group):
    first = group.makegateway("popen//id=first")
    with pytest.raises(KeyError, match="installvia names no gateway of this group; there are: 'first'"):
        group.makegateway("socket//installvia=nobody")
    os.kill(evaluate(first, "os.getpid()"), signal.SIGKILL)
    first.join(TIMEOUT)
    with pytest.raises(execnet_c.WorkerKilled, match="'first'.*SIGKILL"):
        group.makegateway("socket//installvia=first")
    assert [gateway.id for gateway in group] == ["first"]
