import execnet

for name in ["RemoteError", "TimeoutError", "HostNotFound", "DumpError", "LoadError", "DataFormatError"]:
    type_ = getattr(execnet, name)
    print(name, type_.__name__, issubclass(type_, Exception), type_ is not Exception)
error = execnet.RemoteError("text of it")
print(str(error), repr(error), error.formatted)
print(execnet.Channel.RemoteError is execnet.RemoteError, execnet.Channel.TimeoutError is execnet.TimeoutError)
