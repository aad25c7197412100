import execnet
from _script import show

gw = execnet.makegateway()
channel = gw.remote_exec(
    """
    other = channel.receive()
    try:
        other.receive()
    except other.RemoteError as error:
        channel.send([str(error), repr(error)])
    """
)
other = gw.newchannel()
channel.send(other)
other.close("closed for a reason")
print(channel.receive(30))
show(other.send, 1)
show(other.receive)
channel = gw.remote_exec("other = channel.receive()\nother.close('over there')")
other = gw.newchannel()
channel.send(other)
show(other.waitclose, 30)
show(other.waitclose, 30)
show(other.receive, 30)
execnet.default_group.terminate(2)
