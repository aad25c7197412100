import execnet

group = execnet.Group(["popen//id=a", "popen//id=b"])
channels = group.remote_exec("for i in range(3): channel.send((channel.gateway.id, i))")
queue = channels.make_receive_queue(endmarker=("end", -1))
items = [queue.get(timeout=30) for _ in range(8)]
print(sorted((channel.gateway.id, item) for channel, item in items))
print(channels.make_receive_queue() is queue, queue.empty())
channels.waitclose()
group.terminate(2)
