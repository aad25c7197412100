import execnet
from _script import show


class Own:
    pass


for item in [object, Own, len, range(3), bytearray(b"x"), memoryview(b"x"), [1, (Own,)], {"k": Own}, {Own: 1}, "\ud800", ...]:
    show(execnet.dumps, item)
print(issubclass(execnet.DumpError, execnet.DataFormatError), issubclass(execnet.LoadError, execnet.DataFormatError))
print([base.__name__ for base in execnet.DataFormatError.__mro__])
