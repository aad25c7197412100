import execnet

gw = execnet.makegateway()
channel = gw.remote_exec(
    """
    box = channel.receive()
    channel.send([repr(box), sorted(box)])
    for name in sorted(box):
        box[name][0].send(name * 2)
    made = [channel.gateway.newchannel() for _ in range(3)]
    channel.send((made, {"first": made[0]}))
    for other in made:
        other.send(other.id)
    """
)
one, two = gw.newchannel(), gw.newchannel()
channel.send({"a": [one], "b": (two, 1)})
print(channel.receive(30))
print(one.receive(30), two.receive(30))
made, named = channel.receive(30)
print([other.id for other in made], named["first"] is made[0])
print([other.receive(30) for other in made])
execnet.default_group.terminate(2)
