"""What a spec asks for: the command line of its far end, rings, our stderr, and how long the far end may be silent."""

import os
import sys

from ..cores import core

# The directory that this package was imported from.
IMPORT_DIR = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

KEEPALIVE = 30.0  # seconds of silence, over ssh and sockets where the spec does not say

# The worker imports this very package, whatever its current directory holds: for that import the package's directory is
# the first of sys.path. Afterwards it stays there only if sys.path has it nowhere else. sys.argv is ["-c"], as with execnet.
_IMPORT_LINE = """\
import sys
d = {importdir!r}
sys.path.insert(0, d)
from execnet_c.worker import main
del sys.path[0]
d in sys.path or sys.path.insert(0, d)
main({arguments})
"""


def argv_of(spec, shares=False):
    """The command line (a list of str) for an XSpec of a local gateway, or one over ssh. With via= its first word may be
    None: the interpreter of the gateway in between. `shares`: the worker inherits the memory of the rings.

    Raises ValueError for a spec that is neither, OSError if the path of this very interpreter is needed and not known.
    """
    if spec.ssh or spec.vagrant_ssh:
        from .ssh import argv_of

        return argv_of(spec, keepalive_of(spec))
    if not spec.popen:
        raise no_type(spec)
    if spec.python or spec.via:
        from ..far.text import LINE

        argv, program = _command(spec) if spec.python else [None], LINE
    else:
        arguments = "memory=(3,)" if shares else ""  # see Gateway._share()
        argv, program = [this_python(spec)], _IMPORT_LINE.format(importdir=IMPORT_DIR, arguments=arguments)
    argv.append("-u")
    if spec.dont_write_bytecode:
        argv.append("-B")
    return [*argv, "-c", program]


SET_PYTHON = "name a Python by python= in the spec, as in popen//python=/usr/bin/python3"


def this_python(spec, otherwise=SET_PYTHON):
    """The path of the interpreter that runs this program. Raises OSError, which says what to do `otherwise`, if it is not
    known."""
    frozen = getattr(sys, "frozen", False)
    if sys.executable and not frozen:
        return sys.executable
    why = f"is this frozen program itself ({sys.executable})" if frozen else f"is not known ({sys.executable!r})"
    raise OSError(f"spec {str(spec)!r}: the interpreter of this program, sys.executable, {why}; {otherwise}")


def no_type(spec):
    """The error for a spec that does not say what to start."""
    from .unmeant import TYPES, holds_a_key, nearest

    first = str(spec).partition("//")[0]
    near = nearest(first.partition("=")[0], TYPES)
    hint = f"did you mean {near!r}?" if near else f"it needs {', '.join(TYPES[:-1])} or {TYPES[-1]}"
    if holds_a_key(first):
        hint = "keys are separated by //"
    return ValueError(f"no gateway type found for {str(spec)!r}; {hint}")


def is_here(spec):
    """Whether the far end of this spec is a process of this machine, as far as the spec tells."""
    return spec.popen and not (spec.ssh or spec.vagrant_ssh or spec.via)


def may_share(spec):
    """Whether rings are possible with the far end of this spec: an interpreter on this machine, with the C core, unless
    the spec says `transport=pipe`. Raises ValueError for another transport."""
    if spec.transport not in (None, "pipe"):
        raise ValueError(f"spec {str(spec)!r}: transport may be pipe, not {spec.transport!r}")
    return is_here(spec) and not spec.transport and core == "C" and not os.environ.get("EXECNET_C_PURE")


def may_lend(spec):
    """Whether the worker of this spec may be lent our stderr: it is on this machine, and the spec does not say
    `stderr=capture`. Raises ValueError for another word."""
    if spec.stderr not in (None, "capture"):
        raise ValueError(f"spec {str(spec)!r}: stderr may be capture, not {spec.stderr!r}")
    traces = os.environ.get("EXECNET_DEBUG") == "2"  # its trace would go to the file that is its stderr at first
    return is_here(spec) and not (spec.stderr or traces)


def programs_own(spec):
    """The command line that the program has put in the place of ours (see gateway_io.py); None if it has not."""
    module = sys.modules.get("execnet_c.gateway_io")
    return None if module is None or spec.via else module.programs_own(spec)


def outside(argv):
    """The command line `argv`, run with the LD_LIBRARY_PATH that the user had set. In a program made by PyInstaller it names
    that program's own libraries, which ssh and other Pythons must not take."""
    if not hasattr(sys, "_MEIPASS") or "LD_LIBRARY_PATH" not in os.environ:
        return argv
    before = os.environ.get("LD_LIBRARY_PATH_ORIG")
    return ["env", *([f"LD_LIBRARY_PATH={before}"] if before else ["-u", "LD_LIBRARY_PATH"]), *argv]


def keepalive_of(spec):
    """The seconds for which the far end may be silent, 0 for ever. Raises ValueError for a wrong keepalive=."""
    if spec.keepalive is None:
        return KEEPALIVE if spec.ssh or spec.vagrant_ssh or spec.socket else 0.0
    try:
        seconds = float(spec.keepalive)
        if not 0 <= seconds < float("inf") or spec.keepalive is True:
            raise ValueError
    except ValueError:
        raise ValueError(
            f"spec {str(spec)!r}: keepalive must be a number of seconds, or 0 for never, not {spec.keepalive!r}"
        ) from None
    return seconds


def sends_pickles(spec, default=None):
    """Whether pickles go both ways, by payload= of the spec, or else by the `default` of its group. Raises ValueError for
    other values."""
    for wanted, what in ((spec.payload, f"spec {str(spec)!r}: payload"), (default, "payload of a group")):
        if wanted not in (None, "plain", "pickle"):
            raise ValueError(f'{what} must be "pickle" or "plain", not {wanted!r}')
    return (spec.payload or default) == "pickle"


def maxqueue_of(spec):
    """The limit of the gateway's channels, in bytes; None: none. Raises ValueError for a wrong maxqueue= or
    EXECNET_C_MAXQUEUE, which is for specs without that key."""
    wanted, what = spec.maxqueue, f"spec {str(spec)!r}: maxqueue"
    if wanted is None:
        wanted, what = os.environ.get("EXECNET_C_MAXQUEUE") or None, "EXECNET_C_MAXQUEUE"
    if wanted is None:
        return None
    text = str(wanted)
    limit = int(text) if text.isascii() and text.isdigit() and len(text) < 30 else 0
    if not 1 <= limit <= sys.maxsize:
        raise ValueError(f"{what} must be a number of bytes, from 1 to {sys.maxsize}, not {wanted!r}")
    return limit


def _command(spec):
    import shlex

    try:
        words = [] if spec.python is True else shlex.split(spec.python)
    except ValueError as exc:
        raise ValueError(f"spec {str(spec)!r}: python= is no command line: {exc}") from None
    if not words:
        raise ValueError(f"spec {str(spec)!r}: python needs a command line, as in python=/usr/bin/python3")
    return words
