"""A module that is sent as a task."""

LIMIT = 3


def produce(channel):
    for i in range(LIMIT):
        channel.send((__name__, i))


if __name__ == "__channelexec__":
    produce(channel)  # noqa: F821
    channel.send(channel.receive())  # noqa: F821
