"""`python -m execnet_c run`: runs a program as Python itself would, but `import execnet` means this package.

The program finds sys.argv, sys.path[0] and `__main__` as Python would set them. Its exit status is that of the process,
and the traceback of an uncaught exception begins in the program, not here.
"""

import builtins
import os
import sys

from ..far.alias import install_as_execnet

USAGE = """\
usage: python -m execnet_c run SCRIPT [ARG...]
       python -m execnet_c run -m MODULE [ARG...]

Runs a program in which `import execnet` means execnet_c, here and in the workers that it starts.
"""


class NoProgram(Exception):
    """There is no such program. Its arguments: why, and Python's exit status in such a case."""


def run(arguments):
    """Run a program with its arguments. Returns an exit status, or raises what the program raises."""
    if arguments[:1] in (["-h"], ["--help"]):
        print(USAGE, end="")
        return 0
    is_module = arguments[:1] == ["-m"]
    words = arguments[is_module:]
    if not words or words[0].startswith("-"):
        print(USAGE, end="", file=sys.stderr)
        return 2
    install_as_execnet()
    try:
        code, scope = (_module if is_module else _script)(words[0])
    except NoProgram as exc:
        why, status = exc.args
        print(f"python -m execnet_c run: {why}", file=sys.stderr)
        return status
    except BaseException:  # the program cannot be compiled, or its package cannot be imported
        _hide_us(None)
        raise
    if is_module:
        words[0] = scope["__file__"]
    sys.argv[:] = words
    main = sys.modules["__main__"] = type(sys)("__main__")
    main.__dict__.update(scope, __builtins__=builtins)
    if sys.version_info < (3, 14):
        main.__annotations__ = {}
    try:
        exec(code, main.__dict__)
    except SystemExit:
        raise
    except BaseException:
        _hide_us(main.__dict__)
        raise
    return 0


def _script(path):
    """(code, globals of its module) of a file; of a directory or an archive: of the `__main__` in it."""
    import io
    from importlib.machinery import PathFinder, SourceFileLoader

    file_name = os.path.abspath(path)
    takes_path = not (sys.flags.isolated or getattr(sys.flags, "safe_path", False))
    spec = PathFinder.find_spec("__main__", [file_name])
    if spec is not None:
        sys.path[:takes_path] = [file_name]
        return _code_and_scope(spec)
    if os.path.isdir(path):
        raise NoProgram(f"there is no __main__.py in {path!r}", 1)
    try:
        with io.open_code(file_name) as file:
            source = file.read()
    except OSError as exc:
        raise NoProgram(f"can't open {path!r}: {exc.strerror}", 2) from None
    if takes_path:
        sys.path[0] = os.path.dirname(os.path.realpath(path))
    scope = {"__file__": file_name, "__loader__": SourceFileLoader("__main__", file_name), "__package__": None}
    return compile(source, file_name, "exec", 0, True), {**scope, "__spec__": None, "__cached__": None}


def _module(name):
    """(code, globals of its module) of what `python -m name` runs."""
    from importlib.util import find_spec

    try:
        spec = find_spec(name)
        if spec is not None and spec.submodule_search_locations is not None:
            name += ".__main__"
            spec = find_spec(name)
    except ModuleNotFoundError as exc:
        if exc.name is None or not (name + ".").startswith(exc.name + "."):
            raise  # the package is there, but imports a module that is not
        spec = None
    if spec is None:
        raise NoProgram(f"no module named {name!r}", 1)
    return _code_and_scope(spec)


def _code_and_scope(spec):
    code = spec.loader.get_code(spec.name) if hasattr(spec.loader, "get_code") else None
    if code is None:
        raise NoProgram(f"module {spec.name!r} has no Python code", 1)
    scope = {"__file__": spec.origin, "__loader__": spec.loader, "__package__": spec.parent, "__spec__": spec}
    return code, {**scope, "__cached__": spec.cached}


def _hide_us(scope):
    """Have sys.excepthook leave out the frames in front of the program's first one, whose globals are `scope`; None: all."""
    show = sys.excepthook  # the program may have set its own

    def excepthook(kind, value, tb):
        while tb is not None and tb.tb_frame.f_globals is not scope:
            tb = tb.tb_next
        show(kind, value.with_traceback(tb), tb)

    sys.excepthook = excepthook
