"""The source of a stream: what gives the items, drawn no further than allowed.

What may wait, a generator for example, is drawn by a *feeder*, a thread of its own: results come while it waits.
"""

import threading
import time
from collections import deque
from itertools import islice

AT_ONCE = (list, tuple, range, str, bytes, dict, set, frozenset)  # these never wait, and need no feeder
SLOW = 0.05  # seconds: a source that took so long to give what was allowed is asked for one item at a time from then on
PARTIAL = 0.1  # seconds after which less than a whole batch goes
JOIN = 5.0  # seconds that the feeder has to end once it need not wait for the source


class Source:
    """A stream that never waits."""

    error = None  # what the source raised, to be raised behind the results of all items before it
    ended = False  # all items were taken
    more_by = None  # when to try again though nobody rings

    def __init__(self, rest):
        self._rest = rest  # an iterator

    def start(self, ring):
        """ring(): wakes who takes."""

    def allow(self, number):
        """So many items in all may have been drawn."""

    def take(self, number):
        """The next `number` items. Less at the end, or after a while; [] if there is none now."""
        items = list(islice(self._rest, number))
        self.ended = len(items) < number
        return items

    def stop(self):
        """Nothing more is drawn."""


class Drawn(Source):
    """What somebody else draws, and puts here."""

    _partial_at = None

    def __init__(self, rest):
        super().__init__(rest)
        self._here = deque()
        self._taken = self._allowed = 0
        self._over = False
        self._bulk = False  # who draws does not ring for each item

    def _room(self):
        """How many more may be drawn now."""
        return self._allowed - self._taken - len(self._here)

    def take(self, number):
        over, here, now = self._over, len(self._here), time.monotonic()
        if here < number and not over:
            if not here:
                self.more_by = now + PARTIAL if self._bulk else None
                self._partial_at = None
                return []
            self._partial_at = self._partial_at or now + PARTIAL
            if now < self._partial_at:
                self.more_by = self._partial_at
                return []
        self._partial_at = self.more_by = None
        number = min(number, here)
        self._taken += number  # first: the feeder must not think that there is more room than there is
        popleft = self._here.popleft
        items = [popleft() for _ in range(number)]
        self.ended = over and not self._here
        return items


class Feeder(Drawn):
    """Any other iterable."""

    def __init__(self, stream):
        super().__init__(iter(stream))
        self._stream = stream if hasattr(stream, "_stop") else None  # a stream of ours, which can be ended while it waits
        self._more = threading.Event()
        self._stopped = False
        self._drawing = False  # it is in the source's code, which may last for ever
        self._thread = None

    def start(self, ring):
        self._ring = ring
        self._thread = threading.Thread(target=self._draw, name="execnet_c-feeder", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as exc:
            self._thread = None
            raise RuntimeError(f"pipe() can start no thread that draws from its source: {exc}") from None

    def allow(self, number):
        if number > self._allowed:
            self._allowed = number
            self._more.set()

    def stop(self):
        self._stopped = True
        self._more.set()
        if self._thread is None or self._thread is threading.current_thread():
            return
        if self._stream is not None:
            self._stream._stop()
        if self._stream is not None or not self._drawing:
            self._thread.join(JOIN)

    def _draw(self):
        at_once = True
        try:
            while not self._stopped:
                self._more.clear()
                room = self._room()
                if room <= 0:
                    self._more.wait()
                    continue
                begin = time.monotonic()
                self._drawing = True
                self._here.append(next(self._rest))
                self._ring()
                if room > 1 and at_once and not self._stopped:
                    self._bulk = True
                    self._here.extend(islice(self._rest, room - 1))
                    self._bulk = False
                    self._ring()
                self._drawing = False
                at_once = time.monotonic() - begin < SLOW
        except StopIteration:
            pass
        except BaseException as exc:
            self.error = exc
        finally:
            self._over = True
            self._drawing = self._bulk = False
            self._rest = None
            if self._stream is not None:
                self._stream.close()
            self._ring()


def source_of(stream):
    """Raises TypeError for what cannot be iterated."""
    if isinstance(stream, Source):
        return stream
    return Source(iter(stream)) if type(stream) in AT_ONCE else Feeder(stream)
