import execnet
import os

os.environ["SCRIPT_KEPT"] = "kept"
gw = execnet.makegateway("popen//env:SCRIPT_A=one//env:SCRIPT_B=x=y//env:SCRIPT_A=two")
channel = gw.remote_exec("import os\nchannel.send(sorted(item for item in os.environ.items() if item[0].startswith('SCRIPT_')))")
print(channel.receive(30))
print(sorted(gw.spec.env.items()), "SCRIPT_A" in os.environ)
execnet.default_group.terminate(2)
