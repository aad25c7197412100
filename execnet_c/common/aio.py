"""asyncio over channels: what Channel.areceive(), asend(), `async for` and Gateway.aremote_exec() do. Imported at the first of them.

Nothing takes a thread: an event loop watches one pipe for all its waits, and Channel._notify() and _send_soon() write into it.
"""

import asyncio
import os
import sys
import weakref
from collections import deque
from itertools import count

FULL = 512  # bytes: a pipe that had so much in it may have been full, and numbers are missing
TURN = 64  # items that are taken or sent without a wait, then others of the loop have their turn
LOOK = 0.005  # seconds between two looks for the end of a process whose connection has ended

_watches = weakref.WeakValueDictionary()  # id of a loop -> its Watch, which the loop keeps until it is closed

os.register_at_fork(after_in_child=_watches.clear)  # the loops' pipes are the parent's


def _tell(future):
    if not future.done():
        future.set_result(None)


class Watch:
    """The waits of one event loop. waits: number -> (a Registration or Sending, kept here alone, the future of who waits)."""

    def __init__(self, loop):
        self.loop, self.process = loop, os.getpid()
        self.waits, self.numbers, self.turns = {}, count(1), count(1)
        self.lines = {}  # for each channel that has any, the futures of those who send: the first one has its turn
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

    async def told(self, number, wait, until=None):
        """Until that wait is over, or that time has come."""
        timer = None
        self.waits[number] = wait, self.loop.create_future()
        del wait
        try:
            if not self.waits[number][0].over:
                if until is not None:
                    timer = self.loop.call_at(until, _tell, self.waits[number][1])
                await self.waits[number][1]
        finally:
            wait, _ = self.waits.pop(number, (None, None))
            if timer is not None:
                timer.cancel()
        return wait

    async def send(self, key, begin, *what):
        """Send by begin(*what, fd, number), which returns None or a Sending; in the order of the calls with that key."""
        bell = self.fds[1], next(self.numbers)
        pauses, sending = next(self.turns) % TURN == 0, None
        if key not in self.lines and not pauses:
            sending = begin(*what, *bell)
            if sending is None:
                return
        line, mine = self.lines.setdefault(key, deque()), self.loop.create_future()
        line.append(mine)
        try:
            if line[0] is not mine:
                await mine
            if pauses:
                await asyncio.sleep(0)
            if sending is None:
                sending = begin(*what, *bell)
            while sending is not None:
                told, sending = self.told(bell[1], sending), None  # only `waits` keeps it meanwhile
                sending = await told
                if sending.again():
                    break
        finally:
            first = line[0] is mine
            line.remove(mine)
            if not line:
                self.lines.pop(key, None)
            elif first:
                _tell(line[0])


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
        if not channel.gateway.hasreceiver():
            await settled(channel.gateway, loop.time, asyncio.sleep)
        if next(watch.turns) % TURN == 0:
            await asyncio.sleep(0)  # before an item is taken: whoever is cancelled here has none
        try:
            return channel.receive(0)
        except channel.TimeoutError:
            if until is not None and loop.time() >= until:
                raise channel.TimeoutError(f"no item after {timeout!r} seconds") from None
        number = next(watch.numbers)
        await watch.told(number, channel._notify(watch.fds[1], number), until)


async def settled(gateway, now, sleep):
    """What is raised after the end of the connection has the exit status of the process. Wait for that here."""
    until = now() + getattr(gateway, "_patience", 0.0)
    while now() < until and not gateway._wait_gone(0):
        await sleep(LOOK)
    if hasattr(gateway, "_patience"):
        gateway._patience = 0.0


async def anext(channel):
    try:
        return await areceive(channel)
    except EOFError as exc:
        if type(exc) is not EOFError:
            raise  # as in a loop without asyncio: the far end died
    raise StopAsyncIteration


# --- sending ----------------------------------------------------------------------------------------------------------


async def asend(channel, item):
    gateway = channel.gateway
    await _ready(gateway)
    await _watch_of(asyncio.get_running_loop()).send((id(gateway), channel.id), channel._send_soon, item)


async def aremote_exec(gateway, source, kwargs):
    begin, channels = beginning(gateway, source, kwargs)
    await _ready(gateway)
    await _watch_of(asyncio.get_running_loop()).send(object(), begin)
    return channels[0]


def beginning(gateway, source, kwargs):
    """(begin, channels): begin(fd, number) sends the task, as Channel._send_soon() sends an item; its channel is in the list then."""
    channels = []

    def begin(*bell):
        channel, sending = gateway._begin_task(source, kwargs, lambda *frame: gateway._send_soon(*frame, *bell))
        channels.append(channel)
        return sending

    return begin, channels


async def _ready(gateway):
    """Before a send: wait here for what that may wait for."""
    if not gateway.hasreceiver():
        await settled(gateway, asyncio.get_running_loop().time, asyncio.sleep)
    elif must_greet(gateway):
        await asyncio.get_running_loop().run_in_executor(None, gateway._await_greeting)


def must_greet(gateway):
    """Whether a send has to wait first for what the far end says about pickles."""
    return gateway._pickles and getattr(gateway, "_answer", 0) is None
