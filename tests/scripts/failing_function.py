import execnet
from _script import show


def task(channel, number):
    channel.send("starts")
    if number:
        raise KeyError(number)
    channel.send("ends")


gw = execnet.makegateway()
for number in (0, 5):
    channel = gw.remote_exec(task, number=number)
    show(channel.receive, 30)
    show(channel.receive, 30)
show(gw.remote_exec(task).waitclose, 30)
show(gw.remote_exec(task, number=0, more=1).waitclose, 30)
execnet.default_group.terminate(2)
