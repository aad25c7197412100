"""What makes any Python a far end: with nothing installed there, and nothing written to its disk.

`LINE` is what it is started with (python -c LINE). It writes the marker and, as a hello frame, which Python it is; then
it runs the first HEAD_SIZE bytes of what it is sent, and those read the rest. That text is made by pack.py, of modules
of this package; an installed package has it ready. It travels packed, but not to a Python on this machine: to unpack it
takes longer there.
"""

import os
import sys

from .sent import file_name

OLDEST = (3, 8)  # Python that the text runs on
HEAD_SIZE = 400  # bytes

# Any Python from 2.7 on must understand it; in a shell it is quoted. The frame: code 8, channel 0, 46 bytes; in them a
# str ("N") of 40. The first compile() takes 1 or 2 ms, which pass while the text is on its way.
LINE = (
    'import os,sys;t="%x %s"%(sys.hexversion,getattr(getattr(sys,"implementation",0),"cache_tag",0));'
    r'os.write(1,b"\0execnet_c\0\x08\0\0\0\0\0\0\0\x2eN\0\0\0\x28"+t.ljust(40)[:40].encode()+b"Q");'
    r'compile("0","","exec");'
    r'exec("def get(n):\n t=b\"\"\n while len(t)<n:t+=os.read(0,n-len(t))or sys.exit(1)\n return t");'
    f"exec(get({HEAD_SIZE}))"
)

# What stands in PYTHONPATH or the current directory must not come before the standard library while we load.
_HEAD = (
    "p=sys.path[:];d=os.path.dirname(os.__file__);"
    'sys.path.sort(key=lambda q:not(q.startswith(d)or"lib-dynload"in q));'
    "import gc,marshal;gc.disable();%s;t=marshal.loads(t);exec(t.pop(1));main=load(rest,*t);"
    "sys.path[:]=p;gc.enable();del get,t,p,d,rest,load,gc,marshal;main(False)"
)
_PACKED = "import zlib;z=zlib.decompressobj();t=z.decompress(get(%d));rest=lambda z=z,u=zlib.decompress:u(z.unused_data);del z,zlib"
_PLAIN = "t=get(%d);rest=lambda t=t[%d:]:t"

_texts = {}  # (as code objects, packed): all of it


def prepare(packed):
    """Have the text of an installed package at hand, while the far end's interpreter starts."""
    for as_code in (False, True):
        if os.path.exists(_path(as_code)):
            _text(as_code, packed)


def text_for(announcement, packed=True):
    """The bytes that make a worker of a far end that announced itself so. Raises ValueError for a Python too old."""
    try:
        hexversion, tag = announcement.split()
        version = int(hexversion, 16)
    except ValueError:
        raise ValueError(f"the far end is no Python that we know: it calls itself {announcement[:80]!r}") from None
    major, minor, micro, level = version >> 24, version >> 16 & 255, version >> 8 & 255, version >> 4 & 15
    if (major, minor) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise ValueError(f"it is Python {major}.{minor}.{micro}, and {oldest} is the oldest that can serve")
    # One minor version's releases understand each other's code objects.
    mine = sys.implementation.cache_tag
    as_code = tag == mine and level == 15 and sys.version_info.releaselevel == "final"
    return _text(as_code, packed)


def _text(as_code, packed):
    if (as_code, packed) not in _texts:
        body = _body(as_code)
        if packed:
            read = _PACKED % len(body)
        else:
            from zlib import decompress, decompressobj

            unpack = decompressobj()
            first = unpack.decompress(body)
            body = first + decompress(unpack.unused_data)
            read = _PLAIN % (len(body), len(first))
        head = (_HEAD % read).ljust(HEAD_SIZE).encode()
        assert len(head) == HEAD_SIZE
        _texts[as_code, packed] = head + body
    return _texts[as_code, packed]


def _path(as_code):
    return os.path.join(os.path.dirname(__file__), file_name(as_code))


def _body(as_code):
    try:
        with open(_path(as_code), "rb") as file:
            return file.read()
    except OSError:
        from .pack import pack

        return pack(as_code)
