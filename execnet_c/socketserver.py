"""The server behind socket= gateways: ``python -m execnet_c socketserver [HOST:PORT]``, or execnet-c-socketserver.

As with execnet's, the first line of a connection is a Python string, a program that is run with `clientsock`, the
connection, in its scope. Each runs in a process of its own; ours (see sockets.py) puts a worker in the place of that.

Where there is a secret, both ends prove that they know it before anything else is read, and it never goes over the
wire. The server says CHALLENGE and a number that it has never said before; the client answers with PROOF, a number of
its own, and a MAC of both under the secret; the server's answer to that is WELCOME with its own MAC of them. What
comes after it is not encrypted.

Until a connection has said its line it costs no process: one loop reads them all, and none has longer than PATIENCE.

This text also travels to far ends that have no package (installvia=): it runs on Python 3.8, and needs nothing of ours.
"""

import ast
import hashlib
import hmac
import os
import select
import selectors
import socket
import sys
import time

CHALLENGE, PROOF, WELCOME, DENIED = b"execnet_c-secret-1", b"execnet_c-proof", b"execnet_c-welcome", b"execnet_c-denied"
PORT = 8888
PATIENCE = 10.0  # seconds for the line of a connection, and for its proof
PENDING = 64  # connections that have not said their line; with more of them the oldest goes
MAX_LINE = 1 << 20  # bytes; execnet's own line has 60000
MAX_PROOF = 256
MAX_SAID = 512  # bytes of a line: what goes into any pipe that has room at all
LOOK_FOR_CHILDREN = 1.0  # seconds


def address_of(text):
    """(host, port) of HOST:PORT, [IPV6]:PORT, or :PORT, which is a port of 127.0.0.1. Raises ValueError."""
    host, colon, port = text.rpartition(":")
    if host[:1] == "[" and host[-1:] == "]":
        host = host[1:-1]
    elif ":" in host or "[" in host:
        raise ValueError("write an IPv6 address in brackets, as in [::1]:8888")
    if not colon or not (port.isascii() and port.isdigit() and int(port) < 65536):
        raise ValueError("write HOST:PORT, with a port between 0 and 65535")
    return host or "127.0.0.1", int(port)


def shown(sockaddr):
    """A socket's address for people, and for address_of()."""
    host, port = sockaddr[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def proof(secret, role, server_number, client_number):
    """What only who knows the secret can say, of these two numbers; `role` keeps one end's from being the other's."""
    return hmac.new(secret, b" ".join((role, server_number, client_number)), hashlib.sha256).hexdigest().encode()


def new_number():
    return os.urandom(32).hex().encode()


def is_loopback(host):
    from ipaddress import ip_address

    return ip_address(host.partition("%")[0]).is_loopback


def listen(host, port):
    """A socket that listens there. Raises OSError."""
    error = OSError(f"no address for {host!r}")
    flags = socket.AI_PASSIVE
    for family, kind, number, _, sockaddr in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags):
        sock = socket.socket(family, kind, number)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(sockaddr)
            sock.listen(128)
            sock.setblocking(False)
            return sock
        except OSError as exc:
            sock.close()
            error = exc
        except BaseException:
            sock.close()
            raise
    raise error


class Pending:
    """A connection that has not said its line yet."""

    def __init__(self, sock, address, secret):
        sock.setblocking(False)
        self.sock = sock
        self.address = address
        self.until = time.monotonic() + PATIENCE
        self._secret = secret
        self._said = b""
        self._number = new_number()
        if secret:
            sock.send(CHALLENGE + b" " + self._number + b"\n")  # the first bytes always go in

    def read(self):
        """The line with the program, once it is complete and its sender may have it run; None until then. Raises
        ValueError for who may not, and for what is no line; OSError when the connection ends."""
        while True:
            # No byte behind the line is taken: the program reads on.
            try:
                data = self.sock.recv(65536, socket.MSG_PEEK)
            except BlockingIOError:
                return None
            if not data:
                raise OSError("it was closed before it had said anything to run")
            end = data.find(b"\n") + 1
            data = self.sock.recv(end or len(data))
            self._said += data
            if len(self._said) > (MAX_PROOF if self._secret else MAX_LINE):
                raise ValueError("it does not know that a secret is wanted" if self._secret else "its line is too long")
            if self._said[-1:] != b"\n":
                continue
            line, self._said = self._said.strip(), b""
            if not self._secret:
                if line[:1] not in (b"'", b'"'):
                    raise ValueError("its first line is no Python string")
                return line
            self._check(line)
            self._secret = None

    def _check(self, line):
        words = line.split(b" ")
        if len(words) != 3 or words[0] != PROOF or len(words[1]) != len(self._number):
            raise ValueError("it does not know that a secret is wanted")
        if not hmac.compare_digest(words[2], proof(self._secret, b"client", self._number, words[1])):
            raise ValueError("it does not know the secret")
        self.sock.send(WELCOME + b" " + proof(self._secret, b"server", self._number, words[1]) + b"\n")

    def refuse(self):
        try:
            if self._secret:
                self.sock.send(DENIED + b"\n")
            self.sock.shutdown(socket.SHUT_WR)
            self.sock.recv(65536)  # unread bytes would turn the end into a reset, which may overtake what we said
        except OSError:
            pass
        self.sock.close()


class Server:
    """Takes connections of `listener` until it is told to stop.

    secret: bytes; empty where none is wanted. say: called with a line for each event.
    """

    def __init__(self, listener, secret, say):
        self._listener = listener
        self._secret = secret
        self._say = say
        self._pending = []  # in the order of their coming
        self._children = set()
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ, self._accept)

    def serve(self):
        """For ever: each program in a process of its own."""
        while True:
            pending, line = self._next(None)
            try:
                child = os.fork()
            except OSError as exc:
                self._say(f"{pending.address}: no process for it: {exc}")
                pending.refuse()
                continue
            if child == 0:
                try:
                    os.setsid()  # Ctrl-C at the server's terminal is not for its workers
                    self._run(pending, line)
                finally:
                    os._exit(1)
            self._children.add(child)
            self._say(f"{pending.address}: process {child}")
            pending.sock.close()

    def serve_once(self, patience):
        """The first program, in this process. Raises OSError when none has come for `patience` seconds (None: ever)."""
        self._run(*self._next(None if patience is None else time.monotonic() + patience))

    def _next(self, until):
        """The next connection that has said its line: (pending, line)."""
        while True:
            now = time.monotonic()
            if until is not None and now >= until:
                raise OSError("nobody has connected in time")
            for pending in [one for one in self._pending if one.until <= now]:
                self._drop(pending, "it was silent for too long")
            dues = [one.until for one in self._pending] + ([until] if until is not None else [])
            if self._children:
                self._reap()
                dues.append(now + LOOK_FOR_CHILDREN)
            for key, _ in self._selector.select(max(0.0, min(dues) - now) if dues else None):
                found = key.data()
                if found:
                    return found

    def _accept(self):
        try:
            sock, sockaddr = self._listener.accept()
        except OSError as exc:
            if not isinstance(exc, (BlockingIOError, ConnectionAbortedError)):
                self._say(f"cannot take a connection: {exc}")
                time.sleep(0.1)  # no fds, mostly; the connection waits, and would be told of at once again
            return
        try:
            pending = Pending(sock, shown(sockaddr), self._secret)
        except OSError:
            sock.close()
            return
        if len(self._pending) >= PENDING:
            self._drop(self._pending[0], "too many others have come that say nothing either")
        self._pending.append(pending)
        self._selector.register(sock, selectors.EVENT_READ, lambda: self._read(pending))

    def _read(self, pending):
        if pending not in self._pending:
            return None  # dropped in the same round
        try:
            line = pending.read()
        except (OSError, ValueError) as exc:
            self._drop(pending, str(exc))
            return None
        if line is None:
            return None
        self._forget(pending)
        return pending, line

    def _forget(self, pending):
        self._pending.remove(pending)
        self._selector.unregister(pending.sock)

    def _drop(self, pending, why):
        self._forget(pending)
        pending.refuse()
        self._say(f"{pending.address}: refused: {why}")

    def _reap(self):
        for child in list(self._children):
            try:
                if os.waitpid(child, os.WNOHANG)[0]:
                    self._children.remove(child)
            except ChildProcessError:
                self._children.remove(child)

    def _run(self, mine, line):
        for pending in self._pending:
            pending.sock.close()
        self._selector.close()
        self._listener.close()
        mine.sock.setblocking(True)
        try:
            source = ast.literal_eval(line.decode())
            scope = {"clientsock": mine.sock, "address": mine.address, "__name__": "__socketserver__"}
            exec(compile(source + "\n", "<socketserver>", "exec"), scope)
        except SystemExit:
            pass
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()


def one_worker(host, port, secret, patience):
    """For installvia=: say on stdout where it listens, then go on in the background, and serve one connection."""
    try:
        listener = listen(host, port)
    except OSError as exc:
        print(f"error {exc}", flush=True)
        return
    print(shown(listener.getsockname()), flush=True)
    if os.fork():
        os._exit(0)
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1):
        os.dup2(null, fd)
    os.close(null)
    try:
        Server(listener, secret, lambda line: None).serve_once(patience)
    except OSError:
        pass
    finally:
        os._exit(0)


# --- the program ------------------------------------------------------------------------------------------------------


def secret_of_environment():
    """The shared secret (bytes) that EXECNET_C_SECRET_FILE or EXECNET_C_SECRET tells, empty without them. Raises
    OSError, and ValueError for an empty file."""
    path = os.environ.get("EXECNET_C_SECRET_FILE")
    return secret_in(path) if path else os.fsencode(os.environ.get("EXECNET_C_SECRET", "")).strip()


def secret_in(path):
    with open(path, "rb") as file:
        secret = file.read().strip()
    if not secret:
        raise ValueError(f"the secret's file {path!r} is empty")
    return secret


def main(argv=None, prog=None):
    """The command line's."""
    import argparse

    parser = argparse.ArgumentParser(
        prog=prog or "execnet-c-socketserver",
        description="Serves gateways of the kind socket=HOST:PORT. Whoever connects can run any code as this user: on "
        "addresses other than loopback a shared secret is wanted, from --secret-file, or the file that "
        "EXECNET_C_SECRET_FILE names, or EXECNET_C_SECRET. The connection is not encrypted.",
    )
    parser.add_argument(
        "address",
        nargs="?",
        default=f":{PORT}",
        metavar="HOST:PORT",
        help=f"where to listen; without it, or without a HOST, on 127.0.0.1 (default: :{PORT}; port 0: any free one)",
    )
    parser.add_argument("--once", action="store_true", help="serve one connection, then end")
    secrets = parser.add_mutually_exclusive_group()
    secrets.add_argument("--secret-file", metavar="FILE", help="the file that holds the shared secret")
    secrets.add_argument("--no-secret", action="store_true", help="want no secret, whoever can connect")
    options = parser.parse_args(argv)
    try:
        secret = b"" if options.no_secret else _secret(options.secret_file)
        listener = listen(*address_of(options.address))
    except (OSError, ValueError) as exc:
        parser.error(f"{options.address}: {exc}")
    sockaddr = listener.getsockname()
    if not secret and not options.no_secret and not is_loopback(sockaddr[0]):
        parser.error(
            f"{shown(sockaddr)} can be reached from outside, and there is no secret: whoever connects could run any "
            f"code here. Set EXECNET_C_SECRET_FILE or EXECNET_C_SECRET, or say --secret-file or --no-secret"
        )
    os.environ.pop("EXECNET_C_SECRET", None)  # workers have no use for it
    try:
        server = Server(listener, secret, _say)
        print(f"listening on {shown(sockaddr)}{', with a secret' if secret else ''}", flush=True)
        if options.once:
            server.serve_once(None)
        else:
            server.serve()
    except KeyboardInterrupt:
        return 130
    return 0


def _say(line):
    """Print it, unless that had to be waited for: whoever can connect could fill what nobody empties any more."""
    try:
        fd = sys.stdout.fileno()
        if select.select([], [fd], [], 0)[1]:
            os.write(fd, f"{line}\n".encode(errors="replace")[:MAX_SAID])
    except (OSError, ValueError):
        pass  # closed


def _secret(path):
    return secret_in(path) if path else secret_of_environment()
