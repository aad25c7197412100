"""Sockets with a secret: what somebody in between can read, make or change, and who knocks at the server."""

import errno
import os
import resource
import socket
import struct
import sys
import threading

import pytest

import execnet_c
from conftest import TIMEOUT, children_of
from execnet_c.far import socketserver, tls
from execnet_c.near import sockets
from masters import is_gone, wait_until
from socket_servers import SECRET, SOON, answering, converse, our_server, refused, serves
from secrets_of_servers import guarded_fixture, hear, known_fixture, no_secret_fixture  # noqa: F401 (fixtures)

pytestmark = pytest.mark.ours


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


@pytest.mark.deep
def test_a_silent_connection_is_ended(guarded):
    host, port = socketserver.address_of(guarded.address)
    with socket.create_connection((host, port), socketserver.LINE_TIMEOUT + TIMEOUT) as peer:
        said = b""
        while data := peer.recv(1000):
            said += data
    assert said.startswith(tls.BANNER) and said.count(b"\n") == 1
