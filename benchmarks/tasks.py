"""What the far ends do. Each task gets two functions: one gives the next item, one sends an item back.

The text of a task travels to gateways, so a task uses nothing from outside itself.
"""


def echo(receive, send):
    while True:
        item = receive()
        if item is None:
            return
        send(item)


def count(receive, send):
    """Takes a number, then that many items, and acknowledges them all at once; until the number is None."""
    while True:
        number = receive()
        if number is None:
            return
        for _ in range(number):
            receive()
        send(number)


def flood(receive, send):
    """Takes (size, pieces) and sends so many pieces of so many bytes; until it gets None."""
    while True:
        order = receive()
        if order is None:
            return
        size, pieces = order
        piece = bytes(size)
        for _ in range(pieces):
            send(piece)


def say_one(receive, send):
    send(1)
