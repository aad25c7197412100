import execnet
import zlib

gw = execnet.makegateway()
channel = gw.remote_exec("import zlib\nfor item in channel: channel.send((len(item), zlib.crc32(item), item[::-1]))")
for size in [0, 1, 65535, 65536, 65537, 3000000]:
    item = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    channel.send(item)
    length, crc, back = channel.receive(30)
    print(length, crc == zlib.crc32(item), back == item[::-1])
text = "äö€" * 300000
channel = gw.remote_exec("channel.send(channel.receive().upper())")
channel.send(text)
print(channel.receive(30) == text.upper())
execnet.default_group.terminate(2)
