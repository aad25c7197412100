"""The text of a spec and what is read from it."""

import copy
import importlib
import pathlib
import pickle

import pytest

import execnet_c

pytestmark = pytest.mark.any_core


@pytest.fixture
def XSpec(lib):
    return importlib.import_module(lib.__name__ + ".xspec").XSpec


KEYS = "chdir execmodel id installvia nice python socket ssh ssh_config vagrant_ssh via".split()
OUR_KEYS = "keepalive maxqueue payload stderr transport".split()


@pytest.mark.ours
@pytest.mark.parametrize("key", OUR_KEYS)
def test_our_keys_are_attributes(XSpec, key):
    assert getattr(XSpec(f"{key}=some value"), key) == "some value"
    assert getattr(XSpec("popen"), key) is None
    for text in (execnet_c.Group.makegateway.__doc__, (pathlib.Path(__file__).parent.parent / "README.rst").read_text()):
        assert f"{key}=" in text


@pytest.mark.parametrize("key", KEYS)
def test_known_keys_are_attributes(XSpec, key):
    assert getattr(XSpec(f"{key}=some value"), key) == "some value"
    assert getattr(XSpec("popen"), key) is None
    assert getattr(XSpec, key) is None


def test_a_key_without_value_is_true(XSpec):
    spec = XSpec("popen//dont_write_bytecode")
    assert spec.popen is True
    assert spec.dont_write_bytecode is True


def test_an_unknown_key_is_an_attribute_too(XSpec):
    spec = XSpec("popen//rank=3//fast")
    assert spec.rank == "3"
    assert spec.fast is True
    assert spec.slow is None


def test_a_value_may_be_empty_and_may_hold_anything_but_two_slashes(XSpec):
    spec = XSpec("ssh=-p 22 a@b//python=/usr/bin/python3 -E//chdir=//x=a=b=c//y=/")
    assert spec.ssh == "-p 22 a@b"
    assert spec.python == "/usr/bin/python3 -E"
    assert spec.chdir == ""
    assert spec.x == "a=b=c"
    assert spec.y == "/"


def test_env_is_collected_and_the_later_value_wins(XSpec):
    spec = XSpec("popen//env:A=1//env:B=x=y//env:A=2//env:C=")
    assert spec.env == {"A": "2", "B": "x=y", "C": ""}
    assert XSpec("popen").env == {}
    assert XSpec("popen").env is not XSpec("popen").env


@pytest.mark.parametrize("text", ["popen//popen", "id=a//popen//id=b", "popen//id=a//id=a", "x//x=1"])
def test_a_key_given_twice_is_an_error(XSpec, text):
    with pytest.raises(ValueError, match=r"^duplicate key: '(popen|id|x)' in '" + text):
        XSpec(text)


def test_env_cannot_be_given_as_a_key(XSpec):
    with pytest.raises(ValueError, match="duplicate key: 'env'"):
        XSpec("popen//env=x")


@pytest.mark.parametrize("key", ["_spec", "_x", "__class__", "_"])
def test_a_key_may_not_start_with_an_underscore(XSpec, key):
    with pytest.raises(AttributeError, match=f"^'{key}' not a valid XSpec key$"):
        XSpec(f"popen//{key}=1")


@pytest.mark.ours
@pytest.mark.parametrize("text", ["", "//", "popen//", "//popen", "popen////id=a", "popen//=x"])
def test_an_empty_key_is_an_error_that_shows_the_text(XSpec, text):
    with pytest.raises(ValueError, match="empty key in ") as caught:
        XSpec(text)
    assert repr(text) in str(caught.value)


@pytest.mark.ours
@pytest.mark.parametrize("value", [None, b"popen", 1, ["popen"]])
def test_anything_but_a_string_is_refused(XSpec, value):
    with pytest.raises(TypeError, match="a spec is a string"):
        XSpec(value)


def test_names_with_an_underscore_are_missing_unless_set(XSpec):
    spec = XSpec("popen")
    with pytest.raises(AttributeError, match="_nothing"):
        spec._nothing
    assert not hasattr(spec, "__deepcopy__")


def test_text_repr_hash_and_equality_are_those_of_the_text(XSpec):
    text = "popen//id=a"
    spec = XSpec(text)
    assert str(spec) == spec._spec == text
    assert repr(spec) == "<XSpec 'popen//id=a'>"
    assert spec == XSpec(text)
    assert not spec != XSpec(text)
    assert spec != XSpec("popen//id=b")
    assert spec != text
    assert spec != None  # noqa: E711
    assert hash(spec) == hash(XSpec(text)) == hash(text)
    assert {spec: 1}[XSpec(text)] == 1


def test_a_value_set_later_changes_neither_text_nor_equality(XSpec):
    spec = XSpec("popen")
    spec.id = "gw7"
    spec.execmodel = "thread"
    spec.anything = 1
    assert (spec.id, spec.execmodel, spec.anything) == ("gw7", "thread", 1)
    assert str(spec) == "popen"
    assert spec == XSpec("popen")


def test_vars_of_a_spec_are_its_given_keys(XSpec):
    assert vars(XSpec("popen//id=a//env:N=1")) == {
        "_spec": "popen//id=a//env:N=1",
        "env": {"N": "1"},
        "popen": True,
        "id": "a",
    }


def test_copies_and_pickles_are_equal_and_apart(XSpec):
    spec = XSpec("popen//id=a//env:N=1")
    for other in [copy.copy(spec), copy.deepcopy(spec), pickle.loads(pickle.dumps(spec))]:
        assert other == spec
        assert vars(other) == vars(spec)
        other.id = "b"
        assert spec.id == "a"


@pytest.mark.parametrize(
    "text, same",
    [("popen", True), ("popen//python=python3", True), ("popen//chdir=x", False), ("ssh=x", False), ("socket=x", False)],
)
def test_samefilesystem(XSpec, text, same):
    assert XSpec(text)._samefilesystem() is same


def test_specs_of_both_libraries_with_one_text_are_equal():
    theirs = pytest.importorskip("execnet").XSpec("popen//id=a")
    ours = importlib.import_module("execnet_c.xspec").XSpec("popen//id=a")
    assert ours == theirs
    assert hash(ours) == hash(theirs)


def test_a_subclass_keeps_working(XSpec):
    class Mine(XSpec):
        flavour = "plain"

    spec = Mine("popen//flavour=sweet")
    assert spec.flavour == "sweet"
    assert Mine("popen").flavour == "plain"
    assert spec == XSpec("popen//flavour=sweet")
