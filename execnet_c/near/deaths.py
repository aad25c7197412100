"""How a far end died, or why it never lived: an exception class for each cause, all of them GatewayDied.

How a local worker ended is known from its process. Over ssh the process here is the ssh client. Its exit status 255 means
that ssh itself failed, and its stderr says how. Any other status is the worker's: a shell at the far end reports it (see
ssh.py).
"""

import errno
import random
import re
import signal

from ..cores import module as _core
from .ssh import EXITED_255, TRIED, host_of

GatewayDied = _core.GatewayDied
TOO_MUCH = 65536  # bytes of preamble; no more are kept
QUOTED = 2048  # characters at most of what an error text quotes


class HostNotFound(GatewayDied):
    """ssh did not get through to the host. Subclasses name the cause where ssh has told it."""


class HostUnknown(HostNotFound):
    """The host's name cannot be resolved."""


class HostRefused(HostNotFound):
    """Nothing answers at that address: refused, timed out, or no route to it."""


class HostKeyMismatch(HostNotFound):
    """The host's key is not the known one."""


class LoginDenied(HostNotFound):
    """The host does not let us in."""


class PythonMissing(GatewayDied):
    """There is no Python at the far end that can serve."""


class WorkerKilled(GatewayDied):
    """The worker was killed by a signal."""


class WorkerExited(GatewayDied):
    """The worker's process ended by itself, with an exit status."""


class LinkLost(GatewayDied):
    """The connection broke; what became of the worker is not known."""


class HostSilent(GatewayDied):
    """Nothing has come from the far end for too long; it may still be there."""


for _class in (
    *(HostNotFound, HostUnknown, HostRefused, HostKeyMismatch, LoginDenied),
    *(PythonMissing, WorkerKilled, WorkerExited, LinkLost, HostSilent),
):
    _class.__module__ = "execnet_c"

# What ssh says, and what it means. The first that is found counts.
_SSH_SAYS = {
    r"Could not resolve hostname|Name or service not known": (
        HostUnknown,
        "its name cannot be resolved: check the spelling, or give it a Host entry in the ssh config",
    ),
    r"HOST IDENTIFICATION HAS CHANGED|Host key verification failed|host key is known": (
        HostKeyMismatch,
        "its key is not the one known for it: if it is right that it changed, remove the old one with ssh-keygen -R",
    ),
    r"Permission denied|Too many authentication failures|No more authentication methods": (
        LoginDenied,
        "it does not let us in: check the user and the key, as with ssh -v",
    ),
    r"[Cc]onnection refused": (HostRefused, "it refuses the connection: no sshd listens there"),
    r"[Tt]imed out|[Nn]o route to host|[Nn]etwork is unreachable": (HostRefused, "it cannot be reached"),
}
# What ssh says when sshd has dropped the connection: too many others had not logged in yet (MaxStartups).
_DROPPED = r"(kex|ssh)_exchange_identification"


def died(gateway):
    """(class, text, fields) of the exception for a gateway whose connection has ended."""
    state = gateway._state()
    host = host_of(gateway.spec)
    stderr = state["stderr"].decode("utf-8", "replace")
    served = state["greeted"] if gateway._serves is None else gateway._serves
    status = state["status"]
    if host and status is not None and 128 < status < 192:
        status = 128 - status  # a shell reports signal N as status 128 + N
    if host and status == 255 and EXITED_255 not in stderr:
        kind, how = _of_ssh(host, stderr, served)
        status = None
    elif host and not served and status in (126, 127):
        tried = gateway.spec.python if isinstance(gateway.spec.python, str) else TRIED
        kind = PythonMissing
        how = f"host {host!r} has no such Python; tried: {tried}; name one of 3.8 or newer with python="
    elif host and host == gateway.spec.vagrant_ssh and not state["greeted"] and status is not None and status > 0:
        kind, how = HostNotFound, f"no connection to machine {host!r}: vagrant ended with exit status {status}"
    else:
        kind, how = _of_process(state, status, host, gateway._worker_pid)
    # This side ended the link; the process ended because of that.
    if state["reason"] in ("XC_BAD", "XC_LIMIT", "XC_NOMEM") or state["errno"] == errno.EBADF:
        kind, how = LinkLost, f"its worker was cut off: {state['detail'] or state['reason']} (then {how})"
    elif state["reason"] == "XC_SILENT":
        kind, how = HostSilent, state["detail"]
    text = f"gateway {gateway.id!r}: {how}"
    if not served:
        if kind in (GatewayDied, LinkLost, WorkerExited, WorkerKilled):
            text += " before it could serve"
        text += f"; it was started as {shown(gateway._command)}"
    text += heard(state, served)
    return kind, text, fields_of(gateway, how, status, stderr)


def fields_of(gateway, cause, status=None, stderr=""):
    """The attributes of a GatewayDied. status: as subprocess gives it, below 0 for a signal."""
    return {
        "cause": cause,
        "host": gateway._address or host_of(gateway.spec),
        "command": gateway._command,
        "status": status if status is not None and status >= 0 else None,
        "signal": -status if status is not None and status < 0 else None,
        "stderr": stderr,
    }


def refused(gateway, kind, what):
    """The exception for a far end that lives, but does not serve, so that it is given up."""
    state = gateway._state()
    origin = f"reached at {gateway._address}" if gateway._address else f"started as {shown(gateway._command)}"
    error = kind(f"gateway {gateway.id!r}: {what}; it was {origin}{heard(state, False)}")
    vars(error).update(fields_of(gateway, what, stderr=state["stderr"].decode("utf-8", "replace")))
    return error


def _of_process(state, status, host, worker_pid):
    process = f"process {state['pid']}"
    if host:
        process = f"process {worker_pid} there" if worker_pid else f"ssh is {process}"
    worker = f"its worker on host {host!r}" if host else "its worker"
    if not state["ended"]:
        if state["reason"] == "XC_SYS":
            return LinkLost, f"{worker} was cut off: {state['detail']}"
        return LinkLost, f"{worker} closed the connection but lives on ({process})"
    if status is None:
        return GatewayDied, f"{worker} ended; its exit status is unknown, something else took it ({process})"
    if status >= 0:
        return WorkerExited, f"{worker} ended with exit status {status} ({process})"
    if host and state["status"] < 0:
        return LinkLost, f"the ssh client was killed by {signal_name(-status)} (process {state['pid']})"
    return WorkerKilled, f"{worker} was killed by {signal_name(-status)} ({process})"


def _of_ssh(host, stderr, served):
    if "not responding" in stderr:
        return HostSilent, f"host {host!r} has not answered ssh's keepalive messages"
    if served:
        return LinkLost, f"the ssh connection to host {host!r} was lost"
    for pattern, (kind, meaning) in _SSH_SAYS.items():
        if re.search(pattern, stderr):
            return kind, f"no connection to host {host!r}: {meaning}"
    return HostNotFound, f"no connection to host {host!r}: ssh gave up"


def pause_before_retry(error):
    """Seconds to wait before another try, if the host may only have had too many connections at once; else None. They are
    random, so that the clients which the host has dropped do not all come back at once."""
    dropped = isinstance(error, HostNotFound) and re.search(_DROPPED, error.stderr)
    return random.uniform(0.1, 1.0) if dropped else None


def shown(argv):
    """A command line for an error text, without its last word, which is the worker's program."""
    import shlex

    return shlex.join(argv[:-1]) + " ..."


def heard(state, served):
    """For an error text: the end of a far end's stderr, or its last words if it was lent our stderr (see
    src/core/system/xc_lend.h). Unless it has `served`, also its preamble."""
    preamble = b"" if served else state["preamble"]
    cut = len(preamble) >= TOO_MUCH
    text = _quoted("its stdout begins with" if cut else "the end of its stdout", preamble, cut)
    return text + _quoted("its last words" if state["words"] else "the end of its stderr", state["stderr"], state["words"])


def _quoted(where, said, begins=False):
    """The end of `said`, or its beginning, behind `where`; nothing if it is empty."""
    said = said.decode("utf-8", "replace").strip()
    lines = said[:QUOTED].splitlines()[:20] if begins else said[-QUOTED:].splitlines()[-20:]
    return f"; {where}:\n" + "\n".join(lines) if lines else ""


def signal_name(number):
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
