import execnet
from _script import show

gw = execnet.makegateway()
channel = gw.remote_exec("channel.send(channel.receive())")
show(channel.receive, 0)
show(channel.receive, 0.01)
show(channel.receive, timeout=0.125)
show(channel.receive, -1)
show(channel.receive, -0.5)
show(channel.waitclose, 0)
show(channel.waitclose, 0.01)
show(channel.waitclose, timeout=-1)
channel.send("late")
show(channel.receive, 30)
show(channel.waitclose, 30)
show(channel.receive, 0)
execnet.default_group.terminate(2)
