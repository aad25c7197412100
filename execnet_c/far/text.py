"""The text that makes any Python a worker: nothing has to be installed there, and nothing is written to its disk.

That Python is started as `python -c LINE`. LINE writes the marker and a hello frame that says which Python runs it. Then
it reads the first HEAD_SIZE bytes of the text and runs them; they read and run the rest. pack.py makes the text from
modules of this package; an installed package has it ready in files. The text is sent compressed, but not to a Python on
this machine: there, decompressing would take longer than sending more bytes.
"""

import os
import sys

from .sent import file_name

OLDEST = (3, 8)  # the oldest Python that the text runs on
HEAD_SIZE = 400  # bytes
MAX_TAUGHT = 1 << 20  # bytes that we keep of a far end; it sends some 60 KB

# Every Python from 2.7 on must understand this line; it is quoted where a shell reads it. The frame has code 8, channel 0
# and a payload of 46 bytes: a str ("N") of 40 bytes, and STOP. There is no compile() in it, nor
# anywhere before the first word: the first one of an interpreter takes 1 or 2 ms, see compiled() in twin/pytasks.py.
LINE = (
    'import os,sys;t="%x %s"%(sys.hexversion,getattr(getattr(sys,"implementation",0),"cache_tag",0));'
    r'os.write(1,b"\0execnet_c\0\x08\0\0\0\0\0\0\0\x2eN\0\0\0\x28"+t.ljust(40)[:40].encode()+b"Q");'
    r'exec("def get(n):\n t=b\"\"\n while len(t)<n:t+=os.read(0,n-len(t))or sys.exit(1)\n return t");'
    f"exec(get({HEAD_SIZE}))"
)

# The standard library is put first in sys.path while the text is loaded: PYTHONPATH or the current directory may have
# modules of the same names.
_HEAD = (
    "p=sys.path[:];d=os.path.dirname(os.__file__);"
    'sys.path.sort(key=lambda q:not(q.startswith(d)or"lib-dynload"in q));'
    "import gc,marshal;gc.disable();%s;t=marshal.loads(t);exec(t.pop(1));main=load(rest,*t);"
    "sys.path[:]=p;gc.enable();del get,t,p,d,rest,load,gc,marshal;main(False)"
)
_PACKED = "import zlib;z=zlib.decompressobj();t=z.decompress(get(%d));rest=lambda z=z,u=zlib.decompress:u(z.unused_data);del z,zlib"
_PLAIN = "t=get(%d);rest=lambda t=t[%d:]:t"

_texts = {}  # (as code objects, packed) -> the whole text
_learnt = {}  # (command, announcement) of a far end on this machine -> the text that one has taught us, see teaching.py; or None


def prepare(packed):
    """Read the text of an installed package into memory. Called while the far end's interpreter starts."""
    for as_code in (False, True):
        if os.path.exists(_path(as_code)):
            _text(as_code, packed)


def text_for(announcement, packed=True):
    """The text for a far end whose hello was `announcement`. Raises ValueError if its Python is too old."""
    try:
        hexversion, tag = announcement.split()
        version = int(hexversion, 16)
    except ValueError:
        raise ValueError(f"the far end is no Python that we know: it calls itself {announcement[:80]!r}") from None
    major, minor, micro, level = version >> 24, version >> 16 & 255, version >> 8 & 255, version >> 4 & 15
    if (major, minor) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise ValueError(f"it is Python {major}.{minor}.{micro}, and {oldest} is the oldest that can serve")
    # All final releases of one minor version of Python have the same code objects.
    mine = sys.implementation.cache_tag
    as_code = tag == mine and level == 15 and sys.version_info.releaselevel == "final"
    return _text(as_code, packed)


def text_here(announcement, command):
    """The text for a far end on this machine that was started by `command`, and whether it will teach us; see teaching.py."""
    text, kind = text_for(announcement, False), (command, announcement)
    if _learnt.get(kind):
        return _learnt[kind], False
    is_release = int(announcement.split()[0], 16) & 0xF0 == 0xF0 and " cpython-" in announcement
    if is_release and kind in _learnt and text is _text(False, False):
        from .teaching import teaching

        first, cold = _unpacked(False)
        return _plain(teaching(first), cold), True
    _learnt[kind] = None
    return text, False


def learn(announcement, command, first):
    """A far end has taught us `first`."""
    if len(first) <= MAX_TAUGHT:
        _learnt[command, announcement] = _plain(first, _unpacked(False)[1])


def _text(as_code, packed):
    if (as_code, packed) not in _texts:
        body = _body(as_code)
        _texts[as_code, packed] = _whole(_PACKED % len(body), body) if packed else _plain(*_unpacked(as_code))
    return _texts[as_code, packed]


def _unpacked(as_code):
    """The two parts of the text, see pack.py."""
    from zlib import decompress, decompressobj

    unpack = decompressobj()
    return unpack.decompress(_body(as_code)), decompress(unpack.unused_data)


def _plain(first, cold):
    """The whole text of these two parts, for a far end on this machine."""
    return _whole(_PLAIN % (len(first) + len(cold), len(first)), first + cold)


def _whole(read, body):
    head = (_HEAD % read).ljust(HEAD_SIZE).encode()
    assert len(head) == HEAD_SIZE
    return head + body


def _path(as_code):
    return os.path.join(os.path.dirname(__file__), file_name(as_code))


def _body(as_code):
    try:
        with open(_path(as_code), "rb") as file:
            return file.read()
    except OSError:
        from .pack import pack

        return pack(as_code)
