import execnet
from _script import show

gw = execnet.makegateway()
channel = gw.remote_exec(
    """
    try:
        {}["missing"]
    except KeyError as error:
        raise RuntimeError("while looking") from error
    """
)
show(channel.receive, 30)
channel = gw.remote_exec("try:\n    1 // 0\nfinally:\n    int('x')\n")
show(channel.receive, 30)
execnet.default_group.terminate(2)
