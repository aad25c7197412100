import execnet

names = """
Channel DataFormatError DumpError Gateway Group HostNotFound LoadError MultiChannel RSync RemoteError TimeoutError
XSpec default_group dump dumps load loads makegateway set_execmodel
""".split()
print([name for name in names if not hasattr(execnet, name)], set(names) <= set(execnet.__all__))
print([name for name in names if isinstance(getattr(execnet, name), type)])
for name in "close isclosed makefile next receive reconfigure send setcallback waitclose".split():
    print(name, callable(getattr(execnet.Channel, name)))
for name in "exit hasreceiver join newchannel reconfigure remote_exec remote_init_threads remote_status".split():
    print(name, callable(getattr(execnet.Gateway, name)))
for name in "allocate_id makegateway remote_exec set_execmodel terminate".split():
    print(name, callable(getattr(execnet.Group, name)))
