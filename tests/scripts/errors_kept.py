"""Errors that are there to be asked for: Channel._getremoteerror."""

import execnet
from _script import show

gw = execnet.makegateway()
channel = gw.remote_exec("channel.send(1)\nraise KeyError('mine')")
print(channel._getremoteerror())
print(channel.receive(30))
try:
    channel.waitclose(30)
except channel.RemoteError as error:
    print(type(error).__name__, str(error).splitlines()[-1], error.formatted == str(error))
print(channel._getremoteerror(), channel.isclosed())
show(channel.waitclose, 30)
show(channel.receive, 30)

channel = gw.remote_exec("raise KeyError('mine')")
while not channel.isclosed():
    pass
error = channel._getremoteerror()
print(type(error).__name__, str(error).splitlines()[-1])
print(channel._getremoteerror())
show(channel.waitclose, 30)

gw.exit()
gw.join(30)
for call in (gw.newchannel, lambda: gw.remote_exec("1"), gw.remote_status):
    try:
        call()
    except OSError as exc:
        print("closed" in str(exc))
execnet.default_group.terminate(2)
