import execnet

gw = execnet.makegateway()
channel = gw.remote_exec("for i in range(5): channel.send(i)")
print(next(channel), channel.next(), list(channel), list(channel))
channel = gw.remote_exec("channel.send('a')\n1 / 0")
try:
    for item in channel:
        print(item)
except channel.RemoteError as error:
    print(str(error).splitlines()[-1])
print(list(channel))
execnet.default_group.terminate(2)
