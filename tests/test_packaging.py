"""What a user gets: the wheel holds the package and nothing else, the sdist all that it takes to build and test.

Everything is built once, from a copy of the sources, so that the checkout stays as it is.
"""

import ast
import email
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

pytestmark = [pytest.mark.any_core, pytest.mark.deep]

ROOT = Path(__file__).resolve().parent.parent

# What lies in a checkout and is no source.
NOT_SOURCES = shutil.ignore_patterns(
    ".git", ".venv*", "venv*", "build", "dist", "results", "*.egg-info", "__pycache__", ".pytest_cache", ".hypothesis", "*.so"
)


def source_files(*folders, suffixes):
    return {
        str(path.relative_to(ROOT))
        for folder in folders
        for path in (ROOT / folder).rglob("*")
        if path.suffix in suffixes and not {"build", "results", "__pycache__"} & set(path.parts[len(ROOT.parts) :])
    }


def version():
    for node in ast.parse((ROOT / "execnet_c/__init__.py").read_text()).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == "__version__":
            return ast.literal_eval(node.value)


class Built:
    def __init__(self, folder, said):
        [self.sdist] = folder.glob("*.tar.gz")
        [self.wheel] = folder.glob("*.whl")
        self.said = said
        with tarfile.open(self.sdist) as archive:
            self.top = os.path.commonpath(archive.getnames())
            names = [member.name for member in archive.getmembers() if member.isfile()]
            self.sdist_files = {name[len(self.top) + 1 :] for name in names}
        with zipfile.ZipFile(self.wheel) as archive:
            self.wheel_files = set(archive.namelist())


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The sdist, and the wheel as built from the sdist alone, with the tools of this environment."""
    pytest.importorskip("build")
    folder = tmp_path_factory.mktemp("packaging")
    shutil.copytree(ROOT, folder / "source", ignore=NOT_SOURCES)
    env = {name: value for name, value in os.environ.items() if name not in ("CFLAGS", "EXECNET_C_CFLAGS")}
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", folder / "source"],
        env=env,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=110,
    )
    assert done.returncode == 0, done.stdout
    return Built(folder / "dist", done.stdout)


def test_the_wheel_holds_the_package_and_nothing_else(built):
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    package = source_files("execnet_c", suffixes={".py", ".pyi", ".typed"}) | {"execnet_c/py.typed"}
    info = f"execnet_c-{version()}.dist-info/"
    files = {name for name in built.wheel_files if not name.startswith(info)}
    made = {f"_core{suffix}", f"_tagger{suffix}", "far/far_end.source", f"far/far_end.{sys.implementation.cache_tag}"}
    assert files == package | {f"execnet_c/{name}" for name in made}
    assert any(name.startswith(info) and name.endswith("LICENSE") for name in built.wheel_files)


def test_the_package_is_typed(built):
    assert "execnet_c/py.typed" in built.wheel_files
    assert {"execnet_c/_core.pyi", "execnet_c/_tagger.pyi"} <= built.wheel_files


def test_the_sdist_has_all_sources_and_tests(built):
    expected = source_files("src", "tests", "examples", "benchmarks", suffixes={".c", ".h", ".py", ".sh"})
    expected |= source_files("execnet_c", suffixes={".py", ".pyi", ".typed"})
    expected |= {"Makefile", "tests/c/Makefile", "tests/sim/Makefile", "tests/sim/sizes.sed", "README.rst", "CHANGELOG.rst", "LICENSE", "pyproject.toml", "setup.py"}
    expected |= {"ARCHITECTURE.rst", "CONTRIBUTING.rst", "GLOSSARY.rst", ".pre-commit-config.yaml"}
    assert len([name for name in expected if name.endswith(".h")]) > 10
    assert expected - built.sdist_files == set()


def test_the_sdist_has_nothing_that_was_built(built):
    assert not [name for name in built.sdist_files if re.search(r"\.(so|o|pyc|d)$|__pycache__|/build/|\.git/", name)]


def test_the_sdist_can_collect_its_own_tests(built, tmp_path):
    with tarfile.open(built.sdist) as archive:
        archive.extractall(tmp_path, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path / built.top / "tests",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=90,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for path in (ROOT / "tests").glob("test_*.py"):
        assert f"{path.name}::" in done.stdout


def test_one_version(built):
    assert built.sdist.name == f"execnet_c-{version()}.tar.gz"
    with zipfile.ZipFile(built.wheel) as archive:
        metadata = email.message_from_bytes(archive.read(f"execnet_c-{version()}.dist-info/METADATA"))
    assert metadata["Version"] == version()
    assert metadata["License"] == "MIT"
    assert metadata["Requires-Python"] == ">=3.10"
    assert {"test", "nltk", "bench"} <= set(metadata.get_all("Provides-Extra"))
    assert all("extra ==" in requirement for requirement in metadata.get_all("Requires-Dist")), "needs only Python"


def test_the_installed_package_is_this_version():
    execnet_c = pytest.importorskip("execnet_c")
    assert execnet_c.__version__ == version()


def test_a_user_s_build_never_stops_at_a_warning(built):
    """A compiler newer than ours may warn of something new. (-Werror=NAME can come with Python's own flags.)"""
    compiled = [line for line in built.said.splitlines() if re.search(r"\s-c src/(core/\w+|py|tagger)/\w+\.c\s", line)]
    sources = {re.search(r"\s-c (\S+)", line)[1] for line in compiled}
    assert sources == source_files("src", suffixes={".c"}), "the build shows its compiler's command lines"
    for line in compiled:
        assert "-Werror" not in line.split()
        assert "-std=c11" in line.split()
    assert "-Werror" not in (ROOT / "setup.py").read_text()


def test_the_build_does_not_warn(built):
    assert not re.search(r"^src/.*warning: ", built.said, re.MULTILINE)
