import execnet
import sys

gw = execnet.makegateway()
print(gw.remote_exec("channel.send(1)").receive(30))
sys.exit(7)
