import execnet
from _script import show


class Own:
    pass


for item in [object, Own, len, range(3), bytearray(b"x"), memoryview(b"x"), "\ud800", ...]:
    show(execnet.dumps, item)
for item in [[1, (Own,)], {"k": Own}, {Own: 1}]:
    try:
        execnet.dumps(item)
    except execnet.DumpError as error:
        print(str(error).startswith("can't serialize <class 'type'>"))
print(issubclass(execnet.DumpError, execnet.DataFormatError), issubclass(execnet.LoadError, execnet.DataFormatError))
print([base.__name__ for base in execnet.DataFormatError.__mro__])
