"""Far ends that have execnet_c: which core they take, and what becomes of one of another version."""

import re
import shlex
import shutil
import sys
from pathlib import Path

import pairing
import pytest

if pairing.name in ("C-Python", "Python-C"):
    pytest.skip("foreign far ends have a core of their own: C-C and Python-Python do", allow_module_level=True)

import execnet_c
from conftest import TIMEOUT

ROOT = Path(execnet_c.__file__).resolve().parent.parent


# ---- far ends that have execnet_c

CORE = "channel.send(['Python' if hasattr(type(channel).send, '__code__') else 'C', type(channel.gateway).__module__])"


def with_package(importdir, *settings):
    return "popen//python=" + shlex.join(["env", f"PYTHONPATH={importdir}", *settings, sys.executable])


def copy_of_package(directory, version=None):
    shutil.copytree(ROOT / "execnet_c", directory / "execnet_c", ignore=shutil.ignore_patterns("__pycache__"))
    if version:
        top = directory / "execnet_c" / "__init__.py"
        top.write_text(re.sub('(?m)^__version__ = "[^"]*"', f"__version__ = {version!r}", top.read_text()))
    return directory


@pytest.fixture
def core_is_there():
    if not any((ROOT / "execnet_c").glob("_core*.so")):
        pytest.skip("the C core is not built")


def core_of(spec):
    group = execnet_c.Group()
    try:
        gw = group.makegateway(spec)
        found = gw.remote_exec(CORE).receive(TIMEOUT)
        assert gw.remote_exec("import sys; channel.send(sys.argv)").receive(TIMEOUT) == ["-c"]
        return found
    finally:
        group.terminate(timeout=TIMEOUT)


def test_the_c_core_serves_where_it_is_installed(core_is_there, tmp_path):
    assert core_of(with_package(copy_of_package(tmp_path), "EXECNET_C_PURE=")) == ["C", "execnet_c.worker"]


def test_the_twin_serves_where_that_is_asked_for(tmp_path):
    found = core_of(with_package(copy_of_package(tmp_path), "EXECNET_C_PURE=1"))
    assert found[0] == "Python"


def test_the_twin_serves_where_another_version_is_installed(tmp_path):
    found = core_of(with_package(copy_of_package(tmp_path, "0.0.1"), "EXECNET_C_PURE="))
    assert found == ["Python", "_execnet_c.worker"]


def test_the_twin_serves_where_the_installed_one_is_broken(tmp_path):
    copy_of_package(tmp_path)
    for library in (tmp_path / "execnet_c").glob("_core*.so"):
        library.unlink()
        library.write_bytes(b"no library")
    assert core_of(with_package(tmp_path, "EXECNET_C_PURE="))[0] == "Python"
    (tmp_path / "execnet_c" / "far" / "worker.py").write_text("raise RuntimeError('broken')\n")
    assert core_of(with_package(tmp_path, "EXECNET_C_PURE=")) == ["Python", "_execnet_c.worker"]


@pytest.mark.parametrize("version", [None, "0.0.1"], ids=["the same version", "another version"])
def test_a_task_finds_the_package_that_is_installed(version, tmp_path):
    copy_of_package(tmp_path, version)
    group = execnet_c.Group()
    try:
        gw = group.makegateway(with_package(tmp_path))
        task = "import execnet_c; channel.send([execnet_c.__file__, execnet_c.__version__])"
        found = gw.remote_exec(task).receive(TIMEOUT)
        assert found == [str(tmp_path / "execnet_c" / "__init__.py"), version or execnet_c.__version__]
    finally:
        group.terminate(timeout=TIMEOUT)
