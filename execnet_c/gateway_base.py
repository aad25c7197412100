"""execnet's module gateway_base: its names for what other modules of this package have.

What only execnet itself uses is not here: Message, Popen2IO, ChannelFactory, WorkerPool, Reply, init_popen_io, serve.

This text also travels to far ends that have no package (see alias.py): it runs on Python 3.8, with the plain-Python core.
"""

import os

from .common.channelfile import ChannelFile, ChannelFileRead, ChannelFileWrite  # noqa: F401
from .cores import module as _core
from .models.execmodel import ExecModel
from .models.registry import get_execmodel  # noqa: F401
from .worker import INTERRUPT_TEXT, WorkerGateway  # noqa: F401

BaseGateway = _core.Gateway
Channel = _core.Channel
DataFormatError = _core.DataFormatError
DumpError = _core.DumpError
LoadError = _core.LoadError
NO_ENDMARKER_WANTED = _core.NO_ENDMARKER_WANTED
RemoteError = _core.RemoteError
TimeoutError = _core.TimeoutError
dump, dumps, load, loads = _core.dump, _core.dumps, _core.load, _core.loads

DEBUG = os.environ.get("EXECNET_DEBUG")
ENDMARKER = object()
MAIN_THREAD_ONLY_DEADLOCK_TEXT = "concurrent remote_exec would cause deadlock for main_thread_only execmodel"
pid = os.getpid()
sysex = (KeyboardInterrupt, SystemExit)

ThreadExecModel = ExecModel


class MainThreadOnlyExecModel(ExecModel):
    def __init__(self):
        super().__init__("main_thread_only")


def __getattr__(name):
    if name in ("EventletExecModel", "GeventExecModel"):
        from .models import greenlets

        return getattr(greenlets, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class GatewayReceivedTerminate(Exception):
    """For `except` clauses only: a goodbye raises nothing here."""


# For annotations: what execnet expects of a stream, and of an event.
class ReadIO:
    """Has read(n), which returns bytes."""


class WriteIO:
    """Has write(bytes)."""


class IO(ReadIO, WriteIO):
    """Has both."""


class Event:
    """Is like threading.Event."""


def geterrortext(exc):
    """The text that is sent for an exception."""
    from .common.errors import told

    return told(exc)[0]


def trace(*msg):
    """Write a line to the trace of EXECNET_DEBUG, if there is one."""
    _core._trace(" ".join(map(str, msg)))


# --- the serializer -------------------------------------------------------------------------------------------------

DUMPFORMAT_VERSION = b"\x02"
FOUR_BYTE_INT_MAX = 0x7FFFFFFF
FLOAT_FORMAT, FLOAT_FORMAT_SIZE = "!d", 8
COMPLEX_FORMAT, COMPLEX_FORMAT_SIZE = "!dd", 16


class opcode:
    """What the bytes of an encoding mean."""

    BUILDTUPLE, BYTES, CHANNEL, FALSE, FLOAT, FROZENSET, INT = b"@", b"A", b"B", b"C", b"D", b"E", b"F"
    LONG, LONGINT, LONGLONG, NEWDICT, NEWLIST, NONE, PY2STRING = b"G", b"H", b"I", b"J", b"K", b"L", b"M"
    PY3STRING, SET, SETITEM, STOP, TRUE, UNICODE, COMPLEX = b"N", b"O", b"P", b"Q", b"R", b"S", b"T"


def bchr(n):
    return bytes([n])


def dumps_internal(obj):
    """As dumps(), without the version byte: what goes over the wire."""
    return dumps(obj)[1:]


def loads_internal(bytestring, channelfactory=None, strconfig=None):
    """The object that dumps_internal() encoded. strconfig: the last two arguments of loads(); by default (True, False).
    `channelfactory` is not used: a channel cannot be loaded."""
    return loads(DUMPFORMAT_VERSION + bytestring, *(strconfig or (True, False)))


class _Serializer:
    """Encodes objects one behind the other: calls `write`, or save() returns all of them so far."""

    def __init__(self, write=None):
        self._written = None if write else []
        self._write = write or self._written.append

    def save(self, obj, versioned=False):
        self._write(dumps(obj) if versioned else dumps_internal(obj))
        return None if self._written is None else b"".join(self._written)


class Unserializer:
    """Decodes objects, as loads_internal(), one behind the other from `stream`, which has read(n)."""

    py2str_as_py3str = True
    py3str_as_py2str = False
    num2func = {code: name for name, code in vars(opcode).items() if not name.startswith("_")}  # programs read it

    def __init__(self, stream, channel_or_gateway=None, strconfig=None):
        self.stream = stream
        if strconfig:
            self.py2str_as_py3str, self.py3str_as_py2str = strconfig

    def load(self, versioned=False):
        stream = self.stream if versioned else _Versioned(self.stream)
        return load(stream, self.py2str_as_py3str, self.py3str_as_py2str)


class _Versioned:
    """A stream with the version byte in front."""

    def __init__(self, stream):
        self._stream = stream
        self._ahead = DUMPFORMAT_VERSION

    def read(self, n):
        ahead, self._ahead = self._ahead[:n], self._ahead[n:]
        return ahead + self._stream.read(n - len(ahead)) if n > len(ahead) else ahead
