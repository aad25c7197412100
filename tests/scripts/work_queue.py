import execnet

group = execnet.Group(["popen"] * 3)
channels = group.remote_exec(
    """
    channel.send("ready")
    for job in channel:
        if job is None:
            break
        channel.send((job, job ** 2))
    """
)
queue = channels.make_receive_queue(endmarker=-1)
jobs, results, ended = list(range(50)), {}, 0
while ended < 3:
    channel, item = queue.get(timeout=30)
    if item == -1:
        ended += 1
        continue
    if item != "ready":
        results[item[0]] = item[1]
    channel.send(jobs.pop() if jobs else None)
print(len(results), sum(results.values()))
group.terminate(2)
