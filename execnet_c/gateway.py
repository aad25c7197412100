"""execnet's module gateway: those of its names that programs use. Gateways themselves are in near/gateway.py."""

from .near.gateway import Gateway, GatewayExited, RemoteStatus, RInfo  # noqa: F401
from .near.source import globals_of, source_of


def rinfo_source(channel):
    """A task that sends facts about the far end, for programs that run it. Gateway._rinfo() needs no task."""
    import os
    import sys

    facts = {"executable": sys.executable, "version_info": sys.version_info[:5], "platform": sys.platform}
    channel.send({**facts, "cwd": os.getcwd(), "pid": os.getpid()})


def _source_of_function(function):
    """The text that remote_exec() sends for a function. Raises what remote_exec() would raise."""
    return source_of(function)[0]


def _find_non_builtin_globals(source, codeobj):
    """Global names that a function's source text needs and that no task has."""
    return globals_of(source)
