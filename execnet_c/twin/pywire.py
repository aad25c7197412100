"""The wire of the plain-Python core: frames, the writing side of a connection, tracing."""

from _collections import deque
from _io import BytesIO
from time import monotonic

from . import pypump
from ..models.native import RLock, os, sleep
from .pyserializer import WIDTHS, LoadError

STATUS, RECONFIGURE, TERMINATE, EXEC, DATA, CLOSE, CLOSE_ERROR, LAST_MESSAGE, HELLO, LONG, PIECE, DROP = range(12)
CREDIT, WAITS, INTERRUPT = 13, 14, 15  # 12, MOVE, is of the C core alone
NAMES = "STATUS RECONFIGURE TERMINATE EXEC DATA CLOSE CLOSE_ERROR LAST_MESSAGE HELLO LONG PIECE DROP MOVE CREDIT WAITS INTERRUPT".split()
MARKER = b"\0execnet_c\0"  # stands in front of the first frame of a far end
CHUNK = 128 * 1024  # bytes at most in one read or write
# A long message, with a payload of LONG_MIN bytes or more, travels in pieces: LONG (code, channel, size) begins it, each
# PIECE has the next bytes, DROP gives it up. Where other frames have a channel id these have the sender's number for the
# message, which is below LONG_COUNT.
LONG_COUNT = 64  # long messages at a time, in one direction
MAX_LONG = 1 << 46  # bytes
LONG_MIN = 1024 * 1024
PIECE_SIZE = 512 * 1024
ITEM_COST = 64  # bytes that an item counts beside its payload, see pyflow.py

trace_fd, trace_file = -1, None


def trace_to(fd):
    global trace_fd, trace_file
    trace_fd, trace_file = fd, pypump.file_of(fd)


def trace(text):
    if trace_fd < 0:
        return
    try:
        # If there is no room for the line it is dropped: tracing must not wait.
        if pypump.file_of(trace_fd) == trace_file and pypump.is_ready(trace_fd, pypump.POLLOUT):
            os.write(trace_fd, f"[{os.getpid()}] {text}\n".encode("utf-8", "replace"))
    except OSError:
        pass


def trace_frame(verb, code, id, size):
    trace(f"{verb} {NAMES[code]} channel {id} {size} bytes")


def frame(code, id, parts=()):
    """A frame as a list of parts. The header and the first part become one object."""
    size = sum(map(len, parts))
    if trace_fd >= 0 and code < LONG:
        trace_frame("sent", code, id, size)
    head = bytes((code,)) + (id & 0xFFFFFFFF).to_bytes(4, "big") + size.to_bytes(4, "big")
    return [head + parts[0], *parts[1:]] if parts else [head]


def cut(parts, size):
    """Cut a payload of `size` bytes into pieces, each a list of views. The last byte is a piece of its own: until it is
    sent, the message can be given up."""
    views = [memoryview(part) for part in reversed(parts) if part]
    while size:
        piece = []
        n = min(PIECE_SIZE, size - 1) or 1
        size -= n
        while n:
            view = views.pop()
            if len(view) > n:
                views.append(view[n:])
            piece.append(view[:n])
            n -= len(piece[-1])
        yield piece


# alone(iterator): works it off, if that is all in C, in one step: no signal handler comes in between, and no other alone(), also
# without a GIL, where extend() locks the deque.
alone = deque((), 0).extend


def tally(count, cost, noted=None):
    """Add `cost` to the number in the list `count`, and something to the list `noted`: in one step, so that no signal handler
    comes in between."""
    step = map(count.__setitem__, (0,), map(cost.__add__, count))
    alone(step if noted is None else map(noted.append, step))


def copied(deque):
    """A copy. Without a GIL it fails if another thread changes the deque meanwhile."""
    while True:
        try:
            return deque.copy()
        except RuntimeError:
            pass


class Batch:
    """Bytes to be written without other frames between them. written: what each write() has taken."""

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
    """The writing side. If a thread leaves a frame unfinished, the next thread or the I/O thread writes the rest of it
    first. So frames are never mixed."""

    look_at = 0  # the time of the next check of its fd
    wrote = 0  # bytes
    broken = False  # nothing can be written any more
    ending = False  # no new frame is taken
    parted = False  # the last one is in `out`: the fd is closed when all are written
    watched = False  # the pump watches the fd for room
    drained = None  # a function that the I/O thread calls when nothing is left to write, see pysoon.py

    def __init__(self, fd, pause=None):
        self.fd = fd
        self.pause = pause  # function that lets other greenlets run; it returns false if there are none to run
        self.role = RLock()  # the writer role. A signal handler that interrupts a send() may send: it writes that rest first
        self.line = deque()  # a lock for each thread that waits for the writer role or has it, and holds this lock
        self.out = deque()  # the batches that are not written yet
        self.numbers = deque(range(LONG_COUNT))  # numbers for long messages that are free

    def send(self, batch, sent=None, cost=0):
        """Write a batch, and wait until that is done. False: the connection takes nothing more. Unless nothing of the batch
        is sent, `cost` is added to `sent`, the count of a channel."""
        place, counted = RLock(), []
        with place:
            self.line.append(place)
            try:
                with self.role:
                    if self.broken or self.ending:
                        return False
                    try:
                        if sent:
                            tally(sent, cost, counted)
                        self.out.append(batch)
                        self.write(True)
                    finally:
                        if not batch.written:  # nothing of it has been sent, and nothing will be
                            if batch in self.out:
                                self.out.remove(batch)
                            if counted:
                                tally(sent, -cost)
                    return batch.rest() is None  # true if all was written, even if the connection broke right after that
            finally:
                self.line.remove(place)
                if self.out or self.drained:
                    pypump.pump.post(self.flush)  # the rest of a frame that was begun

    def send_message(self, code, id, parts, sent=None):
        """Send a message. `sent`: the count of its channel, if it is an item."""
        size = sum(map(len, parts))
        if size >= LONG_MIN:
            return self.send_long(code, id, parts, size, sent)
        return self.send(Batch(frame(code, id, parts)), sent, size + ITEM_COST)

    def send_long(self, code, id, parts, left, sent=None):
        """Send a long message of `left` bytes. Between two pieces, the threads that wait for the writer role get it. If an
        exception out of a signal handler ends this call, the message does not arrive."""
        numbers, batches, cost, uncounted = [], [], left + ITEM_COST, sent
        if trace_fd >= 0:
            trace_frame("sent", code, id, left)
        try:
            while not numbers:
                try:
                    numbers.extend(map(deque.popleft, (self.numbers,)))  # one step, so that no signal handler loses it
                except IndexError:
                    sleep(0.005)
            number = numbers[0]
            head = bytes((code,)) + (id & 0xFFFFFFFF).to_bytes(4, "big") + left.to_bytes(8, "big")
            front = frame(LONG, number, [head])
            for piece in cut(parts, left):
                batches[1:] = [Batch(front + frame(PIECE, number, [b"", *piece]))]
                front = []
                left -= sum(map(len, piece))
                if not self.send(batches[-1], uncounted, cost):
                    return False
                uncounted = None
                if not self.role._is_owned():  # it is owned in a signal handler inside a send(): the others cannot write then
                    for place in copied(self.line):
                        with place:
                            pass
            return True
        except BaseException:
            begun = [batch.written or batch in self.out for batch in batches]
            if begun and begun[0] and (left or not begun[-1]):
                self.post(frame(DROP, number))
                if sent:
                    tally(sent, -cost)
            raise
        finally:
            self.numbers.extend(numbers)

    def post(self, parts):
        """Let the I/O thread write these frames. Never blocks."""
        if not self.broken and not self.ending:
            self.out.append(Batch(parts))
            pypump.pump.post(self.flush)

    def write(self, wait):
        """Write what is in `out`. False: this would have to wait for room, and `wait` is false. The caller has the writer
        role."""
        while self.out and not self.broken:
            batch = self.out[0]
            view = batch.rest()
            if view is None:
                try:
                    self.out.remove(batch)  # by identity: a signal handler may have removed it already
                except ValueError:
                    pass
                continue
            try:
                if monotonic() >= self.look_at:
                    self.look_at = pypump.check(self.fd)
                # One step, so that no signal handler comes between the write and the note of it.
                batch.written.extend(map(os.write, (self.fd,), (view,)))
                self.wrote += batch.written[-1]
            except BlockingIOError:
                if not wait:
                    return False
                self._await_room()
            except OSError:
                self.break_off()
        if self.broken:
            self.out.clear()
        return True

    def _await_room(self):
        if not (self.pause and self.pause()):
            pypump.is_ready(self.fd, pypump.POLLOUT, 500)

    def flush(self):
        """On the I/O thread: write what is in `out`; what has no room now is written later."""
        pump = pypump.pump
        if not self.out and not self.parted:
            return self.drained and self.drained()
        if not self.role.acquire(False):
            pump.after(0.01, self.flush)  # the thread that has the role writes it all; but it may be just leaving
            return
        try:
            done = self.write(False)
            if done and self.parted:
                self.close()
            elif done and self.watched:
                self.watched = False
                pump.forget(self.fd)
            elif not done and not self.watched:
                self.watched = True
                pump.watch(self.fd, pypump.POLLOUT, lambda events: self.flush())
        finally:
            self.role.release()
        if self.drained and not self.out:
            self.drained()

    def end(self, last):
        """Take nothing more; write what was taken, then the frame `last`, then close. Any thread."""
        batch = Batch(last)

        def goodbye():
            if not self.role.acquire(False):  # a send() may have taken its frame, and not yet put it into `out`
                return pypump.pump.after(0.01, goodbye)
            try:
                self.out.append(batch)
                self.parted = True
            finally:
                self.role.release()
            self.flush()

        self.ending = True
        pypump.pump.post(goodbye)

    def break_off(self):
        """Nothing more can be written: who has the writer role gives up what is in `out`."""
        self.broken = True

    def close(self):
        """On the I/O thread, which has the writer role: close the fd."""
        pypump.pump.cancel(self.flush)
        self.broken = True
        if self.fd >= 0:
            if self.watched:
                pypump.pump.forget(self.fd)
            fd, self.fd = self.fd, -1
            pypump.close(fd)


class Memory(BytesIO):
    """Memory that becomes a bytes object without a copy. The collector closes a BytesIO, which fails while there is a view."""

    __del__ = lambda self: None  # noqa: E731


def sift(found):
    """A generator that is sent a payload in parts, and calls found(id) for the channel ids in it, each as four bytes."""
    data, p, n = b"", 0, 1
    while n:
        while len(data) < p + n:
            data, p = data[p:] + (yield), max(0, p - len(data))
        op, has = data[p], n
        n = 9 if op in b"UV" else 5 if op in b"NASHIM" else WIDTHS.get(op, 0)  # none: STOP, or no opcode
        if n <= has or len(data) >= p + n:
            if op == 66:
                found(data[p + 1 : p + 5])
            p += n + (int.from_bytes(data[p + 1 : p + n], "big") if op in b"NASHIMUV" else 0)
            n = n and 1
    while True:
        yield


class Large:
    """A payload that is larger than the buffer, or comes in pieces. It is read into memory of its own. If the item is one
    bytes object, that memory becomes the object, and nothing is copied."""

    number = None  # the number of a long message
    skip = None  # bytes in front of a bytes object (opcode, length), not kept; 0: another item; None: nothing has come
    got = 0  # bytes of the payload that have come
    ids = None  # of the channels in it, four bytes each, if there was no memory for it
    left = 0  # bytes that are missing of the frame that is being read

    def __init__(self, code, id, size):
        self.code, self.id, self.size = code, id, size

    def take(self, size, have):
        """A frame with the next `size` bytes of the payload begins; `have` is what was read of it."""
        self.left = size
        if self.skip is None:
            self.choose(have)
            self.add(self.skip)
            have = have[self.skip :]
        if self.body is None:
            self.sift(have)
            return self.add(len(have))
        for room in self.rooms(have):
            part = have[: len(room)]
            room[: len(part)] = part
            have = have[len(part) :]
            self.add(len(part))

    def choose(self, have):
        """Decide by the first bytes what memory the payload gets."""
        size, self.skip, self.tail = self.size, 0, bytearray(0)
        head = {b"A": 5, b"U": 9}.get(bytes(have[:1]), 0)  # BYTES, HUGE_BYTES
        if self.code == DATA and 0 < head <= len(have) and int.from_bytes(have[1:head], "big", signed=True) == size - head - 1:
            self.skip = head
            self.tail = bytearray(1)
            size -= head + 1
        try:
            if have[:1] in (b"@", b"B"):  # TUPLE, CHANNEL: so begins a pickle
                from .pypickled import Pages

                self.file = Pages(size)
            else:
                self.file = Memory(bytes(size))
            self.body = self.file.getbuffer()
        except MemoryError:
            self.body, self.ids = None, bytearray()  # there is no memory: its bytes are read and dropped
            self.sift = sift(self.ids.extend).send
            self.sift(None)

    def rooms(self, spare):
        """The buffers for the next bytes of the frame. `spare`: a buffer for bytes to be dropped."""
        if self.body is None:
            return [memoryview(spare)[: self.left]]
        body = self.body[self.got - self.skip :][: self.left]
        return [room for room in (body, memoryview(self.tail)[: self.left - len(body)]) if room]

    def add(self, n):
        """`n` bytes were written to rooms(). True: the frame is complete."""
        self.got += n
        self.left -= n
        return not self.left

    def payload(self):
        """The payload, once it is complete; empty for a bytes object, or if there was no memory."""
        if self.skip or self.body is None:
            return b""
        self.body.release()  # or getvalue() would copy
        return self.file.getvalue()

    def load(self, load_item, *args):
        """The item. Raises MemoryError if there was no memory for the payload, and what load_item raises."""
        if self.body is None:
            raise MemoryError(f"an item of {self.size} bytes arrived, and there was no memory for it")
        self.body.release()
        data = self.file.getvalue()
        if not self.skip:
            return load_item(data, *args)
        if self.tail != b"Q":
            raise LoadError(f"no STOP behind a bytes object of {len(data)} bytes")
        return data

    def __len__(self):
        return self.size
