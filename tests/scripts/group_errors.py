import execnet
from _script import show

group = execnet.Group()
show(group.makegateway, "id=x")
show(group.makegateway, "popen//popen")
show(group.makegateway, "popen//_x=1")
group.makegateway("popen//id=gw0")
show(group.makegateway, "popen")
show(group.set_execmodel, "thread")
print(repr(group))
group.terminate(2)
