"""Each argument by its name."""

import io
import time

import execnet
from _script import show

group = execnet.Group(xspecs=["popen"], execmodel="thread")
gw = group.makegateway(spec="popen//id=b")
spec = execnet.XSpec(string="popen")
show(group.allocate_id, spec=spec)
print(spec.id, [gateway.id for gateway in group])

channel = gw.remote_exec(source="for item in channel: channel.send(item)")
show(channel.send, item=[1, "a"])
show(channel.receive, timeout=30)
show(channel.reconfigure, py2str_as_py3str=True, py3str_as_py2str=False)
got = []
show(channel.setcallback, callback=got.append, endmarker=None)
show(channel.send, item=2)
while not got:
    time.sleep(0.01)
show(channel.close, error=None)
show(channel.waitclose, timeout=30)
print(got)

other = gw.remote_exec("channel.receive()")
file = other.makefile(mode="w", proxyclose=False)
file.write("text")
file.close()
show(other.waitclose, timeout=30)


def task(channel, first, second):
    channel.send([first, second])


channels = group.remote_exec(source=task, first=1, second=2)
show(channels.receive_each, withchannel=False)
show(channels.waitclose)
show(execnet.MultiChannel(channels=[]).waitclose)
q = group.remote_exec("channel.send(5)").make_receive_queue(endmarker=7)
print(sorted(q.get(timeout=30)[1] for _ in range(4)))

show(gw.reconfigure, py2str_as_py3str=True, py3str_as_py2str=False)
print(gw._rinfo(update=True).version_info == gw._rinfo(False).version_info)

data = execnet.dumps(obj={"a": 1})
file = io.BytesIO()
show(execnet.dump, byteio=file, obj=(1, b"b"))
print(execnet.loads(bytestring=data, py2str_as_py3str=False, py3str_as_py2str=False))
print(execnet.load(io=io.BytesIO(file.getvalue()), py2str_as_py3str=False, py3str_as_py2str=False))
error = execnet.RemoteError(formatted="text")
print(str(error), repr(error))
print(group.terminate(timeout=2), gw.join(timeout=2))
show(execnet.set_execmodel, execmodel="thread", remote_execmodel="thread")
show(group.set_execmodel, execmodel="thread", remote_execmodel=None)
