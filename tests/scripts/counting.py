import execnet

gw = execnet.makegateway()
channel = gw.remote_exec("channel.send(sum(channel))")
for i in range(5000):
    channel.send(i)
channel.close()
other = gw.remote_exec(
    """
    total = 0
    while True:
        item = channel.receive()
        if item is None:
            break
        total += item
    channel.send(total)
    """
)
for i in range(5000):
    other.send(i)
other.send(None)
print(other.receive(30))
execnet.default_group.terminate(2)
