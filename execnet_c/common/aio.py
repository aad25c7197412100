"""asyncio over channels: what Channel.areceive(), asend(), `async for` and Gateway.aremote_exec() do. Imported at the first of them.

Receiving takes no thread: an event loop watches one pipe for all its waits, and Channel._notify() writes into it. A send may have to
wait for room in a connection, so a thread does it: one for each gateway, as long as there is something to send.
"""

import asyncio
import os
import sys
import time
import weakref
from collections import deque
from itertools import count
from threading import Lock, Semaphore, Thread

FULL = 512  # bytes: a pipe that had so much in it may have been full, and numbers are missing
TURN = 64  # items that are taken without a wait, then others of the loop have their turn
LINGER = 1.0  # seconds for which a thread without work stays
PAUSES = 0.001, 0.05  # seconds, the first and the longest, between two looks for room where a channel has a limit

_watches = weakref.WeakValueDictionary()  # id of a loop -> its Watch, which the loop keeps until it is closed
_senders = {}  # id of a gateway -> its Sender
_lock = Lock()  # of _senders, and of what they have to do


def _after_fork():
    """In the child there are neither the threads nor the loops' pipes."""
    global _lock
    _lock = Lock()
    _watches.clear()
    _senders.clear()


os.register_at_fork(after_in_child=_after_fork)


def _tell(future, result=None, error=None):
    if not future.done():
        future.set_result(result) if error is None else future.set_exception(error)


# --- receiving --------------------------------------------------------------------------------------------------------


class Watch:
    """The waits of one event loop."""

    def __init__(self, loop):
        self.loop, self.process = loop, os.getpid()
        self.waits, self.numbers, self.turns = {}, count(1), count(1)
        self.fds = os.pipe()
        for fd in self.fds:
            os.set_blocking(fd, False)
        loop.add_reader(self.fds[0], self.look)

    def __del__(self):
        self.waits.clear()  # first: nothing is written to the pipe from here on
        for fd in vars(self).get("fds", ()):
            os.close(fd)

    def look(self):
        if os.getpid() != self.process:
            return  # a forked child goes on with the loop: the pipe is the parent's
        try:
            data = os.read(self.fds[0], 65536)
        except BlockingIOError:
            return
        if len(data) < FULL:
            told = [int.from_bytes(data[at : at + 8], sys.byteorder) for at in range(0, len(data), 8)]
        else:
            told = [number for number, (registration, _) in self.waits.items() if registration.over]
        for number in told:
            if number in self.waits:
                _tell(self.waits[number][1])

    async def wait(self, channel, until):
        """Until there is something to receive, perhaps, or that time has come. Takes nothing."""
        number, future, timer = next(self.numbers), self.loop.create_future(), None
        self.waits[number] = channel._notify(self.fds[1], number), future
        try:
            if self.waits[number][0].over:
                return
            if until is not None:
                timer = self.loop.call_at(until, _tell, future)
            await future
        finally:
            self.waits.pop(number, None)
            if timer is not None:
                timer.cancel()


def _watch_of(loop):
    watch = _watches.get(id(loop))
    if watch is None:
        watch = _watches[id(loop)] = Watch(loop)
    return watch


async def areceive(channel, timeout=None):
    loop, until = asyncio.get_running_loop(), None
    if timeout is not None:
        if not isinstance(timeout, (int, float)):
            raise TypeError(f"timeout must be a number of seconds or None, not {type(timeout).__name__}")
        if not timeout >= 0:
            raise ValueError("'timeout' must be a non-negative number")
        until = loop.time() + min(timeout, 1e9)
    watch = _watch_of(loop)
    while True:
        if next(watch.turns) % TURN == 0:
            await asyncio.sleep(0)  # before an item is taken: whoever is cancelled here has none
        try:
            return channel.receive(0)
        except channel.TimeoutError:
            if until is not None and loop.time() >= until:
                raise channel.TimeoutError(f"no item after {timeout!r} seconds") from None
        await watch.wait(channel, until)


async def anext(channel):
    try:
        return await areceive(channel)
    except EOFError as exc:
        if type(exc) is not EOFError:
            raise  # as in a loop without asyncio: the far end died
    raise StopAsyncIteration


# --- sending ----------------------------------------------------------------------------------------------------------


class Line:
    """The jobs of one channel, which are done in their order. at: when to look for room again."""

    at = 0.0
    pause = PAUSES[0]

    def __init__(self):
        self.jobs = deque()


class Sender:
    """The thread of a gateway."""

    def __init__(self, gateway):
        self.gateway = gateway  # so that it stays, and its id with it
        self.lines, self.news = {}, Semaphore(0)
        Thread(target=self.run, name="execnet_c-asend", daemon=True).start()

    def run(self):
        while True:
            with _lock:
                lines = list(self.lines.items())
            wake = min([line.at for _, line in lines], default=None)
            left = LINGER if wake is None else wake - time.monotonic()
            if left > 0 and not self.news.acquire(timeout=left) and wake is None:
                with _lock:
                    if not self.lines:
                        _senders.pop(id(self.gateway), None)
                        return
            for key, line in lines:
                if line.at <= time.monotonic():
                    self.serve(key, line)

    def serve(self, key, line):
        future, call, wants_room = line.jobs[0]
        result = error = None
        if not future.cancelled():
            try:
                result = call()
            except wants_room:
                line.at = time.monotonic() + line.pause
                line.pause = min(2 * line.pause, PAUSES[1])
                return
            except StopIteration as exc:  # which a future does not take
                error = RuntimeError(repr(exc))
            except BaseException as exc:
                error = exc
        with _lock:
            line.jobs.popleft()
            line.at, line.pause = 0.0, PAUSES[0]
            if not line.jobs:
                del self.lines[key]
        try:
            future.get_loop().call_soon_threadsafe(_tell, future, result, error)
        except RuntimeError:
            pass  # the loop is closed


def _aside(gateway, key, call, wants_room):
    """A future for what `call` returns. The thread calls it again later if it raises one of `wants_room`."""
    future = asyncio.get_running_loop().create_future()
    with _lock:
        sender = _senders.get(id(gateway))
        if sender is None:
            sender = _senders[id(gateway)] = Sender(gateway)
        sender.lines.setdefault(key, Line()).jobs.append((future, call, wants_room))
    sender.news.release()
    return future


async def asend(channel, item):
    await _aside(channel.gateway, channel.id, lambda: channel.send(item, timeout=0), (channel.TimeoutError,))


async def aremote_exec(gateway, source, kwargs):
    return await _aside(gateway, object(), lambda: gateway.remote_exec(source, **kwargs), ())
