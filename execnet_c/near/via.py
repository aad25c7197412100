"""Gateways through other gateways (via=): the gateway in between starts the process. The process's standard streams are
relayed over a channel of the gateway in between, by the I/O threads of both its ends (see src/core/start/xc_relay.h).

A second channel, `_control`, is about the process. This side sends the signals for it, as ints. When the process has
ended, (exit status, end of its stderr) comes back. A short task, `_TASK`, starts the process and ends: after that the
gateway in between is free for other tasks.
"""

import os
import time

from . import gateway as near
from ..cores import module as _core
from .deaths import LinkLost, fields_of, shown
from ..models.native import allocate_lock
from ..far.sent import module_source
from .transport import SET_PYTHON

_LONG = 1e6  # seconds: a lock refuses much longer timeouts

# Runs on the gateway in between. A twin there that was sent as text lacks two modules: the task asks for them by name.
_TASK = '''\
def start(channel, stream, control, argv, set_python):
    import os, sys
    from importlib import import_module
    gateway = channel.gateway
    if not argv[0]:
        argv = [os.fsencode(sys.executable or "")] + argv[1:]
        if not sys.executable or getattr(sys, "frozen", False):
            why = "the interpreter over there, sys.executable, is not known or is a frozen program itself (%r); "
            channel.send((2, why % (sys.executable,) + set_python))
            return
    relay = getattr(gateway, "_relay", None)
    package = type(gateway).__bases__[0].__module__.rpartition(".")[0]
    for name in ("pylaunch", "pyrelay") if relay is None else ():
        full = package + "." + name
        try:
            module = import_module(full)
        except ImportError:
            channel.send(name)
            module = type(sys)(full)
            module.__package__ = package
            exec(compile(channel.receive(), "<execnet_c %s>" % name, "exec"), module.__dict__)
            setattr(sys.modules[package], name, module)
            sys.modules[full] = module
        if name == "pyrelay":
            relay = lambda *args: module.relay(gateway, *args)
    try:
        pid = relay(stream, control, argv)
    except OSError as exc:
        channel.send((exc.errno, exc.strerror))
    else:
        channel.send({"pid": pid, "executable": argv[0]})
'''


class NoSuchGateway(KeyError, ValueError):
    """via= names a gateway that is not in the group. A KeyError, as with execnet, but str() of it is the plain text."""

    def __str__(self):
        return self.args[0]


class Gateway(near.Gateway):
    """A gateway whose far end was started by another gateway, `_outer`."""

    _pid = 0
    _lost = None  # why `_control` ended before it told of the process's end
    _cut_off = False  # the gateway in between was exited while this one lived

    def _start_via(self, argv):
        """Have the gateway in between start `argv`, whose first word may be None: its own interpreter. Does not wait.
        Raises GatewayDied if the gateway in between has ended."""
        outer = self._outer
        self._last_word = []  # what `_control` told of the end: (status, stderr), or nonsense; empty before that
        self._listening = allocate_lock()  # held while a thread receives from `_control`
        self._command = [argv[0] or f"<the interpreter of gateway {outer.id!r}>", *argv[1:]]
        self._control, self._started, stream = outer.newchannel(), outer.newchannel(), outer.newchannel()
        words = [word and os.fsencode(word) for word in argv]
        task = {"stream": stream, "control": self._control, "argv": words, "set_python": SET_PYTHON}
        self._start_over(stream)  # before any bytes can arrive
        outer._post(_core.EXEC, self._started.id, (_TASK, "<execnet_c via>", "start", task))

    def _await_start(self, timeout):
        """Wait until the process runs, for `timeout` seconds at each step. Raises OSError if it cannot be started or the
        gateway in between does not answer, GatewayDied if that gateway has ended."""
        missing = {"pylaunch", "pyrelay"}
        try:
            while (answer := self._started.receive(timeout)) in (*missing,):
                missing.remove(answer)
                self._started.send(module_source(answer))
            self._started.waitclose(timeout)  # so that the main thread there is free for the next task
        except _core.TimeoutError:
            raise OSError(
                f"gateway {self.id!r}: gateway {self._outer.id!r} did not start it within {timeout} seconds; it was to "
                f"run {shown(self._command)}"
            ) from None
        except EOFError:
            raise self._death(False) from None
        except _core.DataFormatError:
            answer = None  # refused below
        if _is_pair(answer, int, str):
            number, text = answer
            self._control.close()  # at the far end the error's traceback may keep the channel alive for long
            raise OSError(number, f"gateway {self.id!r}, by gateway {self._outer.id!r}: {text}")
        if not isinstance(answer, dict) or not _is_pair((answer.get("pid"), answer.get("executable")), int, (bytes, str)):
            self._last_word.append(None)
            raise self._death(False)
        self._pid = answer["pid"]
        self._command[0] = os.fsdecode(answer["executable"])

    # --- instead of the base class's methods about the process ---

    def _wait_gone(self, timeout):
        """Whether the process ends within `timeout` seconds. Also true if nothing more can be learnt about it."""
        until = None if timeout is None else time.monotonic() + timeout
        if not self._listening.acquire(timeout=-1 if until is None else min(max(timeout, 0), _LONG)):
            return False
        try:
            if not self._last_word and self._lost is None:
                left = None if until is None else max(until - time.monotonic(), 0.0)
                # A signal handler cannot come between receiving and keeping.
                self._last_word.extend(map(self._control.receive, (left,)))
        except _core.TimeoutError:
            return False
        except _core.DataFormatError:
            self._last_word.append(None)
        except (EOFError, OSError) as exc:  # the gateway in between has ended, or could not start the process
            self._lost = str(exc)
        finally:
            self._listening.release()
        return True

    def _signal(self, number):
        if not self._last_word and self._lost is None:
            self._outer._post(_core.DATA, self._control.id, int(number))

    def _state(self):
        state = super()._state()
        self._wait_gone(0)
        status, stderr = self._last_word[0] if self._knows_end() else (None, b"")
        process = {"pid": self._pid, "ended": bool(self._last_word), "status": status, "stderr": stderr}
        return {**state, **process, "words": False, "passed": True}

    def _knows_end(self):
        return bool(self._last_word) and _is_pair(self._last_word[0], (int, type(None)), bytes)

    def _death(self, sending):
        if self._died is None and not super()._state()["said_goodbye"]:
            if not self._cut_off:
                self._wait_gone(self._patience)
            if self._last_word and not self._knows_end():
                how = f"gateway {self._outer.id!r}, which it goes through, tells of its process what cannot be"
                self._died = LinkLost, f"gateway {self.id!r}: {how}", fields_of(self, how)
            elif self._cut_off or not (self._last_word or self._outer.hasreceiver()):
                how = "the gateway that it went through has ended: "
                how += self._lost or f"gateway {self._outer.id!r} was exited"
                self._died = LinkLost, f"gateway {self.id!r}: {how}", fields_of(self, how)
        return super()._death(sending)


def _is_pair(pair, one, other):
    """Whether `pair` is a tuple of an object of type `one` and one of type `other`. It may be anything that can be sent."""
    if not isinstance(pair, tuple) or len(pair) != 2:
        return False
    return isinstance(pair[0], one) and isinstance(pair[1], other) and abs(pair[0] or 0) < 1 << 31
