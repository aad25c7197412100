import execnet

gw = execnet.makegateway()
channel = gw.remote_exec("raise ValueError('nobody catches this')")
print("before")
channel.receive(30)
print("never printed")
