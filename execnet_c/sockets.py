"""Gateways over sockets (socket=): connecting to a socketserver, ours or execnet's, and what became of a connection.

The server is sent one line, as execnet's client does: a program that has `clientsock` in its scope. It starts the
server's own interpreter as a far end whose standard streams are the connection; from there on all is as for any foreign
interpreter (see text.py). No byte follows the line until that has announced itself: execnet's server reads ahead, and
would lose it.

The far end's process is nobody's here: its connection is all that we see of it, and all that can be ended.
"""

import errno
import fcntl
import os
import socket
import time

from . import gateway as near
from .cores import module as _core
from .deaths import GatewayDied, HostRefused, HostSilent, HostUnknown, LinkLost, LoginDenied, fields_of
from .socketserver import CHALLENGE, DENIED, PROOF, WELCOME, address_of, new_number, proof, secret_of_environment
from .text import LINE, module_source

CONNECT_TIMEOUT = 20.0  # seconds, for each address of the host
SECRET_TIMEOUT = 10.0  # seconds until the server asks for a secret, and until it has taken that
INSTALL_TIMEOUT = 60.0  # seconds for a server that another gateway starts, and then for our connection to it
QUOTED = 200  # bytes of what something else said

_UNREACHABLE = {
    *(errno.ECONNREFUSED, errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN),
    *(errno.EADDRNOTAVAIL, errno.ECONNRESET, errno.ECONNABORTED),
}

# In execnet's server it must leave the process to that, in ours the process is its own.
_PROGRAM = """\
import os,socket,sys
for level,name,value in {options!r}:
 try:clientsock.setsockopt(getattr(socket,level),getattr(socket,name),value)
 except Exception:pass
argv=[sys.executable]+{argv!r}
if "execmodel" in globals():
 import subprocess
 subprocess.Popen(argv,stdin=clientsock,stdout=clientsock,start_new_session=True)
else:
 for fd in 0,1:os.dup2(clientsock.fileno(),fd)
 os.execv(argv[0],argv)
"""

# Runs on the gateway that installvia= names. The server leaves it at once, and is nobody's child there.
_TASK = """\
def install(channel, program, outside, address):
    import os, subprocess, sys
    if not sys.executable or getattr(sys, "frozen", False):
        channel.send("no its interpreter, sys.executable, is not known, or a frozen program itself")
        return
    if outside:
        address = os.environ.get("SSH_CONNECTION", "").split()[2:3]
        address = (address[0], 0) if address else None
    argv = [sys.executable, "-u", "-c", "import sys;exec(sys.stdin.read())"]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    host, port = address or ("127.0.0.1", 0)
    process.stdin.write(program.replace(b"<HOST>", repr(host).encode()).replace(b"<PORT>", repr(port).encode()))
    process.stdin.close()
    channel.send(process.stdout.readline().decode().strip())
    process.stdout.close()
    process.wait()
"""


class Gateway(near.Gateway):
    """A gateway whose far end was started by a socketserver."""

    _installer = None  # the gateway that starts that (installvia=)

    def _start_socket(self, keepalive):
        """Connect, and have the far end started. Raises ValueError for what is no address, GatewayDied where no server
        lets us in, OSError."""
        spec = self.spec
        for key in ("via", "python"):
            if getattr(spec, key):
                raise ValueError(f"spec {str(spec)!r}: {key}= does not go with socket=: the server's own Python serves")
        address = _address(spec)
        if self._installer is None:
            try:
                secret = secret_of_environment()
            except (OSError, ValueError) as exc:
                raise OSError(f"gateway {self.id!r}: no secret from EXECNET_C_SECRET_FILE: {exc}") from None
        else:
            secret = new_number()
            address = self._install(address, secret)
        self._address = _shown(*address)
        options = _options(keepalive)
        argv = ["-u", *(["-B"] if spec.dont_write_bytecode else []), "-c", LINE]
        line = repr(_PROGRAM.format(options=options, argv=argv)).encode() + b"\n"
        with self._connected(*address) as sock:
            for level, name, value in options:
                try:
                    sock.setsockopt(getattr(socket, level), getattr(socket, name), value)
                except (AttributeError, OSError):
                    pass  # this system has none; or it is no TCP
            if secret:
                self._prove(sock, secret)
            fd = fcntl.fcntl(sock.fileno(), fcntl.F_DUPFD_CLOEXEC, 3)
        self._start_on(fd)
        self._serves = False
        try:
            self._write(line)
        except OSError:
            pass  # it has ended already: who waits for the far end is told how

    def _install(self, address, secret):
        """Have the server started over there; the address to connect to."""
        outer = self._installer
        outside, there = False, outer
        while there is not None and not outside and address is None:  # what leads to its machine leads to the server
            outside = bool(there.spec.ssh or there.spec.vagrant_ssh)
            if there._address:
                address = address_of(there._address)[0], 0
            there = there._outer
        call = f"\none_worker(<HOST>, <PORT>, {secret!r}, {INSTALL_TIMEOUT!r})\n"
        program = (module_source("socketserver") + call).encode()
        channel = outer.newchannel()
        kwargs = {"program": program, "outside": outside, "address": address}
        outer._send(_core.EXEC, channel.id, (_TASK, "<execnet_c installvia>", "install", kwargs))
        try:
            answer = channel.receive(INSTALL_TIMEOUT)
            channel.waitclose(INSTALL_TIMEOUT)  # its next task finds its main thread idle
        except _core.TimeoutError:
            what = f"gateway {outer.id!r} did not start a server within {INSTALL_TIMEOUT:g} seconds"
            raise OSError(f"gateway {self.id!r}: {what}") from None
        try:
            return address_of(answer)
        except ValueError:
            why = answer.partition(" ")[2] or "its Python could not run it"
            raise OSError(f"gateway {self.id!r}: no server on gateway {outer.id!r}: {why}") from None

    def _connected(self, host, port):
        try:
            return socket.create_connection((host, port), CONNECT_TIMEOUT)
        except socket.gaierror as exc:
            raise self._refused(HostUnknown, f"the name {host!r} cannot be resolved: {exc.strerror}") from None
        except (socket.timeout, TimeoutError):
            raise self._refused(HostRefused, f"{self._address} did not answer; it cannot be reached") from None
        except OSError as exc:
            if exc.errno == errno.ECONNREFUSED:
                what = f"{self._address} refuses the connection: no server listens there"
            elif exc.errno in _UNREACHABLE:
                what = f"{self._address} cannot be reached: {exc.strerror}"
            else:
                raise OSError(exc.errno, f"gateway {self.id!r}: connect to {self._address}: {exc.strerror}") from None
            raise self._refused(HostRefused, what) from None

    def _prove(self, sock, secret):
        """That we know the secret; and that the server does, or it gets nothing to run."""
        asked, answer = b"", b""
        try:
            asked = _line(sock)
            if asked[: len(CHALLENGE)] == CHALLENGE:
                number, mine = asked[len(CHALLENGE) :].strip(), new_number()
                sock.sendall(b" ".join((PROOF, mine, proof(secret, b"client", number, mine))) + b"\n")
                answer = _line(sock)
                if answer == b" ".join((WELCOME, proof(secret, b"server", number, mine))):
                    return
        except (socket.timeout, TimeoutError):
            if not asked:
                what = f"{self._address} asks for no secret, and this side has one: that is another server than the "
                what += "one with the secret, or it was started without it, and gets nothing to run"
                raise self._refused(LoginDenied, what) from None
            raise self._refused(HostSilent, f"{self._address} does not answer") from None
        except OSError as exc:
            raise self._refused(GatewayDied, f"{self._address} ended the connection: {exc.strerror}") from None
        if answer[: len(DENIED)] == DENIED or answer[: len(WELCOME)] == WELCOME:
            raise self._refused(LoginDenied, f"{self._address} has another secret than this side")
        asked_rightly = asked[: len(CHALLENGE)] == CHALLENGE
        raise self._refused(GatewayDied, _no_server(self._address, answer if asked_rightly else asked))

    def _refused(self, kind, what):
        error = kind(f"gateway {self.id!r}: {what}")
        vars(error).update(fields_of(self, what))
        return error

    # --- what the base class asks of the process ---

    def _wait_gone(self, timeout):
        """Wait for the end of the connection: nothing else can be seen from here."""
        self.join(timeout)
        return not self.hasreceiver()

    def _death(self, sending):
        if self._died is None and not self._state()["said_goodbye"]:
            kind, how = self._how_lost()
            self._died = kind, f"gateway {self.id!r}: {how}", fields_of(self, how)
        return super()._death(sending)

    def _how_lost(self):
        state, where = self._state(), self._address
        if state["reason"] == "XC_SILENT":
            return HostSilent, f"{state['detail']} ({where})"
        if state["errno"] == errno.ETIMEDOUT:
            return HostSilent, f"{where} has not answered TCP's keepalive messages"
        why = f" ({os.strerror(state['errno'])})" if state["errno"] else ""
        if self._serves:
            if state["reason"] in ("XC_BAD", "XC_LIMIT", "XC_NOMEM"):
                return LinkLost, f"its worker at {where} was cut off: {state['detail'] or state['reason']}"
            process = f"process {self._worker_pid} there"
            fate = f"what became of its worker ({process}) is unknown"
            return LinkLost, f"the connection to {where} was lost{why}; {fate}"
        noise = state["noise"]
        if noise[: len(CHALLENGE)] == CHALLENGE:
            what = "wants a secret, and this side has none: set EXECNET_C_SECRET_FILE, or EXECNET_C_SECRET"
            return LoginDenied, f"{where} {what}"
        if noise:
            return GatewayDied, _no_server(where, noise)
        what = "ended the connection before a worker could serve: either it is no socketserver, or its output says why"
        return GatewayDied, f"{where} {what}{why}"


def _address(spec):
    """(host, port); None where the server is only to be started, and the place is its choice."""
    if spec.installvia and spec.socket is True:
        return None
    if spec.socket is True:
        raise ValueError(f"spec {str(spec)!r}: socket needs an address, as in socket=HOST:PORT")
    try:
        host, port = address_of(spec.socket)
        if port == 0 and not spec.installvia:
            raise ValueError("nobody listens on port 0")
    except ValueError as exc:
        raise ValueError(f"spec {str(spec)!r}: {exc}") from None
    return host, port


def _shown(host, port):
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _options(keepalive):
    """Of the socket, at both ends. The kernel's own keepalive also sees a far end's host vanish that cannot answer us
    while a task keeps the GIL; and at the far end it sees ours vanish."""
    options = [("IPPROTO_TCP", "TCP_NODELAY", 1)]
    if keepalive:
        pause = max(int(keepalive // 3), 1)
        options += [("IPPROTO_TCP", "TCP_KEEPIDLE", pause), ("IPPROTO_TCP", "TCP_KEEPINTVL", pause)]
        options += [("IPPROTO_TCP", "TCP_KEEPCNT", 2), ("SOL_SOCKET", "SO_KEEPALIVE", 1)]
    return options


def _line(sock):
    """What the server says, up to a newline; it says one line at a time. As much as there was if it ends instead."""
    until = time.monotonic() + SECRET_TIMEOUT
    said = b""
    while said[-1:] != b"\n" and len(said) < QUOTED:
        sock.settimeout(max(until - time.monotonic(), 0.001))
        data = sock.recv(QUOTED - len(said))
        if not data:
            break
        said += data
    return said.strip()


def _no_server(where, said):
    if not said:
        return f"{where} ended the connection without a word: it is no socketserver of ours, or wants no secret"
    text = said[:QUOTED].decode("utf-8", "replace").splitlines()[0]
    return f"what answers at {where} is no socketserver; it says {text!r}"
