"""A wire between two network namespaces, with delay and loss, that can be cut and healed. Run as a program by links.py.

    python wire.py ADDRESS ADDRESS                     the wire; both addresses are of one /24 network
    python wire.py connect NAMESPACE ADDRESS PORT      for ssh's ProxyCommand with ProxyUseFdpass: connects from there

The wire makes the namespaces and holds them. Its first line of output names two paths /proc/PID/fd/N by which other
processes enter them. The wire ends with its stdin, and the namespaces with the wire. Each line that it reads is one order,
answered by one line: `pass DELAY LOSS` (seconds, and the share of packets that get lost), `cut` (all packets get lost, also
those under way) and `count` (packets that came through, and that were lost, since the last count).

Packets never overtake each other. The kernel's own delay and loss (netem) are not used: many kernels do not have them.
"""

import collections
import ctypes
import fcntl
import os
import random
import select
import socket
import struct
import subprocess
import sys
import time

CLONE_NEWNET = 0x40000000
TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI = 0x0002, 0x1000
DEVICE = "wire0"
LARGEST = 65536
QUEUE = 10_000  # packets under way, at most

_libc = ctypes.CDLL(None, use_errno=True)


def _system_call(function, *arguments):
    if function(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, f"{function.__name__}: {os.strerror(number)}")


def make_end(address):
    """Make a namespace with one end of the wire in it; return (fd of the namespace, fd of the device)."""
    _system_call(_libc.unshare, CLONE_NEWNET)
    namespace = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", DEVICE.encode(), IFF_TAP | IFF_NO_PI))
    for command in (["link", "set", "lo", "up"], ["address", "add", address + "/24", "dev", DEVICE], ["link", "set", DEVICE, "up"]):
        subprocess.run(["ip", *command], check=True, stdin=subprocess.DEVNULL)
    return namespace, device


class Wire:
    def __init__(self, devices):
        self.devices = devices
        self.delay = self.loss = 0.0
        self.is_cut = False
        self.chance = random.Random(1)
        self.under_way = collections.deque()  # (when it arrives, device, packet), in this order
        self.passed = self.lost = 0

    def take(self, source, target, now):
        """Read the packets that were put into the end `source`: each gets lost, or is under way to `target`."""
        while True:
            try:
                packet = os.read(source, LARGEST)
            except BlockingIOError:
                return
            if self.is_cut or self.chance.random() < self.loss or len(self.under_way) >= QUEUE:
                self.lost += 1
                continue
            due = now + self.delay
            if self.under_way:
                due = max(due, self.under_way[-1][0])
            self.under_way.append((due, target, packet))

    def deliver(self, now):
        while self.under_way and self.under_way[0][0] <= now:
            _, target, packet = self.under_way.popleft()
            try:
                os.write(target, packet)
                self.passed += 1
            except OSError:  # the device's queue is full: the packet is lost
                self.lost += 1

    def obey(self, line):
        order, *numbers = line.split()
        if order == "count":
            answer = f"{self.passed} {self.lost}"
            self.passed = self.lost = 0
            return answer
        self.is_cut = order == "cut"
        if self.is_cut:
            self.lost += len(self.under_way)
            self.under_way.clear()
        else:
            self.delay, self.loss = map(float, numbers)
        return order

    def run(self):
        poll = select.poll()
        for fd in (0, *self.devices):
            poll.register(fd, select.POLLIN)
        one, other = self.devices
        while True:
            pause = None
            if self.under_way:
                pause = max(self.under_way[0][0] - time.monotonic(), 0) * 1000
            ready = {fd for fd, _ in poll.poll(pause)}
            if 0 in ready:
                line = os.read(0, 4096).decode()  # one order: the next one waits for its answer
                if not line:
                    return
                print(self.obey(line), flush=True)
            now = time.monotonic()
            self.take(one, other, now)
            self.take(other, one, now)
            self.deliver(time.monotonic())


def connect(namespace, address, port):
    """Connect from within the namespace, and hand the connection to ssh over the socket that is our stdout."""
    with open(namespace) as file:
        _system_call(_libc.setns, file.fileno(), CLONE_NEWNET)
    with socket.create_connection((address, int(port))) as connection, socket.socket(fileno=os.dup(1)) as ssh:
        socket.send_fds(ssh, [b"\0"], [connection.fileno()])


def main(arguments):
    if arguments[0] == "connect":
        connect(*arguments[1:])
        return
    ends = [make_end(address) for address in arguments]
    print(*(f"/proc/{os.getpid()}/fd/{namespace}" for namespace, _ in ends), flush=True)
    Wire([device for _, device in ends]).run()


if __name__ == "__main__":
    main(sys.argv[1:])
