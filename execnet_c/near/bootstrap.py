"""The handshake: how a far end comes to life, and what the two sides tell each other first.

Every far end of ours, however it is started, writes a marker, because a login or a site may print before it runs, and
speaks frames behind that (see src/core/wire/xc_frame.h). The first frame each way is a hello (code 8), known to nobody else:

- this side sends its settings: a dict with `version`, `id`, `execmodel`, `chdir`, `nice`, `env`, `start` (a text to run,
  see _to_run()), `sent` (sources of modules for that) and, to another interpreter on this machine, `memory` (see
  rings.py);
- the far end applies them, moves to that memory if it can, and answers with a dict: `version`, `core` ("C", or "Python"
  for the twin), `pid`; or, with what went wrong in `error`. This side moves when it has an answer that came that way:
  neither side reads there before it has moved, but for the answer;
- the settings of a worker of this machine say in `stderr` which fds it was lent (see src/core/system/xc_lend.h). Where its own
  stderr was a pipe so far it answers `waits` first, and takes ours when a hello tells it that what came through the
  pipe has been passed on.

Frames may follow the hello without waiting for the answer: a far end that cannot serve ends, and says why on its
stderr, which is what the first use of the gateway then raises. The answer is waited for where there are settings that
can fail over there.

This very interpreter imports `execnet_c.far.worker` as the far end. Another one says first, in a hello of its own,
which Python it is, and is sent the text that makes it a worker (see text.py); the same frames follow behind it.
"""

import sys
from errno import EACCES, ENOENT

from .. import __version__
from ..cores import module as _core
from ..models.native import sleep
from .transport import SET_PYTHON, argv_of, is_here, keepalive_of, may_lend, may_share, outside, program_s_own

# Seconds that a far end with settings may take to answer: an interpreter with a slow site, on a busy machine.
HELLO_TIMEOUT = 60.0
# Execution models whose library the far end may lack.
GREENLETS = ("gevent", "eventlet")


def start(gateway, spec):
    """Start the far end of `spec`. This very interpreter is sent its settings, and the gateway is live: its answer is
    not waited for. Another one has to say first which it is.

    Raises ValueError for settings that make no sense, OSError when the process cannot be started.
    """
    settings = _settings(gateway, spec)
    keepalive, shares, lends = keepalive_of(spec), may_share(spec), may_lend(spec)
    if hasattr(gateway, "_start_socket"):
        return gateway._start_socket(keepalive)
    argv = program_s_own(spec)
    gateway._reads_line = argv is not None
    if argv is None:
        argv = argv_of(spec, shares and not spec.python and gateway._share())
    if gateway._outer is not None:
        return gateway._start_via(argv)
    argv = gateway._command = outside(argv)
    foreign = _is_foreign(gateway, spec)
    lent = gateway._lend(foreign) if lends else None
    gateway._lent = lent and (_serve_aloud() if foreign else "", *lent)
    settings["stderr"] = lent and (*gateway._lent, True)
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
            pass  # it has ended already: finish() says how


def finish(gateway, spec):
    """Send a foreign interpreter the text that makes it a worker; wait for the far end's answer if that, or settings,
    may fail there.

    Raises RemoteError with the far end's traceback when settings failed, GatewayDied (see deaths.py) when the far end
    ended, OSError when it does not answer within HELLO_TIMEOUT seconds, or cannot serve.
    """
    keepalive = keepalive_of(spec)
    can_fail = spec.chdir or spec.nice or spec.env or spec.execmodel in GREENLETS
    if not (_is_foreign(gateway, spec) or can_fail or keepalive):
        return
    if gateway._outer is not None:
        gateway._await_start(HELLO_TIMEOUT)
    memory = None
    if _is_foreign(gateway, spec):
        from ..far.text import prepare, text_for

        gateway._serves = False
        packed = not is_here(spec) or " " in str(spec.python)  # a command line may lead to another machine
        prepare(packed)
        announcement = _answer(gateway, str)
        try:
            text = text_for(announcement, packed)
        except ValueError as exc:
            raise _no_worker(gateway, "PythonMissing", str(exc)) from None
        gateway._write(text)
        if may_share(spec) and not gateway._reads_line:
            from ..common.rings import offer

            memory = offer(gateway)
        lent = gateway._lent and (*gateway._lent, gateway._state()["passed"])
        gateway._send(_core.HELLO, 0, {**_settings(gateway, spec), "memory": memory, "stderr": lent})
    answer = _answer(gateway, dict)
    if "waits" in answer:  # before it takes our stderr
        if memory:
            memory = _settle(gateway)
        _await_passed(gateway)
        gateway._send(_core.HELLO, 0, True)
        answer = _answer(gateway, dict)
    if "error" in answer:
        from ..common.errors import remote_error

        raise remote_error(_core.RemoteError, answer["error"])
    if "core" not in answer:
        raise _stranger(gateway)
    gateway._serves = True
    gateway._worker_pid = answer["pid"]
    if memory:
        _settle(gateway)
    if keepalive and answer["core"] == "C":  # the twin cannot answer while a task keeps the GIL: no sign of its death
        gateway._keepalive(keepalive)


def _serve_aloud():
    """The source of that function of the worker's and of another: what is for this machine only need not fit into the
    text."""
    if not _sent:
        from ..far.sent import module_source

        source = module_source("worker")
        _sent.append(source[source.index("def _serve_aloud(") : source.index("def _say_again(")])
    return _sent[0]


_sent = []


def _settle(gateway):
    """The far end has moved, or cannot."""
    gateway._move() if gateway._state()["transport"] == "ring" else gateway._withdraw()


def _await_passed(gateway):
    """What the far end has said so far stands in front of what it is about to say on our own stderr, unless that takes
    nothing for a second."""
    for _ in range(500):
        if gateway._state()["passed"]:
            break
        sleep(0.002)


def _is_foreign(gateway, spec):
    """Not this very interpreter: it has to say first which it is."""
    return bool(gateway._reads_line or spec.python or spec.ssh or spec.vagrant_ssh or spec.via or gateway._address)


def _answer(gateway, kind):
    try:
        answer = gateway._hello(HELLO_TIMEOUT)
    except _core.LoadError:
        raise _stranger(gateway) from None
    if answer is None:
        if gateway.hasreceiver():
            raise _no_worker(gateway, "HostSilent", f"the far end did not answer within {HELLO_TIMEOUT} seconds")
        raise gateway._death(False)
    if not isinstance(answer, kind):
        raise _stranger(gateway)
    return answer


def _stranger(gateway):
    return _no_worker(gateway, "GatewayDied", "the far end is no worker of ours")


def _no_worker(gateway, kind, what):
    """The far end lives, and is given up."""
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
    """What a worker is to run before it is ready, and the modules that it may lack for that."""
    start, sent = "", {}
    alias = sys.modules.get("execnet_c.far.alias")
    if alias is not None:
        start, sent = alias.to_run()
    if model in GREENLETS:
        from ..far.sent import module_source

        start += _PARK
        sent = {**sent, "greenlets": module_source("greenlets")} if foreign else {}
    return {"start": start and _MODULE + start, "sent": sent if foreign else None}
