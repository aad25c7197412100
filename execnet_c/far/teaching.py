"""Has a far end teach us the code objects that it makes, so that others like it need not compile the source again: that takes
a third of their start.

Only Pythons on this machine that are started by the same command line and call themselves the same are alike. The first one
is sent the source, because it may be the only one. The second one is sent source that notes its own code objects; it sends
them behind its answer to the hello. The next ones are sent those.
"""

import marshal

_NOTED = "\n%s = __import__('sys')._getframe().f_code\n"

# What the far end runs instead of the loader (see pack.py), which is in there.
_TEACHER = """
exec({loader!r})
def load(rest, modules, load=load, dumps=marshal.dumps):
    main = load(rest, modules)
    scope = main.__globals__
    if scope["__package__"] == "_execnet_c":
        made = [(name, code and vars(sys.modules["_execnet_c." + name]).pop("_code"), *more) for name, code, *more in modules]
        data = dumps([made, load.code])
        item = b"A" + len(data).to_bytes(4, "big"), data, b"Q"
        scope["teach"] = lambda gateway: gateway._writer.send_message(8, 0, item)
    return main
"""


def teaching(first):
    """The first part of the text of source, for a far end that is to teach us."""
    modules, loader = marshal.loads(first)
    modules = [(name, code and code + _NOTED % "_code", *more) for name, code, *more in modules]
    return marshal.dumps([modules, _TEACHER.format(loader=loader + _NOTED % "load.code")], 2)
