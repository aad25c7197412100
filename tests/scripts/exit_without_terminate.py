import execnet

gateways = [execnet.makegateway() for _ in range(3)]
channels = [gw.remote_exec("channel.send(1)\nchannel.receive()") for gw in gateways]
print([channel.receive(30) for channel in channels])
