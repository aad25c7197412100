import execnet

original, sent = execnet.Channel.send, []


def send(self, item):
    sent.append(item)
    return original(self, item)


execnet.Channel.send = send
group = execnet.Group(["popen", "popen"])
channels = group.remote_exec("channel.send(channel.receive() + 1)")
channels.send_each(1)
print(channels.receive_each(), sent)
group.terminate(2)
