"""The pool: any function over a stream of any objects, in the workers of gateways. Its public names, loaded when they are used."""

_HOMES = {"GatewayPoolExecutor": "executor", "ItemTimeout": "failures", "Pipe": "stream", "APipe": "astream", "apipe": "astream", "pipe": "stream"}

__all__ = [*_HOMES]


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module("." + _HOMES[name], __name__), name)
    return value
