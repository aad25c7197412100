"""execnet's module gateway: what it has for others. Gateways themselves stand in near/gateway.py."""

from .near.gateway import Gateway, GatewayExited, RemoteStatus, RInfo  # noqa: F401
from .near.source import globals_of, source_of


def rinfo_source(channel):
    """A task: sends facts about the far end. Gateway._rinfo() asks for them without one."""
    import os
    import sys

    facts = {"executable": sys.executable, "version_info": sys.version_info[:5], "platform": sys.platform}
    channel.send({**facts, "cwd": os.getcwd(), "pid": os.getpid()})


def _source_of_function(function):
    """The text that remote_exec() sends for a function. Raises what that would."""
    return source_of(function)[0]


def _find_non_builtin_globals(source, codeobj):
    """Names that a function's source text looks up and that no task has."""
    return globals_of(source)
