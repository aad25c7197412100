"""Gateways through other gateways (via=): the process is started by the gateway in between, and its standard streams
are relayed over one channel of that, by the I/O threads of both ends (see src/core/start/xc_relay.h).

A second channel carries what is to be known of the process. On it go the signals for it, as ints, one way, and, once it
has ended, its status and the end of its stderr the other way. The process itself is started by a short task, `_TASK`;
when that is over, the gateway in between is as free for other tasks as before.
"""

import os
import time

from . import gateway as near
from ..cores import module as _core
from .deaths import LinkLost, fields_of, shown
from ..models.native import allocate_lock
from ..far.sent import module_source
from .transport import SET_PYTHON

_LONG = 1e6  # seconds: locks know a longest time

# Runs on the gateway in between. The plain-Python core there may be one that was sent without what this needs.
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
    """via= names a gateway that is not in the group. A KeyError, as execnet's, whose text is for people."""

    def __str__(self):
        return self.args[0]


class Gateway(near.Gateway):
    """A gateway whose far end was started by another gateway, `_outer`."""

    _pid = 0
    _lost = None  # how the gateway in between ended, before it could say how this one did
    _cut_off = False  # that one was exited while this one lived

    def _start_via(self, argv):
        """Have the gateway in between start `argv`, whose first word may be None: its own interpreter. Does not wait.
        Raises GatewayDied when that gateway has."""
        outer = self._outer
        self._last_word = []  # (status, stderr) of the process; or what else is told
        self._listening = allocate_lock()
        self._command = [argv[0] or f"<the interpreter of gateway {outer.id!r}>", *argv[1:]]
        self._control, self._started, stream = outer.newchannel(), outer.newchannel(), outer.newchannel()
        words = [word and os.fsencode(word) for word in argv]
        task = {"stream": stream, "control": self._control, "argv": words, "set_python": SET_PYTHON}
        self._start_over(stream)  # before anything can come
        outer._post(_core.EXEC, self._started.id, (_TASK, "<execnet_c via>", "start", task))

    def _await_start(self, timeout):
        """Wait until the process runs over there, for `timeout` seconds at each step. Raises OSError when it cannot be
        started or the gateway in between does not answer, GatewayDied when that has ended."""
        missing = {"pylaunch", "pyrelay"}
        try:
            while (answer := self._started.receive(timeout)) in (*missing,):
                missing.remove(answer)
                self._started.send(module_source(answer))
            self._started.waitclose(timeout)  # the next task finds its main thread idle
        except _core.TimeoutError:
            raise OSError(
                f"gateway {self.id!r}: gateway {self._outer.id!r} did not start it within {timeout} seconds; it was to "
                f"run {shown(self._command)}"
            ) from None
        except EOFError:
            raise self._death(False) from None
        except _core.DataFormatError:
            answer = None  # as good as what was no payload
        if _is_of(answer, int, str):
            number, text = answer
            self._control.close()  # over there the error's traceback may keep it for long
            raise OSError(number, f"gateway {self.id!r}, by gateway {self._outer.id!r}: {text}")
        if not isinstance(answer, dict) or not _is_of((answer.get("pid"), answer.get("executable")), int, (bytes, str)):
            self._last_word.append(None)
            raise self._death(False)
        self._pid = answer["pid"]
        self._command[0] = os.fsdecode(answer["executable"])

    # --- what the base class asks of the process ---

    def _wait_gone(self, timeout):
        """As for a process of this machine. Also true when nothing can be learnt of it any more."""
        until = None if timeout is None else time.monotonic() + timeout
        if not self._listening.acquire(timeout=-1 if until is None else min(max(timeout, 0), _LONG)):
            return False
        try:
            if not self._last_word and self._lost is None:
                left = None if until is None else max(until - time.monotonic(), 0.0)
                # In one step for a signal handler: received and kept.
                self._last_word.extend(map(self._control.receive, (left,)))
        except _core.TimeoutError:
            return False
        except _core.DataFormatError:
            self._last_word.append(None)
        except (EOFError, OSError) as exc:  # the gateway in between has ended; or it could not start the process
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
        return bool(self._last_word) and _is_of(self._last_word[0], (int, type(None)), bytes)

    def _death(self, sending):
        if self._died is None and not super()._state()["said_goodbye"]:
            if not self._cut_off:
                self._wait_gone(near.REAP_TIMEOUT)
            if self._last_word and not self._knows_end():
                how = f"gateway {self._outer.id!r}, which it goes through, tells of its process what cannot be"
                self._died = LinkLost, f"gateway {self.id!r}: {how}", fields_of(self, how)
            elif self._cut_off or not (self._last_word or self._outer.hasreceiver()):
                how = "the gateway that it went through has ended: "
                how += self._lost or f"gateway {self._outer.id!r} was exited"
                self._died = LinkLost, f"gateway {self.id!r}: {how}", fields_of(self, how)
        return super()._death(sending)


def _is_of(pair, one, other):
    """Whether it is a tuple of two, of these types. What a gateway in between says may be anything that can be sent."""
    if not isinstance(pair, tuple) or len(pair) != 2:
        return False
    return isinstance(pair[0], one) and isinstance(pair[1], other) and abs(pair[0] or 0) < 1 << 31
