"""EXECNET_DEBUG: the core writes a line for each thing that it does.

"2" writes them to stderr; any other value writes them to the file `execnet-debug-PID` in the directory for temporary
files. Each process looks at its own environment, which a far end on this machine inherits.
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

    # Others can guess the name: a link or a FIFO that they put there is refused, and they cannot read the file.
    path = os.path.join(tempfile.gettempdir(), f"execnet-debug-{os.getpid()}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK
    return os.open(path, flags, 0o600)
