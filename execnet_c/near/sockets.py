"""Gateways over sockets (socket=): connecting to a socketserver, ours or execnet's, and how a connection ended.

The near end sends the server one line, as execnet's client does: a program that the server runs with `clientsock` in
its scope. It starts the server's own interpreter with the connection as its standard streams. That is a foreign
interpreter like any other (see text.py). Until it has said which Python it is no byte may follow the line: execnet's
server reads ahead, and would lose it.

With a secret there is a process of ours in between, as an ssh client would be: it connects, speaks TLS and proves that
we know the secret (see tls.py). It is sent the key first, then the same line. If it cannot connect it says why on its
stdout, before anything that the far end says.

The far end's process is not our child: we see only the connection, and can end only that.
"""

import errno
import fcntl
import os

from . import gateway as near
from ..cores import module as _core
from .deaths import GatewayDied, HostRefused, HostSilent, HostUnknown, LinkLost, LoginDenied, fields_of, heard, signal_name
from ..far.socketserver import address_of, secret_of_environment
from ..far.sent import module_source
from ..far.text import LINE
from ..far.tls import BANNER, FAILED, Refused, connect, no_server, options_for, shown, stretched
from .transport import IMPORT_DIR, outside, this_python

CONNECT_TIMEOUT = 20.0  # seconds, for each address of the host
SECRET_TIMEOUT = 10.0  # seconds that the server may take to prove that it knows the secret
MAX_PAUSE = 32767  # seconds between two TCP keepalive messages; the kernel takes no more
INSTALL_TIMEOUT = 60.0  # seconds for a server that another gateway starts, and then for our connection to it

_KINDS = {kind.__name__: kind for kind in (GatewayDied, HostRefused, HostSilent, HostUnknown, LoginDenied)}

# The program of the process that speaks TLS, for this very interpreter. Another one is sent the source of tls.py.
_OURS = """\
import sys
sys.path.insert(0, {importdir!r})
from execnet_c.far.tls import main
"""

# execnet's server, which has `execmodel` in its scope, still needs its process: the far end gets a new one. Our server has
# started a process for this connection: it becomes the far end.
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

# A task on the gateway that installvia= names. The server goes into the background at once, and is no child of
# that worker then.
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

    _installer = None  # installvia=: the gateway that starts the server
    _secured = False  # with a secret: a process of ours speaks TLS with the server

    def _start_socket(self, keepalive):
        """Connect to the server and have it start the far end. Raises ValueError for a wrong address, GatewayDied if no
        server lets us in, OSError."""
        spec = self.spec
        for key in ("via", "python"):
            if getattr(spec, key):
                raise ValueError(f"spec {str(spec)!r}: {key}= does not go with socket=: the server's own Python serves")
        address = _address(spec)
        key = secret = b""
        if self._installer is not None:
            key = os.urandom(32)
            address = self._install(address, key)
        else:
            try:
                secret = secret_of_environment()
            except OSError as exc:
                raise OSError(f"gateway {self.id!r}: no secret from EXECNET_C_SECRET_FILE: {exc}") from None
            except ValueError as exc:
                raise OSError(f"gateway {self.id!r}: {exc}") from None
        self._address = shown(*address)
        pause = int(min(max(keepalive // 3, 1), MAX_PAUSE)) if keepalive else 0
        argv = ["-u", *(["-B"] if spec.dont_write_bytecode else []), "-c", LINE]
        line = repr(_PROGRAM.format(options=options_for(pause), argv=argv)).encode() + b"\n"
        if key or secret:
            self._secured = True
            self._start(_tls_argv(spec, (*address, CONNECT_TIMEOUT, SECRET_TIMEOUT, pause)), None)
            # _key_of() takes long: the process starts meanwhile.
            line = (key or _key_of(secret)).hex().encode() + b"\n" + line
        else:
            try:
                sock = connect(*address, CONNECT_TIMEOUT, options_for(pause))
            except Refused as exc:
                error = _KINDS[exc.kind](f"gateway {self.id!r}: {exc}")
                vars(error).update(fields_of(self, str(exc)))
                raise error from None
            with sock:
                fd = fcntl.fcntl(sock.fileno(), fcntl.F_DUPFD_CLOEXEC, 3)
            self._start_on(fd)
        self._serves = False
        try:
            self._write(line)
        except OSError:
            pass  # the connection has ended already: finish() raises why

    def _install(self, address, key):
        """Have the server started by the gateway `_installer`; return the address to connect to."""
        outer = self._installer
        outside, there = False, outer
        while there is not None and not outside and address is None:  # the server is where that gateway's worker is
            outside = bool(there.spec.ssh or there.spec.vagrant_ssh)
            if there._address:
                address = address_of(there._address)[0], 0
            there = there._outer
        call = f"\none_worker(<HOST>, <PORT>, {key!r}, {INSTALL_TIMEOUT!r})\n"
        program = (_server_source() + call).encode()
        channel = outer.newchannel()
        kwargs = {"program": program, "outside": outside, "address": address}
        outer._send(_core.EXEC, channel.id, (_TASK, "<execnet_c installvia>", "install", kwargs))
        try:
            answer = channel.receive(INSTALL_TIMEOUT)
            channel.waitclose(INSTALL_TIMEOUT)  # so that the main thread there is free for the next task
        except _core.TimeoutError:
            what = f"gateway {outer.id!r} did not start a server within {INSTALL_TIMEOUT:g} seconds"
            raise OSError(f"gateway {self.id!r}: {what}") from None
        try:
            return address_of(answer)
        except ValueError:
            why = answer.partition(" ")[2] or "its Python could not run it"
            raise OSError(f"gateway {self.id!r}: no server on gateway {outer.id!r}: {why}") from None

    # --- instead of the base class's methods about the process ---

    def _wait_gone(self, timeout):
        """Wait for the end of the process that speaks TLS, or of the connection if there is none."""
        if self._secured:
            return super()._wait_gone(timeout)
        self.join(timeout)
        return not self.hasreceiver()

    def _death(self, sending):
        if self._died is None and not self._state()["said_goodbye"]:
            if self._secured:
                super()._wait_gone(self._patience)
            state = self._state()
            kind, how = self._how_lost(state)
            fields = fields_of(self, how, stderr=state["stderr"].decode("utf-8", "replace"))
            self._died = kind, f"gateway {self.id!r}: {how}", fields
        return super()._death(sending)

    def _how_lost(self, state):
        where, number, status = self._address, state["errno"], state["status"]
        if state["reason"] == "XC_SILENT":
            return HostSilent, f"{state['detail']} ({where})"
        preamble, broken = state["preamble"], ""
        if self._secured and preamble[: len(FAILED)] == FAILED and not self._serves:
            kind, _, text = preamble[len(FAILED) :].decode("utf-8", "replace").strip().partition(" ")
            return _KINDS.get(kind, GatewayDied), text
        if self._secured and status:
            number = max(status, 0)
            if status < 0:
                broken = f"the process that speaks TLS was killed by {signal_name(-status)}"
            elif status in (1, 2):
                broken = f"the process that speaks TLS ended with exit status {status}{heard(state, True)}"
            elif status == errno.EBADMSG:
                broken = "what arrived was not what had been sent"
        if number == errno.ETIMEDOUT:
            return HostSilent, f"{where} has not answered TCP's keepalive messages"
        why = f" ({broken or os.strerror(number)})" if broken or number else ""
        if self._serves:
            if state["reason"] in ("XC_BAD", "XC_LIMIT", "XC_NOMEM"):
                return LinkLost, f"its worker at {where} was cut off: {state['detail'] or state['reason']}"
            process = f"process {self._worker_pid} there"
            outcome = f"what became of its worker ({process}) is unknown"
            return LinkLost, f"the connection to {where} was lost{why}; {outcome}"
        if broken:
            return GatewayDied, f"no worker could be reached through {where}: {broken}"
        if preamble[: len(BANNER) - 1] == BANNER[:-1]:
            what = "wants a secret, and this side has none: set EXECNET_C_SECRET_FILE, or EXECNET_C_SECRET"
            return LoginDenied, f"{where} {what}"
        if preamble:
            return GatewayDied, no_server(where, preamble)
        what = "ended the connection before a worker could serve: either it is no socketserver, or its output says why"
        return GatewayDied, f"{where} {what}{why}"


def _tls_argv(spec, arguments):
    """The command line of the process that speaks TLS; it imports nothing from the user's directories. Raises OSError."""
    try:
        python = this_python(spec, "and there is no python3 in PATH, which is to speak TLS where a socket has a secret")
        text = _OURS.format(importdir=IMPORT_DIR)
    except OSError:
        from shutil import which

        python = which("python3")
        if not python:
            raise
        text = module_source("tls")
    return outside([python, "-I", "-S", "-c", f"{text}\nmain{arguments!r}"])


_keys = {}  # the last secret, and its key


def _key_of(secret):
    """stretched(secret), which takes long; so the last one is kept."""
    key = _keys.get(secret)
    if key is None:
        key = stretched(secret)
        _keys.clear()
        _keys[secret] = key
    return key


def _server_source():
    """The source of a server that needs no package: socketserver.py with tls.py in the place of that import."""
    lines = module_source("socketserver").split("\n")
    place = next(number for number, line in enumerate(lines) if line.startswith("from .tls import"))
    lines[place] = module_source("tls")
    return "\n".join(lines)


def _address(spec):
    """(host, port); None for `socket//installvia=ID`: the server that is started chooses its address."""
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
