import execnet
from _script import show

gw = execnet.makegateway("popen//execmodel=main_thread_only")
first = gw.remote_exec("channel.send(1)\nchannel.receive()")
show(first.receive, 30)
second = gw.remote_exec("channel.send(2)")
show(second.receive, 30)
first.send(None)
show(first.waitclose, 30)
show(gw.remote_exec("channel.send(3)").receive, 30)
print(gw.remote_status().execmodel, repr(gw))
execnet.default_group.terminate(2)
