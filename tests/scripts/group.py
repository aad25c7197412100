import execnet
from _script import show

group = execnet.Group(["popen//id=a", "popen//id=b"])
print(len(group), repr(group), [gw.id for gw in group])
print(group["a"] is group[0], group[group["b"]] is group[-1], "a" in group, group[0] in group, "x" in group)
show(lambda: group["x"])
show(lambda: group[5])
group["a"].exit()
print(repr(group))
group.terminate(2)
print(repr(group), bool(group))
group.makegateway()
print(repr(group))
group.terminate(2)
