import execnet
import os
import sys

gw = execnet.makegateway()
channel = gw.remote_exec("channel.send(1)\nchannel.receive()")
channel.receive(30)
status = gw.remote_status()
print(sorted(vars(status).items()), repr(status))
info = gw._rinfo()
print(sorted(vars(info)), info.executable == sys.executable, info.cwd == os.getcwd(), info.platform == sys.platform)
print(tuple(info.version_info) == tuple(sys.version_info), info.pid != os.getpid(), gw._rinfo() is info)
execnet.default_group.terminate(2)
