"""Which of the two cores serves this process: the C extension `_core`, or `pycore`, its twin in plain Python.

`core` is "C" or "Python", `module` the module itself. The twin serves where the extension is missing or cannot be
loaded, which is said once as a RuntimeWarning, and where the environment has EXECNET_C_PURE=1, silently.
"""

import os


def _choose():
    if os.environ.get("EXECNET_C_PURE", "") in ("", "0"):
        try:
            from . import _core

            return "C", _core
        except ImportError as exc:
            import warnings

            warnings.warn(
                f"execnet_c works with its plain-Python core, which is slower: its C core could not be loaded ({exc}). "
                f"EXECNET_C_PURE=1 in the environment asks for that without this warning.",
                RuntimeWarning,
                stacklevel=2,
            )
    from . import pycore

    return "Python", pycore


TYPE_CHECKING = False
if TYPE_CHECKING:
    from . import _core as module  # what type checkers know of both

    core: str
else:
    core, module = _choose()
