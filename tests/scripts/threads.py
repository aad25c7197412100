import execnet
import threading

gw = execnet.makegateway()
results = {}


def work(number):
    channel = gw.remote_exec("for item in channel: channel.send(item * 10)")
    for i in range(20):
        channel.send(number + i)
        results.setdefault(number, []).append(channel.receive(30))


threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(sorted(results.items()))
execnet.default_group.terminate(2)
