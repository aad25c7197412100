import execnet
import _task_module

gw = execnet.makegateway()
channel = gw.remote_exec(_task_module)
channel.send("back")
print(list(channel))
execnet.default_group.terminate(2)
