import execnet
from _script import show

gw = execnet.makegateway()
channel = gw.remote_exec("channel.receive()")
channel.setcallback(print)
show(channel.setcallback, print)
show(channel.receive)
show(channel.receive, 0.01)
show(next, channel)
show(list, channel)
channel.send(1)
channel.waitclose(30)
show(channel.setcallback, print)
show(channel.receive)
execnet.default_group.terminate(2)
