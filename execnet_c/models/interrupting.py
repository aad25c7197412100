"""What Channel.interrupt() of both cores does. Imported at its first call."""

from signal import SIGKILL
from time import monotonic

from .native import start_new_thread

INTERRUPT = 15  # the code of the frame
AGAIN = 0.5  # seconds: a call so soon behind another one is a part of that


def interrupt(channel, kill_after):
    if kill_after is not None:
        if not isinstance(kill_after, (int, float)):
            raise TypeError(f"kill_after must be a number of seconds or None, not {type(kill_after).__name__}")
        if not kill_after >= 0:
            raise ValueError("kill_after must be a non-negative number")
    gateway = channel.gateway
    if gateway._wait_closed(channel, 0):
        return
    gateway._check_interrupts()
    now = monotonic()
    try:
        if now >= getattr(channel, "_interrupted", now - AGAIN) + AGAIN:
            gateway._send(INTERRUPT, channel.id)
            channel._interrupted = now
    except OSError:
        if gateway._wait_closed(channel, 0):
            return
        raise
    if kill_after is not None:
        start_new_thread(_kill_late, (channel, float(kill_after)))


def _kill_late(channel, seconds):
    """On a thread of its own: end the far end if the task has not ended after so many seconds."""
    gateway = channel.gateway
    try:
        if not gateway._wait_closed(channel, min(seconds, 1e9)):
            gateway._overdue = seconds
            gateway._signal(SIGKILL)
    except OSError:
        pass  # the program is a forked child
