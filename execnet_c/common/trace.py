"""EXECNET_DEBUG: lines about what the core does, as it does it.

"2" has them on stderr; any other value in the file `execnet-debug-PID` in the directory for temporary files. Each
process looks at its own environment: a far end of ours on this machine inherits it.
"""

import os
import sys


def start(core):
    """Have `core` trace if the environment asks for it. Calling it again does nothing."""
    global _started
    value = os.environ.get("EXECNET_DEBUG")
    if not value or _started:
        return
    _started = True
    try:
        core._trace_to(2 if value == "2" else _open())
    except OSError as exc:
        if sys.stderr is not None:
            print(f"execnet_c: no trace, in spite of EXECNET_DEBUG={value!r}: {exc}", file=sys.stderr)


_started = False


def _open():
    import tempfile

    # The name can be guessed: whatever somebody else has put there is not followed, and not read by others.
    path = os.path.join(tempfile.gettempdir(), f"execnet-debug-{os.getpid()}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK
    return os.open(path, flags, 0o600)
