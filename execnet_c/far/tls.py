"""Gateways over sockets with a secret: TLS, and the proof of the secret in it.

At each end a process of its own speaks TLS, as an ssh client would be one. So both cores see pipes, or a socketpair, and
move bytes without the GIL. At the near end main() is that process; at the server each connection has one
(socketserver.py).

There are no certificates. The two ends first agree on keys without knowing each other (anonymous Diffie-Hellman, TLS 1.2,
which every ssl module since Python 3.7 speaks). Then each proves that it knows the secret: it sends a MAC, keyed by the
stretched secret, of its role and of hashes of all bytes of the handshake. The handshake contains random numbers and public
keys of both ends. So an attacker in the middle, who has two connections with two handshakes, cannot use the proof from
one of them in the other. (`tls-unique` of RFC 5929 has the same purpose. But PyPy's value is wrong, and it is safe only
with the extended master secret, about which the ssl module says nothing.) There is no session resumption and no
renegotiation.

The client proves first; the server answers only a client that has proved. So nobody can connect to the server to collect
proofs, and then guess the secret with them. An attacker to whom a client connects does get one proof: for that case the
secret is long, and stretched by scrypt, so that each guess takes time.

This module is also sent to far ends without the package: it runs on Python 3.8, and imports nothing of this package.
"""

import errno
import os
import select
import socket
import time

BANNER = b"execnet_c-secret-2"  # the first bytes that the server sends: TLS follows behind this line
DENIED = b"execnet_c-denied"  # the server's answer to a client that does not know the secret
SHORTEST = 16  # bytes that a secret must have
FAILED = b"execnet_c-tls "  # how a line begins in which main() reports an error
QUOTED = 200  # bytes at most of what another server sent, for an error text
HUNG_UP = getattr(select, "POLLRDHUP", 0)
CHUNK = 1 << 18  # bytes that are read at once
RECORD = 1 << 14  # bytes at most of a TLS record
LINGER = 10.0  # seconds for the worker to take the last bytes that arrived, or for the client to take the last that we send
# This suite encrypts with AES and authenticates with HMAC. OpenSSL has no anonymous suite with elliptic curves and GCM; and
# GCM with plain Diffie-Hellman would cost the server 20 times as much for each connection.
SUITE = "AECDH-AES128-SHA"
NO_RENEGOTIATION = 1 << 30  # SSL_OP_NO_RENEGOTIATION of OpenSSL; PyPy's ssl module has no name for it

UNREACHABLE = {
    *(errno.ECONNREFUSED, errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN),
    *(errno.EADDRNOTAVAIL, errno.ECONNRESET, errno.ECONNABORTED),
}


class Refused(Exception):
    """The connection failed; `kind` is the name of the class in deaths.py that the user gets."""

    def __init__(self, kind, text):
        super().__init__(text)
        self.kind = kind


def stretched(secret):
    """The key (bytes) that is derived from the secret; slow, so that guessing takes long. Raises OSError."""
    import hashlib

    try:
        return hashlib.scrypt(secret, salt=BANNER, n=1 << 15, r=8, p=1, maxmem=1 << 26, dklen=32)
    except (AttributeError, ValueError) as exc:
        raise OSError(f"the hashlib of this Python has no scrypt, which a secret needs ({exc})") from None


def new_context(is_server):
    """The ssl.SSLContext of the server or the client. Raises OSError if this Python cannot make one."""
    try:
        import hashlib  # noqa: F401 (a Session needs both; later the server may have no fds left to load them)
        import hmac  # noqa: F401
        import ssl
    except ImportError:
        raise OSError("this Python has no ssl module, which a socket with a secret needs") from None
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if is_server else ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION | NO_RENEGOTIATION
        context.set_ciphers(SUITE + ":@SECLEVEL=0")
    except (AttributeError, ValueError, ssl.SSLError) as exc:
        what = f"the ssl module of this Python ({ssl.OPENSSL_VERSION}) cannot speak anonymous TLS"
        raise OSError(f"{what}, which a socket with a secret needs ({exc})") from None
    return context


class Session:
    """One end of a TLS connection until the other end has proved that it knows the key. The caller sends what is in
    `to_say`, and empties it."""

    def __init__(self, context, is_server, key, wants=0):
        import hashlib
        import ssl

        self._ssl = ssl
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=is_server)
        self.to_say = b""
        self.wants = wants  # TCP keepalive that the client wants at both ends, see options_for()
        self._is_server = is_server
        self._key = key
        self._heard, self._said = hashlib.sha256(), hashlib.sha256()  # of the handshake's bytes, each direction
        self._binding = None  # both hashes, once the handshake is complete: the client's bytes first
        self._line = b""  # the other end's proof, as far as it has come

    def read(self, data):
        """Take what has arrived. True: the other end has proved that it knows the key; nothing behind its proof is taken
        out of TLS. Raises ValueError with the reason to give up; `to_say` may still have something to send."""
        self.incoming.write(data)
        try:
            if self._binding is None and not self._shake(data):
                return False
            size = 80 if self._is_server else 65
            while self._line[-1:] != b"\n":
                if len(self._line) >= size:
                    raise ValueError("it speaks another protocol")
                data = self.tls.read(size - len(self._line))
                if not data:
                    raise ValueError("it has ended the connection")
                self._line += data
        except self._ssl.SSLWantReadError:
            return False
        except self._ssl.SSLError as exc:
            raise ValueError(f"its TLS is not understood ({exc.reason or exc})") from None
        finally:
            self.to_say += self.outgoing.read()
        self._check(self._line.split())
        return True

    def _shake(self, data):
        self._heard.update(data)
        try:
            self.tls.do_handshake()
        finally:
            said = self.outgoing.read()
            self._said.update(said)
            self.to_say += said
        if self.tls.cipher()[0] != SUITE or self.tls.version() != "TLSv1.2" or self.tls.session_reused:
            raise ValueError("its TLS is another one")
        mine, its = self._said.digest(), self._heard.digest()
        self._binding = its + mine if self._is_server else mine + its
        if not self._is_server:
            self._say(b"%s %d" % (self._proof(b"client"), self.wants))
        return True

    def _proof(self, role):
        import hmac

        return hmac.new(self._key, role + b" " + self._binding, "sha256").hexdigest().encode()

    def _say(self, line):
        self.tls.write(line + b"\n")
        self.to_say += self.outgoing.read()

    def _check(self, words):
        import hmac

        role = b"client" if self._is_server else b"server"
        if not words or not hmac.compare_digest(words[0], self._proof(role)):
            if self._is_server:
                self._say(DENIED)
            raise ValueError("it does not know the secret")
        if self._is_server:
            if len(words) != 2 or not words[1].isdigit():
                raise ValueError("it speaks another protocol")
            self.wants = int(words[1])
            self._say(self._proof(b"server"))


def options_for(pause):
    """The options of a socket, as [(level, name, value)]. pause: seconds between two probes of TCP keepalive, 0 for none.
    The probes also notice that the other end's host is gone, where the keepalive of the core cannot: at the server, and
    for a far end on the twin, which is silent while a task holds the GIL."""
    options = [("IPPROTO_TCP", "TCP_NODELAY", 1)]
    if pause:
        options += [("IPPROTO_TCP", "TCP_KEEPIDLE", pause), ("IPPROTO_TCP", "TCP_KEEPINTVL", pause)]
        options += [("IPPROTO_TCP", "TCP_KEEPCNT", 2), ("SOL_SOCKET", "SO_KEEPALIVE", 1)]
    return options


def set_options(sock, options):
    for level, name, value in options:
        try:
            sock.setsockopt(getattr(socket, level), getattr(socket, name), value)
        except (AttributeError, OSError):
            pass  # this system does not have the option, or the socket is not TCP


def shown(host, port):
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def connect(host, port, timeout, options):
    """A socket that is connected to a server. timeout: seconds for each address of the host. Raises Refused."""
    where = shown(host, port)
    try:
        sock = socket.create_connection((host, port), timeout)
    except socket.gaierror as exc:
        raise Refused("HostUnknown", f"the name {host!r} cannot be resolved: {exc.strerror}") from None
    except (socket.timeout, TimeoutError):
        raise Refused("HostRefused", f"{where} did not answer; it cannot be reached") from None
    except OSError as exc:
        if exc.errno == errno.ECONNREFUSED:
            raise Refused("HostRefused", f"{where} refuses the connection: no server listens there") from None
        if exc.errno in UNREACHABLE:
            raise Refused("HostRefused", f"{where} cannot be reached: {exc.strerror}") from None
        raise Refused("GatewayDied", f"connect to {where}: {exc.strerror or exc}") from None
    set_options(sock, options)
    return sock


def no_server(where, said):
    """The error text for a server that is not ours; `said`: what it sent."""
    if not said:
        return f"{where} ended the connection without a word: it is no socketserver of ours, or wants no secret"
    text = said[:QUOTED].decode("utf-8", "replace").splitlines()[0]
    return f"what answers at {where} is no socketserver; it says {text!r}"


# --- the near end's process -------------------------------------------------------------------------------------------


def main(host, port, connect_timeout, proof_timeout, pause):
    """Connect stdin and stdout to the worker that a server starts for us. The first line of stdin is the key, in hex; what
    follows is read only when the server has proved that it knows the key. If that fails, a line on stdout has FAILED, the
    name of a class in deaths.py and a text. The exit status is 0 if the connection was closed, 1 if it was never made, else
    the errno of what ended it."""
    try:
        session = Session(new_context(False), False, _key(), pause)
        sock = connect(host, port, connect_timeout, options_for(pause))
        _prove(sock, session, shown(host, port), time.monotonic() + proof_timeout, proof_timeout)
    except Refused as exc:
        _fail(exc.kind, str(exc))
    except OSError as exc:
        _fail("GatewayDied", str(exc))
    why = carry(session, sock, 0, 1)
    os._exit(why if why != errno.EPERM else errno.EACCES)


def _fail(kind, text):
    os.write(1, FAILED + f"{kind} {text}".encode("utf-8", "replace") + b"\n")
    os._exit(1)


def _key():
    line = b""
    while line[-1:] != b"\n":
        got = os.read(0, 1)
        if not got:
            raise OSError("there was no key")
        line += got
    return bytes.fromhex(line.decode())


def _prove(sock, session, where, until, proof_timeout):
    asked, last = b"", b""
    try:
        while asked[-1:] != b"\n" and len(asked) < QUOTED:
            data = _hear(sock, until, QUOTED - len(asked))
            if not data:
                break
            asked += data
        if asked[: len(BANNER)] != BANNER:
            if asked[: len(BANNER) - 1] == BANNER[:-1]:
                what = f"{where} is a server of another version than this side, which proves the secret in another way"
                raise Refused("LoginDenied", f"{what}: have the same version of execnet_c at both ends")
            raise Refused("GatewayDied", no_server(where, asked.strip()))
        proven = session.read(b"")
        while not proven:
            sock.settimeout(max(until - time.monotonic(), 0.001))
            sock.sendall(session.to_say)
            session.to_say = b""
            last = _hear(sock, until, 65536)
            if not last:
                what = f"{where} ended the connection before it had proved that it knows the secret"
                raise Refused("GatewayDied", f"{what}: too many connect to it, or its output says why")
            proven = session.read(last)
    except (socket.timeout, TimeoutError):
        if not asked:
            what = f"{where} asked for no secret within {proof_timeout:g} seconds, and this side has one: that is another server "
            what += "than the one with the secret, or it was started without it, and gets nothing to run; or it stands still"
            raise Refused("LoginDenied", what) from None
        what = f"{where} did not prove within {proof_timeout:g} seconds that it knows the secret"
        raise Refused("HostSilent", what) from None
    except ValueError as exc:
        if "secret" in str(exc):
            what = f"{where} has another secret than this side; or somebody stands in between, and gets nothing"
            raise Refused("LoginDenied", what) from None
        raise Refused("GatewayDied", f"{where} wants a secret, but no connection came about: {exc}") from None
    except OSError as exc:
        raise Refused("GatewayDied", f"{where} ended the connection: {exc.strerror or exc}") from None


def _hear(sock, until, size):
    sock.settimeout(max(until - time.monotonic(), 0.001))
    return sock.recv(size)


# --- both ends ----------------------------------------------------------------------------------------------------


def carry(session, sock, source, sink, end_sink=None):
    """Carry bytes from the fd `source` through TLS to `sock`, and from `sock` to the fd `sink`, until the connection has
    ended. Returns 0, or the errno of what ended it; EBADMSG: bytes were changed on their way.

    At the near end end_sink is None: when nothing more can arrive, this returns. At the server end_sink() tells the worker
    that nothing more will arrive; what the worker still writes is carried until it ends.
    """
    return _Carrier(session, sock, source, sink, end_sink).run()


class _Carrier:
    """Carries both directions in one thread, which waits only in poll(). A direction is read only when all that was read
    before has been written."""

    def __init__(self, session, sock, source, sink, end_sink):
        import ssl

        self._ssl = ssl
        self._tls, self._incoming, self._outgoing = session.tls, session.incoming, session.outgoing
        self._sock, self._source, self._sink, self._end_sink = sock, source, sink, end_sink
        sock.setblocking(False)
        for fd in (source, sink):
            os.set_blocking(fd, False)
        self._read_into = getattr(os, "readv", _readv)
        self._buffer, self._opened = memoryview(bytearray(CHUNK)), memoryview(bytearray(CHUNK + RECORD))
        self._sealed, self._plain = memoryview(session.to_say), b""  # still to be sent to sock; still to be written to sink
        self._up = self._down = True  # more may come from source; from sock
        self._told_peer = self._told_sink = False  # the end of that direction was passed on
        self._why = 0  # the errno of what ended the connection
        self._until = None  # when to stop waiting for the worker or the client to take the last bytes
        self._poll, self._watched = select.poll(), {}

    def run(self):
        ready = {}
        while True:
            try:
                if self._source in ready and self._up and not self._sealed:
                    self._read_source()
                self._send()
                if self._sock.fileno() in ready and self._down and not self._plain:
                    self._receive()
                self._write()
            except self._ssl.SSLError:
                return errno.EBADMSG
            gone = not self._down or ready.get(self._sock.fileno(), 0) & (HUNG_UP | select.POLLHUP | select.POLLERR)
            if self._is_over(gone):
                return self._why
            self._watch()
            pause = None if self._until is None else max(self._until - time.monotonic(), 0) * 1000 + 1
            ready = dict(self._poll.poll(pause))
            if not self._up and not self._plain and ready.get(self._sink):
                self._sink = -1  # nobody reads it; still read sock to its end: unread bytes would reset the connection

    def _read_source(self):
        try:
            size = self._read_into(self._source, [self._buffer])
        except BlockingIOError:
            return
        except OSError:
            size = 0
        self._up = size > 0
        part = self._buffer[:size]
        while part:
            part = part[self._tls.write(part) :]
        self._sealed = memoryview(self._outgoing.read())

    def _send(self):
        if self._sealed:
            try:
                self._sealed = self._sealed[self._sock.send(self._sealed) :]
            except BlockingIOError:
                pass
            except OSError as exc:
                self._why, self._up, self._sealed = self._why or exc.errno, False, b""
        if not self._up and not self._sealed and not self._told_peer:
            self._told_peer = True
            try:
                self._sock.shutdown(socket.SHUT_WR)
            except OSError:
                pass

    def _receive(self):
        try:
            size = self._sock.recv_into(self._buffer)
            self._incoming.write(self._buffer[:size])
            self._down = size > 0
        except BlockingIOError:
            pass
        except OSError as exc:
            self._why, self._down = self._why or exc.errno, False

    def _write(self):
        while True:
            if self._plain:
                try:
                    self._plain = self._plain[os.write(self._sink, self._plain) :]
                    self._until = None
                except BlockingIOError:
                    return
                except OSError:
                    self._plain, self._sink = b"", -1
            if self._plain or not self._incoming.pending:
                return
            self._plain = self._open()
            if self._sink < 0:
                self._plain = b""

    def _open(self):
        """Decrypt what has arrived."""
        size = 0
        try:
            while size < CHUNK and (self._incoming.pending or self._tls.pending()):
                got = self._tls.read(CHUNK + RECORD - size, self._opened[size:])
                if not got:
                    self._down = False
                    break
                size += got
        except self._ssl.SSLWantReadError:
            pass
        return self._opened[:size]

    def _is_over(self, gone):
        """gone: the other end has hung up; there may still be bytes of it to take."""
        if not self._down and not self._plain:
            if self._end_sink is None or not self._up:
                return True
            if not self._told_sink:
                self._told_sink = True
                self._end_sink()
        if self._sink < 0 and not self._up and not self._sealed and (self._end_sink is None or not self._down):
            return True
        if self._until is not None:
            return time.monotonic() >= self._until
        if self._end_sink is not None and (self._plain and gone or self._sink < 0 and not self._up):
            self._until = time.monotonic() + LINGER
        return False

    def _watch(self):
        peer = (select.POLLIN if self._down and not self._plain else 0) | (select.POLLOUT if self._sealed else 0)
        if self._end_sink is not None and self._down and self._plain and self._until is None:
            peer |= HUNG_UP
        wanted = {self._sock.fileno(): peer} if peer else {}
        if self._up and not self._sealed:
            wanted[self._source] = select.POLLIN
        if self._sink >= 0 and (self._plain or not self._up):
            wanted[self._sink] = select.POLLOUT if self._plain else 0
        if wanted == self._watched:
            return
        for fd in self._watched:
            self._poll.unregister(fd)
        for fd, events in wanted.items():
            self._poll.register(fd, events)
        self._watched = wanted


def _readv(fd, buffers):
    data = os.read(fd, len(buffers[0]))
    buffers[0][: len(data)] = data
    return len(data)
