import execnet
from _script import show

gw = execnet.makegateway()
channel = gw.remote_exec("channel.send(1)\nraise EOFError")
show(channel.waitclose, 30)
show(channel.receive, 30)
show(channel.receive, 30)
execnet.default_group.terminate(2)
