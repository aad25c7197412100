"""Makes the text that is sent to far ends (see text.py) from modules of this package; also called by the package's build.

If the far end can import the same version of this package with its C core, it uses that and drops the rest of the text.

To compile all modules would take longer than to start the interpreter. So modules are sent as code objects if the far
end understands those of this Python. Functions that are not in `HOT`, the *cold* ones, are always sent as source, in a
second part of the text. It is decompressed when the first of them is called; each one is compiled when it is called
itself, and most never are. The modules in `LATE` are in that part, too, and are loaded when something of them is used.
Imports and constants are not compiled either: the loader makes them from lists.
"""

import ast
import io
import os
import re
import sys
import tokenize
from itertools import takewhile
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
def load(rest, modules):
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
    cold, numbers, lock = [], iter(range(999)), RLock()
    def piece(n, module):
        if not cold:
            cold.append(rest().decode().split("\\0"))
        return compile(cold[0][n], "<execnet_c " + module.__name__[11:] + ">", "exec", 0, True)
    def later(n, module, home, f):
        made = {{}}
        def first(*a, **k):
            if not made:
                exec(piece(n, module), module.__dict__, made)
                setattr(home, f, made[f])
            return made[f](*a, **k)
        return first
    def fill(module, home, names, values):
        for f in names.split():
            setattr(home, f, later(next(numbers), module, home, f))
        for f in values:
            setattr(home, f, values[f])
    class Cold(new):
        def __getattr__(self, name):
            with lock:
                if type(self) is Cold:
                    exec(piece(self.piece, self), self.__dict__)
                    self.__class__ = new
            return getattr(self, name)
    for name, code, imports, given in modules:
        module = sys.modules["_execnet_c." + name] = new("_execnet_c." + name)
        setattr(package, name, module)
        module.__package__ = "_execnet_c"
        if not given:
            module.piece, module.__class__ = next(numbers), Cold
            continue
        for line in imports:
            home, *names = line.split()
            home = sys.modules.get(home) or __import__(home)
            for f in names:
                setattr(module, f, getattr(home, f))
        for owner, names, values in given:
            fill(module, getattr(module, owner) if owner else module, names, values)
            if not owner:
                exec(code, module.__dict__)
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
    modules, cold = [(name, "", (), ()) for name in LATE], [_without_words(module_source(name)) for name in LATE]
    for name in FIRST:
        source = MADE_UP.get(name) or module_source(name)
        if name == "mainthread" and as_code and sys.version_info >= (3, 13):
            source = ""  # that module does nothing on Python 3.13 and newer
        *module, functions = _split(name, _without_words(source))
        modules.append((name, *module))
        cold += functions
    cold = _compress("\0".join(cold).encode())
    loader = _LOADER.format(version=__version__)

    def text(coded):
        if not as_code:
            return _compress(marshal_dumps([modules, loader], 2))  # the format that every Python 3 reads
        those = [(name, _code(name, source) if name in coded else source, *rest) for name, source, *rest in modules]
        return _compress(marshal_dumps([those, _code("loader", loader)]))

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
    """The same source with one line for each statement, without docstrings, comments and needless spaces. A block of simple
    statements stands in the line of its head: older parsers take as long for the end of a block as for a statement."""
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node):
            doc = node.body[0]
            for n in range(doc.lineno - 1, doc.end_lineno):
                lines[n] = ""
            if len(node.body) == 1:
                lines[n] = " " * doc.col_offset + "0"
    source = "\n".join(lines) + "\n"
    statements, before, depth, opened = [], "\n", 0, []
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
            statements.append((depth, ""))
        elif re.match(r"\w\w", before[-1] + text):
            text = " " + text
        before = "\n" if name == "NEWLINE" else text
        statements[-1] = depth, statements[-1][1] + text.strip("\n")
    written = ""
    while statements:
        depth, text = statements.pop(0)
        block = [*takewhile(lambda statement: statement[0] > depth, statements)]
        if len({inner for inner, _ in block}) == 1 and not text.startswith("class"):
            text += ";".join([simple for _, simple in block])
            del statements[: len(block)]
        written += " " * depth + text + "\n"
    return written


def _split(module, source):
    """Take out of the source of `module` what a far end need not compile at once. Returns the rest; the imports, each as
    "module name name"; (owner, names of its cold functions, constants) for the module itself, whose name is "" there, and
    for its classes; and the sources of the cold functions."""
    hot, near = (functions.get(module, "").split() for functions in (HOT, NEAR))
    kept, imports, owner = [], [], ""
    parts = {"": ([], {}, [])}
    lines = source.split("\n")
    while lines:
        line = lines.pop(0)
        if line[:1] != " ":
            found = re.match(r"class (\w+)", line)
            owner = found[1] if found else ""
            parts.setdefault(owner, ([], {}, []))
        found = re.match(r"from ?(\.?)(\w*) ?import ?\(?([\w,]+)\)?$", line)
        if found:
            home = f"_execnet_c.{found[2]}".rstrip(".") if found[1] else found[2]
            imports.append(" ".join([home, *found[3].strip(",").split(",")]))
            continue
        names, constants, cold = parts[owner]
        found = re.match(r"( ?)def (\w+)\(", line)
        if not found or "".join(kept[-1:]).strip()[:1] == "@":
            in_block = not line[: 1 + bool(owner)].strip()
            values = {} if in_block else _constants(line)
            constants.update(values)
            kept += [line] * (not values)
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
    source = re.sub(r"(?m)^(class .*:)\n(?! )", r"\1\n 0\n", "\n".join(kept))
    given = [(owner, " ".join(names), constants) for owner, (names, constants, _) in parts.items()]
    return source, imports, given, [source for _, _, cold in parts.values() for source in cold]


def _constants(line):
    """What a line assigns, as a dict, if that takes no name but those of some builtins."""
    found = {}
    try:
        exec(line.strip(), {"__builtins__": {"dict": dict, "range": range}}, found)
        marshal_dumps(found)
    except Exception:
        return {}
    return {} if "__module__" in found else found
