"""Execution models by their names. This text also travels to far ends that have no package."""

from .execmodel import ExecModel


def get_execmodel(backend):
    """The ExecModel of that name; an ExecModel is returned as it is. Raises ValueError for an unknown name."""
    if isinstance(backend, ExecModel):
        return backend
    if backend in ("thread", "main_thread_only"):
        return ExecModel(backend)
    if backend in ("gevent", "eventlet"):
        from .greenlets import MODELS

        return MODELS[backend](backend)
    raise ValueError(f"unknown execmodel {backend!r}; there are 'thread', 'main_thread_only', 'gevent' and 'eventlet'")
