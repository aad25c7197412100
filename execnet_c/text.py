"""The text that makes any Python a far end: with nothing installed there, and nothing written to its disk.

`LINE` is what it is started with (python -c LINE). It writes the marker and, as a hello frame, which Python it is; then
it runs the one line that it is sent. That line reads the rest of the text: modules of this package, packed. Where the
same version of this package with its C core is importable over there, that serves, and they are dropped.

Compiling costs more than starting an interpreter does. So modules travel as code objects where this very Python's are
understood over there; and functions whose header ends with `# cold` travel as source in any case, and are compiled when
they are first called: most of them never are.
"""

import re
import sys
from importlib.util import find_spec
from marshal import dumps as marshal_dumps
from types import CodeType
from zlib import compress

from ._version import __version__

OLDEST = (3, 8)  # Python that the modules below run on

# Any Python from 2.7 on must understand it; in a shell it is quoted. The frame: code 8, channel 0, 46 bytes; in them a
# str ("N") of 40.
LINE = (
    'import os,sys;t="%x %s"%(sys.hexversion,getattr(getattr(sys,"implementation",0),"cache_tag",0));'
    r'os.write(1,b"\0execnet_c\0\x08\0\0\0\0\0\0\0\x2eN\0\0\0\x28"+t.ljust(40)[:40].encode()+b"Q");'
    r'exec(b"".join(iter(lambda:os.read(0,1)or sys.exit(1),b"\n")))'
)

# What stands in PYTHONPATH or the current directory must not come before the standard library while we load.
_HEAD = (
    'n=%d;t=b"";exec("while len(t)<n:t+=os.read(0,n-len(t))or sys.exit(1)");p=sys.path[:];'
    'd=os.path.dirname(os.__file__);sys.path.sort(key=lambda q:not(q.startswith(d)or"lib-dynload"in q));'
    "import marshal,zlib;t=marshal.loads(zlib.decompress(t));exec(t.pop(0));main=load(t);sys.path[:]=p;"
    "del n,t,p,d,load,warmer;main(False)\n"
)

_LOADER = """
def load(modules):
    try:
        from execnet_c._version import __version__
        if __version__ == {version!r}:
            from execnet_c import _core
            from execnet_c.worker import main
            return main
    except Exception:
        pass
    new = type(sys)
    package = sys.modules["_execnet_c"] = new("_execnet_c")
    package.__path__ = []
    class Later(new):
        def __getattr__(self, name):
            if "__" in name or self._rest is None:
                raise AttributeError(name)
            source, self._rest = self._rest, None
            exec(compile(source, "<" + self.__name__ + ">", "exec", 0, True), self.__dict__)
            return getattr(self, name)
    for name, code, rest in modules:
        module = Later("_execnet_c." + name)
        module.__package__ = "_execnet_c"
        module._rest = None
        sys.modules[module.__name__] = module
        setattr(package, name, module)
        if code is None:
            module._rest = rest
            continue
        module._cold = warmer(name, module.__dict__, rest)
        if isinstance(code, str):
            code = compile(code, "<execnet_c " + name + ">", "exec", 0, True)
        exec(code, module.__dict__)
    return module.main

def warmer(module, scope, pieces):
    warm = {{}}
    def cold(n):
        if n not in warm:
            owner, name, source = pieces[n]
            found = {{}}
            exec(compile(source, "<execnet_c " + module + ">", "exec", 0, True), scope, found)
            warm[n] = found[name]
            if owner:
                setattr(scope[owner], name, found[name])
            else:
                scope[name] = found[name]
        return warm[n]
    return cold
"""

# In the order in which they need each other. Those that few far ends ever use travel as source, to be compiled then.
_MODULES = ("channelfile", "trace", "pypump", "pyserializer", "pywire", "pychannel", "pywatch", "pycore", "worker")
_RARE = ("channelfile", "trace")
# Code is larger than source: those that cost most to compile, so that the text stays below 24 KiB.
_AS_CODE = ("pyserializer",)
_MADE_UP = {
    "_version": f"__version__ = {__version__!r}",
    "cores": "from . import pycore as module\ncore = 'Python'",
}

_packed = {}


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
    if as_code not in _packed:
        _packed[as_code] = _pack(as_code)
    return _packed[as_code]


def _pack(as_code):
    modules = [("_version", _MADE_UP["_version"], [])]
    for name in _MODULES:
        if name == "worker":
            modules.append(("cores", _MADE_UP["cores"], []))
        full_name = f"{__package__}.{name}"
        source = _without_words(find_spec(full_name).loader.get_source(full_name))
        modules.append((name, None, source) if name in _RARE else (name, *_split(source)))
    loader = _LOADER.format(version=__version__)
    if as_code:
        loader = compile(loader, "<execnet_c>", "exec")
        modules = [(name, _code(name, source) if name in _AS_CODE else source, rest) for name, source, rest in modules]
    # Format 2: what every Python 3 reads.
    packed = compress(marshal_dumps([loader, *modules], *(() if as_code else (2,))), 9)
    return (_HEAD % len(packed)).encode() + packed


def _code(name, source):
    return _bare(compile(source, f"<execnet_c {name}>", "exec", 0, True, 2))


def _bare(code):
    """Without its table of line numbers, a third of it."""
    consts = tuple(_bare(const) if isinstance(const, CodeType) else const for const in code.co_consts)
    # From 3.11 on tracebacks look up each instruction: entries that say, for eight code units each, that there is none.
    table = b"\xff" * -(-len(code.co_code) // 16) if sys.version_info >= (3, 11) else b""
    return code.replace(co_consts=consts, co_linetable=table)


def _without_words(source):
    """Docstrings, comments and most of the margin stay at home; `# cold` is what _split looks for."""
    source = re.sub(r'(?s)\A""".*?"""\n', "", source)
    source = re.sub(r'(?m)^( *(?:class|def) .*:(?:  # cold)?\n *)"""[^"]*"""\n', r"\g<1>0\n", source)
    source = re.sub(r"(?m)^ *(#.*)?\n", "", source)
    return re.sub(r"(?m)^(    )+", lambda margin: " " * (len(margin[0]) // 4), source)


def _split(source):
    """A module's source without its cold functions, and a list of those: (class or "", name, source)."""
    kept, cold, owner = [], [], ""
    lines = source.split("\n")
    while lines:
        line = lines.pop(0)
        indent = len(line) - len(line.lstrip())
        if indent == 0 and not line.startswith(")"):
            owner = re.match(r"class (\w+)|", line)[1] or ""
        if not line.endswith("  # cold"):
            kept.append(line)
            continue
        body = [line]
        while lines and len(lines[0]) - len(lines[0].lstrip()) > indent:
            body.append(lines.pop(0))
        name = re.match(r" *def (\w+)\(", line)[1]
        kept.append(f"{' ' * indent}def {name}(*a, **k): return _cold({len(cold)})(*a, **k)")
        cold.append((owner if indent else "", name, "\n".join(part[indent:] for part in body)))
    return "\n".join(kept), cold
