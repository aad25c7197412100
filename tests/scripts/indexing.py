import execnet
from _script import show

group = execnet.Group(["popen//id=a", "popen//id=b"])
a, b = group
print(group[0] is a, group[-1] is b, group["b"] is b, group[b] is b, len(group), bool(group), bool(execnet.Group()))
for key in (2, -3, "c", None, 1.5, (1,), "", b"a"):
    show(group.__getitem__, key)
for key in ("a", a, 0, "c", None, execnet.XSpec("popen"), a.spec):
    show(group.__contains__, key)
show(group.__contains__, 7)
print(a in group, [gw.id for gw in iter(group)], repr(group), a._group is group)
a.exit()
print(a in group, "a" in group, group[0] is b, repr(group), a._group is group)
channels = execnet.MultiChannel([b.newchannel(), b.newchannel()])
print(channels[0] in channels, b.newchannel() in channels, len(channels), channels[-1] is channels[1])
show(channels.__getitem__, 2)
print(len(channels[0:1]), [channel.id for channel in channels])
group.terminate(2)
print(len(group), repr(group))
