"""Makes `import execnet` import this package, in this process and in every worker that it starts.

Nothing is loaded twice: sys.modules["execnet"] is this package itself, and `execnet.NAME` is its module NAME.

A worker is told by its settings (see bootstrap.py): it runs the source `_START`. A worker without execnet_c is also sent
this file and the modules of `_SENT` and `_REST`. There the package is called _execnet_c, and `import execnet_c` finds it,
too. A module that was sent is compiled when a task first imports it. This file runs on Python 3.8.

Those modules are not all of execnet. If execnet itself is installed at such a far end, `import execnet` finds that one,
as in execnet's own workers: other packages installed there may need parts of it that we do not send.
"""

import sys

_PACKAGE = __package__.partition(".")[0]
_installed = False
_gives_way = False  # execnet itself is installed, and this worker was sent its core: `import execnet` is left alone


class Finder:
    """Finds the package `name` and its modules: exec_module() replaces the new module by ours in sys.modules."""

    def __init__(self, name):
        self._name = name

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] != self._name:
            return None
        from importlib.machinery import ModuleSpec
        from importlib.util import find_spec

        ours = self._ours(name)
        if ours not in sys.modules and find_spec(ours) is None:
            return None
        return ModuleSpec(name, self, is_package=name == self._name)

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        from importlib import import_module

        name = module.__name__
        sys.modules[name] = import_module(self._ours(name))

    def _ours(self, name):
        return _PACKAGE + name[len(self._name) :]


_finder = Finder("execnet")


def install_as_execnet():
    """Make `import execnet`, with all its modules, mean this package, here and in every worker started from now on.

    To be called before anything imports execnet: RuntimeError if the real one was imported already. Calling it again
    does nothing.
    """
    global _installed
    if _gives_way:
        return
    package = sys.modules[_PACKAGE]
    there = sys.modules.get("execnet")
    if there is not None and there is not package:
        if there.__name__ == "_execnet_c":
            return  # a task of a worker that was sent its core calls the function of an installed execnet_c
        raise RuntimeError(
            f"execnet itself has been imported already, from {getattr(there, '__file__', None)}: "
            f"install_as_execnet() has to be called before anything imports execnet"
        )
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)
    sys.modules["execnet"] = package
    _installed = True


# --- what is sent to workers ----------------------------------------------------------------------------------------

_START = """\
alias = module("far.alias")
if package != "execnet_c":
    alias.take(settings["sent"])
alias.install_as_execnet()
"""
_SENT = ("alias", "gateway_base", "pytest_plugin", "registry", "xspec")
_REST = {"pyserializer": "dump dumps load loads _load_versioned"}  # functions that pack.py leaves out of the text
_sent = {}


def to_run():
    """The settings (`start`, `sent`) of a hello; both are empty if install_as_execnet() was not called."""
    if not _installed:
        return "", {}
    if not _sent:
        _collect()
    return _START, _sent


def _collect():
    import re

    from .sent import module_source

    sent = {name: module_source(name) for name in _SENT}
    for name, functions in _REST.items():
        pattern = rf"(?ms)^def (?:{functions.replace(' ', '|')})\(.*?(?=^\S|\Z)"
        sent["rest of " + name] = "".join(re.findall(pattern, module_source(name)))
    _sent.update(sent)


# --- at a far end that was sent this file ---------------------------------------------------------------------------


class _SentFinder:
    """Finds those modules of the package that were sent."""

    def __init__(self, sources):
        self._sources = sources

    def find_spec(self, name, path=None, target=None):
        package, _, name_there = name.partition(".")
        if package != _PACKAGE or name_there not in self._sources:
            return None
        from importlib.machinery import ModuleSpec

        return ModuleSpec(name, self)

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        name = module.__name__.partition(".")[2]
        if name == "gateway_base":
            self._complete()
        self._run(name, module.__dict__)

    def _complete(self):
        """Add the functions of _REST to their modules, and to the core."""
        for name in _REST:
            self._run("rest of " + name, vars(sys.modules[f"{_PACKAGE}.{name}"]))
        core, serializer = (sys.modules[f"{_PACKAGE}.{name}"] for name in ("pycore", "pyserializer"))
        for name in ("dump", "dumps", "load", "loads"):
            setattr(core, name, getattr(serializer, name))

    def _run(self, name, scope):
        import __future__

        flags = __future__.annotations.compiler_flag  # some annotations cannot be evaluated on older Pythons
        exec(compile(self._sources[name], f"<execnet_c {name}>", "exec", flags, True), scope)


_NAMES = "Channel DataFormatError DumpError LoadError RemoteError TimeoutError XSpec dump dumps load loads".split()


def take(sources):
    """Make the package offer the names of _NAMES, and the modules that were sent. Called by _START."""
    global _gives_way
    from importlib.machinery import ModuleSpec

    package = sys.modules[_PACKAGE]
    package.__spec__ = ModuleSpec(_PACKAGE, None, is_package=True)
    package.__all__ = ["__version__", "install_as_execnet", *_NAMES]
    package.__getattr__ = _find_name
    package.install_as_execnet = install_as_execnet
    sys.meta_path[:0] = Finder("execnet_c"), _SentFinder(sources)
    _gives_way = _has_execnet()


def _has_execnet():
    """Whether execnet itself is installed here. A directory of that name without an __init__.py does not count: the
    current directory may have one by chance."""
    for finder in sys.meta_path:
        spec = finder.find_spec("execnet", None) if hasattr(finder, "find_spec") else None
        if spec is not None:
            return spec.has_location
    return False


def _find_name(name):
    from importlib import import_module

    package = sys.modules[_PACKAGE]
    if name in ("gateway_base", "xspec"):
        return import_module(f"{_PACKAGE}.{name}")
    if name not in _NAMES:
        raise AttributeError(
            f"execnet_c has no {name!r} here: it is not installed, and this worker was sent only what tasks need"
        )
    home = import_module(_PACKAGE + (".xspec" if name == "XSpec" else ".gateway_base"))
    value = package.__dict__[name] = getattr(home, name)
    return value
