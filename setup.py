"""Builds the two C extensions; the rest of the package's description is in pyproject.toml.

Where they cannot be built the package is installed without them: it works with its plain-Python core, and without
execnet_c.tagging.

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


def extension(name, sources):
    headers = [header for folder in {os.path.dirname(path) for path in sources} for header in glob.glob(folder + "/*.h")]
    return Extension(
        "execnet_c." + name,
        sources=sorted(sources),
        depends=sorted(headers),
        define_macros=[("_GNU_SOURCE", "1")],
        extra_compile_args=["-std=c11", "-O2", "-g0", "-fvisibility=hidden", *extra],
        extra_link_args=["-pthread"],
        libraries=["m"],
        optional=True,
    )


setup(
    license="MIT",
    cmdclass={"build_py": BuildPy},
    ext_modules=[
        extension("_core", [*glob.glob("src/core/*.c"), *glob.glob("src/py/*.c")]),
        # Of the core it takes the two rooms that everything stands on, for itself.
        extension("_tagger", [*glob.glob("src/tagger/*.c"), "src/core/xc_base.c", "src/core/xc_sync.c"]),
    ],
)
