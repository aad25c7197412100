"""A pytest plugin that has pytest-xdist run on execnet_c: pytest -p execnet_c.pytest_plugin -n 4

pytest-xdist imports execnet when pytest loads it. Plugins named with -p are loaded before that, whether on the command
line, in PYTEST_ADDOPTS or in `addopts` of the ini file; those named in PYTEST_PLUGINS, or by a conftest.py, are loaded
after it. The workers load this plugin again; there, execnet is this package already.

It also does two more things: if a worker has died, how it died is written below the line that says so; and an object in
a worker's report that cannot be sent is replaced by a plain one.

PYTEST_DONT_REWRITE
"""

import pytest

from . import __version__
from .far.alias import install_as_execnet

try:
    install_as_execnet()
except RuntimeError as exc:
    raise pytest.UsageError(
        f"execnet_c.pytest_plugin was loaded too late: {exc}. Name it with -p, on the command line, in PYTEST_ADDOPTS "
        f"or in `addopts` of the ini file; not in PYTEST_PLUGINS or a conftest.py. Where another plugin named with -p "
        f"imports execnet, name this one first."
    ) from None


def pytest_report_header():
    from .cores import core

    return f"execnet: execnet_c {__version__}, {core} core"


@pytest.hookimpl(optionalhook=True, trylast=True)
def pytest_testnodedown(node, error):
    """At the near end: write how a worker died below pytest-xdist's own "node down" line."""
    from .cores import module as core

    reporter = node.config.pluginmanager.getplugin("terminalreporter")
    death = node.gateway._death(False) if error and not node.gateway.hasreceiver() else None
    if reporter is not None and isinstance(death, core.GatewayDied):
        for line in str(death).splitlines():
            reporter.write_line("    " + line)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config):
    """In a worker: have pytest-xdist send through _Send."""
    for plugin in config.pluginmanager.get_plugins() if hasattr(config, "workerinput") else ():
        if type(plugin).__name__ == "WorkerInteractor":
            plugin.channel.send = _Send(plugin.channel.send)


class _Send:
    """A Channel.send() that replaces what cannot be sent; see sendable()."""

    def __init__(self, send):
        self._send = send

    def __call__(self, item):
        from .cores import module as core

        try:
            self._send(item)
        except core.DumpError:
            self._send(sendable(item))


def sendable(value):
    """`value`, with an object of the plain type for each object of a subclass, and str() of all other objects. In texts,
    escapes stand for what is not Unicode."""
    if value is None or type(value) is bool:
        return value
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, (bytes, bytearray)):
        return b"".join([value])
    for plain in (int, float, complex):
        if isinstance(value, plain):
            return plain.__pos__(value)
    if isinstance(value, dict):
        return {sendable(key): sendable(item) for key, item in dict.items(value)}
    for plain in (list, tuple, set, frozenset):
        if isinstance(value, plain):
            return plain(map(sendable, plain.__iter__(value)))
    try:
        return _text(str(value))
    except Exception:
        return object.__repr__(value)


def _text(value):
    return str.encode(value, "utf-8", "backslashreplace").decode()
