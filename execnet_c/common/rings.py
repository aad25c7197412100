"""Memory that a gateway shares with another interpreter on this machine: how it is offered, and found.

The interpreter that has the C core, too, is told where in /proc this process has the memory open. It opens that and
moves: its answer (see bootstrap.py) comes through it already. Then this side does.
"""

import os

# Two machines, or one started anew, have two of them.
_KERNEL = "/proc/sys/kernel/random/boot_id"


def offer(gateway):
    """What attach() is to be given; None where there is nothing to share. A gateway that offers has to _move() or
    _withdraw()."""
    try:
        kernel = _kernel()
        fd = gateway._offer()
        if fd is None:
            return None
        about = os.fstat(fd)  # closed already where the far end has just died
    except OSError:
        return None
    return f"/proc/{os.getpid()}/fd/{fd}", about.st_dev, about.st_ino, kernel


def attach(gateway, offered):
    """At the far end: whether `gateway` has what was offered to it, and is to _move()."""
    fd = find(*offered)
    if fd is None:
        return False
    try:
        gateway._attach(fd)
    except Exception:  # it is not what it seems, or cannot be mapped
        return False
    return True


def find(path, device, inode, kernel):
    """The fd of the memory that was offered so; None where it is out of reach: another machine or container, another
    user."""
    try:
        if not _is_it(os.stat(path), device, inode) or _kernel() != kernel:
            return None  # it may be anything, and to open that might wait
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
