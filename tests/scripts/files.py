import execnet

gw = execnet.makegateway()

channel = gw.remote_exec(
    """
    import sys
    sys.stdout = channel.makefile()
    print("printed", "over there", 1)
    print("and flushed", end="!\\n", flush=True)
    try:
        raise KeyError("key")
    except KeyError:
        import traceback
        traceback.print_exc(file=sys.stdout)
    sys.stdout = sys.__stdout__
    """
)
print("".join(channel), end="")

channel = gw.remote_exec(
    """
    f = channel.makefile("r")
    line = f.readline()
    while line:
        channel.send((line, f.read(2)))
        line = f.readline()
    """
)
f = channel.makefile(mode="w", proxyclose=True)
print(f, f.isatty(), f.channel is channel)
f.write("first\nab")
f.write("second")
f.write("\n")
f.write("cdthird\n")
print(channel.receive(), channel.receive())
f.close()
print(f, channel.isclosed())

channel = gw.remote_exec("for piece in ('ab', 'c\\nd', 'ef\\n', 'g'): channel.send(piece)")
f = channel.makefile("r")
print([f.read(1), f.readline(), f.read(3), f.readline(), f.readline(), f.read(5)])

channel.waitclose()
for call in (
    lambda: channel.makefile("x"),
    lambda: channel.makefile(mode="r+", proxyclose=True),
    lambda: channel.makefile().write("too late"),
    lambda: print("too late", file=channel.makefile()),
    lambda: channel.makefile().flush(),
    lambda: channel.makefile("r").read(3),
):
    try:
        print(repr(call()))
    except Exception as error:
        print(type(error).__name__, error)
execnet.default_group.terminate(2)
