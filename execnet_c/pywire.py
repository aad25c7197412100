"""The wire of the plain-Python core: frames, the writing side of a connection, tracing."""

import os
import select
from _collections import deque
from _io import BytesIO
from _thread import RLock

from . import pypump
from .pyserializer import DumpError, LoadError

STATUS, RECONFIGURE, TERMINATE, EXEC, DATA, CLOSE, CLOSE_ERROR, LAST_MESSAGE, HELLO = range(9)
NAMES = "STATUS RECONFIGURE TERMINATE EXEC DATA CLOSE CLOSE_ERROR LAST_MESSAGE HELLO".split()
MARKER = b"\0execnet_c\0"  # a far end that was started writes it before its first frame
MAX_PAYLOAD = 0x7FFFFFFF  # bytes
CHUNK = 128 * 1024  # bytes at one go

trace_fd = -1


def trace_to(fd):
    global trace_fd
    trace_fd = fd


def trace(text):
    if trace_fd < 0:
        return
    try:
        poll = select.poll()
        poll.register(trace_fd, select.POLLOUT)
        if poll.poll(0):  # lines are lost rather than waited for
            os.write(trace_fd, f"[{os.getpid()}] {text}\n".encode("utf-8", "replace"))
    except OSError:
        pass


def trace_frame(verb, code, id, size):
    trace(f"{verb} {NAMES[code]} channel {id} {size} bytes")


def frame(code, id, parts=()):
    size = sum(map(len, parts))
    if size > MAX_PAYLOAD:
        raise DumpError(
            f"the item takes {size} bytes serialized, a message holds {MAX_PAYLOAD} at most: send it in pieces"
        )
    if trace_fd >= 0:
        trace_frame("sent", code, id, size)
    head = bytes((code,)) + (id & 0xFFFFFFFF).to_bytes(4, "big") + size.to_bytes(4, "big")
    return [head + parts[0], *parts[1:]] if parts else [head]


class Batch:
    """Bytes on their way: parts, and how many bytes each write has taken."""

    def __init__(self, parts):
        self.parts = parts
        self.written = []

    def rest(self):
        at = sum(self.written)
        for part in self.parts:
            if at < len(part):
                return memoryview(part)[at : at + CHUNK]
            at -= len(part)


class Writer:
    """The writing side. A frame is never torn: what one thread leaves unfinished, the next one or the I/O thread
    writes first."""

    def __init__(self, fd):
        self.fd = fd
        self.wrote = 0  # bytes
        self.broken = False
        self.ending = False  # nothing more is taken; the fd is closed when all is out
        self.turn = RLock()  # a signal handler that interrupts a send may send: it goes on with the frame in flight
        self.out = deque()
        self.watched = False

    def send(self, parts):
        """False when the connection takes nothing more."""
        batch = Batch(parts)
        try:
            with self.turn:
                if self.broken or self.ending:
                    return False
                self.out.append(batch)
                self.write(True)
                return not self.broken
        except BaseException:
            pypump.pump.post(self.flush)  # the rest of a frame that was begun
            raise

    def post(self, parts):
        """Take whole frames to be written soon. Never blocks."""
        if not self.broken and not self.ending:
            self.out.append(Batch(parts))
            pypump.pump.post(self.flush)

    def write(self, wait):
        """True: all is out. False: it would have to wait. The turn is held."""
        poll = None
        while self.out and not self.broken:
            batch = self.out[0]
            view = batch.rest()
            if view is None:
                try:
                    self.out.remove(batch)  # this one and no other: a signal handler may have been here meanwhile
                except ValueError:
                    pass
                continue
            try:
                # In one step for a signal handler: written and noted.
                batch.written.extend(map(os.write, (self.fd,), (view,)))
                self.wrote += batch.written[-1]
            except BlockingIOError:
                if not wait:
                    return False
                if poll is None:
                    poll = select.poll()
                    poll.register(self.fd, select.POLLOUT)
                poll.poll(500)
            except OSError:
                self.break_off()
        return True

    def flush(self):
        """On the I/O thread."""
        pump = pypump.pump
        if not self.out and not self.ending:
            return
        if not self.turn.acquire(False):
            pump.after(0.01, self.flush)  # who has it writes this too, unless it is just leaving
            return
        try:
            done = self.write(False)
            if done and self.ending:
                self.close()
            elif done and self.watched:
                self.watched = False
                pump.forget(self.fd)
            elif not done and not self.watched:
                self.watched = True
                pump.watch(self.fd, pypump.POLLOUT, lambda events: self.flush())
        finally:
            self.turn.release()

    def end(self):
        self.ending = True
        pypump.pump.post(self.flush)

    def break_off(self):
        self.broken = True
        self.out.clear()

    def close(self):
        """On the I/O thread."""
        pypump.pump.cancel(self.flush)
        self.broken = True
        if self.fd >= 0:
            if self.watched:
                pypump.pump.forget(self.fd)
            fd, self.fd = self.fd, -1
            pypump.close(fd)


class Large:
    """A payload that is larger than the buffer: read in place, and where it is one bytes object, into that."""

    def __init__(self, code, id, size, have):
        self.code, self.id, self.size = code, id, size
        self.tail = bytearray(0)
        self.is_bytes = code == DATA and have[:5] == b"A" + (size - 6).to_bytes(4, "big")
        if self.is_bytes:
            have = have[5:]
            size -= 6
            self.tail = bytearray(1)
        try:
            self.file = BytesIO(bytes(size))
            self.body = self.file.getbuffer()
        except MemoryError:
            self.body = None  # it is passed over
        self.end = size
        if self.body is not None:
            self.body[: len(have)] = have
        self.got = len(have)

    def room(self, spare):
        """Where the next bytes go."""
        if self.got >= self.end:
            return self.tail
        return memoryview(spare)[: self.end - self.got] if self.body is None else self.body[self.got :]

    def add(self, n):
        """So many were written there. True: it is complete."""
        self.got += n
        return self.got == self.end + len(self.tail)

    def load(self, load_item, *args):
        """The item. Raises MemoryError where there was no room for it, and what load_item raises."""
        if self.body is None:
            raise MemoryError(f"an item of {self.size} bytes arrived, and there was no memory for it")
        self.body.release()
        data, self.file = self.file.getvalue(), None
        if not self.is_bytes:
            return load_item(data, *args)
        if self.tail != b"Q":
            raise LoadError(f"no STOP behind a bytes object of {len(data) + 5} bytes")
        return data

    def __len__(self):
        return self.size
