import execnet
from _script import show

gw = execnet.makegateway()
channel = gw.remote_exec("channel.send('first')\n\ndef f(x):\n    return 1 // x\n\nf(0)\n")
show(channel.receive, 30)
show(channel.receive, 30)
show(channel.receive, 30)
channel = gw.remote_exec("raise ValueError('ä', 1)")
show(channel.waitclose, 30)
show(channel.waitclose, 30)
print(channel.isclosed())
execnet.default_group.terminate(2)
