"""Sending a directory to many far ends at once: RSync. The receiving end is rsync_remote.py.

The source is looked through once, before anything is sent: if something is wrong with it, the targets are still
unchanged. Then each target has a thread here that talks with it, so that a slow target does not delay the others. The
thread never sends more than WINDOW beyond what the target has acknowledged, so that at neither end memory grows with the
files. The program's callbacks and `_report_send_file` are called by the thread that is in send().

What the two ends send each other; all names are bytes. This end sends the tree, as bytes items of entries joined by NUL
(see `_walk`); then, for each request in turn, the records of a file. A record is a piece of the file (bytes), or its end:
True: it is complete; None: the target's file has this content, and needs only mode and time; False: the file cannot be
read. A bytes item is a piece; other records come in lists.

The target sends ("send", requests): a request is the number of a file in the tree, so that nothing else can be asked for,
and the checksum of the target's file or None; ("list",) after the last request; ("ack", cost, files, written): the cost of
what was taken and the number of files that were completed since the last ack, and the bytes written of the file that was
begun; ("done", problems).
"""

import os
import stat
from _collections import deque
from _queue import SimpleQueue  # not from queue, which gevent may have patched: system threads use it
from hashlib import md5
from time import monotonic

from .far import rsync_remote
from .cores import module as _core
from .models.native import Thread, allocate_lock
from .near.transport import maxqueue_of
from .far.rsync_remote import cost_of

PIECE = 256 * 1024  # bytes of one item: a piece of a file, or several small files
SMALL = 64 * 1024  # bytes: a piece up to this size is sent together with others
TREE = 64 * 1024  # bytes of one item of the tree
WINDOW = 4 * 1024 * 1024  # cost, see cost_of()
KEPT = 16  # pieces that are kept because other targets are likely to want them next
REASON_TIMEOUT = 2.0  # seconds for a target to say why its channel is closed
STOPPED = "the far end stopped before it had everything"
LET_GO = 0.1  # seconds to tell the targets that send() was interrupted


class RSyncError(_core.RemoteError, OSError, EOFError):
    """Not everything arrived. The text says what failed where; the targets and files it does not name are done.

    failures: a list of (gateway, path, exception); for a file that could not be read here, the gateway is None.
    execnet's RSync raises one of the base classes for a target, so that `except` clauses written for it work.
    """

    __module__ = __package__
    failures = ()


class RSync:
    """Sends a directory (or one file) to any number of far ends, which then have what is here.

    sourcedir: a path; a symbolic link there is followed. Links in the source stay links; an absolute link into the source
    becomes one into the destination. A file is sent if that of the target has another size, or both another time and other
    content. It appears under its name when it is complete. Modes and times are those of the source.

    callback: called as callback("list", bytes to send, channel) when a target has said what it wants, and
    callback("ack", bytes of the file, channel) for each file that it has.
    verbose: print each file that is sent. progress: show a bar (needs tqdm).
    """

    def __init__(self, sourcedir, callback=None, verbose=True, *, progress=False):
        if callback is not None and not callable(callback):
            raise TypeError(f"callback must be callable, not {type(callback).__name__}")
        self._sourcedir = os.fsdecode(sourcedir) if isinstance(sourcedir, bytes) else str(sourcedir)
        self._callback = callback
        self._verbose = verbose
        self._new_bar = _Bars() if progress else None
        self._bar = None
        self._channels = {}  # channel -> _Target, of those that are not done

    def filter(self, path):
        """Whether `path`, a str below the source directory, is to be sent. To be overridden."""
        return True

    def _report_send_file(self, gateway, modified_rel_path):
        """Called for each file that `gateway` is sent. To be overridden."""
        if self._verbose:
            text = f"{gateway} <= {modified_rel_path}".encode("utf-8", "backslashreplace").decode()
            (print if self._bar is None else self._bar.write)(text)

    def add_target(self, gateway, destdir, finishedcallback=None, **options):
        """Have send() also send to `destdir`, a path at the far end of `gateway`, made if it is not there.

        finishedcallback: called without arguments when this target has everything. delete=True: files of the target that
        are not in the source are removed.
        """
        for name in options:
            if name != "delete":
                raise TypeError(f"add_target() got an unexpected option {name!r}; there is delete")
        path = os.fsencode(destdir if isinstance(destdir, bytes) else str(destdir))
        if not path:
            raise ValueError("destdir is empty")
        channel = gateway.remote_exec(rsync_remote)
        if maxqueue_of(channel.gateway.spec):
            channel.set_limit(None)  # a target asks while it is sent files: neither must wait for the other
        channel.send((path, {"delete": bool(options.get("delete"))}))
        self._channels[channel] = _Target(channel, os.fsdecode(path), finishedcallback)

    def send(self, raises=True):
        """Send to all targets, side by side, and return when they have everything. After that there are no targets.

        raises: whether it is an error (OSError) to have no target. Raises OSError or ValueError, with nothing sent, for
        a source that is not there, cannot be read or holds what is neither file, directory nor link; RSyncError at
        the end if a target failed or a file could not be read: everything else has arrived then.
        """
        if not self._channels:
            if raises:
                raise OSError("no targets available, maybe you are trying call send() twice?")
            return
        targets = list(self._channels.values())
        self._sourcedir = os.path.dirname(os.path.join(self._sourcedir, "x"))  # without a slash at its end
        try:
            source = _Source(self._sourcedir, self.filter, len(targets))
            if self._new_bar:
                self._bar = self._new_bar(os.path.basename(self._sourcedir))
            failures = self._serve(targets, source)
        except BaseException:
            if self._new_bar:
                self._new_bar.unlock()
            _let_go(targets)
            self._channels.clear()
            raise
        finally:
            if self._bar is not None:  # an empty one is false
                self._bar.close()
                self._bar = None
        failures += [(None, path, exc) for path, exc in source.problems.items()]
        if failures:
            raise _error(self._sourcedir, failures, len(targets))

    def _serve(self, targets, source):
        """Start the targets' threads and handle their events until all have ended. Returns the failures of targets."""
        events, failures = SimpleQueue(), []
        for target in targets:
            target.start(source, events)
        model = targets[0].channel.gateway.execmodel
        while self._channels:
            what, target, value = events.get() if not events.empty() else model.aside(events.get)
            if what == "report":
                self._report_send_file(target.channel.gateway, value)
            elif what == "list":
                self._tell("list", value, target)
            elif what == "ack":
                self._acknowledged(target, *target.take_ack(value))
            else:
                del self._channels[target.channel]
                if value is not None:
                    failures.append((target.channel.gateway, target.destdir, value))
                if what == "done" and target.finishedcallback:
                    target.finishedcallback()
        for target in targets:
            target.thread.join()
        return failures

    def _acknowledged(self, target, sizes, written):
        for size in sizes:
            self._tell("ack", size, target)
        if self._bar is not None:
            target.completed += sum(sizes)
            self._bar.update(target.completed + written - target.shown)
            target.shown = target.completed + written

    def _tell(self, what, size, target):
        if self._bar is not None and what == "list":
            self._bar.total += size
            self._bar.refresh()
        if self._callback:
            self._callback(what, size, target.channel)


class _Bars:
    """Makes progress bars with tqdm."""

    def __init__(self):
        try:
            from tqdm import tqdm
        except ImportError as exc:
            text = "RSync(progress=True) shows its bar with tqdm, which is not installed: pip install tqdm"
            raise ImportError(text) from exc
        self._tqdm = tqdm

    def __call__(self, name):
        return self._tqdm(desc=name, total=0, unit="B", unit_scale=True)

    def unlock(self):
        """After an error tqdm keeps its lock: release it, or later bars of other threads wait for it for ever."""
        lock = self._tqdm.get_lock()
        is_ours = getattr(getattr(lock, "th_lock", lock), "_is_owned", bool)
        while is_ours():
            lock.release()


def _let_go(targets):
    """Close the targets' channels, each on a thread, because close() blocks if a target does not read. Wait for LET_GO
    seconds at most."""
    closers = [Thread(target.let_go) for target in targets]
    for thread in closers:
        thread.start()
    until = monotonic() + LET_GO
    for thread in [*closers, *[target.thread for target in targets if target.thread]]:
        thread.join(max(until - monotonic(), 0))


def _error(sourcedir, failures, count):
    lines = []
    for gateway, path, exc in failures:
        if isinstance(exc, _core.RemoteError):
            words = [exc.remote_type, exc.remote_message]
            why = ": ".join(filter(None, words)) or exc.formatted.strip().rpartition("\n")[2]
        else:
            why = f"{type(exc).__name__}: {exc}"
        where = f"{path!r} here" if gateway is None else f"{gateway.id} ({gateway.spec}), {path!r}"
        lines.append(f"  {where}: {why}")
    failed = sum(gateway is not None for gateway, _, _ in failures)
    text = f"rsync of {sourcedir!r} failed" + (f" for {failed} of {count} targets" if failed else " for some files")
    error = RSyncError("\n".join([text + ":", *lines]))
    error.failures = failures
    error.__cause__ = failures[0][2]
    return error


# --- the source -------------------------------------------------------------------------------------------------------


class _Source:
    """The tree as it was found, and the content of its files. Targets share the pieces that were read last."""

    def __init__(self, root, keep, targets):
        self.root = os.fsencode(root)
        self.files = []  # their paths below the root, in the order of the tree
        self.tree = list(_items(_walk(root, keep, self.files)))
        self.problems = {}  # path -> why it could not be read
        self._shared = targets > 1
        self._lock = allocate_lock()
        self._pieces = {}  # the last pieces read, oldest first; changed under _lock

    def open(self, rel):
        """(fd, its stat). Raises OSError."""
        path = os.path.join(self.root, rel) if rel else self.root
        # Since _walk() a FIFO or a link may have been put in its place.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | (os.O_NOFOLLOW if rel else 0))
        try:
            st = os.fstat(fd)
            if not stat.S_ISREG(st.st_mode):
                raise OSError(f"it is no regular file any more: {os.fsdecode(path)!r}")
        except BaseException:
            os.close(fd)
            raise
        return fd, st

    def failed(self, rel, exc):
        """Note that a file could not be read. If it has vanished since _walk() that is no failure."""
        if not isinstance(exc, FileNotFoundError):
            self.problems.setdefault(os.fsdecode(rel) or os.fsdecode(self.root), exc)

    def pieces(self, rel):
        """Yield a file's content, up to the size that it has when opened. Raises OSError, also if it becomes shorter."""
        fd, st = self.open(rel)
        try:
            for at in range(0, st.st_size, PIECE):
                yield self._piece(fd, st, at)
        finally:
            os.close(fd)

    def _piece(self, fd, st, at):
        size = min(PIECE, st.st_size - at)
        if not self._shared or st.st_size <= SMALL:
            return _read(fd, size, at)
        key = (st.st_dev, st.st_ino, st.st_mtime_ns, st.st_size, at)
        data = self._pieces.get(key)
        if data is None:
            data = _read(fd, size, at)
            with self._lock:
                self._pieces[key] = data
                if len(self._pieces) > KEPT:
                    del self._pieces[next(iter(self._pieces))]
        return data

    def look(self, rel, checksum):
        """(size, last record) of the file for a request: see the head of this module."""
        try:
            fd, st = self.open(rel)
            try:
                same = checksum is not None and _checksum(fd, st.st_size) == checksum
            finally:
                os.close(fd)
        except OSError as exc:
            self.failed(rel, exc)
            return 0, False
        return st.st_size, None if same else True


def _read(fd, size, at):
    data = os.pread(fd, size, at)
    while len(data) < size:
        more = os.pread(fd, size - len(data), at + len(data))
        if not more:
            raise OSError(f"it became shorter while it was sent: {at + len(data)} bytes of {at + size} or more")
        data += more
    return data


def _checksum(fd, size):
    found = md5(usedforsecurity=False)
    for at in range(0, size, PIECE):
        found.update(_read(fd, min(PIECE, size - at), at))
    return found.digest()


def _walk(root, keep, files):
    """The entries of the tree: D (mode, name), F (mode, time in ns and in seconds, size, name), L or B (name; the next
    entry is where it leads, for B below the destination), U (end of a directory), . (end of all). Adds to `files`."""
    around, above = [iter([("", root)])], [b""]
    while around:
        name, path = next(around[-1], (None, None))
        if name is None:
            around.pop()
            above.pop()
            yield b"U" if around else b"."
            continue
        try:
            st = os.lstat(path) if name else os.stat(path)
            names = os.listdir(path) if stat.S_ISDIR(st.st_mode) else ()
            target = os.readlink(path) if stat.S_ISLNK(st.st_mode) else ""
        except FileNotFoundError:
            if name:
                continue  # it has vanished since its directory was read
            raise
        name = os.fsencode(name)
        if stat.S_ISDIR(st.st_mode):
            yield b"D%d %s" % (st.st_mode, name)
            paths = [(name, os.path.join(path, name)) for name in names]
            around.append(iter([one for one in paths if keep(one[1])]))
            above.append(above[-1] + name + b"/" if name else b"")
        elif stat.S_ISREG(st.st_mode):
            files.append(above[-1] + name)
            yield b"F%d %d %a %d %s" % (st.st_mode, st.st_mtime_ns, st.st_mtime, st.st_size, name)
        elif stat.S_ISLNK(st.st_mode):
            kind, target = _link(target, root)
            yield kind + name
            yield target
        else:
            raise ValueError(f"cannot sync {path!r}: it is neither a file nor a directory nor a link")


def _link(target, root):
    """(kind, where it leads) of a link's entries. A relative link is sent as it is, an absolute one too, unless it leads
    into the source."""
    if os.path.isabs(target):
        below = os.path.relpath(target, root)
        if below not in (os.curdir, os.pardir) and not below.startswith(os.pardir + os.sep):
            return b"B", os.fsencode(below)
    return b"L", os.fsencode(target)


def _items(entries):
    """The entries as items to send. The two entries of a link may be in two items."""
    item, size = [], 0
    for entry in entries:
        item.append(entry)
        size += len(entry) + 1
        if size >= TREE:
            yield b"\0".join(item)
            item, size = [], 0
    yield b"\0".join(item)


# --- a target ---------------------------------------------------------------------------------------------------------


class _Target:
    """One target, and the thread here that talks with it."""

    thread = None
    _is_over = False
    completed = shown = 0  # bytes, for the bar
    _asked = -1  # the number of the last file that the target has requested
    _has_list = False  # the target has sent its last request

    def __init__(self, channel, destdir, finishedcallback):
        self.channel = channel
        self.destdir = destdir
        self.finishedcallback = finishedcallback
        self._todo = deque()  # (path, last record) of the files that are to be sent
        self._sizes = deque()  # sizes of the files that were requested and are not acknowledged
        self._ahead = 0  # the cost of what was sent and is not acknowledged
        self._total = 0  # bytes of all files requested
        self._problems = None  # the list of the target's "done"
        self._records, self._cost = [], 0  # the records of the next item, and their cost
        # The value of the last event, if that is an "ack" that send() has not handled yet: what is acknowledged next is added
        # to it. So there are no more events than files, whatever the target sends while a callback takes its time.
        self._ack = None
        self._ack_lock = allocate_lock()

    def start(self, source, events):
        self._source, self._events = source, events
        thread = Thread(self._run)
        thread.start()
        self.thread = thread

    def let_go(self):
        self._is_over = True  # first, because close() blocks if the target does not read
        try:
            self.channel.close()
        except OSError:
            pass

    def _run(self):
        try:
            self._talk()
            self.channel.waitclose()
            problem = OSError("not removed: " + "; ".join(self._problems)) if self._problems else None
            self._events.put(("done", self, problem))
        except BaseException as exc:
            self._events.put(("failed", self, self._cause(exc)))

    def _cause(self, exc):
        """The exception to report for `exc`: if send() failed because the far end closed the channel, why it did that."""
        if isinstance(exc, OSError) and not isinstance(exc, EOFError):
            try:
                self.channel.waitclose(REASON_TIMEOUT)
                return EOFError(STOPPED)
            except (_core.RemoteError, EOFError) as cause:
                return cause
            except OSError:
                pass
        self.let_go()
        return exc

    def _talk(self):
        for item in self._source.tree:
            self._send(item)
        while self._problems is None:
            if self._todo:
                self._send_file(*self._todo.popleft())
            elif self._records:
                self._flush()
            else:
                self._hear()

    def _hear(self):
        """Receive one answer of the far end and check it: it may be anything that can be sent."""
        try:
            answer = self.channel.receive()
        except EOFError:
            if not self.channel.gateway.hasreceiver():
                raise
            raise EOFError(STOPPED) from None
        what, *more = answer if isinstance(answer, tuple) and answer else [None]
        hear = _HEAR.get(what) if isinstance(what, str) else None
        if hear is None:
            raise _core.DataFormatError("the far end answered what means nothing to rsync")
        if not hear(self, *more):
            raise _core.DataFormatError(f"the far end answered {what!r} with what cannot be")

    def _hear_send(self, requests=None, *more):
        if more or not isinstance(requests, list) or self._has_list:
            return False
        for request in requests:
            if not isinstance(request, tuple) or len(request) != 2:
                return False
            number, checksum = request
            if not _is_count(number, len(self._source.files) - 1) or number <= self._asked:
                return False
            self._asked = number
            rel = self._source.files[number]
            size, end = self._source.look(rel, checksum)
            self._todo.append((rel, end))
            self._sizes.append(size)
            self._total += size
            if end:
                self._put("report", os.fsdecode(rel))
        return True

    def _hear_list(self, *more):
        if more or self._has_list:
            return False
        self._has_list = True
        self._put("list", self._total)
        return True

    def _hear_ack(self, cost=None, files=None, written=None, *more):
        if more or not (_is_count(cost, self._ahead) and _is_count(files, len(self._sizes)) and _is_count(written)):
            return False
        self._ahead -= cost
        sizes = [self._sizes.popleft() for _ in range(files)]
        with self._ack_lock:
            if self._ack is None:
                self._ack = [[], 0]
                self._events.put(("ack", self, self._ack))
            self._ack[0] += sizes
            self._ack[1] = min(written, self._sizes[0] if self._sizes else 0)
        return True

    def _hear_done(self, problems=None, *more):
        texts = isinstance(problems, list) and all(isinstance(problem, str) for problem in problems)
        if more or not texts or self._sizes or not self._has_list:
            return False
        self._problems = problems
        return True

    def _put(self, what, value):
        with self._ack_lock:
            self._ack = None
            self._events.put((what, self, value))

    def take_ack(self, ack):
        """send() handles the event "ack" with this value, to which nothing is added any more."""
        with self._ack_lock:
            if self._ack is ack:
                self._ack = None
            return ack

    # --- to the target ----------------------------------------------------------------------------------------------

    def _send(self, item):
        cost = cost_of(item)
        while self._ahead and self._ahead + cost > WINDOW:
            self._hear()
        if self._is_over:
            raise EOFError("send() has ended")
        self.channel.send(item)
        self._ahead += cost

    def _add(self, record):
        self._records.append(record)
        self._cost += cost_of([record])
        if self._cost >= PIECE:
            self._flush()

    def _flush(self):
        if self._records:
            records, self._records, self._cost = self._records, [], 0
            self._send(records)

    def _send_file(self, rel, end):
        pieces = self._source.pieces(rel) if end else iter(())
        while True:
            try:
                data = next(pieces, None)
            except OSError as exc:
                self._source.failed(rel, exc)
                data, end = None, False
            if data is None:
                break
            if len(data) <= SMALL:
                self._add(data)
            else:
                self._flush()
                self._send(data)
        self._add(end)


_HEAR = {"send": _Target._hear_send, "list": _Target._hear_list, "ack": _Target._hear_ack, "done": _Target._hear_done}


def _is_count(number, most=None):
    return type(number) is int and number >= 0 and (most is None or number <= most)
