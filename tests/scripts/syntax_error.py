import execnet
from _script import show

gw = execnet.makegateway()
for text in ["x = 1\ny = = 2\n", "x = (", "  a = 1\n b = 2", "return 1"]:
    show(gw.remote_exec(text).receive, 30)
execnet.default_group.terminate(2)
