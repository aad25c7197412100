import execnet
from _script import show

group = execnet.Group(["popen//id=a", "popen//id=b", "popen//id=c"])
channels = group.remote_exec("channel.send(channel.gateway.id)\nfor item in channel: channel.send(item * 2)")
print(len(channels), [channel.id for channel in channels], channels[0] in channels, channels[-1] is channels[2])
print(channels.receive_each())
channels.send_each(21)
print(channels.receive_each())
channels.send_each("x")
print([(channel.gateway.id, item) for channel, item in channels.receive_each(withchannel=True)])
show(lambda: channels[3])
channels = group.remote_exec("if channel.gateway.id[0] in 'bc': raise ValueError(channel.gateway.id)")
show(channels.waitclose)
show(channels.waitclose)
group.terminate(2)
