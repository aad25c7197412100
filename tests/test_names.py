"""Modules under execnet's names: their names are there, and what programs do with them has the same outcome."""

import importlib
import inspect
import io
import os
import stat
import sys
import textwrap

import pairing
import pytest

from conftest import TIMEOUT
from far_ends import TOO_OLD

MODULES = ["gateway", "gateway_base", "gateway_bootstrap", "gateway_io", "multi", "rsync", "xspec"]

# execnet's own moving parts, and what it imports for itself: nothing here stands in their place.
LEFT_OUT = {
    "gateway": {"IO", "Channel", "Message", "Group", "XSpec"},
    "gateway_base": {
        *("ChannelFactory", "Message", "Popen2IO", "Reply", "WorkerPool"),
        *("init_popen_io", "notrace", "serve"),
    },
    "gateway_bootstrap": {"IO", "XSpec", "bootstrap", "bootstrap_exec", "bootstrap_import", "bootstrap_socket", "sendexec"},
    "gateway_io": {
        *("Message", "Popen2IO", "Popen2IOMaster", "ProxyIO", "PseudoSpec", "create_io", "serve_proxy_io"),
        *("RIO_CLOSE_WRITE", "RIO_KILL", "RIO_REMOTEADDRESS", "RIO_WAIT"),
    },
    "multi": {"Channel", "ExecModel", "WorkerPool", "safe_terminate", "trace"},
    "rsync": {"Gateway", "BaseGateway", "Channel"},
    "xspec": set(),
}


def names_of(module):
    """What execnet defines or takes from itself, not what it imports from elsewhere."""
    names = {name for name, value in vars(module).items() if not name.startswith("_") and not inspect.ismodule(value)}
    return {
        name
        for name in names - {"TYPE_CHECKING", "annotations"}
        if getattr(vars(module)[name], "__module__", "execnet").partition(".")[0] == "execnet"
    }


@pytest.mark.any_core
@pytest.mark.parametrize("name", MODULES)
def test_the_names_are_there(name):
    pytest.importorskip("execnet")
    theirs = names_of(importlib.import_module("execnet." + name))
    ours = importlib.import_module("execnet_c." + name)
    assert theirs, "there is something to compare"
    assert {one for one in theirs if not hasattr(ours, one)} == LEFT_OUT[name]


@pytest.mark.any_core
def test_the_package_has_its_modules_as_attributes():
    import execnet_c

    assert [getattr(execnet_c, name).__name__ for name in MODULES] == ["execnet_c." + name for name in MODULES]
    assert set(MODULES) <= set(dir(execnet_c))


@pytest.fixture
def base(lib):
    return importlib.import_module(lib.__name__ + ".gateway_base")


def test_the_classes_are_the_package_s_own(lib, base):
    for name in ("Channel", "DataFormatError", "DumpError", "LoadError", "RemoteError", "TimeoutError"):
        assert getattr(base, name) is getattr(lib, name)
    for name in ("dump", "dumps", "load", "loads"):
        assert getattr(base, name) is getattr(lib, name)
    assert importlib.import_module(lib.__name__ + ".gateway_bootstrap").HostNotFound is lib.HostNotFound
    assert importlib.import_module(lib.__name__ + ".multi").default_group is lib.default_group
    assert issubclass(lib.Gateway, base.BaseGateway)


@pytest.mark.any_core
@pytest.mark.parametrize(
    "name",
    "COMPLEX_FORMAT COMPLEX_FORMAT_SIZE DUMPFORMAT_VERSION FLOAT_FORMAT FLOAT_FORMAT_SIZE FOUR_BYTE_INT_MAX "
    "INTERRUPT_TEXT MAIN_THREAD_ONLY_DEADLOCK_TEXT sysex pid DEBUG".split(),
)
def test_constants(name):
    execnet = pytest.importorskip("execnet")
    from execnet_c import gateway_base

    assert getattr(gateway_base, name) == getattr(execnet.gateway_base, name)


@pytest.mark.any_core
def test_opcodes():
    execnet = pytest.importorskip("execnet")
    from execnet_c import gateway_base

    def codes(base):
        return {name: value for name, value in vars(base.opcode).items() if not name.startswith("_")}

    assert codes(gateway_base) == codes(execnet.gateway_base)


ITEMS = [None, True, 5, -(1 << 31), 1 << 80, 1.5, 1j, "text", b"bytes", [1, [2]], (1,), {"a": {1}}, frozenset([2])]


def test_the_inner_encoding_has_no_version(base):
    for item in ITEMS:
        data = base.dumps_internal(item)
        assert base.dumps(item) == base.DUMPFORMAT_VERSION + data
        assert base.loads_internal(data) == item
    with pytest.raises(base.DumpError):
        base.dumps_internal(object)


def test_the_inner_encoding_of_python_2_s_strings(base):
    data = base.opcode.PY2STRING + b"\0\0\0\1a" + base.opcode.STOP
    assert base.loads_internal(data) == "a"
    assert base.loads_internal(data, None, (False, False)) == b"a"
    assert base.loads_internal(base.dumps_internal("a"), strconfig=(False, True)) == b"a"


def test_objects_one_behind_the_other(base):
    written = []
    serializer = base._Serializer(written.append)
    for item in ITEMS:
        assert serializer.save(item) is None
    stream = io.BytesIO(b"".join(written))
    assert [base.Unserializer(stream).load() for _ in ITEMS] == ITEMS
    assert stream.read() == b""
    serializer = base._Serializer()
    assert serializer.save(1, versioned=True) == base.dumps(1)
    assert serializer.save(2) == base.dumps(1) + base.dumps_internal(2)
    assert base.Unserializer(io.BytesIO(base.dumps("s"))).load(versioned=True) == "s"
    with pytest.raises(base.LoadError):
        base.Unserializer(io.BytesIO(base.dumps_internal("s"))).load(versioned=True)
    with pytest.raises(EOFError):
        base.Unserializer(io.BytesIO(b"")).load()


def test_an_error_as_text(base):
    try:
        1 / 0
    except ZeroDivisionError as exc:
        text = base.geterrortext(exc)
    assert text.startswith("Traceback") and text.endswith("ZeroDivisionError: division by zero\n")


def test_execution_models(base):
    for name in ("thread", "main_thread_only"):
        model = base.get_execmodel(name)
        assert model.backend == name and isinstance(model, base.ExecModel)
        assert base.get_execmodel(model) is model
    assert base.ThreadExecModel().backend == "thread"
    assert base.MainThreadOnlyExecModel().backend == "main_thread_only"


# --- gateway --------------------------------------------------------------------------------------------------------


def task(channel):
    channel.send(len("some"))


def uses_globals(channel):
    channel.send(os.getcwd() + io.__name__)


def test_the_source_of_a_function(lib):
    room = importlib.import_module(lib.__name__ + ".gateway")
    text = room._source_of_function(task)
    assert text.lstrip("\n") == textwrap.dedent(inspect.getsource(task))
    assert text.count("\n") - text.lstrip("\n").count("\n") == task.__code__.co_firstlineno - 1
    with pytest.raises(ValueError, match="the use of non-builtin globals isn't supported"):
        room._source_of_function(uses_globals)
    with pytest.raises(ValueError):
        room._source_of_function(lambda channel: None)


def test_the_globals_of_a_source_text(lib):
    room = importlib.import_module(lib.__name__ + ".gateway")
    found = {
        function: set(room._find_non_builtin_globals(inspect.getsource(function), function.__code__))
        for function in (task, uses_globals)
    }
    assert found == {task: set(), uses_globals: {"os", "io"}}


def test_facts_by_a_task(lib, gw):
    room = importlib.import_module(lib.__name__ + ".gateway")
    facts = gw.remote_exec(room.rinfo_source).receive(TIMEOUT)
    info = gw._rinfo()
    assert isinstance(info, room.RInfo)
    assert {name: getattr(info, name) for name in facts} == facts
    assert {"executable", "version_info", "platform", "cwd", "pid"} == set(facts)


# --- gateway_io -----------------------------------------------------------------------------------------------------

SPECS = [
    "popen",
    "popen//python=nice -n 3 python3",
    "popen//python=/a/python 'with words'//dont_write_bytecode",
    "ssh=host",
    "ssh=-p 2222 user@host//python=python3.11//ssh_config=/a/config",
    "vagrant_ssh=box//python=python3",
    "vagrant_ssh=box//ssh_config=/a/config",
]


@pytest.mark.any_core
@pytest.mark.parametrize("text", SPECS)
def test_command_lines(text):
    execnet = pytest.importorskip("execnet")
    import execnet_c.gateway_io

    function = text.partition("=")[0].partition("//")[0] + "_args"
    ours, theirs = (getattr(lib.gateway_io, function)(lib.XSpec(text)) for lib in (execnet_c, execnet))
    assert ours == theirs
    assert execnet_c.gateway_io.popen_bootstrapline in ours[-1]


@pytest.fixture
def gateway_io(lib, monkeypatch, tmp_path):
    """The module; an `ssh` that runs its last word here stands first in PATH."""
    ssh = tmp_path / "bin" / "ssh"
    ssh.parent.mkdir()
    ssh.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/said\nfor last; do :; done\nexec sh -c "$last"\n')
    ssh.chmod(ssh.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{ssh.parent}{os.pathsep}{os.environ['PATH']}")
    module = importlib.import_module(lib.__name__ + ".gateway_io")
    monkeypatch.setattr(module, "said", lambda: (tmp_path / "said").read_text(), raising=False)
    return module


def works(gateway):
    channel = gateway.remote_exec("import sys\nfor item in channel: channel.send((item, sys.argv, sys.stdin.read()))")
    items = ["a", 1 << 80, b"x" * 300_000]
    for item in items:
        channel.send(item)
    return [channel.receive(TIMEOUT) for _ in items] == [(item, ["-c"], "") for item in items]


def test_a_program_s_own_ssh_command_line(group, gateway_io, monkeypatch):
    """Built from scratch, with keys of its own in the spec: as deployment tools do."""
    seen = []

    def own(spec):
        from_module = sys.modules[gateway_io.__name__].popen_bootstrapline
        seen.append((spec.type, spec.ssh, spec.python))
        return ["ssh", "-C", "-o", "Own=yes", spec.ssh, '%s -c "%s"' % (spec.python or "python", from_module)]

    monkeypatch.setattr(gateway_io, "ssh_args", own)
    gateway = group.makegateway(f"ssh=somebody@somewhere//python={sys.executable}//type=special")
    assert works(gateway)
    assert seen == [("special", "somebody@somewhere", sys.executable)]
    assert gateway_io.said().startswith("-C -o Own=yes somebody@somewhere ")
    assert gateway.remoteaddress == "somebody@somewhere"


def test_a_wrapper_around_ours(group, gateway_io, monkeypatch):
    before = gateway_io.ssh_args

    def wrapper(spec):
        words = before(spec)
        return [words[0], "-v", *words[1:]]

    monkeypatch.setattr(gateway_io, "ssh_args", wrapper)
    assert works(group.makegateway(f"ssh=somewhere//python={sys.executable}"))
    assert gateway_io.said().startswith("-v -C somewhere ")


def test_a_program_s_own_command_line_of_a_local_gateway(group, gateway_io, monkeypatch):
    before = gateway_io.popen_args
    monkeypatch.setattr(gateway_io, "popen_args", lambda spec: ["env", "OWN=yes", *before(spec)])
    for spec in ("popen", f"popen//python={sys.executable}"):
        gateway = group.makegateway(spec)
        assert works(gateway)
        assert gateway.remote_exec("import os; channel.send(os.environ.get('OWN'))").receive(TIMEOUT) == "yes"


def test_a_program_s_own_first_line(group, gateway_io, monkeypatch):
    line = "import os,sys;os.environ['OWN']='yes';exec(eval(sys.stdin.readline()))"
    monkeypatch.setattr(gateway_io, "popen_bootstrapline", line)
    gateway = group.makegateway(f"popen//python={sys.executable}")
    assert works(gateway)
    assert gateway.remote_exec("import os; channel.send(os.environ.get('OWN'))").receive(TIMEOUT) == "yes"


def test_many_of_them_at_once(lib, gateway_io, monkeypatch):
    before = gateway_io.popen_args
    monkeypatch.setattr(gateway_io, "popen_args", lambda spec: ["env", *before(spec)])
    group = lib.Group(["popen", f"popen//python={sys.executable}", "popen"])
    try:
        assert [works(gateway) for gateway in group] == [True] * 3
    finally:
        group.terminate(timeout=2.0)


@pytest.mark.ours
@pytest.mark.parametrize(
    "words, error, text",
    [
        (["/no/such/command"], OSError, "/no/such/command"),
        (["sh", "-c", "echo the reason >&2; exit 5"], EOFError, "exit status 5"),
        (["sh", "-c", "echo the reason >&2; exit 5"], EOFError, "the reason"),
        (["sh", "-c", "echo Permission denied >&2; exit 255"], "LoginDenied", "does not let us in"),
    ],
)
def test_one_that_fails(lib, group, gateway_io, monkeypatch, words, error, text):
    monkeypatch.setattr(gateway_io, "ssh_args", lambda spec: words)
    with pytest.raises(getattr(lib, error) if isinstance(error, str) else error, match=text):
        group.makegateway("ssh=some where//python=x")
    assert list(group) == []


@pytest.mark.ours
def test_one_that_leads_to_a_python_too_old(lib, group, gateway_io, monkeypatch):
    if not TOO_OLD:
        pytest.skip("there is no Python that is too old")
    before = gateway_io.popen_args
    monkeypatch.setattr(gateway_io, "popen_args", lambda spec: [*TOO_OLD[0].command, *before(spec)[1:]])
    with pytest.raises(lib.PythonMissing, match="3.8 is the oldest"):
        group.makegateway("popen")


@pytest.mark.ours
def test_a_program_that_sets_nothing_has_ours(group, gateway_io):
    gateway = group.makegateway("popen")
    assert works(gateway)
    assert gateway_io.popen_bootstrapline not in gateway._command[-1]
    assert pairing.far == {"execnet_c._core": "C"}.get(
        gateway.remote_exec("channel.send(type(channel).__module__)").receive(TIMEOUT), "Python"
    )
