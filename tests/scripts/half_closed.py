import execnet
from _script import show

gw = execnet.makegateway()
channel = gw.remote_exec(
    """
    other = channel.receive()
    other.setcallback(channel.send)
    other.send(1)
    del other
    channel.receive()
    """
)
other = gw.newchannel()
channel.send(other)
show(other.waitclose, 30)
print(repr(other), other.isclosed())
show(other.receive, 30)
show(other.receive, 30)
for item in ["still", "connected"]:
    other.send(item)
    show(channel.receive, 30)
other.close()
show(other.send, 1)
execnet.default_group.terminate(2)
