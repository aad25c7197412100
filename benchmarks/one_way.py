"""Messages one way, as many as possible: into one channel, and into a hundred channels in turn."""

import corpus
import peers
import tasks
from base import Clock, Line, Work, talking


def thousands_a_second(peer, channels, item, number):
    """How many thousand items a second are sent. channels: the channels that take turns, or only the peer itself."""
    sends = [channel.send for channel in channels]
    for n in (len(sends), number):
        with Clock() as clock:
            peer.send(n)
            for _ in range(n // len(sends)):
                for send in sends:
                    send(item)
            assert peer.receive() == (n, item)
    return number / clock.seconds / 1e3


def one_channel(peer, setting):
    number = setting.pick(40_000, 20_000, 200)
    with talking(peer, tasks.count):
        return {
            "ints": thousands_a_second(peer, [peer], 42, number),
            "sentences": thousands_a_second(peer, [peer], corpus.words(), number // 4),
        }


def hundred_channels(peer, setting):
    with talking(peer, tasks.count_in_turn):
        channels = [peer.channel.gateway.newchannel() for _ in range(100)]
        peer.send(channels)
        return {"hundred": thousands_a_second(peer, channels, 42, setting.pick(40_000, 20_000, 200))}


WORKS = {
    "one-way": Work(
        "Messages one way",
        one_channel,
        peers.CONVERSATIONS,
        {
            "ints": Line("ints", "1000/s", more_is_better=True),
            "sentences": Line("sentences of 20 words", "1000/s", more_is_better=True),
        },
    ),
    "one-way-100": Work(
        "Messages one way, into 100 channels in turn",
        hundred_channels,
        peers.GATEWAYS,
        {"hundred": Line("ints into 100 channels", "1000/s", more_is_better=True)},
        left_out={
            **{name: "its connections have no channels" for name in ("multiprocessing.Pipe", "pyzmq", "mpi4py")},
            "mitogen": "not measured: its receivers would take a program of their own",
        },
    ),
}
