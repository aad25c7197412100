import execnet

gw = execnet.makegateway()
for marker in [None, -1, "end", ()]:
    seen = []
    channel = gw.remote_exec("channel.receive()\nchannel.send('item')")
    channel.setcallback(seen.append, endmarker=marker)
    channel.send(0)
    channel.waitclose(30)
    print(seen)
execnet.default_group.terminate(2)
