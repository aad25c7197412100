"""Groups of gateways: making them, finding them, ending them; and channels to many at once."""

import atexit
import os
import signal
import time
from importlib import import_module

from .near import bootstrap
from .near.transport import sends_pickles
from .cores import module as _core
from .models.registry import get_execmodel
from .near.gateway import Gateway
from .models.native import allocate_lock, at_exit, sleep
from .xspec import XSpec

_TERM_GRACE = 1.0  # seconds between SIGTERM and SIGKILL, or less if the caller's timeout is shorter
_KILL_WAIT = 5.0  # seconds to wait for the end of a process after SIGKILL
_LEAVE = 10.0  # seconds that far ends have at the end of a `with` block
_TRIES = 8  # to log in to an sshd that has too many connections at the moment
_LAST_LINES = 1.0  # seconds that terminate() waits for a handler of stderr to take what the processes said last


class Group:
    """A set of gateways. Group(["popen", ...]) starts them side by side. At the end of a `with` block they are
    terminated, with ten seconds to end by themselves.

    execmodel: as for set_execmodel(). payload: "pickle" for all gateways whose spec does not say payload=plain, see
    makegateway(). At the end of the program its gateways are ended.
    """

    defaultspec = "popen"
    _stderr_handler = None

    def __init__(self, xspecs=(), execmodel="thread", *, payload=None):
        sends_pickles(XSpec("popen"), payload)  # checks it
        self._payload = payload
        self._pid = os.getpid()
        self._lock = allocate_lock()
        self._gateways = []  # changed under _lock
        self._to_join = []  # gateways that were exited, but whose process may still run; changed under _lock
        self._ids = 0  # changed under _lock
        self.set_execmodel(execmodel)
        at_exit(self._cleanup_atexit)
        self._execmodel.aside(self._make_all, xspecs)

    def __repr__(self):
        return f"<Group {[gateway.id for gateway in self]!r}>"

    @property
    def execmodel(self):
        """The ExecModel of this end; its gateways have it, too."""
        return self._execmodel

    @property
    def remote_execmodel(self):
        """The ExecModel of far ends whose spec names none."""
        return self._remote_execmodel

    def set_execmodel(self, execmodel, remote_execmodel=None):
        """Set the execution models of this end and of the far ends, as long as the group has no gateway.

        "thread": a far end runs its first task in the main thread, and also each later task that finds it free; other
        tasks run in threads of their own. "main_thread_only": all tasks run in the main thread; a task that has to wait
        for a second is refused. At this end both mean the same. "gevent", "eventlet": at the far end each task is a
        greenlet; at this end other greenlets run while one makes a gateway, sends, waits for items, for a close or for
        the end of a group, and callbacks run in a greenlet of the thread that set the first one. `remote_execmodel`: by
        default the same as `execmodel`.

        Raises ValueError for other names, and if there are gateways; ImportError if the library for `execmodel` cannot be
        imported here. If a far end lacks the library for `remote_execmodel`, makegateway() raises RemoteError.
        """
        if self._gateways:
            raise ValueError("can not set execution models if gateways have been created already")
        local = get_execmodel(execmodel)
        local.parking  # imports its library
        self._remote_execmodel = local if remote_execmodel is None else get_execmodel(remote_execmodel)
        self._execmodel = local

    def __getitem__(self, key):
        if isinstance(key, int):
            return self._gateways[key]
        for gateway in self:
            if gateway == key or gateway.id == key:
                return gateway
        raise KeyError(key)

    def __contains__(self, key):
        try:
            self[key]
        except KeyError:
            return False
        return True

    def __len__(self):
        return len(self._gateways)

    def __iter__(self):
        return iter(list(self._gateways))

    # --- making -----------------------------------------------------------------------------------------------------

    def makegateway(self, spec=None):
        """Start another Python interpreter and return the Gateway to it.

        spec: a str or XSpec, `key=value//key=value`; without it, `defaultspec`.

        - `popen`: this very interpreter on this machine; with `python=COMMAND LINE` another one.
        - `ssh=[OPTIONS] [USER@]HOST`: on that host, started by `python=SHELL TEXT`; without that, by `python` if it is
          new enough, else by `python3`. `ssh_config=PATH` names the client's configuration.
        - `vagrant_ssh=MACHINE`: the same by the command `vagrant ssh`.
        - `socket=HOST:PORT`: started by the server that listens there (`python -m execnet_c socketserver`). With
          `installvia=ID` the gateway of that id first starts a server.
        - `via=ID` with popen or ssh: started by that gateway of this group; the connection goes through it.
        - Also `id=NAME` (else gw0, gw1, ...), `execmodel=MODEL` (see set_execmodel), `chdir=PATH` (made if it is not
          there; `~` is the home at the far end), `nice=INCREMENT`, `env:NAME=VALUE`, `dont_write_bytecode`,
          `keepalive=SECONDS` that the far end may be silent (ssh: 30; 0: for ever), `transport=pipe`: a popen gateway
          uses pipes, not memory that both processes share, and `stderr=capture`: a local worker does not write to this
          program's stderr; its stderr is read, and errors about its death quote the end of it.
        - `maxqueue=BYTES`: the limit of each channel, in both directions, see Channel.set_limit(). Without it the
          environment's EXECNET_C_MAXQUEUE; without that there is no limit.
        - `payload=pickle`: what cannot be sent otherwise is pickled, in both directions, see Channel.send_pickled(). So this
          program loads pickles of that far end, which can have it run any code: say it for hosts that you trust like this
          one. `payload=plain`: not so, whatever the group says.

        Returns a live gateway, or raises: ValueError (a spec that says nothing that can be started, an id that is
        taken), OSError (the process could not be started), RemoteError (a setting failed at the far end), GatewayDied (the
        far end ended, or was not reached; its subclasses name the cause). A plain popen is returned as soon as the
        process runs; if that does not become a worker, the first use of the gateway raises the cause.
        """
        return self._execmodel.aside(self._make, spec)

    def _make(self, spec):
        return self._await(self._launch(spec))

    def _make_all(self, specs):
        if specs and isinstance(specs, str):  # else each letter would be a spec
            raise ValueError(f"a group is made of a list of specs, as in Group([{specs!r}])")
        try:
            for gateway in [self._launch(spec) for spec in specs]:
                self._await(gateway)
        except BaseException:
            for gateway in self:
                self._give_up(gateway)  # nothing runs on them yet
            raise

    def allocate_id(self, spec):
        """Give `spec` the next free id of this group, unless it has one."""
        if spec.id is None:
            with self._lock:
                name = f"gw{self._ids}"
                self._ids += 1
            if name in self:
                raise ValueError(f"already have gateway with id {name!r}")
            spec.id = name

    def _renew_after_fork(self):
        """In a forked child the group begins empty: its gateways are the parent's, and a thread that the child does not
        have may hold its lock."""
        if os.getpid() != self._pid:
            self._lock = allocate_lock()
            self._gateways, self._to_join = [], []
            self._pid = os.getpid()

    def _launch(self, spec, place=None):
        self._renew_after_fork()
        spec = spec or self.defaultspec
        if not isinstance(spec, XSpec):
            spec = XSpec(spec)
        if place is None and spec._is_odd():
            from .near.unmeant import check

            check(spec)
        self.allocate_id(spec)
        if spec.execmodel is None:
            spec.execmodel = self._remote_execmodel.backend
        try:
            get_execmodel(spec.execmodel)
        except ValueError as exc:
            raise ValueError(f"spec {str(spec)!r}: {exc}") from None
        pickles = sends_pickles(spec, self._payload)
        outer = self._outer_of(spec)
        socket = spec.socket and not (spec.popen or spec.ssh or spec.vagrant_ssh)
        if socket:
            from .near.sockets import Gateway as SocketGateway

            gateway = SocketGateway(spec)
            gateway._installer = self._outer_of(spec, "installvia")
        elif outer is None:
            gateway = Gateway(spec)
        else:
            from .near.via import Gateway as ViaGateway

            gateway = ViaGateway(spec)
            gateway._outer, gateway._depth = outer, outer._depth + 1
        gateway.execmodel = self._execmodel
        gateway._parking = self._execmodel.parking
        gateway._pickles = pickles
        # A worker behind `outer` or a server has no stderr at this end.
        handler = self._stderr_handler if outer is None and not socket else None
        if handler is not None:
            gateway._listen()
        with self._lock:
            if spec.id in self:
                raise ValueError(f"already have gateway with id {spec.id!r}")
            self._gateways.insert(len(self._gateways) if place is None else place, gateway)
        gateway._group = self

        def start():
            bootstrap.start(gateway, spec)
            if handler is not None:
                from .near.stderr import Reporter

                gateway._reporter = Reporter(gateway, handler)

        try:
            if spec.ssh or spec.vagrant_ssh:
                from .near.ssh import Ticket

                gateway._ticket = Ticket(spec.ssh or ("vagrant", spec.vagrant_ssh), start)
            else:
                start()
        except BaseException:
            self._give_up(gateway)
            raise
        return gateway

    def _outer_of(self, spec, key="via"):
        """The gateway that the spec's `key` (via= or installvia=) names, live; None if the spec has no such key."""
        if not getattr(spec, key):
            return None
        for gateway in self:
            if gateway.id == getattr(spec, key):
                return self._await(gateway)
        from .near.via import NoSuchGateway

        known = ", ".join(repr(gateway.id) for gateway in self) or "none"
        raise NoSuchGateway(f"spec {str(spec)!r}: {key} names no gateway of this group; there are: {known}")

    def _await(self, gateway):
        """Wait until `gateway` is live and return it; if ssh had to try more than once, the gateway of the last try."""
        if gateway._awaited is not None:
            return gateway._awaited
        first = gateway
        for tries_left in range(_TRIES - 1, -1, -1):
            try:
                if gateway._ticket is not None:
                    gateway._ticket.wait()
                bootstrap.finish(gateway, gateway.spec)
                if gateway._ticket is not None:
                    gateway._ticket.leave()
                first._awaited = gateway._awaited = gateway
                return gateway
            except BaseException as exc:
                with self._lock:  # another thread's terminate() may have removed it
                    place = self._gateways.index(gateway) if gateway in self._gateways else None
                self._give_up(gateway)
                from .near.deaths import pause_before_retry

                pause = pause_before_retry(exc) if gateway._ticket is not None and tries_left else None
                if pause is None:
                    raise
            sleep(pause)
            gateway = self._launch(gateway.spec, place)

    def _give_up(self, gateway):
        if gateway._ticket is not None:
            gateway._ticket.leave()
        self._unregister(gateway)
        try:
            gateway._goodbye()
            gateway._signal(signal.SIGKILL)
            self._reap([gateway], 0)
        except OSError:  # there is no process
            with self._lock:
                self._to_join = [other for other in self._to_join if other is not gateway]

    def set_stderr_handler(self, handler):
        """Have `handler(gateway, line)` called for each line that the workers of gateways made from now on write to
        their stderr, which is not ours then. None: as without a handler.

        line: a str without the newline, undecodable bytes replaced. Each gateway calls it on a thread of its own; what
        it raises goes to sys.excepthook. If the handler is slow, only the last 1 MiB of a gateway is kept for it; a line
        in the place of what is lost says how many bytes that were.
        """
        if handler is not None and not callable(handler):
            raise TypeError(f"handler must be callable or None, not {type(handler).__name__}")
        self._stderr_handler = handler

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        """terminate(timeout=10): the far ends have ten seconds to end by themselves."""
        self.terminate(_LEAVE)

    # --- ending -----------------------------------------------------------------------------------------------------

    def _unregister(self, gateway):
        with self._lock:
            if gateway in self._gateways:  # else another thread has done this
                self._gateways.remove(gateway)
                self._to_join.append(gateway)

    def _cleanup_atexit(self):
        self._terminate(1.0)
        _core._print_orphans()

    def terminate(self, timeout=None):
        """End all gateways of the group and wait for their processes.

        timeout: seconds that the processes may take to end by themselves. Those that have not ended then get SIGTERM, and
        SIGKILL after another `timeout` seconds (1 at most); None: wait for ever, signal none. No process is left behind.
        Gateways in between (via=) are ended after those that go through them, and get the same time again.
        """
        self._execmodel.aside(self._terminate, timeout)

    def _terminate(self, timeout):
        self._renew_after_fork()
        with self._lock:
            gateways = [*self._gateways, *self._to_join]  # an exited one may still need its gateway in between
        for depth in sorted({0, *(gateway._depth for gateway in gateways)}, reverse=True):
            for gateway in gateways:
                if gateway._depth == depth:
                    try:
                        gateway.exit()
                    except OSError:
                        pass  # another thread is still starting it
            with self._lock:
                # They stay in _to_join until they are gone, because Ctrl-C may interrupt this.
                leaving = [gateway for gateway in self._to_join if gateway._depth >= depth]
            self._reap(leaving, timeout)

    def _reap(self, gateways, timeout):
        left = _wait_for(gateways, timeout)
        for sig, seconds in ((signal.SIGTERM, min(timeout or 0.0, _TERM_GRACE)), (signal.SIGKILL, _KILL_WAIT)):
            for gateway in left:
                gateway._signalled = True
                gateway._signal(sig)
            if all(gateway._depth for gateway in left):  # the gateway in between may not tell; they end with it anyway
                seconds = min(seconds, _TERM_GRACE)
            left = _wait_for(left, seconds)
        with self._lock:
            self._to_join = [gateway for gateway in self._to_join if gateway not in gateways]
        until = time.monotonic() + _LAST_LINES
        for gateway in gateways:
            if gateway._reporter is not None:
                gateway._reporter.wait(max(until - time.monotonic(), 0.0))

    def _renew(self, gateway):
        """Return a live gateway in the place of one that has died, or is to end now: of the same spec and id. If there is one
        already, that."""
        for other in self:
            if other.id == gateway.id and other is not gateway:
                return other
        if gateway._outer is not None and not gateway._outer.hasreceiver():
            self._renew(gateway._outer)
        with self._lock:
            place = self._gateways.index(gateway) if gateway in self._gateways else None
        self._give_up(gateway)
        return self._await(self._launch(gateway.spec, place))

    # --- many at once -----------------------------------------------------------------------------------------------

    def remote_exec(self, source, **kwargs):
        """Run `source` on all gateways of the group; return a MultiChannel to them. As Gateway.remote_exec."""
        return MultiChannel([gateway.remote_exec(source, **kwargs) for gateway in self])

    def pipe(self, func, stream, **options):
        """As execnet_c.pipe(), with the gateways of this group as its workers. One that dies is started anew, with its id."""
        return import_module(".pool", __package__).pipe(func, stream, group=self, **options)

    def apipe(self, func, stream, **options):
        """As execnet_c.apipe(), for asyncio, with the gateways of this group as its workers."""
        return import_module(".pool", __package__).apipe(func, stream, group=self, **options)


def _time_left(timeout):
    """A function that returns how many of `timeout` seconds are left, never less than 0; None if `timeout` is None."""
    until = None if timeout is None else time.monotonic() + timeout
    return lambda: None if until is None else max(until - time.monotonic(), 0.0)


def _wait_for(gateways, timeout):
    """Wait for the gateways' connections and processes to end, for `timeout` seconds in all; return those whose process
    still lives."""
    left = _time_left(timeout)
    living = []
    for gateway in gateways:
        gone = gateway._wait_gone(left())
        if gone:
            gateway.join(left())
        else:
            living.append(gateway)
    return living


class MultiChannel:
    """Channels to many far ends, used together."""

    def __init__(self, channels):
        self._channels = channels

    def __len__(self):
        return len(self._channels)

    def __iter__(self):
        return iter(self._channels)

    def __getitem__(self, key):
        return self._channels[key]

    def __contains__(self, chan):
        return chan in self._channels

    def send_each(self, item):
        """Send `item` to each of them."""
        for channel in self._channels:
            channel.send(item)

    def receive_each(self, withchannel=False, timeout=None):
        """A list of one item received from each, in order; of (channel, item) pairs with `withchannel`.

        timeout: seconds for all of them together, None to wait for ever. Raises TimeoutError when they have passed, and
        for a channel that has ended what its receive() does. Nothing is taken from any channel before there is an item
        of each: after an error all items are still there.
        """
        left = _time_left(timeout)
        for channel in self._channels:
            try:
                if not channel._await_item(left()):
                    channel.receive(0)  # raises why there will be none
            except channel.TimeoutError:
                what = f"no item of {channel!r} of gateway {channel.gateway.id!r} after {timeout!r} seconds"
                raise _core.TimeoutError(what) from None
        items = [(channel, channel.receive()) for channel in self._channels]
        return items if withchannel else [item for _, item in items]

    def make_receive_queue(self, endmarker=_core.NO_ENDMARKER_WANTED):
        """A queue that gets (channel, item) for whatever arrives on any of them from now on; with `endmarker`, also
        (channel, endmarker) for each that ends. It is of the Queue type of the execution model here."""
        try:
            return self._queue
        except AttributeError:
            models = [channel.gateway.execmodel for channel in self._channels] or [get_execmodel("thread")]
            self._queue = models[0].queue.Queue()
        for channel in self._channels:

            def put(item, channel=channel):
                self._queue.put((channel, item))

            channel.setcallback(put, endmarker)
        return self._queue

    def waitclose(self, timeout=None):
        """Wait until all of them are closed; then raise the first error, if there was one: a RemoteError, or GatewayDied.

        timeout: seconds for all of them together, None to wait for ever. Raises TimeoutError when they have passed and
        none of those that are closed has an error.
        """
        left, first, late = _time_left(timeout), None, []
        for channel in self._channels:
            try:
                channel.waitclose(left())
            except channel.TimeoutError:
                late.append(channel)
            except (channel.RemoteError, EOFError) as exc:
                first = first or exc
        if first is not None:
            raise first
        if late:
            raise _core.TimeoutError(f"{len(late)} of {len(self)} channels are not closed after {timeout!r} seconds")


default_group = Group()
atexit.unregister(default_group._cleanup_atexit)  # the package's __init__ has registered that already
makegateway = default_group.makegateway
set_execmodel = default_group.set_execmodel
set_stderr_handler = default_group.set_stderr_handler
NO_ENDMARKER_WANTED = _core.NO_ENDMARKER_WANTED

if os.environ.get("EXECNET_DEBUG"):
    from .common import trace

    trace.start(_core)
