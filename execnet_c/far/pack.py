"""Makes the text that far ends are sent out of modules of this package; for text.py, and when the package is built.

Over there, where the same version of this package with its C core is importable, that serves, and the rest of the text
is dropped.

Compiling costs more than starting an interpreter does. So modules travel as code objects where this very Python's are
understood over there; and functions that are not `HOT` travel as source in any case, behind the rest, which is
unpacked with the first call of one of them, and compiled one by one: most of them never are.
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
from .sent import CODED, FIRST, HOT, MADE_UP, NEAR, file_name, module_source

MAX_SIZE = 24 * 1024  # bytes, of what the first task needs

# Looked for by name first: a failing import has every directory read.
_LOADER = """
def load(rest, pieces, codes):
    if any(os.path.isfile(q) or os.path.exists(os.path.join(q, "execnet_c")) for q in sys.path) or (
        "execnet_c" in repr(sys.meta_path)
    ):
        try:
            from execnet_c import __version__
            if __version__ == {version!r}:
                from execnet_c import _core
                from execnet_c.far.worker import main
                return main
        except Exception:
            pass
    new = type(sys)
    package = sys.modules["_execnet_c"] = new("_execnet_c")
    package.__path__, package.__version__ = [], {version!r}
    cold, number = [], 0
    def later(n, name, scope, owner, f):
        made = {{}}
        def first(*a, **k):
            if not made:
                if not cold:
                    cold.append(rest().decode().split("\\0"))
                exec(compile(cold[0][n], name, "exec", 0, True), scope, made)
                if owner:
                    setattr(scope[owner], f, made[f])
                else:
                    scope[f] = made[f]
            return made[f](*a, **k)
        return first
    pieces = pieces.split("\\1")
    while pieces:
        name, code, names = pieces[:3]
        del pieces[:3]
        module = sys.modules["_execnet_c." + name] = new("_execnet_c." + name)
        setattr(package, name, module)
        scope = module.__dict__
        scope["__package__"] = "_execnet_c"
        name = "<execnet_c " + name + ">"
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
        exec(compile(code, name, "exec", 0, True) if code else codes.pop(0), scope)
        for owner, f, stub in methods:
            setattr(scope[owner], f, stub)
    return module.main
"""


def write(directory):
    """Have it ready in `directory`, as code objects and as source."""
    for as_code in (False, True):
        with open(os.path.join(directory, file_name(as_code)), "wb") as file:
            file.write(pack(as_code))


def pack(as_code):
    """The text without its head (see text.py): two streams of zlib, of what the first task needs and of the cold
    functions."""
    sources, names, cold = [], [], []
    for name in FIRST:
        source = MADE_UP.get(name) or module_source(name)
        if name == "mainthread" and as_code and sys.version_info >= (3, 13):
            source = ""  # it does nothing there
        source, called, functions = _split(name, _without_words(source))
        sources.append(source)
        names.append(" ".join(called))
        cold += functions
    cold = _compress("\0".join(cold).encode())
    loader = _LOADER.format(version=__version__)

    def text(coded):
        pieces, codes = [], []
        for name, source, called in zip(FIRST, sources, names):
            pieces += name, "" if name in coded else source or "0", called
            if name in coded:
                codes.append(_code(name, source))
        pieces = "\1".join(pieces)
        if as_code:
            data = marshal_dumps([pieces, _code("loader", loader), codes])
        else:
            data = marshal_dumps([pieces, loader, codes], 2)  # what every Python 3 reads
        return _compress(data)

    coded = []
    for name in CODED if as_code else ():
        if len(text([*coded, name])) <= MAX_SIZE:
            coded.append(name)
    return text(coded) + cold


def _compress(data):
    def compressed(memory):  # how long the blocks are; which length is best differs by a percent or two
        deflate = compressobj(9, DEFLATED, 15, memory)
        return deflate.compress(data) + deflate.flush()

    return min(map(compressed, (6, 7, 8)), key=len)


def _code(name, source):
    return _bare(compile(source, f"<execnet_c {name}>", "exec", 0, True, 2))


def _bare(code):
    """Without the table of its line numbers, a third of it, and names that only who reads it would use."""
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
        # Tracebacks look up each instruction. The entries say, for eight code units each, that there is no line: one
        # table for all, it may be longer than the code.
        assert len(code.co_code) <= 16 * len(_NO_LINES)
        less.update(co_linetable=_NO_LINES, co_qualname=code.co_name)
    return code.replace(**less)


_NO_LINES = b"\xff" * 512


def _without_words(source):
    """The same code, one line a statement, without docstrings, comments and needless spaces."""
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
        if name == "FSTRING_START":  # from Python 3.12 on: what is inside are tokens, too
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
    """A module's source without its cold functions; their names, that of a class, behind a colon, before its own; and
    their sources."""
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
