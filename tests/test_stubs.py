"""What type checkers are told is what the package is."""

import ast
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import execnet_c
import pytest

pytestmark = [pytest.mark.any_core, pytest.mark.deep]

PACKAGE = Path(__file__).resolve().parent.parent / "execnet_c"

needs_mypy = pytest.mark.skipif(
    importlib.util.find_spec("mypy") is None, reason="mypy is not installed (it is in the extra `test`)"
)


@pytest.fixture
def run(tmp_path):
    """Runs a module of mypy's where the package lies: its sources from here, the extension that is under test."""
    folder = tmp_path / "execnet_c"
    shutil.copytree(PACKAGE, folder, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    for extension in ("_core", "_tagger"):
        shutil.copy(importlib.util.find_spec(f"execnet_c.{extension}").origin, folder)

    def run(*arguments):
        done = subprocess.run(
            [sys.executable, "-m", *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(tmp_path), "MYPYPATH": str(tmp_path)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            timeout=110,
        )
        return done.returncode, done.stdout

    run.folder = folder
    return run


# Type checkers know a buffer by this method, whatever the version; before 3.12 no type in C has it.
NOT_AT_RUNTIME = [] if sys.version_info >= (3, 12) else ["execnet_c._tagger.Doc.__buffer__"]


@needs_mypy
@pytest.mark.parametrize("extension", ["_core", "_tagger"])
def test_the_stub_is_the_module(run, extension, tmp_path):
    (tmp_path / "allowed").write_text("\n".join(NOT_AT_RUNTIME))
    allowed = "--allowlist=allowed", "--ignore-unused-allowlist"
    status, said = run("mypy.stubtest", f"execnet_c.{extension}", *allowed)
    assert status == 0, said


@needs_mypy
def test_a_wrong_stub_is_seen(run):
    stub = run.folder / "_core.pyi"
    text = stub.read_text()
    changed = text.replace("def isclosed(self)", "def isclosed(self, how: int)")
    changed = changed.replace("def hasreceiver", "def hasnone")
    assert changed != text
    stub.write_text(changed)
    status, said = run("mypy.stubtest", "execnet_c._core")
    assert status == 1
    assert "Channel.isclosed" in said and "Gateway.hasreceiver" in said and "Gateway.hasnone" in said


PROGRAM = """
from execnet_c import *
import execnet_c

gateway = execnet_c.makegateway("popen")
channel: execnet_c.Channel = gateway.newchannel()
try:
    channel.send(1)
except execnet_c.DumpError:
    pass
data: bytes = execnet_c.dumps([1])
names = [{names}]
"""


@needs_mypy
def test_type_checkers_find_every_name(run):
    names = ", ".join(f"execnet_c.{name}" for name in execnet_c.__all__)
    program = run.folder.parent / "program.py"
    program.write_text(PROGRAM.format(names=names))
    status, said = run("mypy", "program.py")
    assert status == 0, said

    program.write_text("import execnet_c\ntext: str = execnet_c.dumps(1)\nexecnet_c.Group().nothing()\n")
    status, said = run("mypy", "program.py")
    assert status == 1
    assert 'expression has type "bytes"' in said
    assert '"nothing"' in said


def test_the_names_for_type_checkers_are_the_package_s_own():
    [block] = [
        node
        for node in ast.parse((PACKAGE / "__init__.py").read_text()).body
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
    ]
    [modules] = [source for source in block.body if source.module is None]
    assert [name.name for name in modules.names] == list(execnet_c._MODULES)
    told = {name.name: source.module for source in block.body if source.module for name in source.names}
    assert told == execnet_c._HOMES
    assert {*told, "__version__"} == set(execnet_c.__all__)


def test_importing_the_package_loads_next_to_nothing():
    code = (
        f"import sys; sys.path.insert(0, {str(Path(execnet_c.__file__).parent.parent)!r}); before = set(sys.modules)\n"
        "import execnet_c; print(sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
    )
    assert (done.stdout.strip(), done.stderr) == ("['atexit', 'execnet_c']", "")
