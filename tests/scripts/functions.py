import execnet
from _script import show


def plain(channel):
    channel.send("plain")


def arguments(channel, a, b=2, *, c=3, **rest):
    channel.send((a, b, c, sorted(rest.items())))


def outer():
    def inner(channel, text):
        """A docstring."""
        import json

        channel.send(json.loads(text))

    return inner


gw = execnet.makegateway()
show(gw.remote_exec(plain).receive, 30)
show(gw.remote_exec(arguments, a=1).receive, 30)
show(gw.remote_exec(arguments, a=[1], b={"k": None}, c=b"c", d=1.5, e="ä").receive, 30)
show(gw.remote_exec(outer(), text='{"k": [1, 2]}').receive, 30)
execnet.default_group.terminate(2)
