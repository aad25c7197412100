import execnet
from _script import show

group = execnet.Group()
gw = group.makegateway()
channel = gw.remote_exec("import os\nchannel.send('last words')\nos._exit(5)")
show(channel.receive, 30)
for call in [channel.receive, channel.waitclose]:
    try:
        call(30)
    except EOFError:
        print("EOFError")
gw.join(30)
try:
    gw.remote_exec("pass")
except OSError:
    print("OSError")
group.terminate(2)
print(len(group))
