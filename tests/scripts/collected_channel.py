import execnet

gw = execnet.makegateway()
report = gw.remote_exec(
    """
    for other in channel:
        items = list(other)
        other.waitclose()
        channel.send((items, other.isclosed()))
    """
)
for i in range(3):
    other = gw.newchannel()
    report.send(other)
    other.send(i)
    del other
    print(report.receive(30))
execnet.default_group.terminate(2)
