import execnet

gw = execnet.makegateway()
print([gw.newchannel().id for _ in range(3)], gw.remote_exec("pass").id)
channel = gw.remote_exec("channel.send([channel.gateway.newchannel().id for _ in range(3)] + [channel.id, channel.gateway.id])")
print(channel.receive(30))
named = execnet.makegateway("popen//id=named")
print(named.remote_exec("channel.send(channel.gateway.id)").receive(30))
execnet.default_group.terminate(2)
