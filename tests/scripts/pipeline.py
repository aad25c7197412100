import execnet

group = execnet.Group(["popen"] * 3)
square, add, text = group
stages = [
    square.remote_exec("for x in channel: channel.send(x * x)"),
    add.remote_exec("for x in channel: channel.send(x + 1)"),
    text.remote_exec("for x in channel: channel.send('<%d>' % x)"),
]
for i in range(5):
    item = i
    for stage in stages:
        stage.send(item)
        item = stage.receive(30)
    print(item)
group.terminate(2)
