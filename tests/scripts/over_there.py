"""What a task finds at the far end."""

import execnet

TASK = """
gateway = channel.gateway
found = []
for name in ("id", "execmodel", "newchannel", "join", "remote_exec", "spec", "_group"):
    found.append((name, hasattr(gateway, name)))
for name in ("close isclosed makefile next receive reconfigure send setcallback waitclose id gateway "
             "RemoteError TimeoutError _getremoteerror").split():
    found.append((name, hasattr(channel, name)))
channel.send(found)
channel.send([gateway.id, gateway.execmodel.backend, repr(gateway.execmodel), gateway is channel.gateway])
channel.send([sorted(name for name in globals() if name not in ("__builtins__", "found", "name", "gateway")), __name__])
import sys
channel.send([sys.argv, sys.stdin.read(), type(channel).__name__, channel.id])
try:
    channel.close()
except OSError as exc:
    channel.send(str(exc))
try:
    channel.receive(timeout=0.01)
except channel.TimeoutError as exc:
    channel.send([type(exc).__name__, isinstance(exc, OSError)])
try:
    channel.send(object())
except Exception as exc:
    channel.send([type(exc).__name__])
"""
gw = execnet.makegateway("popen//id=far")
for item in gw.remote_exec(TASK):
    print(item)
execnet.default_group.terminate(2)
