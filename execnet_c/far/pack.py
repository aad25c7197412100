"""Makes the text that is sent to far ends (see text.py) from modules of this package; also called by the package's build.

If the far end can import the same version of this package with its C core, it uses that and drops the rest of the text.

To compile all modules would take longer than to start the interpreter. So modules are sent as code objects if the far
end understands those of this Python. Functions that are not in `HOT`, the *cold* ones, are always sent as source, in a
second part of the text. It is decompressed when the first of them is called; each one is compiled when it is called
itself, and most never are. The modules in `LATE` are in that part, too, and are loaded when something of them is used.
"""

import ast
import io
import os
import re
import sys
import tokenize
from marshal import dumps as marshal_dumps
from types import CodeType
from zlib import DEFLATED, compressobj

from .. import __version__
from .sent import CODED, FIRST, HOT, LATE, MADE_UP, NEAR, file_name, module_source

MAX_SIZE = 24 * 1024  # bytes of the first part of the text, which the first task needs

# This is run at the far end. It first looks for execnet_c by its name in sys.path: an import that fails would have
# Python read every directory there. later() makes the function that stands for cold function `n` until it is called. Cold is
# the class of a cold module until it is loaded. The modules themselves are compiled by exec(), which knows no file name but
# is faster than the first compile() of an interpreter, see compiled() in twin/pytasks.py.
_LOADER = """
def load(rest, pieces, codes):
    from _thread import RLock
    if any(os.path.isfile(q) or os.path.exists(os.path.join(q, "execnet_c")) for q in sys.path) or (
        "execnet_c" in repr(sys.meta_path)
    ):
        try:
            from execnet_c import __version__
            if __version__ == {version!r}:
                from execnet_c import _core
                from execnet_c.worker import main
                return main
        except Exception:
            pass
    new = type(sys)
    package = sys.modules["_execnet_c"] = new("_execnet_c")
    package.__path__, package.__version__ = [], {version!r}
    cold, number, lock = [], 0, RLock()
    def piece(n, name):
        if not cold:
            cold.append(rest().decode().split("\\0"))
        return compile(cold[0][n], name, "exec", 0, True)
    def later(n, name, scope, owner, f):
        made = {{}}
        def first(*a, **k):
            if not made:
                exec(piece(n, name), scope, made)
                if owner:
                    setattr(scope[owner], f, made[f])
                else:
                    scope[f] = made[f]
            return made[f](*a, **k)
        return first
    class Cold(new):
        def __getattr__(self, name):
            with lock:
                if type(self) is Cold:
                    exec(piece(*self.piece), self.__dict__)
                    self.__class__ = new
            return getattr(self, name)
    pieces = pieces.split("\\1")
    while pieces:
        name, code, names = pieces[:3]
        del pieces[:3]
        module = sys.modules["_execnet_c." + name] = new("_execnet_c." + name)
        setattr(package, name, module)
        scope = module.__dict__
        scope["__package__"] = "_execnet_c"
        name = "<execnet_c " + name + ">"
        if names == "*":
            module.piece, module.__class__ = (number, name), Cold
            number += 1
            continue
        owner, methods = "", []
        for f in names.split():
            if f[0] == ":":
                owner = f[1:]
                continue
            stub = later(number, name, scope, owner, f)
            number += 1
            if owner:
                methods.append((owner, f, stub))
            else:
                scope[f] = stub
        exec(code or codes.pop(0), scope)
        for owner, f, stub in methods:
            setattr(scope[owner], f, stub)
    return module.main
"""


def write(directory):
    """Write both texts, as code objects and as source, to files in `directory`."""
    for as_code in (False, True):
        with open(os.path.join(directory, file_name(as_code)), "wb") as file:
            file.write(pack(as_code))


def pack(as_code):
    """The text without its head (see text.py): two zlib streams, first what the first task needs, then the cold
    functions."""
    sources, names, cold = [], [], []
    for name in LATE:
        cold.append(_without_words(module_source(name)))
    for name in FIRST:
        source = MADE_UP.get(name) or module_source(name)
        if name == "mainthread" and as_code and sys.version_info >= (3, 13):
            source = ""  # that module does nothing on Python 3.13 and newer
        source, called, functions = _split(name, _without_words(source))
        sources.append(source)
        names.append(" ".join(called))
        cold += functions
    cold = _compress("\0".join(cold).encode())
    loader = _LOADER.format(version=__version__)

    def text(coded):
        pieces, codes = [part for name in LATE for part in (name, "", "*")], []
        for name, source, called in zip(FIRST, sources, names):
            pieces += name, "" if name in coded else source or "0", called
            if name in coded:
                codes.append(_code(name, source))
        pieces = "\1".join(pieces)
        if as_code:
            data = marshal_dumps([pieces, _code("loader", loader), codes])
        else:
            data = marshal_dumps([pieces, loader, codes], 2)  # the format that every Python 3 reads
        return _compress(data)

    coded = []
    for name in CODED if as_code else ():
        if len(text([*coded, name])) <= MAX_SIZE:
            coded.append(name)
    return text(coded) + cold


def _compress(data):
    def compressed(memory):  # `memory` sets the length of blocks; which is best depends on the data, by one or two percent
        deflate = compressobj(9, DEFLATED, 15, memory)
        return deflate.compress(data) + deflate.flush()

    return min(map(compressed, (6, 7, 8)), key=len)


def _code(name, source):
    return _bare(compile(source, f"<execnet_c {name}>", "exec", 0, True, 2))


def _bare(code):
    """The code object without its table of line numbers, which is a third of its size, and with short names for local
    variables."""
    arguments = code.co_argcount + code.co_kwonlyargcount + (code.co_flags & 4) // 4 + (code.co_flags & 8) // 8
    names = code.co_varnames
    less = {
        "co_consts": tuple(_bare(const) if isinstance(const, CodeType) else const for const in code.co_consts),
        "co_filename": "<execnet_c>",
        "co_firstlineno": 1,
        "co_linetable": b"",
    }
    if not {*names} & {*code.co_cellvars}:
        less["co_varnames"] = names[:arguments] + tuple(f"_{n}" for n in range(len(names) - arguments))
    if sys.version_info >= (3, 11):
        # Tracebacks look up each instruction in the table, and trace functions have it unpacked: it must be as long as the
        # code. An entry says that 1 to 8 code units have no line: 0xf8 to 0xff.
        units = len(code.co_code) // 2
        table = b"\xff" * (units // 8) + bytes([0xF7 + units % 8] if units % 8 else [])
        less.update(co_linetable=table, co_qualname=code.co_name)
    return code.replace(**less)


def _without_words(source):
    """The same source with one line for each statement, without docstrings, comments and needless spaces."""
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node):
            doc = node.body[0]
            for n in range(doc.lineno - 1, doc.end_lineno):
                lines[n] = ""
            if len(node.body) == 1:
                lines[n] = " " * doc.col_offset + "0"
    source = "\n".join(lines) + "\n"
    written, before, depth, opened = [], "\n", 0, []
    for kind, text, start, end, _ in tokenize.generate_tokens(io.StringIO(source).readline):
        name = tokenize.tok_name[kind]
        depth += (name == "INDENT") - (name == "DEDENT")
        if name == "FSTRING_START":  # since Python 3.12 the inside of an f-string is several tokens: take all as one text
            opened.append(start)
        elif name == "FSTRING_END":
            line, column = opened.pop()
            text = lines[line - 1][column : end[1]]
        if opened or name in ("INDENT", "DEDENT", "COMMENT", "NL", "ENDMARKER"):
            continue
        if before == "\n":
            written.append(" " * depth)
        elif re.match(r"\w\w", before[-1] + text):
            written.append(" ")
        before = "\n" if name == "NEWLINE" else text
        written.append(before)
    return "".join(written)


def _split(module, source):
    """Split the source of `module`. Returns the source without its cold functions; the names of the cold functions, where
    ":" and the name of a class (":" alone: the module) stand before its methods; and the sources of the cold functions."""
    hot, near = (functions.get(module, "").split() for functions in (HOT, NEAR))
    kept, names, cold, owner = [], [], [], ""
    lines = source.split("\n")
    while lines:
        line = lines.pop(0)
        if line[:1] != " ":
            found = re.match(r"class (\w+)", line)
            if owner or found:
                owner = found[1] if found else ""
                names.append(":" + owner)
        found = re.match(r"( ?)def (\w+)\(", line)
        if not found or "".join(kept[-1:]).strip()[:1] == "@":
            kept.append(line)
            continue
        body = [line]
        while lines and lines[0].startswith(found[1] + " "):
            body.append(lines.pop(0))
        name = f"{owner}.{found[2]}" if owner else found[2]
        if name in hot or found[2] in ("__new__", "__del__") or "super()" in "".join(body):
            kept += body
        elif name not in near:
            names.append(found[2])
            cold.append("\n".join(part[len(found[1]) :] for part in body))
    return re.sub(r"(?m)^(class .*:)\n(?! )", r"\1\n 0\n", "\n".join(kept)), names, cold
