"""The part of the plain-Python core's Gateway that only near ends need: the far end's process, its stderr, its preamble,
and the goodbye. It is not sent to far ends (see far/sent.py).
"""

from . import pypump
from .pychannel import Channel, until_of
from .pyserializer import DataFormatError
from .pywire import HELLO, MARKER, TERMINATE, Batch, frame

MAX_PREAMBLE = 64 * 1024  # bytes


class NearEnd:
    """A base class of Gateway."""

    _said = None  # the far end's stderr, if the program has a handler for it, see near/stderr.py

    def _start(self, argv, hello):
        """Start `argv` on pipes and send it `hello`, unless that is None."""
        from .pylaunch import launch

        if self._writer is not None:
            raise OSError("the gateway was started before")
        launch(self, argv)
        if hello is not None:
            self._send(HELLO, 0, hello)

    def _lend(self, by_pipe):
        """Called before _start(): lend the worker our stderr. Returns what the worker has to know of it; None if the
        program has a handler for the worker's stderr, or there are no fds left."""
        from .pylend import Lent

        if self._said is None:
            try:
                self._lends = Lent(by_pipe)
                return self._lends.identities()
            except OSError:
                self._lends = None
        return None

    def _start_over(self, stream):
        """Connect this gateway through `stream`, a channel of another gateway; see pyrelay.py."""
        from .pyrelay import connect

        connect(self, stream)

    def _start_on(self, fd):
        """Connect this gateway through the socket `fd`, which this call takes; see pylaunch.py."""
        from .pylaunch import connect

        connect(self, fd)

    def _wait_closed(self, channel, timeout):
        """As channel.waitclose(), but it raises nothing of how the channel ended. False: `timeout` seconds have passed."""
        self._check_usable()
        return self._wait(lambda: channel._chan.recv_closed, until_of(timeout))

    def _find_marker(self):
        """Take what is in front of the marker as the preamble. True: the marker has come."""
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
        """On the I/O thread: the far end's process has ended. Read what is in the pipe now, then end: a child of that
        process may hold the pipe open, and is not waited for."""
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

    def _send_soon(self, *args):
        from .pysoon import send_soon

        return send_soon(Channel, self, None, *args)

    def _set_coerce(self, bits):
        self._check_usable()
        self._coerce = bits & 7

    def _goodbye(self):
        self._check_usable()
        if not self._said_goodbye and not self._eof:
            self._said_goodbye = True
            self._writer.end(frame(TERMINATE, 0))
            self._wake()  # who waits for credit

    def _wait_gone(self, timeout):
        """Wait for the end of the far end's process. False: `timeout` seconds have passed."""
        self._check_usable()
        return self._wait(lambda: self._process is None or self._process.gone, until_of(timeout))

    def _keepalive(self, seconds):
        """From now on, end the connection and kill the far end's process if nothing comes from it for `seconds`. 0:
        never."""
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
        """Called before _start(): keep the far end's stderr for _stderr()."""
        from .pylaunch import Said

        self._said = Said()

    def _stderr(self, knows_end):
        """Wait for more of the far end's stderr, for the end of the process (unless the caller `knows_end`), or for the
        end of the stderr. Return (data, bytes lost in front of data, whether the process has ended and this is the last
        that it wrote, whether nothing more will come)."""
        self._check_usable()
        if self._said is None:
            raise OSError("nobody listens to the far end's stderr")
        self._wait(lambda: self._said.has_news(knows_end))
        return self._said.take()

    def _signal(self, number):
        self._check_usable()
        if self._process is not None:
            self._process.signal(number)
