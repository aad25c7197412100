import execnet

group = execnet.Group()
gw = group.makegateway()
channel = gw.remote_exec("channel.send(1)\nchannel.receive()")
print(channel.receive(30))
gw.exit()
print(len(group), gw.exit())
gw.join(30)
try:
    gw.remote_exec("pass")
except OSError:
    print("OSError")
try:
    channel.send(1)
except OSError:
    print("OSError")
try:
    channel.receive(30)
except EOFError:
    print("EOFError")
