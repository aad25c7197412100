import execnet

gw = execnet.makegateway()
channel = gw.remote_exec("for i in range(3): channel.send(i)")
channel.waitclose(30)
channel.setcallback(print, endmarker="end")
closed = gw.newchannel()
closed.close()
closed.setcallback(print)
closed = gw.newchannel()
closed.close()
closed.setcallback(print, endmarker="end of a closed one")
execnet.default_group.terminate(2)
