"""What makes any Python a far end: with nothing installed there, and nothing written to its disk.

`LINE` is what it is started with (python -c LINE). It writes the marker and, as a hello frame, which Python it is; then
it runs the first HEAD_SIZE bytes of what it is sent, and those read the rest. That text is made by pack.py, of modules
of this package; an installed package has it ready.
"""

import os
import sys

from .sent import HEAD_SIZE, file_name

OLDEST = (3, 8)  # Python that the text runs on

# Any Python from 2.7 on must understand it; in a shell it is quoted. The frame: code 8, channel 0, 46 bytes; in them a
# str ("N") of 40. The first compile() takes 1 or 2 ms, which pass while the text is on its way.
LINE = (
    'import os,sys;t="%x %s"%(sys.hexversion,getattr(getattr(sys,"implementation",0),"cache_tag",0));'
    r'os.write(1,b"\0execnet_c\0\x08\0\0\0\0\0\0\0\x2eN\0\0\0\x28"+t.ljust(40)[:40].encode()+b"Q");'
    r'compile("0","","exec");'
    r'exec("def get(n):\n t=b\"\"\n while len(t)<n:t+=os.read(0,n-len(t))or sys.exit(1)\n return t");'
    f"exec(get({HEAD_SIZE}))"
)

_texts = {}


def text_for(announcement):
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
    if as_code not in _texts:
        try:
            with open(os.path.join(os.path.dirname(__file__), file_name(as_code)), "rb") as file:
                _texts[as_code] = file.read()
        except OSError:
            from .pack import pack

            _texts[as_code] = pack(as_code)
    return _texts[as_code]
