import execnet
from _script import show

gw = execnet.makegateway()
channel = gw.remote_exec("channel.send(1)\nchannel.receive().receive()")
ends = gw.newchannel()
channel.send(ends)
ends.close()
show(channel.waitclose, 30)
show(channel.receive, 30)
show(channel.receive, 30)
execnet.default_group.terminate(2)
