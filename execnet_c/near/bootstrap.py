"""The handshake: how a far end becomes a worker, and what the two ends tell each other first.

A far end first writes the marker, because a login shell or a site module may print something before the worker runs.
Frames follow it (see src/core/wire/xc_frame.h). The first frame each way is a hello (code 8), which execnet does not have:

- The near end sends the settings: a dict with `version`, `id`, `execmodel`, `chdir`, `nice`, `env`, `start` (source to
  run, see _to_run()), `sent` (sources of modules that `start` needs), `maxqueue` (the limit of all channels, or None),
  `pickles` (items that cannot be sent otherwise are pickled),
  `stderr`, and `memory` for a foreign interpreter on this machine (see rings.py).
- The far end applies them, moves to the rings in that memory if it can, and answers with a dict: `version`, `core` ("C",
  or "Python" for the twin), `pid`, `limits` (it knows flow control) and `interrupts` (it interrupts tasks); or `error` if a setting failed. When the
  answer comes through the rings the near end moves, too.
- `stderr` names the fds that a worker on this machine was lent (see src/core/system/xc_lend.h), and says whether all that
  came through its pipe so far has been passed on. If not, the worker first answers `waits`; the near end passes the rest on
  and sends another hello. Then the worker makes our stderr its own, and answers as above.

The near end may send frames behind its hello without waiting for the answer. A far end that cannot serve says why on
its stderr and ends; the first use of the gateway raises that. The near end waits only where a setting can fail.

If the far end is this very interpreter it imports `execnet_c.worker`. A foreign interpreter first says, in a hello
of its own, which Python it is, and is sent the text that makes it a worker (see text.py). Then the same frames follow; one
that teaches (see teaching.py) sends another hello behind its answer, with its code objects.
"""

import sys
from errno import EACCES, ENOENT

from .. import __version__
from ..cores import module as _core
from ..models.native import sleep
from .transport import SET_PYTHON, argv_of, is_here, keepalive_of, maxqueue_of, may_lend, may_share, outside, programs_own

# Seconds to wait for a far end's answer: enough for an interpreter with a slow site module on a busy machine.
HELLO_TIMEOUT = 60.0
# Execution models whose library the far end may lack.
GREENLETS = ("gevent", "eventlet")


def start(gateway, spec):
    """Start the far end of `spec`, and do not wait for it. If it is this very interpreter its settings are sent, too:
    the gateway is live. What a foreign interpreter needs is sent by finish().

    Raises ValueError for settings that make no sense, OSError when the process cannot be started.
    """
    settings = _settings(gateway, spec)
    keepalive, shares, lends = keepalive_of(spec), may_share(spec), may_lend(spec)
    if hasattr(gateway, "_start_socket"):
        return gateway._start_socket(keepalive)
    argv = programs_own(spec)
    gateway._reads_line = argv is not None
    if argv is None:
        argv = argv_of(spec, shares and not spec.python and gateway._share())
    if gateway._outer is not None:
        return gateway._start_via(argv)
    argv = gateway._command = outside(argv)
    foreign = _is_foreign(gateway, spec)
    lent = gateway._lent = gateway._lend(foreign) if lends else None
    settings["stderr"] = lent and (*lent, True)
    try:
        gateway._start(argv, None if foreign else settings)
    except OSError as exc:
        if foreign or exc.errno not in (ENOENT, EACCES):
            raise
        raise OSError(exc.errno, f"{exc.strerror}, which is this program's sys.executable; {SET_PYTHON}") from None
    if gateway._reads_line:
        from ..far.text import LINE

        try:
            gateway._write(repr(LINE).encode() + b"\n")
        except OSError:
            pass  # the process has ended already: finish() raises why


def finish(gateway, spec):
    """Send a foreign interpreter the text that makes it a worker. Wait for the far end's answer if that, or a setting,
    may fail there.

    Raises RemoteError with the far end's traceback when settings failed, GatewayDied (see deaths.py) when the far end
    ended, OSError when it does not answer within HELLO_TIMEOUT seconds, or cannot serve.
    """
    keepalive, maxqueue = keepalive_of(spec), maxqueue_of(spec)
    can_fail = spec.chdir or spec.nice or spec.env or spec.execmodel in GREENLETS
    if not (_is_foreign(gateway, spec) or can_fail or keepalive or maxqueue):
        return
    if gateway._outer is not None:
        gateway._await_start(HELLO_TIMEOUT)
    memory, teaches = None, False
    if _is_foreign(gateway, spec):
        from ..far.text import learn, prepare, text_for, text_here

        gateway._serves = False
        packed = not is_here(spec) or " " in str(spec.python)  # a command line may lead to another machine
        prepare(packed)
        announcement = _answer(gateway, str)
        try:
            text, teaches = (text_for(announcement), False) if packed else text_here(announcement, spec.python)
        except ValueError as exc:
            raise _refused(gateway, "PythonMissing", str(exc)) from None
        gateway._write(text)
        if may_share(spec) and not gateway._reads_line:
            from ..common.rings import offer

            memory = offer(gateway)
        lent = gateway._lent and (*gateway._lent, gateway._state()["passed"])
        gateway._send(_core.HELLO, 0, {**_settings(gateway, spec), "memory": memory, "stderr": lent})
    answer = _answer(gateway, dict)
    if "waits" in answer:  # the worker waits until it may make our stderr its own
        if memory:
            _move_or_withdraw(gateway)
            memory = None
        _await_passed_on(gateway)
        gateway._send(_core.HELLO, 0, True)
        answer = _answer(gateway, dict)
    if "error" in answer:
        from ..common.errors import remote_error

        raise remote_error(_core.RemoteError, answer["error"])
    if "core" not in answer:
        raise _not_a_worker(gateway)
    gateway._serves = True
    gateway._worker_pid = answer["pid"]
    gateway._answer = answer
    if teaches and answer["core"] == "Python":
        learn(announcement, spec.python, _answer(gateway, bytes))
    if maxqueue and gateway._takes_limits():
        gateway._limit(maxqueue)
    if memory:
        _move_or_withdraw(gateway)
    if keepalive and answer["core"] == "C":  # while a task holds the GIL the twin is silent, but not dead
        gateway._keepalive(keepalive)


def _move_or_withdraw(gateway):
    """Move to the rings if the far end has moved; else take the offer back."""
    gateway._move() if gateway._state()["transport"] == "ring" else gateway._withdraw()


def _await_passed_on(gateway):
    """Wait until all that the worker wrote to its pipe has been passed on to our stderr: the worker is about to write
    there directly, and the order must stay. At most one second, in case nobody reads our stderr."""
    for _ in range(500):
        if gateway._state()["passed"]:
            break
        sleep(0.002)


def _is_foreign(gateway, spec):
    """Whether the far end is a foreign interpreter, which first says which Python it is."""
    return bool(gateway._reads_line or spec.python or spec.ssh or spec.vagrant_ssh or spec.via or gateway._address)


def _answer(gateway, kind):
    try:
        answer = gateway._hello(HELLO_TIMEOUT)
    except _core.LoadError:
        raise _not_a_worker(gateway) from None
    if answer is None:
        if gateway.hasreceiver():
            raise _refused(gateway, "HostSilent", f"the far end did not answer within {HELLO_TIMEOUT} seconds")
        raise gateway._death(False)
    if not isinstance(answer, kind):
        raise _not_a_worker(gateway)
    return answer


def _not_a_worker(gateway):
    return _refused(gateway, "GatewayDied", "the far end is no worker of ours")


def _refused(gateway, kind, what):
    """The exception, of the class named `kind` in deaths.py, for a far end that lives and is given up."""
    from . import deaths

    return deaths.refused(gateway, getattr(deaths, kind), what)


def _settings(gateway, spec):
    for key in ("chdir", "nice"):
        if getattr(spec, key) is True:
            raise ValueError(f"spec {str(spec)!r}: {key} needs a value, as in {key}=...")
    for name, value in spec.env.items():
        if value is True:
            raise ValueError(f"spec {str(spec)!r}: env:{name} needs a value, as in env:{name}=...")
    try:
        nice = int(spec.nice or 0)
    except ValueError:
        raise ValueError(f"spec {str(spec)!r}: nice must be an integer, not {spec.nice!r}") from None
    return {
        "version": __version__,
        "id": spec.id,
        "execmodel": spec.execmodel,
        "chdir": spec.chdir,
        "nice": nice,
        "env": dict(spec.env),
        "maxqueue": maxqueue_of(spec),
        "pickles": bool(gateway._pickles),
        **_to_run(spec.execmodel, _is_foreign(gateway, spec)),
    }


_MODULE = """\
def module(name):
    import sys

    if package == "execnet_c":
        return __import__("execnet_c." + name, None, None, ["*"])
    name = name.rpartition(".")[2]
    made = sys.modules[package + "." + name] = type(sys)(package + "." + name)
    setattr(sys.modules[package], name, made)
    made.__package__ = package
    exec(compile(settings["sent"][name], f"<execnet_c {name}>", "exec"), made.__dict__)
    return made

"""
_PARK = """\
gateway._parking = module("models.greenlets").parking_for(gateway._model)
"""


def _to_run(model, foreign):
    """The settings `start` (source that the worker runs before its first task) and `sent` (the sources of modules that
    `start` needs and a foreign interpreter lacks; None if it is not foreign)."""
    start, sent = "", {}
    alias = sys.modules.get("execnet_c.far.alias")
    if alias is not None:
        start, sent = alias.to_run()
    if model in GREENLETS:
        from ..far.sent import module_source

        start += _PARK
        sent = {**sent, "greenlets": module_source("greenlets")} if foreign else {}
    return {"start": start and _MODULE + start, "sent": sent if foreign else None}
