import execnet
import _failing_module
from _script import show

gw = execnet.makegateway()
show(gw.remote_exec(_failing_module).waitclose, 30)
execnet.default_group.terminate(2)
