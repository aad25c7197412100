"""Start Python over there, run this, talk to it: execnet's interface on a C core.

Importing the package costs next to nothing: each public name is loaded when it is first used. A worker imports the
package too, and needs few of them.
"""

import atexit
import sys

__version__ = "0.1.0"  # written here and nowhere else; pyproject.toml reads it without importing this

TYPE_CHECKING = False
if TYPE_CHECKING:  # where type checkers find the names
    from . import gateway, gateway_base, gateway_bootstrap, gateway_io, multi, rsync, xspec
    from ._core import (
        Channel,
        DataFormatError,
        DumpError,
        GatewayDied,
        LoadError,
        RemoteError,
        TimeoutError,
        TruncatedError,
        dump,
        dumps,
        load,
        loads,
    )
    from .far.alias import install_as_execnet
    from .cores import core
    from .near.deaths import (
        HostKeyMismatch,
        HostNotFound,
        HostRefused,
        HostSilent,
        HostUnknown,
        LinkLost,
        LoginDenied,
        PythonMissing,
        WorkerExited,
        WorkerKilled,
    )
    from .near.gateway import Gateway, GatewayExited
    from .multi import Group, MultiChannel, default_group, makegateway, set_execmodel, set_stderr_handler
    from .pool.executor import GatewayPoolExecutor
    from .pool.astream import apipe
    from .pool.stream import pipe
    from .rsync import RSync, RSyncError
    from .xspec import XSpec

# name -> the module of this package that has it; "_core" is the core in use, also where that is the twin
_HOMES = {
    "Channel": "_core",
    "DataFormatError": "_core",
    "DumpError": "_core",
    "Gateway": "near.gateway",
    "GatewayDied": "_core",
    "GatewayExited": "near.gateway",
    "GatewayPoolExecutor": "pool.executor",
    "Group": "multi",
    "HostKeyMismatch": "near.deaths",
    "HostNotFound": "near.deaths",
    "HostRefused": "near.deaths",
    "HostSilent": "near.deaths",
    "HostUnknown": "near.deaths",
    "LinkLost": "near.deaths",
    "LoadError": "_core",
    "LoginDenied": "near.deaths",
    "MultiChannel": "multi",
    "PythonMissing": "near.deaths",
    "RSync": "rsync",
    "RSyncError": "rsync",
    "RemoteError": "_core",
    "TimeoutError": "_core",
    "TruncatedError": "_core",
    "WorkerExited": "near.deaths",
    "WorkerKilled": "near.deaths",
    "XSpec": "xspec",
    "apipe": "pool.astream",
    "core": "cores",
    "default_group": "multi",
    "dump": "_core",
    "dumps": "_core",
    "install_as_execnet": "far.alias",
    "load": "_core",
    "loads": "_core",
    "makegateway": "multi",
    "pipe": "pool.stream",
    "set_execmodel": "multi",
    "set_stderr_handler": "multi",
}

# Modules of execnet that `import execnet` imports, too: attributes of the package.
_MODULES = ("gateway", "gateway_base", "gateway_bootstrap", "gateway_io", "multi", "rsync", "xspec")

__all__ = ["__version__", *_HOMES]


def __getattr__(name):
    home = name if name in _MODULES else _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    if home in ("far.alias", "xspec"):  # no core is chosen yet
        module = import_module("." + home, __name__)
    else:
        cores = import_module(".cores", __name__)
        cores.say_once()
        module = cores.module if home == "_core" else import_module("." + home, __name__)
    value = globals()[name] = module if name in _MODULES else getattr(module, name)
    return value


def __dir__():
    return sorted({*globals(), *_HOMES, *_MODULES})


def _end_default_group():
    multi = sys.modules.get(__name__ + ".multi")
    if multi is not None:
        multi.default_group._cleanup_atexit()


# Registered now, not when the group is made: atexit functions that a program registers after its import of this package
# run before this one, and still find the gateways alive.
atexit.register(_end_default_group)
