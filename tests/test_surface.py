"""Every public name of execnet's, with its methods, attributes and signatures: execnet_c has it, and it is called the
same way. What they do is compared by the scripts (test_scripts_oracle.py) and by the tests that run with both.

What differs on purpose stands in this file's tables, with its reason.
"""

import inspect
import pickle
import types

import execnet_c
import pytest
from conftest import TIMEOUT

execnet = pytest.importorskip("execnet")

# Further parameters, which execnet's callers need not know; and those of what callers do not make themselves.
MORE = {"RSync": ["progress"], "Group": ["payload"], "dumps": ["strict"], "dump": ["strict"], "Channel.reconfigure": ["strict"], "Gateway.reconfigure": ["strict"], "MultiChannel.receive_each": ["timeout"], "MultiChannel.waitclose": ["timeout"], "Channel.send": ["timeout"]}
NOT_CALLED = {
    "Gateway": "made by makegateway(); what execnet's takes first is its stream",
}
# Other bases than execnet's are fine; these must stay.
BASES = {
    "DumpError": ["DataFormatError"],
    "LoadError": ["DataFormatError"],
    "HostNotFound": [Exception],
    "RemoteError": [Exception],
    "TimeoutError": [OSError],
}
CLASSES = [name for name in execnet.__all__ if isinstance(getattr(execnet, name), type)]
FUNCTIONS = [name for name in execnet.__all__ if name not in CLASSES and callable(getattr(execnet, name))]
# Private names that programs are known to use.
USED = {
    "Channel": ["_getremoteerror"],
    "Gateway": ["_rinfo"],
    "XSpec": ["_samefilesystem"],
    "RSync": ["_report_send_file"],
}
ON_OBJECTS = {"Gateway": {"id"}}  # what execnet has on the class, too; see test_attributes_of_objects


def both(name):
    return getattr(execnet, name), getattr(execnet_c, name)


def parameters(function):
    """Names, whether they can be left out, and plain defaults. A C method's `self` is never given by name."""
    found = []
    try:
        signature = inspect.signature(function)
    except TypeError:  # Python 3.13.0 cannot say it of a class whose __init__ is in C
        signature = inspect.signature(function.__init__)
        signature = signature.replace(parameters=list(signature.parameters.values())[1:])
    for parameter in signature.parameters.values():
        default = parameter.default
        if default is not parameter.empty and not isinstance(default, (int, str, tuple, types.NoneType)):
            default = "some object"
        kind = "by position" if parameter.name == "self" else parameter.kind.description
        found.append((parameter.name, kind, "required" if default is parameter.empty else default))
    return found


def public(kind):
    return {name for name in dir(kind) if not name.startswith("_")}


def methods(name):
    kind = getattr(execnet, name)
    named = [attribute for attribute in sorted(public(kind)) if inspect.isroutine(getattr(kind, attribute))]
    return named + USED.get(name, [])


def test_all_names():
    assert set(execnet.__all__) - set(execnet_c.__all__) == set()
    assert len(CLASSES) == 12 and len(FUNCTIONS) == 6
    modules = {name for name in public(execnet) if isinstance(getattr(execnet, name), types.ModuleType)}
    assert public(execnet) - modules - set(execnet.__all__) == set()


def test_a_star_import_brings_them():
    scope = {}
    exec("from execnet_c import *", scope)
    assert {name: scope[name] for name in execnet.__all__} == {name: both(name)[1] for name in execnet.__all__}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_take_the_same(name):
    theirs, ours = both(name)
    assert [parameter for parameter in parameters(ours) if parameter[0] not in MORE.get(name, [])] == parameters(theirs)


@pytest.mark.parametrize("name", CLASSES)
def test_classes_have_the_same_attributes(name):
    theirs, ours = both(name)
    assert ours.__name__ == theirs.__name__
    assert public(theirs) - public(ours) - ON_OBJECTS.get(name, set()) == set()
    for attribute in public(theirs) & public(ours):
        assert callable(getattr(theirs, attribute)) == callable(getattr(ours, attribute)), attribute
    for attribute in ("__len__", "__iter__", "__next__", "__getitem__", "__contains__", "__repr__", "__eq__"):
        assert not hasattr(theirs, attribute) or hasattr(ours, attribute)


@pytest.mark.parametrize("name", [name for name in CLASSES if name not in NOT_CALLED])
def test_classes_are_called_the_same_way(name):
    theirs, ours = both(name)
    try:
        expected = parameters(theirs)
    except ValueError:  # an exception that takes anything
        assert issubclass(ours, Exception)
        assert ours("text").args == theirs("text").args == ("text",)
        return
    got = [parameter for parameter in parameters(ours) if parameter[0] not in MORE.get(name, [])]
    assert got == expected


@pytest.mark.parametrize("name, method", [(name, method) for name in CLASSES for method in methods(name)])
def test_methods_take_the_same(name, method):
    theirs, ours = both(name)
    if issubclass(theirs, Exception) and method in public(Exception):
        assert getattr(ours, method) is not None
        return
    more = MORE.get(f"{name}.{method}", [])
    got = [parameter for parameter in parameters(getattr(ours, method)) if parameter[0] not in more]
    assert got == parameters(getattr(theirs, method))


@pytest.mark.parametrize("name", BASES)
def test_errors_are_caught_by_the_same_clauses(name):
    ours = getattr(execnet_c, name)
    for base in BASES[name]:
        theirs = getattr(execnet, base) if isinstance(base, str) else base
        assert issubclass(getattr(execnet, name), theirs)
        assert issubclass(ours, getattr(execnet_c, base) if isinstance(base, str) else base)


def test_errors_are_known_by_the_channel_s_class():
    for lib in (execnet, execnet_c):
        assert lib.Channel.RemoteError is lib.RemoteError
        assert lib.Channel.TimeoutError is lib.TimeoutError


def test_the_version_is_a_text():
    assert isinstance(execnet_c.__version__, str) and execnet_c.__version__[0].isdigit()


# ---- objects


@pytest.fixture(scope="module")
def pair():
    groups = [lib.Group(["popen//id=one"]) for lib in (execnet, execnet_c)]
    yield [group["one"] for group in groups]
    for group in groups:
        group.terminate(timeout=5.0)


def test_attributes_of_objects(pair):
    for gw in pair:
        channel = gw.newchannel()
        assert (gw.id, str(gw.spec), gw.spec.id, gw.execmodel.backend) == ("one", "popen//id=one", "one", "thread")
        assert gw._group["one"] is gw and gw in list(gw._group)
        assert channel.gateway is gw and isinstance(channel.id, int)
        assert not hasattr(gw, "remoteaddress")
        assert gw.hasreceiver() is True
        assert public(gw._group) >= {"defaultspec", "execmodel", "remote_execmodel"}
        assert gw._group.defaultspec == "popen"
    theirs, ours = pair
    models = [public(gw.execmodel) for gw in pair]
    assert models[0] - models[1] == set()
    assert public(type(theirs)) - public(ours) == set()


def test_facts_of_the_far_end(pair):
    theirs, ours = (vars(gw._rinfo()) for gw in pair)
    assert set(theirs) <= set(ours)
    for fact in ("executable", "platform", "cwd"):
        assert theirs[fact] == ours[fact], fact
    assert tuple(theirs["version_info"]) == tuple(ours["version_info"])
    their_status, our_status = (vars(gw.remote_status()) for gw in pair)
    assert set(their_status) == set(our_status)
    for gw in pair:
        assert repr(gw.remote_status()).startswith("<RInfo 'execmodel=thread, numchannels=")


def test_types_of_the_wrong_kind_are_the_same_errors(pair):
    wrong = {
        "no source": lambda gw: gw.remote_exec(),
        "arguments without a function": lambda gw: gw.remote_exec("1", a=1),
        "no callback": lambda gw: gw.newchannel().setcallback(),
        "unknown keyword": lambda gw: gw.newchannel().send(thing=1),
        "two items": lambda gw: gw.newchannel().send(1, 2),
        "no item": lambda gw: gw.newchannel().send(),
        "mode": lambda gw: gw.newchannel().makefile("a"),
        "group of": lambda gw: type(gw._group)(5),
        "number of a gateway": lambda gw: gw._group[5],
        "name of a gateway": lambda gw: gw._group["five"],
        "spec": lambda gw: gw._group.makegateway("id=five"),
        "model": lambda gw: gw._group.set_execmodel("thread"),
        "via": lambda gw: gw._group.makegateway("popen//via=nobody"),
    }
    for name, call in wrong.items():
        raised = []
        for gw in pair:
            with pytest.raises(Exception) as caught:
                call(gw)
            raised.append(caught.type)
        assert issubclass(raised[1], raised[0]), (name, raised)


@pytest.mark.ours
def test_via_that_leads_nowhere_is_a_clear_error(pair):
    group = pair[1]._group
    for spec, named in (("popen//via=nobody", "'nobody'"), ("popen//id=me//via=me", "'me'")):
        with pytest.raises(ValueError, match="via names no gateway of this group; there are: 'one'") as caught:
            group.makegateway(spec)
        assert named.strip("'") in str(caught.value) and isinstance(caught.value, KeyError)
    assert len(group) == 1


@pytest.mark.ours
def test_a_remote_error_can_be_pickled():
    """It is what a pool of processes hands on; execnet's loses its text and fails."""
    error = pickle.loads(pickle.dumps(execnet_c.RemoteError("text")))
    assert (type(error), str(error), error.formatted) == (execnet_c.RemoteError, "text", "text")


@pytest.mark.ours
def test_remote_init_threads_does_nothing_and_says_so(pair):
    with pytest.warns(DeprecationWarning, match="does nothing"):
        assert pair[1].remote_init_threads(num=3) is None
    assert pair[1].remote_exec("channel.send(1)").receive(TIMEOUT) == 1
