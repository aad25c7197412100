"""Builds the two C extensions; the rest of the package's description is in pyproject.toml.

Where they cannot be built the package is installed without them: it works with its plain-Python core, and without
execnet_c.tagging. That is said aloud, and the package keeps the cause: execnet_c/common/unbuilt.py.

What far ends are sent is packed here, too: execnet_c/far/pack.py.

EXECNET_C_CFLAGS adds compiler flags: that is how this project's own checks turn warnings into errors, which a
user's build must never do.
"""

import glob
import os
import re
import stat
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from execnet_c.common import unbuilt  # noqa: E402
from execnet_c.far import pack  # noqa: E402


class BuildPy(build_py):
    """Also makes the text that far ends are sent, so that no program has to."""

    def run(self):
        super().run()
        if not self.editable_mode:
            pack.write(os.path.join(self.build_lib, "execnet_c", "far"))


WITHOUT = {"_core": "it will work with its plain-Python core, which is slower", "_tagger": "execnet_c.tagging will be missing"}


class BuildExt(build_ext):
    """Compiles files beside one another; says what becomes of the package without an extension, and why."""

    def build_extensions(self):
        one_by_one = self.compiler.compile

        def compile(sources, **how):
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                return [path for made in pool.map(lambda source: one_by_one([source], **how), sources) for path in made]

        self.compiler.compile = compile
        super().build_extensions()

    def build_extension(self, ext):
        try:
            super().build_extension(ext)
        except Exception as exc:
            name = ext.name.rpartition(".")[2]
            # One setuptools names the command, another one shows all its arguments.
            why = re.sub(r"(?s)^Command '\['([^']+)'.*status (\d+)\.?$", r"command '\1' failed with exit code \2", str(exc))
            if not os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h")):
                why += "; there is no Python.h here (python3-dev of Debian has it)"
            say(f"\n*** execnet_c: its C extension {name} CANNOT BE BUILT: {why}\n*** {WITHOUT[name]}\n")
            if not self.inplace:
                unbuilt.note(os.path.dirname(self.get_ext_fullpath(ext.name)), name, why)
            raise


def say(text):
    """To who has the package built. pip keeps for itself what a build writes, unless it is asked with -v: so it goes
    where pip itself writes, too, if that is no file."""
    sys.stderr.write(text)
    sys.stderr.flush()
    try:
        fd = os.open(f"/proc/{os.getppid()}/fd/2", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
        there = os.fstat(fd)
        if not (os.path.samestat(there, os.fstat(2)) or stat.S_ISREG(there.st_mode)):
            os.write(fd, text.encode())
        os.close(fd)
    except OSError:
        pass  # the warning at import remains


extra = os.environ.get("EXECNET_C_CFLAGS", "").split()


def extension(name, sources):
    headers = [header for folder in {os.path.dirname(path) for path in sources} for header in glob.glob(folder + "/*.h")]
    return Extension(
        "execnet_c." + name,
        sources=sorted(sources),
        depends=sorted(headers),
        include_dirs=sorted(glob.glob("src/core/*")),
        define_macros=[("_GNU_SOURCE", "1")],
        extra_compile_args=["-std=c11", "-O2", "-g0", "-fvisibility=hidden", *extra],
        extra_link_args=["-pthread"],
        libraries=["m"],
        optional=True,
    )


setup(
    license="MIT",
    cmdclass={"build_py": BuildPy, "build_ext": BuildExt},
    ext_modules=[
        extension("_core", [*glob.glob("src/core/*/*.c"), *glob.glob("src/py/*.c")]),
        # Of the core it takes the three rooms that everything stands on, for itself.
        extension("_tagger", [*glob.glob("src/tagger/*.c"), *(f"src/core/system/xc_{room}.c" for room in ("base", "fd", "sync"))]),
    ],
)
