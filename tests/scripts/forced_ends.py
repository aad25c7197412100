import execnet
from _script import show

gw = execnet.makegateway()
pid = gw._rinfo().pid
for text in ["raise SystemExit(3)", "import sys\nsys.exit('bye')", "raise GeneratorExit", "raise KeyboardInterrupt"]:
    show(gw.remote_exec(text).waitclose, 30)
print(gw._rinfo(update=True).pid == pid)
execnet.default_group.terminate(2)
