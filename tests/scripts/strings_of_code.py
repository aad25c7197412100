import execnet

gw = execnet.makegateway()
for text in [
    "channel.send(1)",
    "   channel.send(2)",
    "\n\n    channel.send(3)\n\n    ",
    "\tif 1:\n\t\tchannel.send('4')",
    "# a comment only",
    "",
    "channel.send('''a\n  b''')",
    "channel.send(__name__)",
    "import sys; channel.send('ä€' + chr(0x1f600))",
]:
    print(list(gw.remote_exec(text)))
execnet.default_group.terminate(2)
