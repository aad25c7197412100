"""The foreign interpreters that this machine has: other Pythons, and Pythons under other conditions.

FAR_ENDS lists them, and also those that are missing, with the reason; TOO_OLD lists Pythons that cannot serve. A Python in
which execnet_c is installed is left out, because it need not be sent its worker.
"""

import atexit
import glob
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile

import pytest

OLDEST, NEWEST = (3, 8), (3, 13)
OURS = f"cpython{sys.version_info[0]}.{sys.version_info[1]}."

PLACES = [
    os.path.join(os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv"), "versions", "*", "bin"),
    "/usr/local/bin",
    "/usr/bin",
]
PROBE = """
import sys
implementation = getattr(getattr(sys, "implementation", None), "name", "cpython")
installed = 0
try:
    import execnet_c
    installed = 1
except ImportError:
    pass
print("%s %d.%d.%d %d" % ((implementation,) + tuple(sys.version_info[:3]) + (installed,)))
print(sys.version.replace("\\n", " "))
"""
FOREIGN = os.environ.get("EXECNET_C_FOREIGN_PYTHONS", "")
NOBODY = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]

# Modules in a directory that some far ends have first in their path. Each has the name of a module of the standard library
# that is a file of its own and that a worker may import.
HOSTILE = {
    "socket": "raise SystemExit('socket.py of PYTHONPATH was imported')",
    "select": "import os; os.kill(os.getpid(), 9)",
    "struct": "import os; os.kill(os.getpid(), 9)",
    "zlib": "raise RuntimeError('zlib.py of PYTHONPATH was imported')",
    "fcntl": "import os; os._exit(0)",
    "ctypes": "import os; os._exit(0)",
}


class FarEnd:
    """A command line for python=, and what can be expected of it.

    inside: the command line by which a program at the far end starts this Python. missing: why it cannot be started here.
    root: the directory that is / at the far end. outlives: a signal to the process that we start does not reach Python.
    deep: only `make check-deep` starts it.
    """

    def __init__(self, name, command=(), inside=None, missing=None, root="", read_only=False, outlives=False, deep=False):
        self.name = name
        self.command = list(command)
        self.inside = list(inside or command)
        self.missing = missing
        self.root = root
        self.read_only = read_only
        self.outlives = outlives
        self.deep = deep

    def __repr__(self):
        return f"<FarEnd {self.name}>"

    def spec(self, *keys):
        if self.missing:
            pytest.skip(self.missing)
        return "//".join(["popen", "python=" + shlex.join(self.command), *keys])

    def there(self, path):
        """The path by which the far end sees our `path`, which must be below `root`."""
        assert str(path).startswith(self.root)
        return str(path)[len(self.root) :]

    def directory(self):
        """A new directory that the far end sees, and may write to unless it is `read_only`. The caller removes it."""
        path = tempfile.mkdtemp(dir=(self.root or "") + "/tmp")
        os.chmod(path, 0o777)
        return path


def _pythons():
    """{(implementation, (3, 8, 18), sys.version): path}, one for each build; and the paths of those with execnet_c."""
    started = {}
    for place in PLACES:
        for path in sorted(glob.glob(os.path.join(place, "py*"))):
            real = os.path.realpath(path)
            if re.fullmatch(r"(python|pypy)\d?(\.\d+)?", os.path.basename(path)) and real not in started:
                command = [path, "-c", PROBE]
                pipe, null = subprocess.PIPE, subprocess.DEVNULL
                try:
                    process = subprocess.Popen(command, cwd="/", stdin=null, stdout=pipe, stderr=null, encoding="utf-8")
                except OSError:
                    continue
                started[real] = path, process
    found, installed = {}, []
    for path, process in started.values():
        lines = process.communicate()[0].splitlines()
        if process.returncode == 0 and len(lines) == 2:
            implementation, version, has = lines[0].split()
            if has == "1":
                installed.append(path)
            else:
                found.setdefault((implementation, tuple(map(int, version.split("."))), lines[1]), path)
    return found, installed


def _plain_ones(pythons, installed):
    far_ends = []
    for implementation, version, text in sorted(pythons):
        name = implementation + ".".join(map(str, version))
        count = sum(end.name.split("_")[0] == name for end in far_ends)
        if version >= OLDEST:
            name += f"_{count + 1}" if count else ""
            far_ends.append(FarEnd(name, [pythons[implementation, version, text]]))
    there = [end for end in far_ends if end.name.startswith("cpython")]
    for end in there[1:-1]:  # between the oldest and the newest
        end.deep = not end.name.startswith(OURS)
    but = f" (left out, for they have execnet_c: {', '.join(installed)})" if installed else ""
    for minor in range(OLDEST[1], NEWEST[1] + 1):
        if not any(end.name.startswith(f"cpython3.{minor}.") for end in far_ends):
            far_ends.append(FarEnd(f"cpython3.{minor}", missing=f"no CPython 3.{minor} in {', '.join(PLACES)}{but}"))
    if not any(end.name.startswith("pypy") for end in far_ends):
        far_ends.append(FarEnd("pypy3", missing=f"no pypy3 in {', '.join(PLACES)}{but}"))
    return far_ends


def _hostile_directory():
    path = tempfile.mkdtemp(prefix="hostile")
    atexit.register(shutil.rmtree, path, True)
    os.chmod(path, 0o755)
    for name, text in HOSTILE.items():
        with open(os.path.join(path, name + ".py"), "w") as file:
            file.write(text + "\n")
    return path


def _options_of(far_ends):
    """Pythons with other options: our own version, which takes code objects, the oldest CPython, and PyPy."""
    hostile = _hostile_directory()
    chosen = []
    for prefix in (OURS, "cpython", "pypy"):
        chosen += [end for end in far_ends if end.name.startswith(prefix) and not end.missing and end not in chosen][:1]
    for end in chosen:
        python, deep = end.command, end is not chosen[0]
        yield FarEnd(f"{end.name}-isolated", [*python, "-I"], deep=deep)
        yield FarEnd(f"{end.name}-without-site", [*python, "-S"], deep=deep)
        yield FarEnd(f"{end.name}-hostile-path", ["env", f"PYTHONPATH={hostile}", *python], inside=python, deep=deep)


def _why_not(command):
    """None if the command works, else what it says."""
    if shutil.which(command[0]) is None:
        return f"{command[0]} is not there"
    done = subprocess.run(command, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8")
    return None if done.returncode == 0 else f"{shlex.join(command)}: {done.stderr.strip() or done.returncode}"


def _wrapped(name, wrapper, python, **more):
    command = [*wrapper, *python]
    missing = _why_not([*command, "-c", "pass"]) if python else "there is no CPython"
    return FarEnd(name, command, python, missing, **more)


def _wrapped_ones(far_ends):
    # Prefer a Python that any user can start, and that can start itself again.
    check = "import os, sys; sys.exit(not os.access(sys.executable, os.X_OK))"
    pythons = [end.command for end in reversed(far_ends) if not end.missing and end.name.startswith("cpython")]
    python = next((python for python in pythons if not _why_not([*NOBODY, *python, "-c", check])), next(iter(pythons), []))
    yield _wrapped("another-user", NOBODY, python)
    sandbox = "bwrap --unshare-all --die-with-parent --ro-bind / / --proc /proc --dev /dev".split()
    yield _wrapped("read-only", sandbox, python, read_only=True)
    new_ids = "unshare --fork --pid --mount-proc".split()
    yield _wrapped("pid-1", new_ids, python, outlives=True)
    yield _wrapped("pid-1-kill-child", [*new_ids, "--kill-child"], python)


def _foreign_ones():
    how = "made by tests/foreign_python.sh in the directory that EXECNET_C_FOREIGN_PYTHONS names"
    for name, command in (
        ("i386", ["chroot", f"{FOREIGN}/i386/root", "/usr/bin/python3"]),
        ("s390x", [f"{FOREIGN}/s390x/qemu", "-L", f"{FOREIGN}/s390x/root", f"{FOREIGN}/s390x/root/usr/bin/python3"]),
    ):
        if not FOREIGN or not os.path.exists(f"{FOREIGN}/{name}/root"):
            yield FarEnd(name, missing=f"there is no Python for {name}, {how}")
        elif name == "i386":
            yield FarEnd(name, command, command[2:], _why_not([*command, "-c", "pass"]), root=command[1])
        else:
            yield FarEnd(name, command, command, _why_not([*command, "-c", "pass"]))


def _find():
    pythons, installed = _pythons()
    plain = _plain_ones(pythons, installed)
    too_old = [
        FarEnd(implementation + ".".join(map(str, version)), [path])
        for (implementation, version, _), path in sorted(pythons.items())
        if version < OLDEST
    ]
    return plain, [*plain, *_options_of(plain), *_wrapped_ones(plain), *_foreign_ones()], too_old


PLAIN, FAR_ENDS, TOO_OLD = _find()
