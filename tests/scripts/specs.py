import execnet
from _script import show

spec = execnet.XSpec("popen//id=a//python=/usr/bin/python3 -E//env:A=1//env:B//chdir=x//fast")
print(str(spec), repr(spec), sorted(vars(spec).items(), key=str))
print(spec.popen, spec.id, spec.python, spec.chdir, spec.fast, spec.ssh, spec.nice, spec.missing, spec._samefilesystem())
print(spec == execnet.XSpec(str(spec)), spec == str(spec), spec != execnet.XSpec("popen"), hash(spec) == hash(str(spec)))
show(execnet.XSpec, "popen//id=a//id=b")
show(getattr, spec, "_missing")
for text in ["ssh=user@host", "socket=1.2.3.4:8888", "vagrant_ssh=default", "via=gw0", "popen//installvia=x", "ssh_config=/x"]:
    spec = execnet.XSpec(text)
    print(text, spec.ssh, spec.socket, spec.vagrant_ssh, spec.via, spec.installvia, spec.ssh_config)
