import execnet

gw = execnet.makegateway()
channel = gw.remote_exec("channel.send(type(channel.receive()).__name__)")
channel.reconfigure(py2str_as_py3str=False, py3str_as_py2str=True)
channel.send("text")
print(channel.receive(30))
gw.reconfigure(py2str_as_py3str=False)
channel = gw.remote_exec("channel.send([channel.receive(), 'text', b'bytes'])")
channel.send("text")
print(channel.receive(30))
execnet.default_group.terminate(2)
