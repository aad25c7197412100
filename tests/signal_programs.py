"""What the tests of signals share."""

ECHO_SIZES = """
group = execnet_c.Group()
gateway = group.makegateway()
pid = worker_of(gateway)
channel = gateway.remote_exec('''
    import zlib
    for item in channel:
        channel.send((type(item).__name__, len(item), zlib.crc32(item if isinstance(item, bytes) else item.encode())))
''')
import zlib
def about(item):
    return (type(item).__name__, len(item), zlib.crc32(item if isinstance(item, bytes) else item.encode()))
channel.send("first")
assert channel.receive(30) == about("first")
"""
