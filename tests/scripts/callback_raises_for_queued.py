import execnet
from _script import show

gw = execnet.makegateway()
channel = gw.remote_exec("channel.send(0)\nchannel.send(1)")
channel.waitclose(30)
show(channel.setcallback, lambda item: 1 // item)
execnet.default_group.terminate(2)
