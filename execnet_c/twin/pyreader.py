"""Reads what arrives at a gateway of the plain-Python core, and cuts it into frames. That runs on the I/O thread; items are
made of payloads by who receives them.

A frame goes to the gateway's backlog; that of a forwarded channel goes to the relay. A large frame is read into memory of
its own.
"""

from time import monotonic

from . import pypump, pywire
from ..models.native import os
from .pychannel import limits
from .pyserializer import LARGE, DataFormatError, LoadError, load_item, load_plain
from .pywire import CHUNK, CLOSE, CLOSE_ERROR, CREDIT, DROP, HELLO, INTERRUPT, LONG_COUNT, MAX_LONG, TERMINATE, WAITS, Large, trace, trace_frame

FIN = 100  # the code of the last event of a connection, which is not on the wire: nothing more will arrive
SHORT = 128  # bytes: for a shorter item load_plain() is tried first, because it takes half the time of load_item()
MAX_HELLOS = 4  # hellos at most that nobody has taken
MAX_HELLO = 1024 * 1024  # bytes: a far end may send one unasked, and it is loaded before anybody knows who that is
SIZES = {CREDIT: 16, WAITS: 0, INTERRUPT: 0}  # bytes of their payloads


def _bad_head(head):
    what = "wrong payload length" if head[0] in SIZES else "unknown message code" if head[0] > DROP else ""
    what = "negative payload length" if head[0] <= INTERRUPT and head[5] > 127 else what
    head = head.hex()
    return DataFormatError(f"{what} in {head[:2]} {head[2:10]} {head[10:]}")


def _large_hello(size):
    return DataFormatError(f"a hello of {size} bytes, and {MAX_HELLO} may be")


class Reader:
    """The part of a Gateway that reads: a base class of it."""

    _look_at = 0  # the time of the next check of its fd

    def _read(self, events):
        """Read once. Returns the number of bytes; 0 if there are none now, or the connection has ended."""
        gone = self._process is not None and self._process.gone
        large = self._large
        try:
            if monotonic() >= self._look_at or events & pypump.POLLNVAL:
                self._look_at = pypump.check(self._in.fileno())
            n = self._in.readinto(self._space) if large is None else self._read_large(large)
            if not n:
                if n == 0 or gone:
                    self._end("XC_EOF")
                return 0
            if large is None:
                self._feed(memoryview(self._space)[:n])
            else:
                self._fill(large, n)
        except MemoryError:
            n = None
        except Exception as exc:
            self._end_by(exc)
            n = 0
        if n is None:  # a MemoryError; here its traceback has been freed, and with it some memory
            self._end_by(MemoryError())
            n = 0
        return n

    def _read_large(self, large):
        """Read the rest of its frame, and the header of the next frame: so the next PIECE is read in place, too."""
        rooms = large.rooms(self._space)
        if large.body is None or not hasattr(os, "readv"):  # PyPy has none
            return self._in.readinto(rooms[0])
        self._head = bytearray(9)
        try:
            return os.readv(self._in.fileno(), [*rooms, self._head])
        except BlockingIOError:
            return None

    def _end_by(self, exc):
        """End the connection because of `exc`."""
        self._broke = not isinstance(exc, ConnectionError)
        if self._is_worker and self._broke:
            self._tell_break(exc)
        if isinstance(exc, OSError):
            self._end("XC_SYS", f"read: {exc.strerror}", exc.errno)
        elif isinstance(exc, DataFormatError):
            self._end("XC_BAD", str(exc))
        elif isinstance(exc, MemoryError):
            self._end("XC_NOMEM", str(exc) or "no memory for a message that arrived")
        else:
            raise exc

    def _tell_break(self, exc):
        """Write the reason to stderr, before this worker ends. Does not wait: a pipe that is full gets nothing."""
        fd, file = self._tell_to
        try:
            if file in (None, pypump.file_of(fd)) and pypump.is_ready(fd, pypump.POLLOUT):
                os.write(fd, f"execnet_c: the connection broke here: {str(exc) or repr(exc)}\n".encode())
        except Exception:
            pass

    def _feed(self, data):
        """Add to the buffer what was read, and take out the frames that are complete."""
        buffer = self._buffer
        buffer += data
        if not self._marked and not self._find_marker():
            return
        at = 0
        while len(buffer) - at >= 9:
            code = buffer[at]
            id = int.from_bytes(buffer[at + 1 : at + 5], "big", signed=True)
            size = int.from_bytes(buffer[at + 5 : at + 9], "big", signed=True)
            if size < 0 or code > DROP and SIZES.get(code) != size:
                raise _bad_head(bytes(buffer[at : at + 9]))
            if code == HELLO and size > MAX_HELLO:
                raise _large_hello(size)
            begin, at = at, at + 9
            if HELLO < code <= DROP or len(buffer) - at < size > CHUNK:
                at = self._take(code, id, size, at)
                if at:
                    continue
            if not at or len(buffer) - at < size:
                at = begin
                break
            payload = bytes(memoryview(buffer)[at : at + size])
            at += size
            if not self._file(code, id, payload):
                at = len(buffer)
                break
        del buffer[:at]

    def _take(self, code, id, size, at):
        """Take a frame that is larger than the buffer, or belongs to a long message. Its payload begins at `at` in the
        buffer. Returns where the next frame begins; 0: more of this frame must arrive first."""
        longs = self._longs
        have = self._buffer[at : at + size]
        large = longs.get(id) if code > HELLO else Large(code, id, size)
        if (large is None or large.skip is None) and len(have) < min(size, 13):
            return 0
        at += len(have)
        if code == pywire.LONG:
            total = int.from_bytes(have[5:], "big")
            fits = large is None and size == 13 and have[0] <= HELLO and 0 < total <= MAX_LONG and len(longs) < LONG_COUNT
        else:
            fits = large is not None and size <= (0 if code == DROP else large.size - large.got)
        if not fits:
            raise DataFormatError(f"{pywire.NAMES[code]} of {size} bytes for long message {id} cannot be")
        if code == pywire.LONG:
            if have[0] == HELLO and total > MAX_HELLO:
                raise _large_hello(total)
            large = longs[id] = Large(have[0], int.from_bytes(have[1:5], "big", signed=True), total)
            large.number = id
        elif code == DROP:
            del longs[id]
        else:
            large.take(size, have)
            self._large = large
            self._fill(large, 0)
        return at

    def _fill(self, large, n):
        """_read_large() has read `n` bytes: count them, and file the message if it is complete."""
        more = n - large.left
        if large.body is None:
            large.sift(self._space[: min(n, large.left)])
        if large.add(min(n, large.left)):
            self._large = None
            if large.got == large.size:
                self._longs.pop(large.number, None)
                self._file(large.code, large.id, large)
            if more > 0 and not self._eof:
                self._feed(self._head[:more])

    def _file(self, code, id, payload):
        """Pass a complete frame on. False: the connection has ended, and what follows the frame is ignored."""
        if pywire.trace_fd >= 0:
            trace_frame("received", code, id, len(payload))
        if code == HELLO:
            if len(self._hellos) >= MAX_HELLOS:
                raise DataFormatError(f"more than {MAX_HELLOS} hellos, and nobody takes them")
            self._greeted = True
            self._hellos.append(payload)
            self._wake()
            return True
        chan = self._chans.get(id) or self._rest.get(id)
        if code == INTERRUPT:
            if chan is not None:
                return self._interrupt(chan)
        elif code > HELLO:
            return limits().control(self, code, id, payload)
        if chan is not None:
            if chan.flow is not None:
                limits().note(self, chan, code, payload)
            if chan.forward and (not chan.recv_closed or code in (CLOSE, CLOSE_ERROR)):
                chan.forward(code, payload)
                return True
        self._backlog.append((code, id, payload))
        if code == TERMINATE:
            return self._take_goodbye()
        self._work_off()
        return not self._eof

    def _take_goodbye(self):
        self._heard_goodbye = True
        self._left = self._is_worker
        self._end("XC_CLOSED")
        return False

    def _end(self, reason, detail="", errno=0):
        """End the connection for this reason, unless it has ended already: nothing more is read."""
        if self._eof:
            return
        fd = self._in.fileno()
        if not all([pypump.is_ours(used) for used in (fd, self._writer.fd) if used >= 0]):
            reason, detail, errno = "XC_SYS", pypump.CLOSED, pypump.EBADF  # the first cause; the far end only reacted
        self._ended_by = (reason, detail, errno)
        if not self._left:
            self._writer.break_off()  # first: who learns of the end can send nothing more
        self._eof = True
        if self._keepalive_watch:
            self._keepalive_watch.stop()
        self._buffer.clear()
        self._large = None
        self._longs.clear()
        pypump.pump.forget(fd)
        pypump.close(fd)
        self._in.close()
        if pywire.trace_fd >= 0:
            trace(f"connection ended: {reason} {detail}")
        for chan in [*self._chans.values(), *self._rest.values()]:
            if chan.forward:
                chan.forward(FIN, b"")
        self._backlog.append((FIN, 0, b""))
        self._work_off()
        if self._is_worker:
            from . import pywatch

            pywatch.tell(self._watcher, b"g" if self._heard_goodbye else b"h", lambda: len(self._running))
        if not self._left:
            self._writer.parted = True
            self._writer.flush()
        self._wake()

    # --- from payloads to items ---

    def _item(self, payload, coerce, make_channel):
        """(item, None), or (None, the error) without its traceback, whose frames hold the partly loaded item."""
        try:
            return self._load(payload, coerce, make_channel), None
        except (LoadError, MemoryError) as exc:
            return None, exc.with_traceback(None)

    def _load(self, payload, coerce, make_channel=None):
        if type(payload) is Large:
            return payload.load(load_item, coerce, make_channel, self._load_pickle)
        if len(payload) < SHORT and coerce < 2:
            try:
                return load_plain(payload)
            except Exception:
                pass  # it is no plain item, or not well formed
        return load_item(payload, coerce, make_channel, self._load_pickle)

    def _load_pickle(self, *where):
        from .pypickled import load

        return load(self._is_worker or self._pickles, *where)

    def _load_plain(self, payload):
        """Load a hello or a task. The usual ones need only load_plain(), so that load_item() is not compiled for them."""
        try:
            if len(payload) < LARGE:
                return load_plain(payload)
        except Exception:
            pass
        return self._load(*self._held(payload, 1))
