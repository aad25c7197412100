"""apipe(): pipe() in an event loop. The loop watches the one fd that workers ring at; threads of the loop's executor only start
and end the workers.
"""

import asyncio

from .source import JOIN, Drawn
from .stream import pipe


class AsyncFeeder(Drawn):
    """An asynchronous iterable as a source, drawn by a task of the loop."""

    def __init__(self, stream):
        super().__init__(stream.__aiter__())
        self._task = None

    def start(self, ring):
        self._ring = ring
        self._more = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._draw())

    def allow(self, number):
        if number > self._allowed:
            self._allowed = number
            self._more.set()

    async def _draw(self):
        try:
            while True:
                self._more.clear()
                if self._room() <= 0:
                    await self._more.wait()
                    continue
                self._here.append(await self._rest.__anext__())
                self._ring()
        except StopAsyncIteration:
            pass
        except BaseException as exc:
            self.error = exc
        finally:
            self._over = True
            self._ring()

    async def close(self):
        if self._task is not None:
            self._task.cancel()
            _, goes_on = await asyncio.wait([self._task], timeout=JOIN)
            if goes_on:
                raise RuntimeError(f"apipe(): its source {self._rest!r} goes on {JOIN:g} seconds after it was cancelled")
        if hasattr(self._rest, "aclose"):
            await self._rest.aclose()


class Waits:
    """What a stream waits for, in asyncio."""

    async def aside(self, func):
        """func() in a thread. Who is cancelled meanwhile does not wait for it; `end` does."""
        self.started = asyncio.get_running_loop().run_in_executor(None, func)
        await asyncio.shield(self.started)

    async def turn(self):
        """Others of the loop have their turn."""
        await asyncio.sleep(0)

    async def readable(self, fd, seconds):
        """Until there is something to read from `fd`, or so many seconds are over."""
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        timer = loop.call_later(seconds, _tell, future)
        loop.add_reader(fd, _tell, future)
        try:
            await future
        finally:
            loop.remove_reader(fd)
            timer.cancel()

    async def end(self, stream):
        """End it, also in a task that is cancelled."""
        await asyncio.shield(asyncio.get_running_loop().create_task(self._end(stream)))

    started = None

    async def _end(self, stream):
        if self.started is not None:
            await asyncio.wait([self.started])  # who ends a crew must know all of it
        try:
            if isinstance(stream.source, AsyncFeeder):
                await stream.source.close()
        finally:
            await asyncio.get_running_loop().run_in_executor(None, stream.end)


def _tell(future):
    if not future.done():
        future.set_result(None)


class APipe:
    """What apipe() returns: an asynchronous iterator over the results. Used in an `async with` block, or by aclose(), it ends at
    once."""

    def __init__(self, pipe, waits):
        self._pipe = pipe
        self._results = self._run(pipe._stream, waits)
        self.stats = pipe.stats

    def __aiter__(self):
        return self._results

    def __anext__(self):
        return self._results.__anext__()

    async def __aenter__(self):
        return self

    async def __aexit__(self, *unused):
        await self.aclose()

    async def aclose(self):
        """End the stream: what runs is interrupted, and ended if it goes on for a second."""
        await self._results.aclose()

    async def _run(self, stream, waits):
        try:
            stream.open()
            await waits.aside(stream.start)
            while (results := stream.results()) is not None:
                for result in results:
                    yield result
                if results:
                    await waits.turn()
                else:
                    await waits.readable(stream.crew.fd, stream.crew.patience(stream.patience()))
                    stream.crew.look()
        finally:
            await waits.end(stream)


def apipe(func, stream, **options):
    """pipe() for asyncio: an asynchronous iterator over the results of func(item), with the options of pipe().

    `stream` may be an iterable or an asynchronous one. Nothing waits in the thread of the event loop; to cancel who waits for a
    result ends the stream, as aclose() does. A worker that is just being started is waited for.

        async for result in execnet_c.apipe(func, items):
            ...
    """
    return APipe(pipe(func, AsyncFeeder(stream) if hasattr(stream, "__aiter__") else stream, **options), Waits())
