"""The pages in docs/ name all that is public. What they show is run by `make test-docs`."""

import inspect
import re
from pathlib import Path

import pytest

import execnet_c
from execnet_c.xspec import XSpec

pytestmark = pytest.mark.any_core

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "docs" / "reference"


def page(name):
    return (REFERENCE / f"{name}.rst").read_text()


def public():
    return sorted(set(execnet_c.__all__) - {"__version__"})


def test_each_public_name_is_in_the_reference():
    told = re.findall(r"^\.\. auto\w+:: (\w+)(?:\(.*\))?$", page("api"), re.MULTILINE)
    assert sorted(told) == public()


@pytest.mark.parametrize("name", public())
def test_each_public_name_says_what_it_is(name):
    thing = getattr(execnet_c, name)
    if name not in ("core", "default_group"):
        assert inspect.getdoc(thing)
    if inspect.isclass(thing):
        for key, value in vars(thing).items():
            if not key.startswith("_") and (inspect.isroutine(value) or isinstance(value, property)):
                assert inspect.getdoc(getattr(thing, key)), f"{name}.{key}"


def test_each_key_of_a_spec_is_in_the_reference():
    told = set(re.findall(r"``(?:socket//)?(\w+)", page("specs")))
    assert set(XSpec.__annotations__) - told == set()


def test_each_environment_variable_is_in_the_reference():
    files = [path for suffix in ("py", "c", "h") for folder in ("execnet_c", "src") for path in (ROOT / folder).rglob(f"*.{suffix}")]
    used = {name for path in files for name in re.findall(r'"(EXECNET_(?:C_)?[A-Z]+(?:_[A-Z]+)*)"', path.read_text())}
    told = set(re.findall(r"^``(.+)``$", page("environment").replace("``, ``", "``\n``"), re.MULTILINE))
    assert len(used) > 3 and used - told == set()
    assert told - used == set()


def test_each_command_is_in_the_reference():
    source = (ROOT / "execnet_c" / "__main__.py").read_text()
    commands = re.findall(r'add_parser\(\s*"(\w+)"', source)
    assert len(commands) >= 3
    assert [name for name in commands if f"``{name} " not in page("command_line")] == []
