"""Gateways over sockets with a secret: who gets in, what others can read, make or change, and how it ends."""

import errno
import os
import re
import resource
import signal
import socket
import struct
import sys
import threading

import pairing
import pytest

import execnet_c
from conftest import TIMEOUT, children_of
from execnet_c.far import socketserver, tls
from execnet_c.near import sockets
from far_ends import PLAIN
from masters import Program, is_gone, stop_process, wait_until
from socket_servers import SECRET, SOON, answering, converse, evaluate, our_server, refused, serves

pytestmark = pytest.mark.ours
HERE = [end for end in PLAIN if not end.missing]


@pytest.fixture
def no_secret(monkeypatch):
    for name in ("EXECNET_C_SECRET", "EXECNET_C_SECRET_FILE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def guarded(no_secret):
    with our_server(EXECNET_C_SECRET=SECRET) as server:
        assert server.wants_secret
        yield server


@pytest.fixture
def known(guarded, monkeypatch):
    """A server whose secret this side has, too."""
    monkeypatch.setenv("EXECNET_C_SECRET", SECRET)
    return guarded


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


def hear(connection, heard):
    try:
        while data := connection.recv(100000):
            heard.append(data)
    except OSError:
        pass


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


# --- who stands in between --------------------------------------------------------------------------------------------


class Between:
    """Stands between a program and a server. What either says is kept, and may be changed: `change(data, to_server,
    number)`, the number being how often that side has said something. `data` may be None then: it is held back."""

    def __init__(self, address, change=lambda data, to_server, number: data):
        self.said, self.heard = b"", b""
        self._to = socketserver.address_of(address)
        self._change = change

    def __call__(self, connection):
        self.connection = connection
        with socket.create_connection(self._to) as server:

            def pass_on(source, sink, to_server):
                number = 0
                try:
                    while data := source.recv(65536):
                        if to_server:
                            self.said += data
                        else:
                            self.heard += data
                        number += 1
                        data = self._change(data, to_server, number)
                        if data:
                            sink.sendall(data)
                    sink.shutdown(socket.SHUT_WR)
                except OSError:
                    for each in (source, sink):
                        try:
                            each.shutdown(socket.SHUT_RDWR)
                        except OSError:
                            pass

            thread = threading.Thread(target=pass_on, args=(server, connection, False))
            thread.start()
            pass_on(connection, server, True)
            thread.join()


def a_program(tmp_path):
    """What may not run, as the line of a client; and the file by which it would be seen to have run."""
    marker = tmp_path / "evaluated"
    return repr(f"open({str(marker)!r}, 'w').close()").encode() + b"\n", marker


def test_who_listens_reads_nothing(known, group):
    tap = Between(known.address)
    with answering(tap) as address:
        gateway = group.makegateway(f"socket={address}")
        channel = gateway.remote_exec("channel.send('the answer to ' + channel.receive())  # a program of ours")
        channel.send("a question of ours")
        assert channel.receive(TIMEOUT) == "the answer to a question of ours"
        group.terminate(timeout=TIMEOUT)
    assert tap.heard.startswith(tls.BANNER) and tap.said.startswith(b"\x16\x03")
    for extension in (b"\0\x16\0\0", b"\0\x17\0\0"):  # encrypt, then MAC; extended master secret
        assert extension in tap.said and extension in tap.heard
    for word in (SECRET, "a program", "import", "question", "answer", "channel", "execnet", sys.executable):
        assert word.encode() not in tap.said + tap.heard[tap.heard.index(b"\n") :]


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_a_relay_cannot_say_anything_of_its_own(known, tmp_path, number):
    """It passes on what proves that the program knows the secret, and then has the server run something else."""
    program, marker = a_program(tmp_path)

    def change(data, to_server, count):
        if to_server and count == number:
            return data + program
        return None if to_server and count > number else data

    with answering(Between(known.address, change)) as address:
        group = execnet_c.Group()
        try:
            with pytest.raises(OSError):
                group.makegateway(f"socket={address}").remote_exec("channel.receive()").receive(TIMEOUT)
        finally:
            group.terminate(timeout=1.0)
    assert serves(known.address), "the server lives on"
    assert not marker.exists()


def test_who_stands_in_the_middle_gets_nothing(known, tmp_path):
    """It speaks TLS with both, and passes each proof on to the other."""
    program, marker = a_program(tmp_path)
    passed = {"client": [], "server": []}

    def stand(connection):
        with socket.create_connection(socketserver.address_of(known.address)) as sock:
            connection.sendall(sock.recv(1000))
            to_server = tls.new_context(False).wrap_socket(sock)
            to_client = tls.new_context(True).wrap_socket(connection, server_side=True)
            passed["client"].append(to_client.recv(1000))
            to_server.sendall(passed["client"][0])
            passed["server"].append(to_server.recv(1000))
            try:
                to_server.sendall(program)
            except OSError:
                pass
            to_client.sendall(passed["server"][0])
            hear(to_client, passed["client"])
            for each in (to_server, to_client):
                each.close()

    with answering(stand) as address:
        match = "another secret than this side; or somebody stands in between"
        refused(f"socket={address}", execnet_c.LoginDenied, match)
    assert passed["server"] == [tls.DENIED + b"\n"], "the server has proved nothing to who could not"
    assert len(passed["client"]) == 1 and len(passed["client"][0]) < 80, "the program has said nothing after its proof"
    assert serves(known.address) and not marker.exists()


def test_what_was_heard_is_worth_nothing_later(known, tmp_path):
    program, marker = a_program(tmp_path)
    tap = Between(known.address)
    with answering(tap) as address:
        assert serves(address)
    heard = converse(known.address, tap.said, program)
    assert heard.startswith(tls.BANNER) and len(heard) < len(tap.heard)
    assert serves(known.address) and not marker.exists()


@pytest.mark.parametrize("to_server", [True, False], ids=["to the server", "from the server"])
def test_a_changed_bit_ends_the_connection(known, group, to_server):
    armed = threading.Event()

    def change(data, way, number):
        if armed.is_set() and way == to_server:
            return data[:-1] + bytes([data[-1] ^ 1])
        return data

    with answering(Between(known.address, change)) as address:
        gateway = group.makegateway(f"socket={address}")
        channel = gateway.remote_exec("import os; channel.send(os.getpid()); channel.send(channel.receive())")
        pid = channel.receive(TIMEOUT)
        armed.set()
        channel.send("whatever it is")
        why = "" if to_server else r" \(what arrived was not what had been sent\)"
        match = f"connection to {address} was lost{why}"
        with pytest.raises(execnet_c.LinkLost, match=match):
            channel.receive(TIMEOUT)
        assert wait_until(lambda: is_gone(pid), SOON)


@pytest.mark.parametrize(
    "how, number", [("close", 0), ("reset", errno.ECONNRESET), ("forge", errno.EBADMSG), ("keep silent", 0)]
)
def test_how_a_connection_ended_is_told_by_an_errno(how, number):
    ends = [tls.Session(tls.new_context(is_server), is_server, b"key") for is_server in (False, True)]
    proven, said = [False, False], b""
    while not all(proven):
        for index, end in enumerate(ends):
            proven[index] = proven[index] or end.read(said)
            said, end.to_say = end.to_say, b""
    (source, there), (here, sink) = os.pipe(), os.pipe()
    results = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near, far = socket.create_connection(listener.getsockname()), listener.accept()[0]
    thread = threading.Thread(target=lambda: results.append(tls.carry(ends[0], near, source, sink)))
    thread.start()
    try:
        os.write(there, b"word")
        assert far.recv(1000)[:3] == b"\x17\x03\x03"
        if how == "reset":
            far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if how == "forge":
            far.sendall(b"\x17\x03\x03\0\x40" + bytes(64))
        if how == "keep silent":  # it ends with who is to read
            os.close(here)
            os.close(there)
            here = there = os.open(os.devnull, os.O_RDONLY)
            assert far.recv(1000) == b""
        else:
            far.close()
        thread.join(TIMEOUT)
        assert results == [number]
    finally:
        for fd in {source, sink, here, there}:
            os.close(fd)
        for each in (near, far):
            each.close()


@pytest.mark.parametrize(
    "body, kind, match",
    [
        ("os._exit(errno.ETIMEDOUT)", execnet_c.HostSilent, "has not answered TCP's keepalive messages"),
        ("os._exit(errno.ECONNRESET)", execnet_c.GatewayDied, "before a worker could serve.*Connection reset by peer"),
        ("raise KeyError('mine')", execnet_c.GatewayDied, "(?s)TLS ended with exit status 1.*KeyError: 'mine'"),
        ("os.kill(os.getpid(), 9)", execnet_c.GatewayDied, "the process that speaks TLS was killed by SIGKILL"),
        ("os.write(1, b'execnet_c-tls re much'); os._exit(1)", execnet_c.GatewayDied, "much"),
    ],
)
def test_what_the_process_that_speaks_tls_may_come_to(known, monkeypatch, body, kind, match):
    monkeypatch.setattr(sockets, "_OURS", f"import errno, os\ndef main(*arguments):\n    {body}\n")
    error = refused(f"socket={known.address}", kind, match)
    assert type(error) is kind


def test_a_cut_during_the_handshake(known):
    for number in (1, 2, 3):

        def cut(data, to_server, count, number=number):
            if to_server and count == number:
                raise OSError("cut")
            return data

        with answering(Between(known.address, cut)) as address:
            if number < 3:
                refused(f"socket={address}", execnet_c.GatewayDied, f"{address} ended the connection")
            else:
                refused(f"socket={address}", execnet_c.GatewayDied, f"{address}")


# --- who knocks at the server -----------------------------------------------------------------------------------------


def test_nothing_is_evaluated_without_the_secret(guarded, monkeypatch, tmp_path):
    program, marker = a_program(tmp_path)
    hello = tls.Session(tls.new_context(False), False, b"")
    hello.read(b"")
    old = b"execnet_c-proof " + b"1" * 64 + b" " + b"2" * 64 + b"\n"
    attempts = {
        "execnet's line": [program],
        "a newline first": [b"\n", program],
        "garbage": [os.urandom(100000).replace(b"\n", b""), b"\n", program],
        "an older version's proof": [old, program],
        "the server's own words": [tls.BANNER + b"\n", program],
        "HTTP": [b"POST / HTTP/1.1\r\nHost: localhost\r\n\r\n" + program],
        "nulls": [b"\0" * 1000 + b"\n" + program],
        "a hello, then a line": [hello.to_say, program],
        "half a hello": [hello.to_say[:50], program],
        "a hello of hostile length": [b"\x16\x03\x01\xff\xff" + bytes(70000), program],
        "hellos": [hello.to_say * 100, program],
        "nothing": [],
    }
    for name, sayings in attempts.items():
        heard = converse(guarded.address, *sayings)
        assert heard.startswith(tls.BANNER) and len(heard) < 1000, name
    monkeypatch.setenv("EXECNET_C_SECRET", SECRET)
    assert serves(guarded.address), "the server lives on"
    assert not marker.exists()

    # The same line does run where it may.
    with our_server("--no-secret") as server:
        assert not server.wants_secret
        converse(server.address, program)
        assert wait_until(marker.exists)


@pytest.mark.parametrize(
    "says", [b"", b"\n", b"0" * 64 + b" 0\n", b"0" * 100, b"0" * 64 + b" -1\n", b"\xff" * 79 + b"\n"]
)
def test_a_proof_that_is_none(known, tmp_path, says):
    program, marker = a_program(tmp_path)
    with socket.create_connection(socketserver.address_of(known.address), TIMEOUT) as peer:
        peer.recv(1000)
        with tls.new_context(False).wrap_socket(peer) as secured:
            heard = []
            try:
                secured.sendall(says)
                secured.sendall(program)
            except OSError:
                pass
            hear(secured, heard)
    assert b"".join(heard) in (b"", tls.DENIED + b"\n")
    assert serves(known.address) and not marker.exists()


def half_open(address, stage, source="127.0.0.1"):
    """A connection that goes so far, and no further."""
    peer = socket.create_connection(socketserver.address_of(address), TIMEOUT, (source, 0))
    try:
        if stage != "silent":
            peer.recv(1000)
            context = tls.new_context(False)
            session = tls.Session(context, False, b"")
            session.read(b"")
            if stage == "all but the proof":
                return context.wrap_socket(peer)
            peer.sendall(session.to_say if stage == "hello" else session.to_say[:40])
    except OSError:
        pass  # it had to go already
    return peer


@pytest.mark.parametrize("stage", ["silent", "half a hello", "hello", "all but the proof"])
def test_half_open_connections_hold_up_nobody(known, stage):
    """More than the server keeps, all the time."""
    peers, done = [], threading.Event()

    def knock():
        while not done.wait(0.001):
            peers.append(half_open(known.address, stage))
            if len(peers) > socketserver.PENDING + 20:
                peers.pop(0).close()

    threads = [threading.Thread(target=knock) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        assert wait_until(lambda: len(peers) > socketserver.PENDING)
        before = children_of(known.pid)
        for _ in range(3):
            assert serves(known.address)
        assert len(children_of(known.pid) - before) <= 3, "none of them has cost a process"
    finally:
        done.set()
        for thread in threads:
            thread.join()
        for peer in peers:
            peer.close()


def is_open(peer):
    """Whether the server has not ended it."""
    peer.setblocking(False)
    try:
        return peer.recv(1000) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def test_who_comes_in_numbers_keeps_out_nobody_else(guarded):
    """From one network, that is: those of another one have their time."""
    few = [half_open(guarded.address, "hello", "127.0.0.2") for _ in range(3)]
    many = []
    try:
        for _ in range(socketserver.PENDING + 50):
            many.append(half_open(guarded.address, "silent"))
        assert wait_until(lambda: not is_open(many[0]))
        for peer in few:
            assert is_open(peer) and is_open(peer), "the first look finds what the server has said"
    finally:
        for peer in few + many:
            peer.close()


def test_a_server_with_few_fds(known):
    resource.prlimit(known.pid, resource.RLIMIT_NOFILE, (40, 40))
    silent = [half_open(known.address, "silent") for _ in range(60)]
    try:
        assert serves(known.address)
    finally:
        for peer in silent:
            peer.close()


def test_a_silent_connection_is_ended(guarded):
    host, port = socketserver.address_of(guarded.address)
    with socket.create_connection((host, port), socketserver.PATIENCE + TIMEOUT) as peer:
        said = b""
        while data := peer.recv(1000):
            said += data
    assert said.startswith(tls.BANNER) and said.count(b"\n") == 1


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
