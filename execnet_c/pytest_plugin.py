"""A pytest plugin that has pytest-xdist run on execnet_c: pytest -p execnet_c.pytest_plugin -n 4

pytest-xdist imports execnet when pytest loads it. Plugins named with -p come before that, whether on the command line,
in PYTEST_ADDOPTS or in `addopts` of the ini file; those named in PYTEST_PLUGINS, or by a conftest.py, come after it. The
workers load this plugin again; there, execnet is this package already.

Beside that, where a worker has died, the line that says so is followed by how it died; and what a worker's reports have
in them that cannot be sent arrives as plain text.

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
    """At the near end, behind pytest-xdist's own "node down" line."""
    from .cores import module as core

    reporter = node.config.pluginmanager.getplugin("terminalreporter")
    death = node.gateway._death(False) if error and not node.gateway.hasreceiver() else None
    if reporter is not None and isinstance(death, core.GatewayDied):
        for line in str(death).splitlines():
            reporter.write_line("    " + line)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config):
    """In a worker: what it tells goes through sendable()."""
    for plugin in config.pluginmanager.get_plugins() if hasattr(config, "workerinput") else ():
        if type(plugin).__name__ == "WorkerInteractor":
            plugin.channel.send = _Send(plugin.channel.send)


class _Send:
    """Channel.send() for what may have to be made sendable."""

    def __init__(self, send):
        self._send = send

    def __call__(self, item):
        from .cores import module as core

        try:
            self._send(item)
        except core.DumpError:
            self._send(sendable(item))


def sendable(value):
    """`value` with what cannot be sent in plain types: what is of a subclass of one as that, other things as their str();
    in texts, escapes for what is not Unicode."""
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
