"""Channels and streams for programs on anyio or trio. For asyncio alone Channel.areceive(), asend() and apipe() do it.

    from execnet_c import anyio as execnet_anyio

    channel = await execnet_anyio.remote_exec(gateway, "for item in channel: channel.send(item + 1)")
    await execnet_anyio.send(channel, 1)
    async for item in execnet_anyio.items(channel):
        ...

What is raised is what Channel.receive(), send(), remote_exec() and pipe() raise. No wait for an item takes a thread, and one that is
cancelled has taken no item. Needs anyio 4.7 or newer (`pip install anyio`).
"""

import contextlib
import os

import anyio
import anyio.lowlevel
import anyio.to_thread

from .common.aio import beginning, must_greet, settled
from .pool.astream import APipe
from .pool.stream import pipe as _pipe

_bells = []  # pipes (fd to read, fd to write) of waits that have ended, for the next ones


def _close_bells():
    while _bells:
        for fd in _bells.pop():
            os.close(fd)


os.register_at_fork(after_in_child=_close_bells)


@contextlib.contextmanager
def _bell():
    fds = _bells.pop() if _bells else os.pipe()
    try:
        yield fds
    finally:
        _bells.append(fds)


async def _rung(bell, wait):
    """Until that registration is over, which tells it there."""
    if not wait.over:
        await anyio.wait_readable(bell[0])
        os.read(bell[0], 8)


async def receive(channel, timeout=None):
    """channel.receive(timeout): the next item. timeout: seconds to wait, None for as long as it takes."""
    with anyio.move_on_after(timeout):
        while True:
            if not channel.gateway.hasreceiver():
                await settled(channel.gateway, anyio.current_time, anyio.sleep)
            await anyio.lowlevel.checkpoint()  # before an item is taken: whoever is cancelled here has none
            try:
                return channel.receive(0)
            except channel.TimeoutError:
                with _bell() as bell:
                    await _rung(bell, channel._notify(bell[1], 1))
    try:
        return channel.receive(0)
    except channel.TimeoutError:
        raise channel.TimeoutError(f"no item after {timeout!r} seconds") from None


async def send(channel, item):
    """channel.send(item). One that is cancelled has sent nothing."""
    await _ready(channel.gateway)
    await _sent(lambda *bell: channel._send_soon(item, *bell))


async def remote_exec(gateway, source, **kwargs):
    """gateway.remote_exec(source, **kwargs)."""
    begin, channels = beginning(gateway, source, kwargs)
    await _ready(gateway)
    await _sent(begin)
    return channels[0]


async def _ready(gateway):
    if not gateway.hasreceiver():
        await settled(gateway, anyio.current_time, anyio.sleep)
    elif must_greet(gateway):
        await anyio.to_thread.run_sync(gateway._await_greeting)
    await anyio.lowlevel.checkpoint()


async def _sent(begin):
    """Send by begin(fd, number), which returns None, or a Sending that waits for room and is dropped if this is cancelled."""
    with _bell() as bell:
        sending = begin(bell[1], 1)
        try:
            while sending is not None:
                await _rung(bell, sending)
                if sending.again():
                    break
        finally:
            sending = None  # before others get the bell


async def items(channel):
    """All items until the far end closes the channel."""
    while True:
        try:
            item = await receive(channel)
        except EOFError as exc:
            if type(exc) is not EOFError:
                raise  # the far end died
            return
        yield item


class _Waits:
    """As astream.Waits."""

    async def aside(self, func):
        await anyio.to_thread.run_sync(func)

    async def turn(self):
        await anyio.lowlevel.checkpoint()

    async def readable(self, fd, seconds):
        with anyio.move_on_after(seconds):
            await anyio.wait_readable(fd)

    async def end(self, stream):
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(stream.end)


def pipe(func, stream, **options):
    """pipe() as an asynchronous iterator over the results. `stream` is an ordinary iterable."""
    return APipe(_pipe(func, stream, **options), _Waits())
