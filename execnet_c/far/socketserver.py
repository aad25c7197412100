"""The server behind socket= gateways: ``python -m execnet_c socketserver [HOST:PORT]``, or execnet-c-socketserver.

As in execnet, the first line of a connection is a Python string literal: the source of a program. The server runs it in a
process of its own, with the connection as the global `clientsock`. The program that near/sockets.py sends replaces this
process by a worker.

If the server has a secret, a connection speaks TLS, and both ends prove that they know the secret before anything else is
read (see tls.py). Such a connection has two processes: one speaks TLS; the other runs the program, whose `clientsock` is
one end of a socketpair between the two.

A connection is *pending* until its first line is complete; with a secret, until its client has proved that it knows the
secret. It has no process then: one loop reads all pending connections. Each may be pending for LINE_TIMEOUT. If there are
too many, the network that has most of them loses one.

This module is also sent to far ends without the package (installvia=): it runs on Python 3.8, and imports nothing of this
package but tls.py, whose source near/sockets.py puts in the place of the import.
"""

import ast
import os
import select
import selectors
import signal
import socket
import sys
import time

from .tls import BANNER, DENIED, SHORTEST, Session, carry, new_context, options_for, set_options, shown, stretched

PORT = 8888
LINE_TIMEOUT = 10.0  # seconds that a connection may be pending
PENDING = 256  # pending connections at most
MAX_LINE = 1 << 20  # bytes; the first line that execnet sends has 60000
MAX_SAID = 512  # bytes of a line of output: a pipe that poll() calls writable takes at least so many
LOOK_FOR_CHILDREN = 1.0  # seconds between two checks for ended children


def address_of(text):
    """(host, port) from HOST:PORT, [IPV6]:PORT or :PORT; the host of :PORT is 127.0.0.1. Raises ValueError."""
    host, colon, port = text.rpartition(":")
    if host[:1] == "[" and host[-1:] == "]":
        host = host[1:-1]
    elif ":" in host or "[" in host:
        raise ValueError("write an IPv6 address in brackets, as in [::1]:8888")
    if not colon or not (port.isascii() and port.isdigit() and int(port) < 65536):
        raise ValueError("write HOST:PORT, with a port between 0 and 65535")
    return host or "127.0.0.1", int(port)


def is_loopback(host):
    from ipaddress import ip_address

    return ip_address(host.partition("%")[0]).is_loopback


def listen(host, port):
    """A socket that listens at the first address of `host` that can be used. Raises OSError."""
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
    """A pending connection, see the head of this file. `key`: as for Server."""

    def __init__(self, sock, sockaddr, context, key):
        sock.setblocking(False)
        self.sock = sock
        self.address = shown(*sockaddr[:2])
        # A client usually has a whole IPv6 network, of 64 bits: the first 8 bytes name it.
        self.network = socket.inet_pton(sock.family, sockaddr[0].partition("%")[0])[:8]
        self.until = time.monotonic() + LINE_TIMEOUT
        self.line = b""
        self.session = None
        self._context = context
        self._key = key
        if key:
            sock.send(BANNER + b" (TLS, which older versions of execnet_c do not speak)\n")  # its buffer is still empty

    def read(self):
        """Take what has arrived. True: the connection's program may be run. Raises ValueError if it may not, OSError if
        the connection has ended."""
        try:
            return self._take_proof() if self._key else self.take_line()
        except BlockingIOError:
            return False

    def take_line(self):
        """True once `line` is complete."""
        while self.line[-1:] != b"\n":
            # Take no byte behind the line: the program reads those.
            data = self.sock.recv(65536, socket.MSG_PEEK)
            if not data:
                raise OSError("it was closed before it had said anything to run")
            end = data.find(b"\n") + 1
            self.line += self.sock.recv(end or len(data))
            if self.line[:1] not in (b"'", b'"'):
                raise ValueError("its first line is no Python string")
            if len(self.line) > MAX_LINE:
                raise ValueError("its line is too long")
        return True

    def _take_proof(self):
        data = self.sock.recv(65536)
        if not data:
            raise OSError("it was closed before it had proved that it knows the secret")
        if self.session is None:
            if data[:1] != b"\x16":
                self.sock.send(DENIED + b"\n")
                raise ValueError("it speaks no TLS: it has no secret, or is of an older version")
            self.session = Session(self._context, True, self._key)
        try:
            return self.session.read(data)
        finally:
            said, self.session.to_say = self.session.to_say, b""
            if said and self.sock.send(said) < len(said):
                raise OSError("it does not take what it is told")

    def refuse(self):
        try:
            self.sock.shutdown(socket.SHUT_WR)
            self.sock.recv(65536)  # if bytes stay unread, close() resets the connection, and what we sent may get lost
        except OSError:
            pass
        self.sock.close()


class Server:
    """Takes connections of the socket `listener`. Raises OSError if there is a key and this Python cannot use it.

    key: stretched() of the secret, see tls.py; empty without a secret. say: called with a line of text for each event.
    """

    def __init__(self, listener, key, say):
        self.address = shown(*listener.getsockname()[:2])
        self._listener = listener
        self._key = key
        self._context = new_context(True) if key else None
        self._say = say
        self._pending = []  # in the order in which they connected
        self._children = set()  # process ids
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ, self._accept)

    def serve(self):
        """Run the program of each connection in a process of its own, for ever."""
        while True:
            pending = self._next(None)
            try:
                child = os.fork()
            except OSError as exc:
                self._say(f"{pending.address}: no process for it: {exc}")
                pending.refuse()
                continue
            if child == 0:
                try:
                    os.setsid()  # so that Ctrl-C at the server's terminal does not reach the workers
                    self._run(pending)
                except Exception as exc:  # usually: the second process cannot be forked
                    self._say(f"{pending.address}: {exc}")
                finally:
                    os._exit(1)
            self._children.add(child)
            self._say(f"{pending.address}: process {child}")
            pending.sock.close()

    def serve_once(self, timeout):
        """Run one connection's program in this process. Raises OSError if none has come within `timeout` seconds; None:
        wait for ever."""
        self._run(self._next(None if timeout is None else time.monotonic() + timeout))

    def _next(self, until):
        """Wait for the next connection whose program may be run."""
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
                if self._pending:
                    self._drop_one("there is no room for another connection")
                else:
                    time.sleep(0.1)  # usually there are no fds left; select() would report the connection again at once
            return
        try:
            pending = Pending(sock, sockaddr, self._context, self._key)
        except OSError:
            sock.close()
            return
        if len(self._pending) >= PENDING:
            self._drop_one("too many others have come that say nothing either")
        self._pending.append(pending)
        self._selector.register(sock, selectors.EVENT_READ, lambda: self._read(pending))

    def _read(self, pending):
        if pending not in self._pending:
            return None  # it was dropped after select() had returned
        try:
            if not pending.read():
                return None
        except (OSError, ValueError) as exc:
            self._drop(pending, str(exc))
            return None
        self._forget(pending)
        return pending

    def _forget(self, pending):
        self._pending.remove(pending)
        self._selector.unregister(pending.sock)

    def _drop_one(self, why):
        """Drop the oldest connection of the network that has most: so no network can keep out the others."""
        counts = {}
        for pending in self._pending:
            counts[pending.network] = counts.get(pending.network, 0) + 1
        most = max(counts, key=counts.get)
        self._drop(next(pending for pending in self._pending if pending.network == most), why)

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

    def _run(self, mine):
        """Run the program of the connection `mine`. The other connections are closed in this process."""
        for pending in self._pending:
            pending.sock.close()
        self._selector.close()
        self._listener.close()
        if mine.session is not None:
            here, there = socket.socketpair()
            child = os.fork()
            if child:
                there.close()
                signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the worker alone, in the other process
                _speak(mine, here)
                os.waitpid(child, 0)
                return
            here.close()
            mine.sock.close()
            mine.sock, mine.session = there, None
        mine.sock.setblocking(True)
        try:
            mine.take_line()
            source = ast.literal_eval(mine.line.strip().decode())
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


def _speak(mine, here):
    """Carry bytes between the connection `mine`, which speaks TLS, and the worker at the other end of `here`."""
    set_options(mine.sock, options_for(mine.session.wants))

    def end_sink():
        try:
            here.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    source = os.dup(here.fileno())
    carry(mine.session, mine.sock, source, here.fileno(), end_sink)
    os.close(source)
    here.close()
    mine.sock.close()


def one_worker(host, port, key, timeout):
    """For installvia=: listen, print the address on stdout, then go to the background and serve one connection."""
    try:
        server = Server(listen(host, port), key, lambda line: None)
    except OSError as exc:
        print(f"error {exc}", flush=True)
        return
    print(server.address, flush=True)
    if os.fork():
        os._exit(0)
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1):
        os.dup2(null, fd)
    os.close(null)
    try:
        server.serve_once(timeout)
    except OSError:
        pass
    finally:
        os._exit(0)


# --- the program ------------------------------------------------------------------------------------------------------


def secret_of_environment():
    """The shared secret (bytes) in the file that EXECNET_C_SECRET_FILE names, or in EXECNET_C_SECRET; empty if neither is
    set. Raises OSError, and ValueError if it is too short."""
    path, secret = map(os.environ.get, ("EXECNET_C_SECRET_FILE", "EXECNET_C_SECRET"))
    if path is not None:
        return secret_in(path)
    return b"" if secret is None else _long_enough(os.fsencode(secret), "EXECNET_C_SECRET")


def secret_in(path):
    with open(path, "rb") as file:
        return _long_enough(file.read(), f"the file {path!r}")


def _long_enough(secret, where):
    secret = secret.strip()
    if len(secret) < SHORTEST:
        what = f"is shorter than {SHORTEST} bytes" if secret else "is empty"
        raise ValueError(f"the secret of {where} {what}: others could guess it; openssl rand -hex 32 makes a good one")
    return secret


def main(argv=None, prog=None):
    """The command execnet-c-socketserver. Returns its exit status."""
    import argparse

    parser = argparse.ArgumentParser(
        prog=prog or "execnet-c-socketserver",
        description="Serves gateways of the kind socket=HOST:PORT. Whoever connects can run any code as this user: on "
        "addresses other than loopback a shared secret is wanted, from --secret-file, or the file that "
        "EXECNET_C_SECRET_FILE names, or EXECNET_C_SECRET; with it the connection is encrypted.",
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
        server = Server(listener, stretched(secret) if secret else b"", _say)
    except (OSError, ValueError) as exc:
        parser.error(f"{options.address}: {exc}")
    if not secret and not options.no_secret and not is_loopback(listener.getsockname()[0]):
        parser.error(
            f"{server.address} can be reached from outside, and there is no secret: whoever connects could run any "
            f"code here. Set EXECNET_C_SECRET_FILE or EXECNET_C_SECRET, or say --secret-file or --no-secret"
        )
    os.environ.pop("EXECNET_C_SECRET", None)  # workers inherit the environment, and do not need the secret
    try:
        print(f"listening on {server.address}{', with a secret' if secret else ''}", flush=True)
        if options.once:
            server.serve_once(None)
        else:
            server.serve()
    except KeyboardInterrupt:
        return 130
    return 0


def _say(line):
    """Print a line if that does not have to wait; else drop it. If nobody reads our stdout any more, clients that connect
    often could fill it, and the server would stand still."""
    try:
        fd = sys.stdout.fileno()
        if select.select([], [fd], [], 0)[1]:
            os.write(fd, f"{line}\n".encode(errors="replace")[:MAX_SAID])
    except (OSError, ValueError):
        pass  # closed


def _secret(path):
    return secret_in(path) if path else secret_of_environment()
