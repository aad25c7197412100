"""Specs and interpreters that cannot have been meant: what is said of them, and what passes as in execnet."""

import re
import sys
import warnings

import pytest

import execnet_c
from conftest import TIMEOUT
from far_ends import FAR_ENDS
from gateways import group_fixture  # noqa: F401 (fixtures)

CWD = "import os\nchannel.send(os.getcwd())"
PYTHON = re.escape("name a Python by python= in the spec, as in popen//python=/usr/bin/python3")


# ---- keys


@pytest.mark.any_core
@pytest.mark.parametrize(
    "keys, says",
    [
        ("pyhton=x", "'pyhton' is no key; did you mean 'python'?"),
        ("Chdir=/", "'Chdir' is no key; did you mean 'chdir'?"),
        ("keep-alive=3", "'keep-alive' is no key; did you mean 'keepalive'?"),
        ("evn:A=1", "'evn:A' is no key; did you mean 'env:NAME'?"),
        ("chdir=/tmp//x", "'x' is no key; // ends a value, so that chdir is '/tmp' here."),
        ("env:A=//x", "'x' is no key; // ends a value, so that env:A is '' here."),
        ("popen=python3", "popen takes no value; python= names another interpreter"),
        ("dont_write_bytecode=0", "dont_write_bytecode takes no value"),
        ("id=a/python=x", "keys are separated by //, so that id is 'a/python=x' here"),
        ("id=a/env:A=1", "keys are separated by //, so that id is 'a/env:A=1' here"),
    ],
)
def test_an_odd_key_is_a_warning_at_the_line_that_makes_the_gateway(group, keys, says):
    spec = keys if keys.startswith("popen") else f"popen//{keys}"
    with pytest.warns(UserWarning, match=re.escape(f"spec {spec!r}: {says}")) as seen:
        gw = group.makegateway(spec)
    assert [warning.filename for warning in seen] == [__file__]
    assert gw.remote_exec("channel.send(1)").receive(TIMEOUT) == 1
    with pytest.warns(UserWarning, match=re.escape(says)) as seen:
        execnet_c.Group([spec]).terminate(2)
    assert [warning.filename for warning in seen] == [__file__]


@pytest.mark.any_core
def test_known_keys_and_keys_of_a_program_s_own_are_silent(group):
    class Mine(execnet_c.XSpec):
        flavour = None

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        spec = execnet_c.XSpec("popen//x-rank=3//x-python=4//rank=5//fast//env:A=b:c//env:B=/x/id=3//id=a/b=c//dont_write_bytecode//chdir=/tmp")
        spec.later = 5
        gw = group.makegateway(spec)
        assert (getattr(gw.spec, "x-rank"), gw.spec.rank, gw.spec.fast, gw.spec.later) == ("3", "5", True, 5)
        assert group.makegateway(Mine("popen//flavour=sweet")).spec.flavour == "sweet"


@pytest.mark.any_core
@pytest.mark.parametrize(
    "keys, cut",
    [
        ("env:X=http://h", "'h' is no key; // ends a value, so that env:X is 'http:' here."),
        ("env:X=http://h:80/a?b=c//id=z", "'h:80/a?b' is no key; // ends a value, so that env:X is 'http:' here."),
        ("chdir=/tmp//b/c", "'b/c' is no key; // ends a value, so that chdir is '/tmp' here."),
        ("x-mine=ftp://host", "'host' is no key; // ends a value, so that x-mine is 'ftp:' here."),
    ],
)
def test_the_rest_of_a_value_is_an_error_that_says_how_to_write_it(group, keys, cut):
    with pytest.raises(ValueError) as caught:
        group.makegateway(f"popen//{keys}")
    key = keys.partition("=")[0]
    set_it = {"env:X": "spec.env['X'] = ...", "chdir": "spec.chdir = ..."}.get(key, "setattr(spec, 'x-mine', ...)")
    how = f" A value with // in it is set on the spec itself: spec = XSpec('popen'); {set_it}"
    assert str(caught.value) == f"spec {f'popen//{keys}'!r}: {cut}{how}"
    assert list(group) == []


def test_a_value_with_two_slashes_is_set_on_the_spec(group, tmp_path):
    spec = execnet_c.XSpec("popen")
    spec.env["X"] = "http://h"
    spec.chdir = f"{tmp_path}//nest"
    channel = group.makegateway(spec).remote_exec("import os\nchannel.send((os.environ['X'], os.getcwd()))")
    assert channel.receive(TIMEOUT) == ("http://h", str(tmp_path / "nest"))


@pytest.mark.any_core
@pytest.mark.parametrize(
    "spec, says",
    [
        ("popn//id=a", "no gateway type found for 'popn//id=a'; did you mean 'popen'?"),
        ("Popen", "no gateway type found for 'Popen'; did you mean 'popen'?"),
        ("id=a", "no gateway type found for 'id=a'; it needs popen, ssh, vagrant_ssh or socket"),
        ("popen/python=x", "no gateway type found for 'popen/python=x'; keys are separated by //"),
        ("popen/chdir=/tmp//id=a", "no gateway type found for 'popen/chdir=/tmp//id=a'; keys are separated by //"),
        ("popen//id", "spec 'popen//id': id needs a value, as in id=..."),
        ("popen//env=A=1", "duplicate key: 'env' in 'popen//env=A=1': write env:NAME=value"),
    ],
)
def test_an_error_says_what_was_meant(group, spec, says):
    with pytest.raises(ValueError, match=f"^{re.escape(says)}$"):
        group.makegateway(spec)


@pytest.mark.any_core
def test_a_host_with_a_key_in_it_is_tried_and_warned_of(group):
    says = "spec 'ssh=no.invalid/python=x': keys are separated by //, so that ssh is 'no.invalid/python=x' here"
    with pytest.warns(UserWarning, match=f"^{re.escape(says)}$"), pytest.raises(OSError):
        group.makegateway("ssh=no.invalid/python=x")


def test_good_specs_import_nothing_for_this(group):
    sys.modules.pop("execnet_c.near.unmeant", None)
    group.makegateway("popen//id=one//env:A=1//dont_write_bytecode")
    assert "execnet_c.near.unmeant" not in sys.modules


# ---- the home directory


@pytest.mark.parametrize("end", FAR_ENDS, ids=lambda end: end.name)
def test_a_tilde_in_chdir_is_the_home_over_there(end):
    end.spec()
    group = execnet_c.Group()
    try:
        home = group.makegateway(end.spec()).remote_exec("import os; channel.send(os.path.expanduser('~'))")
        home = home.receive(TIMEOUT)
        assert home.startswith("/")
        try:
            assert group.makegateway(end.spec("chdir=~")).remote_exec(CWD).receive(TIMEOUT) == home
        except execnet_c.RemoteError as exc:  # of a user without one
            assert str(exc).strip().endswith(f"denied: {home!r}")
        with pytest.raises(execnet_c.RemoteError, match="OSError: chdir=~no such user: there is no such home"):
            group.makegateway(end.spec("chdir=~no such user"))
    finally:
        group.terminate(timeout=TIMEOUT)


def test_a_directory_named_tilde_is_reached_by_its_path(group, tmp_path):
    gw = group.makegateway(f"popen//chdir={tmp_path}/~")
    assert gw.remote_exec(CWD).receive(TIMEOUT) == f"{tmp_path}/~"


# ---- this program's own interpreter


@pytest.mark.parametrize("executable", [None, ""])
@pytest.mark.parametrize("spec", ["popen", "popen//chdir=/"])
def test_an_interpreter_that_is_not_known(group, monkeypatch, spec, executable):
    python = sys.executable
    monkeypatch.setattr(sys, "executable", executable)
    with pytest.raises(OSError, match=f"^spec '{spec}': .* sys.executable, is not known .*; {PYTHON}$"):
        group.makegateway(spec)
    assert list(group) == []
    assert group.makegateway(f"popen//python={python}").remote_exec("channel.send(1)").receive(TIMEOUT) == 1


def test_a_frozen_program_does_not_start_itself(group, monkeypatch):
    python = sys.executable
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    with pytest.raises(OSError, match=f"is this frozen program itself \\({re.escape(python)}\\); {PYTHON}$"):
        group.makegateway("popen")
    assert group.makegateway(f"popen//python={python}").remote_exec("channel.send(1)").receive(TIMEOUT) == 1


@pytest.mark.parametrize("executable, error", [("/no/python", FileNotFoundError), ("/etc/passwd", PermissionError)])
def test_an_interpreter_that_cannot_be_run(group, monkeypatch, executable, error):
    monkeypatch.setattr(sys, "executable", executable)
    with pytest.raises(error, match=f"{executable}, which is this program's sys.executable; {PYTHON}$"):
        group.makegateway("popen")
    with pytest.raises(FileNotFoundError, match=": /nowhere$"):
        group.makegateway("popen//python=/nowhere")


@pytest.mark.parametrize("change", ["sys.executable = None", "sys.executable = ''", "sys.frozen = True"])
def test_an_interpreter_between_that_is_not_known(group, change):
    group.makegateway("popen//id=outer").remote_exec(f"import sys; {change}").waitclose(TIMEOUT)
    with pytest.raises(OSError, match=f"by gateway 'outer': the interpreter over there, sys.executable, .*; {PYTHON}$"):
        group.makegateway("popen//via=outer")
    gw = group.makegateway(f"popen//via=outer//python={sys.executable}")
    assert gw.remote_exec("channel.send(1)").receive(TIMEOUT) == 1
    with pytest.raises(OSError, match="no server on gateway 'outer': its interpreter, sys.executable, is not known"):
        group.makegateway("socket//installvia=outer")
