"""The type Gateway as users hold it: how to run code at the far end, how to end it, and what to say when it died."""

from .. import __version__
from ..cores import module as _core
from ..models.native import allocate_lock
from .source import source_of

# Seconds to wait for the process's exit status when the connection has ended: it has closed its pipes and ends soon.
REAP_TIMEOUT = 0.5


class GatewayExited(EOFError):
    """This side has ended the gateway, and with it channels that the far end had not closed."""

    __module__ = "execnet_c"


class Gateway(_core.Gateway):
    """A gateway to another Python interpreter. Made by makegateway(); see Group.makegateway for what a spec says."""

    _died = None  # (class, text, fields) of the exception that says how it ended
    _patience = REAP_TIMEOUT  # for how long _death() waits; 0: somebody has waited, see common/aio.py
    _signalled = False  # this side has sent the process a signal to end it
    _command = None  # the command line that started the process
    _facts = None  # the last answer of _rinfo()
    _overdue = None  # seconds for which a task had gone on after its interrupt, when this side ended the far end
    _answer = None  # the far end's answer to the hello
    _outer = None  # via=: the gateway in between, see via.py
    _depth = 0  # via=: the number of gateways in between
    _address = None  # socket=: the server's address, see sockets.py
    _awaited = None  # once it is live: the gateway to use, itself or the one of a later try, see Group._await()
    _reporter = None  # passes its worker's stderr to the program's handler, see stderr.py
    _lent = None  # the setting `stderr` of a worker that is lent our stderr, see bootstrap.py
    _reads_line = False  # the program's own command line started it, see gateway_io.py
    _serves = None  # whether a foreign interpreter has become a worker; None: nobody waited for that
    _worker_pid = None  # the worker's process id, from its answer
    _ticket = None  # ssh=: its place in the line of those that log in to the host, see ssh.py

    def __init__(self, spec):
        self._greeting = allocate_lock()
        self.id = spec.id
        self.spec = spec

    def __repr__(self):
        live = "receive-live" if self.hasreceiver() else "not-receiving"
        try:
            state = self._state()
        except OSError:
            state = {"channels": "no", "transport": "pipe"}
        model, channels, transport = self.execmodel.backend, state["channels"], state["transport"]
        return f"<{type(self).__name__} id={self.id!r} {live}, {model} model, {channels} active channels, {transport}>"

    @property
    def remoteaddress(self):
        """`ssh=` or `vagrant_ssh=` of the spec; for a gateway over a socket the server's address, HOST:PORT. Raises
        AttributeError for a local gateway."""
        address = self.spec.ssh or self.spec.vagrant_ssh or self._address
        if address:
            return address
        raise AttributeError(f"{self!r} is a local gateway: it has no remote address")

    def remote_exec(self, source, **kwargs):
        """Run `source` at the far end; return the Channel that connects it to here.

        source: a str (dedented), a module (its source), or a function whose first argument is `channel` (its source,
        then a call with the channel and `kwargs`). The code finds its end of the channel under the name `channel`,
        and `__name__` is "__channelexec__".

        Returns at once; what the code raises comes out of the channel's receive() or waitclose() as RemoteError.
        Raises ValueError for a function that could not run there, TypeError for what is none of the three or for
        `kwargs` without a function, DumpError for kwargs that cannot be sent, OSError when the connection is closed.
        """
        return self._begin_task(source, kwargs, self._send)[0]

    def _begin_task(self, source, kwargs, send):
        """As remote_exec(), with `send` in the place of _send(); returns the channel, and what that returned."""
        text, file_name, call_name = source_of(source)
        if kwargs and not call_name:
            raise TypeError("can't pass kwargs to non-function remote_exec")
        channel = self.newchannel()
        channel._starts_task = True
        try:
            return channel, send(_core.EXEC, channel.id, (text, file_name, call_name, kwargs))
        except _core.DumpError as exc:
            raise _dump_error(exc, kwargs, self._pickles) from exc.__cause__

    async def aremote_exec(self, source, **kwargs):
        """As remote_exec(), to be awaited in asyncio: where the connection has no room the event loop goes on. A call that
        is cancelled has started nothing."""
        from ..common.aio import aremote_exec

        return await aremote_exec(self, source, kwargs)

    def pipe(self, func, stream, **options):
        """As execnet_c.pipe(), with this gateway as its only worker. If it dies it is started anew in its group, with its
        id."""
        from importlib import import_module

        return import_module("..pool", __package__).pipe(func, stream, group=[self], **options)

    def apipe(self, func, stream, **options):
        """As execnet_c.apipe(), for asyncio, with this gateway as its only worker."""
        from importlib import import_module

        return import_module("..pool", __package__).apipe(func, stream, group=[self], **options)

    def remote_status(self):
        """What the far end is doing: an object with `numchannels`, `numexecuting` and `execmodel`; and `transport`, which
        is "ring" where what is sent goes through memory that both processes share, "pipe" for pipes and sockets.

        The far end answers while its tasks run, too. Raises EOFError (GatewayDied) when it is gone, OSError when the
        connection is closed.
        """
        status = RemoteStatus(self.execmodel.aside(self._ask))
        status.transport = self._state()["transport"]
        return status

    def _rinfo(self, update=False):
        """Facts about the far end: `executable`, `version_info`, `platform`, `cwd`, `pid` as attributes. They are asked
        for once, and again with `update`."""
        if update or self._facts is None:
            self._facts = RInfo(self.execmodel.aside(self._ask, "facts"))
        return self._facts

    def _await_greeting(self):
        """Wait for the far end's answer to the hello: before that it may not have applied its settings."""
        with self._greeting:
            if self._answer is None:
                self._answer = self._hello(None)

    def _ask(self, *what):
        """Ask the far end for its status, or for facts; return its answer. It answers while its tasks run, too."""
        self._await_greeting()
        channel = self.newchannel()
        self._send(_core.STATUS, channel.id, *what)
        answer = channel.receive()
        channel.waitclose()
        return answer

    def stats(self):
        """What waits at this end now, as a dict. An item counts with the bytes in which it was sent and 64 more.

        - `channels`: for each channel that is open or has items, by its id, a dict of two dicts. `received` has `items`
          and `bytes` (what nobody has received yet), `limit` (bytes, or None; see Channel.set_limit) and `sender_waits`
          (seconds for which a sender at the far end has waited to send more, or None). `sent` has `bytes` (what the far
          end has not received yet; None if it has no limit), `limit`, and `waits` (seconds for which a sender has waited
          here, or None).
        - `callbacks`: `items` and `bytes` that wait until callbacks have returned.
        - `to_write`: bytes that the connection has not taken yet.
        """
        channels, callbacks, to_write = self._stats()
        return {
            "channels": {
                id: {
                    "received": dict(zip(("items", "bytes", "limit", "sender_waits"), numbers[:4])),
                    "sent": dict(zip(("bytes", "limit", "waits"), numbers[4:])),
                }
                for id, *numbers in channels
            },
            "callbacks": dict(zip(("items", "bytes"), callbacks)),
            "to_write": to_write,
        }

    def remote_init_threads(self, num=None):
        """Does nothing, as in execnet: far ends start threads when tasks need them."""
        import warnings

        warnings.warn("remote_init_threads() does nothing", DeprecationWarning, stacklevel=2)

    def reconfigure(self, py2str_as_py3str=True, py3str_as_py2str=False, *, strict=True):
        """Set the string coercion of this gateway and its future channels, at both ends: what a Python 2 str arrives as
        (str, or bytes if false), and whether a str arrives as bytes. With strict=False, enums are sent as their values, and
        instances of subclasses of plain types as those."""
        py2, py3 = bool(py2str_as_py3str), bool(py3str_as_py2str)
        self._set_coerce(py2 | py3 << 1 | 4 * (not strict))
        self._send(_core.RECONFIGURE, 0, (py2, py3) if strict else (py2, py3, True))

    def exit(self):
        """Say goodbye: the far end ends when its tasks have ended, or is ended some seconds later. This does not wait for
        it; Group.terminate() does. Calling it again does nothing."""
        if self in self._group:
            for gateway in [*self._group]:
                if gateway._outer is self and gateway.hasreceiver():
                    gateway._cut_off = True
            self._goodbye()
            self._group._unregister(self)

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        """exit(), which waits neither for the far end's tasks nor for its process. A `with` block of a Group, or
        Group.terminate(), waits for both."""
        self.exit()

    # --- what the cores call ----------------------------------------------------------------------------------------

    def _takes_limits(self):
        """Whether the far end knows limits. Warns if not."""
        self.execmodel.aside(self._await_greeting)
        if self._answer is None:
            raise self._death(True)
        if "limits" not in self._answer:
            import warnings

            text = f"gateway {self.id!r}: its far end knows no limits (maxqueue=, set_limit), so that there are none"
            warnings.warn(text, RuntimeWarning, stacklevel=2)
        return "limits" in self._answer

    def _check_interrupts(self):
        """Raises NotImplementedError if the far end cannot interrupt tasks."""
        if self._answer is None:
            self.execmodel.aside(self._await_greeting)
        if self._answer is None:
            raise self._death(True)
        if "interrupts" not in self._answer:
            version = self._answer.get("version")
            raise NotImplementedError(f"gateway {self.id!r}: its far end, execnet_c {version}, cannot interrupt tasks")

    def _check_pickles(self):
        """Raises DumpError if the far end may not know pickled items: it is of another version."""
        if self._answer is None:
            self.execmodel.aside(self._await_greeting)
        if self._answer is None:
            raise self._death(True)
        version = self._answer.get("version")
        if version != __version__:
            raise _core.DumpError(
                f"gateway {self.id!r}: its far end has execnet_c {version}, and only one of this version, {__version__}, is sent pickles"
            )

    def _death(self, sending):
        """The exception that a call raises now that the connection has ended; `sending`: the call is a send()."""
        exited = GatewayExited, f"gateway {self.id!r} was exited", {}
        if self._died is None and not (sending and self._state()["said_goodbye"]):
            self._wait_gone(self._patience)
            state = self._state()
            killed = not self._signalled and state["status"] is not None and state["status"] < 0
            if state["said_goodbye"] and not killed:
                self._died = exited
            else:
                from .deaths import died

                self._died = died(self)
        kind, text, fields = self._died or exited
        if sending and kind is GatewayExited:
            return OSError(f"cannot send (already closed?): {text}")
        if self._overdue is not None and kind is not GatewayExited:
            at = len(f"gateway {self.id!r}: ")
            why = f"a task went on for {self._overdue:g} seconds after its interrupt, so this side ended its worker"
            text = f"{text[:at]}{why}: {text[at:]}"
        error = kind(text)
        vars(error).update(fields)
        return error


def _dump_error(error, kwargs, pickles):
    """The DumpError that says which of the caller's arguments cannot be sent; `error` is that of the whole task."""
    from ..common.pickles import packed

    for name, value in kwargs.items():
        try:
            _core.dumps(name)
            packed(value, _core.Channel, _core.DumpError) if pickles else _core.dumps(value)
        except _core.DumpError as exc:
            return _core.DumpError(f"keyword argument {name!r}: {exc}")
    return _core.DumpError("the task's source: " + str(error).rpartition(" at ")[0])


class RInfo:
    """Facts about the far end, as attributes. `transport` is known here, and no part of the repr."""

    __slots__ = ("transport", "__dict__")

    def __init__(self, facts):
        self.__dict__.update(facts)

    def __repr__(self):
        return "<RInfo %r>" % ", ".join(f"{name}={value}" for name, value in sorted(vars(self).items()))


RemoteStatus = RInfo
