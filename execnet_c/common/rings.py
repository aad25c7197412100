"""Rings with a foreign interpreter on this machine: how the near end offers their memory, and how the far end finds it.

The far end is told where in /proc the near end has the memory open. If it has the C core it opens the memory and moves: its
answer to the hello (see bootstrap.py) comes through the ring already. Then the near end moves.
"""

import os

# Differs between two machines, and after a reboot.
_KERNEL = "/proc/sys/kernel/random/boot_id"


def offer(gateway):
    """What to send for attach(); None if there is no memory. A gateway that has offered it must later _move() or
    _withdraw()."""
    try:
        kernel = _kernel()
        fd = gateway._offer()
        if fd is None:
            return None
        about = os.fstat(fd)  # the fd is closed already if the far end has just died
    except OSError:
        return None
    return f"/proc/{os.getpid()}/fd/{fd}", about.st_dev, about.st_ino, kernel


def attach(gateway, offered):
    """At the far end: attach `gateway` to the memory that was offered. Returns whether it can _move()."""
    fd = find(*offered)
    if fd is None:
        return False
    try:
        gateway._attach(fd)
    except Exception:  # it is no such memory, or cannot be mapped
        return False
    return True


def find(path, device, inode, kernel):
    """The fd of the memory that offer() tells of; None if it cannot be opened: another machine, container or user."""
    try:
        if not _is_it(os.stat(path), device, inode) or _kernel() != kernel:
            return None  # before open(), which might block: it may be any file
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    if _is_it(os.fstat(fd), device, inode):
        return fd
    os.close(fd)
    return None


def _is_it(about, device, inode):
    return (about.st_dev, about.st_ino) == (device, inode)


def _kernel():
    with open(_KERNEL) as file:
        return file.read()
