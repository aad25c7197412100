import execnet
from _script import show

good = execnet.dumps([1, "x"])
for data in [b"", b"\xff", good[:1] + b"\xff" + good[2:]]:
    try:
        print(execnet.loads(data))
    except execnet.LoadError as error:
        print("LoadError", isinstance(error, execnet.DataFormatError))
show(execnet.loads, b"\x01")
show(execnet.loads, good)
