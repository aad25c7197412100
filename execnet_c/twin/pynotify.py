"""Waiting for an item of a channel without a thread: an fd is written to when it has come."""

import sys

from ..models.native import os


class Bell:
    """What the gateway has among its waiters. It has the methods of a lock, because the others are locks."""

    over = False

    def __init__(self, fd, number):
        self._fd, self._number = fd, number.to_bytes(8, sys.byteorder)

    def locked(self):
        return not self.over

    def release(self):
        self.over = True
        try:
            os.write(self._fd, self._number)
        except OSError:
            pass  # the pipe is full, or closed: `over` tells


class Registration:
    """What Channel._notify() returns; the wait ends with it. As the C core's."""

    def __init__(self, channel, fd, number):
        gateway, chan = channel.gateway, channel._chan
        gateway._check_usable()
        bell = Bell(fd, number)
        if fd < 0:
            raise OSError("fd must not be negative")
        if channel._has_callback:
            raise OSError("cannot receive(), channel has receiver callback")
        self._channel = channel  # so that it stays
        self._waiter = (lambda: chan.items or chan.recv_closed), bell
        self._waiters = gateway._waiters
        self._waiters.append(self._waiter)
        if self._waiter[0]():
            bell.over = True

    @property
    def over(self):
        return self._waiter[1].over

    def __del__(self):
        try:
            self._waiters.remove(self._waiter)
        except (AttributeError, ValueError):
            pass  # it was not begun
