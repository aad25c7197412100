import execnet
import _task_module
from _script import show

gw = execnet.makegateway()
show(gw.remote_exec, "pass", a=1)
show(gw.remote_exec, _task_module, a=1)
show(gw.remote_exec, "pass", channel=1)
execnet.default_group.terminate(2)
