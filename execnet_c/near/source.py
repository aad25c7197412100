"""What `remote_exec` sends for a task: its source text, where that came from, and what to call.

Importing this file must cost nothing, and a task that is a string must stay cheap: `inspect`, `ast`
and `symtable` are imported only for functions and modules.

Whether a function can run at the far end is decided here, by its source text alone, so that the
answer is the same on every Python version. Errors that execnet raises, too, have execnet's texts.
"""

_ACCEPTED = (
    "remote_exec() takes a string of source code, a module, or a plain function "
    "whose first argument is `channel`"
)

# Flags of a code object (`inspect` has names for them).
_GENERATOR = 0x20
_COROUTINE = 0x80 | 0x100
_ASYNC_GENERATOR = 0x200
_FUTURE_ANNOTATIONS = 0x1000000

# Global names that every task has, beside the builtins.
_GIVEN = frozenset(["channel", "__name__", "__builtins__"])


def source_of(task: object) -> tuple[str, str | None, str | None]:
    """Return (source text, file name or None, name of the function to call or None).

    - A string is dedented.
    - A module gives the text that its file holds now.
    - A function gives its own text, below as many newlines as stand above it in its file: line
      numbers in a traceback are those of the file. Where its module has
      ``from __future__ import annotations``, the text starts with that line, and annotations are as
      little evaluated at the far end as they are here.

    TypeError for anything else. That includes callables that are no plain functions (they have no
    source that the far end could call), and generator, ``async`` and async generator functions:
    calling one runs none of its body, so at the far end nothing would ever happen.
    ValueError for a function that could not work at the far end, or whose source is not to be found.
    """
    if isinstance(task, str):
        return _dedent(str(task)), None, None

    import types

    if isinstance(task, types.ModuleType):
        return _source_of_module(task)
    if isinstance(task, types.FunctionType):
        return _source_of_function(task)
    raise TypeError(f"{_ACCEPTED}; {_advice(task, types)}: {task!r}")


def _advice(task: object, types: object) -> str:
    import functools

    if isinstance(task, (bytes, bytearray, memoryview)):
        return f"decode this {type(task).__name__} first"
    if isinstance(task, functools.partial):
        return "pass the arguments of this partial as keyword arguments of remote_exec() instead"
    if isinstance(task, types.MethodType):
        return "this is a method, and its object does not travel"
    if isinstance(task, (types.BuiltinFunctionType, types.MethodDescriptorType)):
        return "this is a builtin and has no source"
    if isinstance(task, type):
        return "this is a class"
    if callable(task):
        return f"this is a callable {type(task).__name__} object"
    return f"this is of type {type(task).__name__}"


def _dedent(text: str) -> str:
    """As `textwrap.dedent` of Python 3.14, without that import. That of older Pythons takes a line of blanks and a
    carriage return for a line with text."""
    lines = text.split("\n")
    margin = None
    for i, line in enumerate(lines):
        body = line.lstrip(" \t")
        if not body or body.isspace():
            lines[i] = ""
            continue
        indent = line[: len(line) - len(body)]
        if margin is None:
            margin = indent
        while not indent.startswith(margin):
            margin = margin[:-1]
    if margin:
        lines = [line[len(margin) :] for line in lines]
    return "\n".join(lines)


def _source_of_module(module) -> tuple[str, str | None, None]:
    import inspect
    import linecache

    try:
        file_name = inspect.getsourcefile(module)
    except TypeError as exc:  # built in, or a namespace package
        raise ValueError(f"can't find source file for {module}: {exc}") from None
    if file_name is None:
        raise ValueError(f"can't find source file for {module}: it was not loaded from Python source")
    # Read anew: the cache may hold the file as it was before an edit.
    lines = linecache.updatecache(file_name, module.__dict__)
    if not lines and not _is_empty_file(file_name):
        raise ValueError(f"can't find source file for {module}: cannot read {file_name}")
    return "".join(lines), file_name, None


def _is_empty_file(file_name: str) -> bool:
    import os

    try:
        return os.path.getsize(file_name) == 0
    except OSError:
        return False


def _source_of_function(function) -> tuple[str, str | None, str]:
    code = function.__code__
    if "<lambda>" in (function.__name__, code.co_name):
        raise ValueError("can't evaluate lambda functions: write `def task(channel): ...`, or pass a string")
    if code.co_varnames[: code.co_argcount][:1] != ("channel",):
        raise ValueError("expected first function argument to be `channel`")
    return source_of_plain(function)


def source_of_plain(function) -> tuple[str, str | None, str]:
    """The same for a plain function with any arguments."""
    code = function.__code__
    if function.__closure__ is not None:
        captured = ", ".join(code.co_freevars)
        raise ValueError(f"functions with closures can't be passed: have {captured} as keyword arguments instead")
    _refuse_unrunnable(function, code.co_flags)

    import ast
    import inspect

    text = _text_of_function(function, inspect)
    tree, text, above = _parse_alone(text, code.co_firstlineno - 1, ast)
    if not _defines(tree, code, ast):
        raise ValueError(
            f"can't find source file for {function}: {code.co_filename} does not hold it at line "
            f"{code.co_firstlineno} (has the file changed since it was imported?)"
        )
    if code.co_flags & _FUTURE_ANNOTATIONS and above.startswith("\n"):
        above = "from __future__ import annotations" + above
    names = globals_of(above + text)
    if names:
        raise ValueError(f"the use of non-builtin globals isn't supported: {_instead(names, function.__globals__)}")
    return above + text, inspect.getsourcefile(function), code.co_name


def _instead(names, scope) -> str:
    """For an error text: the names, and what to do about them. scope: the globals of the function."""
    it = "it" if len(names) == 1 else "them"
    advice = f"import {it} inside the function"
    if any(name in scope and type(scope[name]).__name__ != "module" for name in names):
        advice = f"import or make {it} inside the function, or pass {it} to remote_exec() by keyword"
    return f"{', '.join(names)} ({advice})"


def _refuse_unrunnable(function, flags: int) -> None:
    if flags & _ASYNC_GENERATOR:
        kind = "an async generator function"
    elif flags & _COROUTINE:
        kind = "an async function"
    elif flags & _GENERATOR:
        kind = "a generator function"
    else:
        return
    raise TypeError(
        f"{function} is {kind}: a call of it at the far end would run none of its body; "
        "pass a plain function that does the work (and sends what it has to say through `channel`)"
    )


def _text_of_function(function, inspect) -> str:
    """The lines of the file from the function's first one to its last, undedented."""
    import tokenize

    code = function.__code__
    try:
        # Not inspect.getsource: before 3.13 it searches the lines above if the `def` is not in the expected line.
        lines, _ = inspect.findsource(code)
        return "".join(inspect.getblock(lines[code.co_firstlineno - 1 :]))
    except (OSError, SyntaxError, IndexError, tokenize.TokenError) as exc:
        name = code.co_filename
        why = f"it was typed or made of a text ({name})" if name[:1] == "<" else f"{name} is not there or has changed"
        raise ValueError(f"can't find source file for {function}: {why}; pass a string with its text instead") from exc


def _parse_alone(text: str, lines_above: int, ast):
    """Bring a piece of a file into a form that compiles alone; return (tree or None, text, text above).

    Removing the margin is not always possible: a string or a comment may reach further left than
    the code. Then the code stays where it is, below an ``if`` in the line above it.
    """
    dedented = _dedent(text)
    try:
        return ast.parse(dedented), dedented, "\n" * lines_above
    except (SyntaxError, ValueError):
        pass
    if lines_above and text[:1] in (" ", "\t"):
        above = "\n" * (lines_above - 1) + "if 1:\n"
        try:
            tree = ast.parse("if 1:\n" + text)
        except (SyntaxError, ValueError):
            pass
        else:
            tree.body = tree.body[0].body + tree.body[1:]
            return ast.increment_lineno(tree, -1), text, above
    return None, dedented, "\n" * lines_above


def _defines(tree, code, ast) -> bool:
    """Whether the tree is one definition, from its first line on, with the code object's name and arguments."""
    if tree is None or len(tree.body) != 1 or not isinstance(tree.body[0], ast.FunctionDef):
        return False
    task = tree.body[0]
    found = [arg.arg for arg in task.args.posonlyargs + task.args.args + task.args.kwonlyargs]
    count = code.co_argcount + code.co_kwonlyargcount
    first_line = min(node.lineno for node in [task, *task.decorator_list])
    return task.name == code.co_name and tuple(found) == code.co_varnames[:count] and first_line == 1


def globals_of(text: str) -> list[str]:
    """The names, sorted, that the text looks up as globals, does not bind itself, and does not find at the far end."""
    import ast
    import builtins
    import symtable

    used, bound = set(), set()
    tables = [symtable.symtable(_without_local_annotations(text, ast), "<task>", "exec")]
    while tables:
        table = tables.pop()
        tables += table.get_children()
        for symbol in table.get_symbols():
            name = symbol.get_name()
            if not symbol.is_global() or not name.isidentifier():
                continue
            if symbol.is_referenced():
                used.add(name)
            if symbol.is_assigned() or symbol.is_imported():
                bound.add(name)
    return sorted(used - bound - _GIVEN - set(dir(builtins)))


def _without_local_annotations(text: str, ast) -> str:
    """The text with `0` for each annotation of a local variable: those are never evaluated."""
    spots = []
    nodes = [(ast.parse(text), False)]
    while nodes:
        node, is_local = nodes.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            # Only the body is a scope of its own; decorators and arguments need no look.
            inside = not isinstance(node, ast.ClassDef)
            nodes += [(child, inside) for child in node.body]
            continue
        if isinstance(node, ast.AnnAssign) and is_local:
            spots.append(node.annotation)
        nodes += [(child, is_local) for child in ast.iter_child_nodes(node)]
    if not spots:
        return text

    data = text.encode()
    starts = [0]
    for line in data.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    for spot in sorted(spots, key=lambda spot: (spot.lineno, spot.col_offset), reverse=True):
        start = starts[spot.lineno - 1] + spot.col_offset
        end = starts[spot.end_lineno - 1] + spot.end_col_offset
        data = data[:start] + b"0" + data[end:]
    return data.decode()
