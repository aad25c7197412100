"""Threads of ours in an interpreter that is not the process's main one.

CPython aborts the process when such an interpreter ends and still has a thread. So it has to wait for them; and they end
with their gateways, which therefore end before it waits.
"""

import threading

_ending = False


def _end():
    global _ending
    _ending = True


threading._register_atexit(_end)  # called last, being the first


def at_exit(function):
    """Have `function()` called at the interpreter's end, while there are threads."""
    threading._register_atexit(function)


def start_new_thread(func, args):
    """As _thread's. Raises RuntimeError once the interpreter has waited for its threads."""
    if _ending:
        raise RuntimeError("can't start new thread: this interpreter is ending")
    threading.Thread(target=func, args=args, daemon=False).start()
