import execnet
from _script import show

print(len(execnet.default_group), execnet.default_group.defaultspec)
a = execnet.makegateway()
b = execnet.makegateway("popen//id=b")
c = execnet.makegateway(execnet.XSpec("popen"))
print([gw.id for gw in execnet.default_group])
b.exit()
print([gw.id for gw in execnet.default_group], "b" in execnet.default_group)
show(execnet.set_execmodel, "thread")
execnet.default_group.terminate(2)
print(len(execnet.default_group))
show(execnet.set_execmodel, "thread")
