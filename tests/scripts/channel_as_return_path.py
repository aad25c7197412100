import execnet

gw = execnet.makegateway()
results = gw.newchannel()
worker = gw.remote_exec(
    """
    results = channel.receive()
    for job in channel:
        results.send({"job": job, "result": job ** 2})
    results.close()
    """
)
worker.send(results)
for i in range(5):
    worker.send(i)
worker.close()
for item in results:
    print(sorted(item.items()))
results.waitclose(30)
print(results.isclosed(), worker.isclosed())
execnet.default_group.terminate(2)
