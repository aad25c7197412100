import execnet

gw = execnet.makegateway()
channel = gw.remote_exec("channel.send(1)\nchannel.send(object)")
print(channel.receive(30))
try:
    channel.receive(30)
except channel.RemoteError as error:
    print("".join(str(error).splitlines()[-1].partition("DumpError")[1:]))
execnet.default_group.terminate(2)
