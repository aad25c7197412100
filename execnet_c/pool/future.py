"""The futures of GatewayPoolExecutor."""

import concurrent.futures
import math
from concurrent.futures._base import PENDING, RUNNING

from .crew import KILL_AFTER


def seconds_of(name, seconds):
    """A number of seconds larger than 0, or None. Raises ValueError."""
    if seconds is not None and (not isinstance(seconds, (int, float)) or not 0 < seconds < math.inf):
        raise ValueError(f"{name}={seconds!r}: it may be a number of seconds larger than 0, or None")
    return seconds


class Future(concurrent.futures.Future):
    """A concurrent.futures.Future whose task can be interrupted."""

    stop = None  # function of the pool that interrupts the task
    _cancelling = _ends = False

    def __init__(self, on_cancel=False):
        super().__init__()
        self._on_cancel = on_cancel

    def interrupt(self, kill_after=KILL_AFTER):
        """Raise KeyboardInterrupt in the task if it runs; that is then the future's exception, unless the task catches it. If
        the task waits the future is cancelled. False: it is done.

        kill_after: seconds after which the worker is killed, and replaced, if the task goes on; the future's exception says
        so. None: never.
        """
        seconds_of("kill_after", kill_after)
        return not self.done() and (super().cancel() or self._stop(kill_after, False))

    def cancel(self):
        """As concurrent.futures says it; with interrupt_on_cancel (see GatewayPoolExecutor.with_options) also while the task
        runs."""
        return super().cancel() or self._on_cancel and self._stop(KILL_AFTER, True)

    def _stop(self, kill_after, cancels):
        with self._condition:
            stop = self.stop
            if self._state != RUNNING or self._ends or stop is None:
                return False
            self._cancelling = self._cancelling or cancels
        stop(kill_after)
        return True

    def finish(self, result=None, error=None):
        """The task has ended."""
        with self._condition:
            self._ends, self.stop = True, None  # the latter holds the task
            if self._cancelling:
                self._state = PENDING
        if self._cancelling:
            super().cancel()
            self.set_running_or_notify_cancel()
        elif error is None:
            self.set_result(result)
        else:
            self.set_exception(error)
