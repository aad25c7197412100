"""Builds the C extension; the rest of the package's description is in pyproject.toml.

Where it cannot be built the package is installed without it, and works with its plain-Python core.

What far ends are sent is packed here, too: execnet_c/pack.py.

EXECNET_C_CFLAGS adds compiler flags: that is how this project's own checks turn warnings into errors, which a
user's build must never do.
"""

import glob
import os
import sys

from setuptools import Extension, setup
from setuptools.command.build_py import build_py

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from execnet_c import pack  # noqa: E402


class BuildPy(build_py):
    """Also makes the text that far ends are sent, so that no program has to."""

    def run(self):
        super().run()
        if not self.editable_mode:
            pack.write(os.path.join(self.build_lib, "execnet_c"))


extra = os.environ.get("EXECNET_C_CFLAGS", "").split()

setup(
    license="MIT",
    cmdclass={"build_py": BuildPy},
    ext_modules=[
        Extension(
            "execnet_c._core",
            sources=sorted(glob.glob("src/core/*.c") + glob.glob("src/py/*.c")),
            depends=sorted(glob.glob("src/core/*.h") + glob.glob("src/py/*.h")),
            define_macros=[("_GNU_SOURCE", "1")],
            extra_compile_args=["-std=c11", "-O2", "-g0", "-fvisibility=hidden", *extra],
            extra_link_args=["-pthread"],
            optional=True,
        )
    ],
)
