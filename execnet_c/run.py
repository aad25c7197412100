"""What `python -m execnet_c run` does: runs a program as Python itself would, `import execnet` meaning this package.

The program finds sys.argv, sys.path[0] and `__main__` as without us, its exit status is the process's, and the
traceback of what it does not catch begins with its own first line.
"""

import os
import sys

from .alias import install_as_execnet

USAGE = """\
usage: python -m execnet_c run SCRIPT [ARG...]
       python -m execnet_c run -m MODULE [ARG...]

Runs a program in which `import execnet` means execnet_c, here and in the workers that it starts.
"""


class NoProgram(Exception):
    """There is nothing to run. The text says why."""


def run(arguments):
    """Run a program with its arguments. Returns an exit status only where there is no such program."""
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
        print(f"python -m execnet_c run: {exc}", file=sys.stderr)
        return 2
    except BaseException:  # it cannot be compiled, or the package that it is in cannot be imported
        _hide_us(None)
        raise
    if is_module:
        words[0] = scope["__file__"]
    sys.argv[:] = words
    main = sys.modules["__main__"] = type(sys)("__main__")
    main.__dict__.update(scope, __builtins__=__builtins__)
    try:
        exec(code, main.__dict__)
    except SystemExit:
        raise
    except BaseException:
        _hide_us(main.__dict__)
        raise
    return 0


def _script(path):
    """(code, what its module has) of a file."""
    import io
    from importlib.machinery import SourceFileLoader

    try:
        with io.open_code(os.path.abspath(path)) as file:
            source = file.read()
    except OSError as exc:
        raise NoProgram(f"can't open {path!r}: {exc.strerror}") from None
    if not (sys.flags.isolated or getattr(sys.flags, "safe_path", False)):
        sys.path[0] = os.path.dirname(os.path.realpath(path))
    file_name = os.path.abspath(path)
    scope = {"__file__": file_name, "__loader__": SourceFileLoader("__main__", file_name), "__package__": None}
    return compile(source, file_name, "exec", 0, True), {**scope, "__spec__": None, "__cached__": None}


def _module(name):
    """(code, what its module has) of what `python -m name` runs."""
    from importlib.util import find_spec

    try:
        spec = find_spec(name)
        if spec is not None and spec.submodule_search_locations is not None:
            name += ".__main__"
            spec = find_spec(name)
    except ModuleNotFoundError as exc:
        if exc.name is None or not (name + ".").startswith(exc.name + "."):
            raise  # it is there, and imports something that is not
        spec = None
    if spec is None:
        raise NoProgram(f"no module named {name!r}")
    code = spec.loader.get_code(spec.name) if hasattr(spec.loader, "get_code") else None
    if code is None:
        raise NoProgram(f"module {name!r} has no Python code")
    scope = {"__file__": spec.origin, "__loader__": spec.loader, "__package__": spec.parent, "__spec__": spec}
    return code, {**scope, "__cached__": spec.cached}


def _hide_us(scope):
    """Have the traceback of what is raised now begin where the program does, by its globals."""
    show = sys.excepthook  # the program may have set its own

    def excepthook(kind, value, tb):
        while tb is not None and tb.tb_frame.f_globals is not scope:
            tb = tb.tb_next
        show(kind, value.with_traceback(tb), tb)

    sys.excepthook = excepthook
