"""Builds the C extension; the rest of the package's description is in pyproject.toml.

Where it cannot be built the package is installed without it, and works with its plain-Python core.

EXECNET_C_CFLAGS adds compiler flags: that is how this project's own checks turn warnings into errors, which a
user's build must never do.
"""

import glob
import os

from setuptools import Extension, setup

extra = os.environ.get("EXECNET_C_CFLAGS", "").split()

setup(
    license="MIT",
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
