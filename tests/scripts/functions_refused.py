import execnet
import os
from _script import show

gw = execnet.makegateway()
value = 1


def free(channel):
    return os.getpid()


def wrong(x, channel):
    pass


def nothing():
    pass


def closure():
    inside = 1

    def task(channel):
        return inside

    return task


made = {}
exec("def task(channel): pass", made)
for task in [free, wrong, nothing, closure(), lambda channel: None, made["task"]]:
    show(gw.remote_exec, task)
print(gw.newchannel().id)
execnet.default_group.terminate(2)
