import execnet

gw = execnet.makegateway()
channel = gw.remote_exec("import time\nchannel.send('sleeping')\ntime.sleep(1000)")
print(channel.receive(30))
