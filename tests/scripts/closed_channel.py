import execnet
from _script import show

gw = execnet.makegateway()
channel = gw.newchannel()
print(repr(channel), channel.isclosed())
channel.close()
channel.close()
print(repr(channel), channel.isclosed())
show(channel.send, 1)
show(channel.receive)
show(channel.receive, 0)
show(list, channel)
show(channel.waitclose)
show(next, channel)
execnet.default_group.terminate(2)
