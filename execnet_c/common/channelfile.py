"""Channels as files, for print(), sys.stdout and other code that writes to or reads from a file.

This text also travels to far ends that have no package: it imports nothing.
"""


def make(channel, mode, proxyclose):
    """What Channel.makefile() returns."""
    if mode == "w":
        return ChannelFileWrite(channel, proxyclose)
    if mode == "r":
        return ChannelFileRead(channel, proxyclose)
    raise ValueError("mode %r not available" % (mode,))


class ChannelFile:
    """What both kinds of files have in common. close() closes the channel with `proxyclose`; else it does nothing."""

    def __init__(self, channel, proxyclose=True):
        self.channel = channel
        self._proxyclose = proxyclose

    def __repr__(self):
        return "<ChannelFile %d %s>" % (self.channel.id, "closed" if self.channel.isclosed() else "open")

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.close()

    def isatty(self):
        return False

    def close(self):
        if self._proxyclose:
            self.channel.close()


class ChannelFileWrite(ChannelFile):
    """A file that sends each piece as an item when it is written; flush() does nothing."""

    def write(self, out):
        self.channel.send(out)

    def writelines(self, lines):
        for line in lines:
            self.write(line)

    def flush(self):
        pass


class ChannelFileRead(ChannelFile):
    """A file of the items received, one behind the other: all str, or all bytes; another item raises TypeError and is
    left out. The file ends with the channel. Errors of the channel's receive() are raised, and what was received before
    stays to be read: RemoteError; GatewayDied and GatewayExited if the connection ended and more might have come."""

    _kind = (str, bytes)
    _item = ""
    _at = 0  # how much of the item has been read

    def __iter__(self):
        return self

    def __next__(self):
        line = self.readline()
        if not line:
            raise StopIteration
        return line

    def read(self, n=-1):
        """The next `n` characters or bytes, fewer only at the end; without `n`, all up to the end."""
        return self._take(n, False)

    def readline(self):
        """The next line with its "\\n", which only the last one may lack; empty at the end."""
        return self._take(-1, True)

    def _take(self, n, line):
        need = 1 << 62 if n is None or n < 0 else n
        parts = []
        try:
            while need and (self._at < len(self._item) or self._receive()):
                end = self._at + need
                if line:
                    found = self._item.find("\n" if self._kind is str else b"\n", self._at) + 1
                    if found:
                        end, need = found, 0
                part = self._item[self._at : end]
                self._at += len(part)
                need = max(need - len(part), 0)
                parts.append(part)
            return self._item[:0].join(parts)
        except BaseException:
            self._item, self._at = self._item[:0].join(parts) + self._item[self._at :], 0
            raise

    def _receive(self):
        """Go on to the next item; false at the end."""
        try:
            item = self.channel.receive()
        except EOFError as exc:
            if type(exc) is not EOFError:  # GatewayDied or GatewayExited
                raise
            try:
                self.close()
            except OSError:
                pass  # the task's own channel cannot be closed by the task; its end does that
            return False
        if not isinstance(item, self._kind):
            kind = getattr(self._kind, "__name__", "str or bytes")
            raise TypeError("an item of type %s in a file of %s" % (type(item).__name__, kind))
        self._kind, self._item, self._at = type(item), item, 0
        return True
