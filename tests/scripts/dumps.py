import execnet

for item in [None, True, False, 0, 1, -1, 2**31 - 1, 2**31, 10**20, 1.5, -0.0, 2j, "", "ä", b"", b"\0x", (), (1,), [], [1, [2]], {}, {"a": 1}, {1: {2: 3}}, frozenset(), {5}]:
    data = execnet.dumps(item)
    print(repr(item), data.hex(), repr(execnet.loads(data)))
print(execnet.loads(execnet.dumps("text"), py3str_as_py2str=True))
