"""Threads of ours in a subinterpreter.

CPython aborts the process if a subinterpreter ends and still has a thread. So the subinterpreter waits for its threads at
its end. Ours end with their gateways; so at_exit() ends the gateways before that wait.
"""

import threading

_ending = False


def _end():
    global _ending
    _ending = True


threading._register_atexit(_end)  # the first to be registered is the last to be called


def at_exit(function):
    """Have `function()` called when the interpreter ends, before it waits for its threads."""
    threading._register_atexit(function)


def start_new_thread(func, args):
    """As _thread.start_new_thread(). Raises RuntimeError once the interpreter has begun to wait for its threads."""
    if _ending:
        raise RuntimeError("can't start new thread: this interpreter is ending")
    threading.Thread(target=func, args=args, daemon=False).start()
