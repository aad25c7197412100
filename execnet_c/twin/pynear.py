"""What only near ends need of the plain-Python core's Gateway: the far end's process, its stderr, its preamble, the
goodbye. None of it is sent to far ends (see far/sent.py).
"""

from . import pypump
from .pychannel import until_of
from .pyserializer import DataFormatError
from .pywire import HELLO, MARKER, TERMINATE, Batch

MAX_PREAMBLE = 64 * 1024  # bytes


class NearEnd:
    """The part of a Gateway that concerns them."""

    _said = None  # the far end's stderr, where somebody listens

    def _start(self, argv, hello):
        """Start `argv` on pipes and send it `hello`, unless that is None."""
        from .pylaunch import launch

        if self._writer is not None:
            raise OSError("the gateway was started before")
        launch(self, argv)
        if hello is not None:
            self._send(HELLO, 0, hello)

    def _lend(self, by_pipe):
        """Before _start(): lend the worker our stderr. What it is to know of that; None where somebody listens to its
        own, or the fds cannot be had."""
        from .pylend import Lent

        if self._said is None:
            try:
                self._lends = Lent(by_pipe)
                return self._lends.identities()
            except OSError:
                self._lends = None
        return None

    def _start_over(self, stream):
        """Be connected through `stream`, a channel of another gateway; see pyrelay.py."""
        from .pyrelay import connect

        connect(self, stream)

    def _start_on(self, fd):
        """Be connected by this socket, which is taken; see pylaunch.py."""
        from .pylaunch import connect

        connect(self, fd)

    def _find_marker(self):
        buffer = self._buffer
        at = buffer.find(MARKER)
        if at >= 0:
            self._preamble = bytes(buffer[:at])
            del buffer[: at + len(MARKER)]
            self._marked = True
            return True
        self._preamble = bytes(buffer[:MAX_PREAMBLE])
        if len(buffer) > MAX_PREAMBLE + len(MARKER):
            raise DataFormatError("64 KiB of other output came first: a login or site that prints too much, or no far end of ours")
        return False

    def _peer_gone(self):
        """On the I/O thread: the far end's process has ended; what it wrote before is still read, and not what a child of
        its own writes on."""
        left = 0 if self._eof else pypump.readable(self._in.fileno())
        while left > 0 and not self._eof:
            left -= self._read(0) or left
        self._end("XC_EOF")
        self._wake()

    def _write(self, data):
        """Send raw bytes between the frames."""
        self._check_usable()
        if not self._writer.send(Batch([memoryview(data).cast("B")])):
            raise self._death(True)

    def _set_coerce(self, bits):
        self._check_usable()
        self._coerce = bits & 3

    def _goodbye(self):
        self._check_usable()
        if not self._said_goodbye and not self._eof:
            self._said_goodbye = True
            self._post(TERMINATE, 0)
            self._writer.end()

    def _wait_gone(self, timeout):
        """Wait for the end of the far end's process. False: `timeout` seconds have passed."""
        self._check_usable()
        return self._wait(lambda: self._process is None or self._process.gone, until_of(timeout))

    def _keepalive(self, seconds):
        """End the connection when the far end gives no sign of life for so long, and kill its process. 0: never."""
        from .pykeepalive import Keepalive

        self._check_usable()
        wanted = seconds > 0

        def job():
            if self._keepalive_watch:
                self._keepalive_watch.stop()
            if not self._eof:
                self._keepalive_watch = Keepalive(self, seconds) if wanted else None

        pypump.pump.post(job)

    def _listen(self):
        """Before _start(): the far end's stderr is for _stderr()."""
        from .pylaunch import Said

        self._said = Said()

    def _stderr(self, knows_end):
        """Wait for more of the far end's stderr, for the end of its process unless that is known, for the end of it.
        Return (data, bytes lost in front of it, the last of what the process had said, nothing more will come)."""
        self._check_usable()
        if self._said is None:
            raise OSError("nobody listens to the far end's stderr")
        self._wait(lambda: self._said.has_news(knows_end))
        return self._said.take()

    def _signal(self, number):
        self._check_usable()
        if self._process is not None:
            self._process.signal(number)
