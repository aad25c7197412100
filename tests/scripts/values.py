import execnet

gw = execnet.makegateway()
channel = gw.remote_exec("for item in channel: channel.send((type(item).__name__, repr(item), item))")
for item in [
    None, True, False, 0, -1, 2**31, 10**30, 0.0, -0.0, 1.5, float("inf"), float("nan"), 1j, "", "ä€😀\0", b"", b"\xff\0",
    (), (1, (2,)), [], [[[]]], {}, {"k": {1: None}}, {(1, 2): "t"}, set(), {1}, frozenset(), frozenset([b"x"]),
]:
    channel.send(item)
    print(channel.receive(30))
execnet.default_group.terminate(2)
