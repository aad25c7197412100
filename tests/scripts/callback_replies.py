import execnet
import threading

gw = execnet.makegateway()
ended = threading.Event()
total = []


def callback(item):
    if item is None:
        ended.set()
    else:
        total.append(item)
        if item < 10:
            channel.send(item + 1)
        else:
            channel.send(-1)


channel = gw.remote_exec(
    """
    for item in channel:
        if item < 0:
            break
        channel.send(item)
    """
)
channel.setcallback(callback, endmarker=None)
channel.send(0)
print(ended.wait(30), total)
execnet.default_group.terminate(2)
