"""Which cores the tests run over: EXECNET_C_TEST_PAIRING names that of the near end and that of far ends ("C-Python").

A process that imports this file uses the named core, and has its far ends use the other named one. conftest.py imports it
before all else; so does each program with execnet_c that a test starts: its text begins with HEAD, or command() runs its
file.
"""

import os
import runpy
import sys

DEFAULT = "C-C"
PAIRINGS = [DEFAULT, "C-Python", "Python-C", "Python-Python"]

HERE = os.path.dirname(os.path.abspath(__file__))
HEAD = f"import sys; sys.path.insert(0, {HERE!r}); import pairing; del sys.path[0]\n"

name = os.environ.get("EXECNET_C_TEST_PAIRING") or DEFAULT
if name not in PAIRINGS:
    raise ValueError(f"EXECNET_C_TEST_PAIRING={name}: it may be {', '.join(PAIRINGS)}")
near, far = name.split("-")


def _ask_for(core):
    """Set the environment so that this process, or far ends that it starts, take `core`."""
    if core == "C":
        os.environ.pop("EXECNET_C_PURE", None)
    else:
        os.environ["EXECNET_C_PURE"] = "1"


def _take_near_core():
    if "execnet_c.cores" in sys.modules and name != DEFAULT:  # a worker of pytest-xdist on execnet_c has it already
        raise RuntimeError("execnet_c has taken a core before the pairing was known")
    _ask_for(near)
    from execnet_c import cores

    if cores.core != near:
        raise RuntimeError(f"the pairing {name} asks for the {near} core here, and execnet_c took the {cores.core} core")
    _ask_for(far)
    return cores.module


module = _take_near_core()


def command(script, *arguments):
    """The command line that runs a script as Python itself would, but over this pairing."""
    runner = [] if name == DEFAULT else [os.path.join(HERE, "pairing.py")]
    return [sys.executable, *runner, str(script), *map(str, arguments)]


if __name__ == "__main__":
    del sys.argv[0]
    sys.path[0] = os.path.dirname(os.path.abspath(sys.argv[0]))
    runpy.run_path(sys.argv[0], run_name="__main__")
