import execnet

gw = execnet.makegateway("popen//id=mine")
gw.node = "anything"
channel = gw.newchannel()
channel.note = [1]
print(gw.node, channel.note, channel.gateway is gw, gw.id, gw.spec, repr(gw.spec))
print(gw.execmodel.backend, gw.execmodel, gw.spec.execmodel, gw.spec.popen, gw.spec.chdir, gw.spec.unknown)
print(repr(gw), repr(channel), repr(execnet.default_group))
execnet.default_group.terminate(2)
print(repr(execnet.default_group))
