import execnet
import os

gw = execnet.makegateway("popen//chdir=a new one")
channel = gw.remote_exec("import os\nchannel.send(os.path.basename(os.getcwd()))\nopen('written', 'w').close()")
print(channel.receive(30))
channel.waitclose(30)
print(os.listdir("a new one"), gw.spec._samefilesystem())
execnet.default_group.terminate(2)
