"""How a function travels to the workers: by reference where a worker can import it; else by source, under remote_exec's
rules; else by cloudpickle.

A *way* is (its name, what the worker needs for it...), see remote.py. They are tried in this order at each worker.
"""

import pickle
import sys
import types

from ..near.source import source_of_plain


def needs_cloudpickle():
    return "it goes by cloudpickle then, which is not installed: pip install 'execnet_c[pool]'"


class Ways:
    """The ways for one function. Raises TypeError or ValueError here if there is none. Each is made when it is needed."""

    def __init__(self, func, what):
        if not callable(func):
            raise TypeError(f"{what} must be callable, not {type(func).__name__}")
        self.func, self.what = func, what
        self.why = []  # why the ways did not work here
        self._makers = [self._by_reference, self._by_source, self._by_value]
        self._made = []
        if not self.number(0):
            why = "; ".join(self.why)
            raise TypeError(f"{what} {self.name()} cannot be sent to a worker: {why}{culprit(func)}")

    def name(self):
        return getattr(self.func, "__qualname__", None) or repr(self.func)

    def number(self, n):
        """The n-th way that works here; None if there are no more."""
        while len(self._made) <= n and self._makers:
            try:
                way = self._makers.pop(0)()
            except Exception as exc:
                self.why.append(f"{exc}")
            else:
                self._made.append(way)
        return self._made[n] if n < len(self._made) else None

    def _by_reference(self):
        data = pickle.dumps(self.func, 5)
        if b"__main__" in data:
            raise ValueError("no worker can import it from __main__")
        return "reference", data

    def _by_source(self):
        if not isinstance(self.func, types.FunctionType):
            raise ValueError("it is no plain function, whose source could go")
        return ("source", *source_of_plain(self.func))

    def _by_value(self):
        try:
            import cloudpickle.cloudpickle as by_value
        except ImportError:
            raise ValueError(needs_cloudpickle()) from None
        module = sys.modules.get(getattr(self.func, "__module__", None))
        listed = module is not None and module.__name__ != "__main__" and module.__name__ not in by_value.list_registry_pickle_by_value()
        if listed:  # it is by value because a worker lacks the module
            by_value.register_pickle_by_value(module)
        try:
            data = by_value.dumps(self.func, 5)
        finally:
            if listed:
                by_value.unregister_pickle_by_value(module)
        with open(by_value.__file__, encoding="utf-8") as file:
            return "value", data, tuple(sys.version_info[:2]), file.read()


def culprit(func):
    """For an error: the part of a function that cannot be pickled."""
    try:
        from cloudpickle import dumps
    except ImportError:
        from pickle import dumps
    for name, part in _parts(func):
        try:
            dumps(part)
        except Exception as exc:
            return f"; what cannot go is {name}, a {type(part).__name__} ({exc})"
    return ""


def _parts(func):
    """(what it is called, object) for what a callable takes along."""
    if isinstance(func, types.FunctionType):
        for name, cell in zip(func.__code__.co_freevars, func.__closure__ or ()):
            try:
                yield f"its variable {name!r}", cell.cell_contents
            except ValueError:
                pass  # the cell is empty
        for name in func.__code__.co_names:
            if name in func.__globals__:
                yield f"the global {name!r}", func.__globals__[name]
        for name, value in [*zip(("a default",) * 99, func.__defaults__ or ()), *(func.__kwdefaults__ or {}).items()]:
            yield name, value
    elif hasattr(func, "__self__"):
        yield "the object that it is a method of", func.__self__
    elif hasattr(func, "func") and hasattr(func, "keywords"):
        yield "the function of the partial", func.func
        for value in [*func.args, *func.keywords.values()]:
            yield "an argument of the partial", value
    else:
        yield from ((f"its attribute {name!r}", value) for name, value in getattr(func, "__dict__", {}).items())
