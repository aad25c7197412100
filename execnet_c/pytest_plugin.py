"""A pytest plugin that has pytest-xdist run on execnet_c: pytest -p execnet_c.pytest_plugin -n 4

pytest-xdist imports execnet when pytest loads it. Plugins named with -p come before that, whether on the command line,
in PYTEST_ADDOPTS or in `addopts` of the ini file; those named in PYTEST_PLUGINS, or by a conftest.py, come after it. The
workers load this plugin again; there, execnet is this package already.

PYTEST_DONT_REWRITE
"""

import pytest

from . import __version__
from .alias import install_as_execnet

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
