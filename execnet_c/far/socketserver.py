"""The server behind socket= gateways: ``python -m execnet_c socketserver [HOST:PORT]``, or execnet-c-socketserver.

As with execnet's, the first line of a connection is a Python string, a program that is run with `clientsock`, the
connection, in its scope. Each runs in a process of its own; ours (see sockets.py) puts a worker in the place of that.

Where there is a secret, all that is said is TLS, in which both ends prove that they know it before anything else is
read (see tls.py). A connection that has done so has two processes: one speaks TLS, the other runs the program, and has
one of a pair of sockets for `clientsock`.

Until a connection has said its line, or proved that it knows the secret, it costs no process: one loop reads them all,
none has longer than LINE_TIMEOUT, and where there are too many it is whose address has most that loses one.

This text also travels to far ends that have no package (installvia=): it runs on Python 3.8, and needs nothing of ours
but tls.py, which is put in the place of that import.
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
LINE_TIMEOUT = 10.0  # seconds for the line of a connection, and for its proof
PENDING = 256  # connections that have not said their line, nor proved anything; with more of them one goes
MAX_LINE = 1 << 20  # bytes; execnet's own line has 60000
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
    """A connection that has not said its line yet; nor, where there is a secret, proved that it knows that."""

    def __init__(self, sock, sockaddr, context, key):
        sock.setblocking(False)
        self.sock = sock
        self.address = shown(*sockaddr[:2])
        # Who has one IPv6 address has all of a network, which 64 bits name.
        self.network = socket.inet_pton(sock.family, sockaddr[0].partition("%")[0])[:8]
        self.until = time.monotonic() + LINE_TIMEOUT
        self.line = b""
        self.session = None
        self._context = context
        self._key = key
        if key:
            sock.send(BANNER + b" (TLS, which older versions of execnet_c do not speak)\n")  # the first bytes go in

    def read(self):
        """Take what has arrived; whether a program may be run now. Raises ValueError for who may not have one run, and
        for what is no line; OSError when the connection ends."""
        try:
            return self._take_proof() if self._key else self.take_line()
        except BlockingIOError:
            return False

    def take_line(self):
        """True once `line` is complete."""
        while self.line[-1:] != b"\n":
            # No byte behind the line is taken: the program reads on.
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
            self.sock.recv(65536)  # unread bytes would turn the end into a reset, which may overtake what we said
        except OSError:
            pass
        self.sock.close()


class Server:
    """Takes connections of `listener` until it is told to stop. Raises OSError where a secret is of no use.

    key: of the secret, see tls.py; empty where none is wanted. say: called with a line for each event.
    """

    def __init__(self, listener, key, say):
        self.address = shown(*listener.getsockname()[:2])
        self._listener = listener
        self._key = key
        self._context = new_context(True) if key else None
        self._say = say
        self._pending = []  # in the order of their coming
        self._children = set()
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ, self._accept)

    def serve(self):
        """For ever: each program in a process of its own."""
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
                    os.setsid()  # Ctrl-C at the server's terminal is not for its workers
                    self._run(pending)
                except Exception as exc:  # there is no second process, mostly
                    self._say(f"{pending.address}: {exc}")
                finally:
                    os._exit(1)
            self._children.add(child)
            self._say(f"{pending.address}: process {child}")
            pending.sock.close()

    def serve_once(self, timeout):
        """The first program, in this process. Raises OSError when none has come for `timeout` seconds (None: ever)."""
        self._run(self._next(None if timeout is None else time.monotonic() + timeout))

    def _next(self, until):
        """The next connection that may have a program run."""
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
                    time.sleep(0.1)  # no fds, mostly; the connection waits, and would be told of at once again
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
            return None  # dropped in the same round
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
        """The oldest of those whose network has most: nobody keeps out others by being many."""
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
        for pending in self._pending:
            pending.sock.close()
        self._selector.close()
        self._listener.close()
        if mine.session is not None:
            here, there = socket.socketpair()
            child = os.fork()
            if child:
                there.close()
                signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C at the server's terminal is the worker's to take
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
    """TLS for the worker at the other end of `here`."""
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
    """For installvia=: say on stdout where it listens, then go on in the background, and serve one connection."""
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
    """The shared secret (bytes) that EXECNET_C_SECRET_FILE or EXECNET_C_SECRET tells, empty without them. Raises
    OSError, and ValueError for one that is too short."""
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
    """The command line's."""
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
    os.environ.pop("EXECNET_C_SECRET", None)  # workers have no use for it
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
    """Print it, unless that had to be waited for: whoever can connect could fill what nobody empties any more."""
    try:
        fd = sys.stdout.fileno()
        if select.select([], [fd], [], 0)[1]:
            os.write(fd, f"{line}\n".encode(errors="replace")[:MAX_SAID])
    except (OSError, ValueError):
        pass  # closed


def _secret(path):
    return secret_in(path) if path else secret_of_environment()
