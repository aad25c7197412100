import execnet

gw = execnet.makegateway()
ask = "import threading\nchannel.send(threading.current_thread() is threading.main_thread())\nchannel.receive()"
first = gw.remote_exec(ask)
print(first.receive(30))
second = gw.remote_exec(ask)
print(second.receive(30))
for channel in (first, second):
    channel.send(None)
    channel.waitclose(30)
execnet.default_group.terminate(2)
