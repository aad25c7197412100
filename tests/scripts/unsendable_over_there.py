import execnet

gw = execnet.makegateway()
channel = gw.remote_exec("channel.send(1)\nchannel.send(object)")
print(channel.receive(30))
try:
    channel.receive(30)
except channel.RemoteError as error:
    print(str(error).splitlines()[-1].rpartition(".")[2])
execnet.default_group.terminate(2)
