"""Which of the two cores serves this process: the C extension `_core`, or `pycore`, its twin in plain Python.

`core` is "C" or "Python", `module` the module itself. The twin serves if the environment has EXECNET_C_PURE=1, or if the
extension is missing or cannot be loaded. In the last case the first use of a name of the package warns. Far ends load this
file, too, and do not warn.
"""

import os

_failure = None  # why the extension was not loaded, until say_once() has told it


def _choose():
    global _failure
    if os.environ.get("EXECNET_C_PURE", "") in ("", "0"):
        try:
            from . import _core

            return "C", _core
        except ImportError as exc:
            _failure = str(exc)
    from .twin import pycore

    return "Python", pycore


def say_once():
    """Warn, once, if the plain-Python core serves without EXECNET_C_PURE=1."""
    global _failure
    if _failure is not None:
        import warnings

        from .common.unbuilt import reason

        failure, _failure = _failure, None
        warnings.warn(
            f"execnet_c works with its plain-Python core, which is slower: its C core {reason('_core', failure)}. "
            f"EXECNET_C_PURE=1 in the environment asks for that without this warning.",
            RuntimeWarning,
            stacklevel=3,
        )


TYPE_CHECKING = False
if TYPE_CHECKING:
    from . import _core as module  # type checkers take this for both cores

    core: str
else:
    core, module = _choose()
    main_thread_ident = module._main_thread_ident
