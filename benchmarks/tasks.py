"""The tasks: what the far ends run. A task gets its end of a line: receive() and send() for items, receive_bytes() and
send_bytes() for large bytes objects, because some peers have other functions for these. A task ends when it receives None.

Gateways are sent the source of a task alone, so a task uses nothing from outside of its function.
"""


def echo(line):
    receive, send = line.receive, line.send
    while True:
        item = receive()
        if item is None:
            return
        send(item)


def count(line):
    """Receives a number, then so many items, then answers once with (number, last item)."""
    receive = line.receive
    while True:
        number = receive()
        if number is None:
            return
        for _ in range(number):
            last = receive()
        line.send((number, last))


def count_in_turn(line):
    """As count(), but first it receives a list of channels; the items arrive at these channels in turn."""
    channels = line.receive()
    while True:
        number = line.receive()
        if number is None:
            return
        for i in range(number):
            last = channels[i % len(channels)].receive()
        line.send((number, last))


def bulk(line):
    """Receives an order, ("take", MiB) or ("give", MiB). Then it receives or sends so many bytes, and sends their CRC, and by
    how many MiB its memory grew meanwhile at most."""
    import os
    import zlib

    def memory(field):
        with open("/proc/self/status") as file:
            return int(file.read().split(field + ":")[1].split()[0]) / 1024

    def forget_peak():
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")

    while True:
        order = line.receive()
        if order is None:
            return
        what, mib = order
        if what == "take":
            forget_peak()
            before = memory("VmRSS")
            line.send("ready")
            item = line.receive_bytes()
            line.send(len(item))
            grown = memory("VmHWM") - before
            line.send((zlib.crc32(item), grown))
        else:
            item = os.urandom(1 << 20) * mib
            forget_peak()
            before = memory("VmRSS")
            line.send(zlib.crc32(item))
            line.receive()
            line.send_bytes(item)
            line.receive()
            line.send(memory("VmHWM") - before)
        del item


def flood(line):
    """Receives (MiB, pieces), then sends so many items of so many MiB."""
    while True:
        order = line.receive()
        if order is None:
            return
        mib, pieces = order
        piece = bytes(mib << 20)
        for _ in range(pieces):
            line.send_bytes(piece)


def drain(line):
    """Receives a number, then so many bytes objects, then sends the sum of their lengths."""
    while True:
        pieces = line.receive()
        if pieces is None:
            return
        total = 0
        for _ in range(pieces):
            total += len(line.receive_bytes())
        line.send(total)


def tick(line):
    """Receives (number, seconds), then sends so many ints, spread over so many seconds."""
    import time

    while True:
        order = line.receive()
        if order is None:
            return
        number, seconds = order
        start = time.monotonic()
        for i in range(number):
            pause = start + i * seconds / number - time.monotonic()
            if pause > 0:
                time.sleep(pause)
            line.send(i)


def say_one(line):
    line.send(1)
    while line.receive() is not None:
        pass
