import execnet

gw = execnet.makegateway()
seen = []
channel = gw.remote_exec("n = channel.receive()\nfor i in range(n): channel.send(i * i)")
channel.setcallback(seen.append)
channel.send(20)
channel.waitclose(30)
print(seen)
execnet.default_group.terminate(2)
