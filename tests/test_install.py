"""install_as_execnet(): `import execnet` means execnet_c, in a process of its own here, and in the workers it starts."""

import importlib.util
import os
import subprocess
import sys

import pairing
import pytest

from conftest import TIMEOUT
from far_ends import PLAIN

BEGIN = pairing.HEAD + "import sys, execnet_c\nexecnet_c.install_as_execnet()\n"

# A worker's side of it: what a task finds, said to whoever asked.
TASK = """
import importlib, io, pickle, sys
import execnet
import execnet.gateway_base as base
from execnet.gateway_base import DumpError, ExecModel
from execnet import *

import execnet_c
data = execnet.dumps([1, 2.5, {"a": (None, b"b")}])
stream = io.BytesIO()
execnet.dump(stream, "in a stream")
stream.seek(0)
try:
    base.dumps(object())
except execnet.DumpError as exc:
    refused = type(exc) is DumpError is execnet_c.DumpError
channel.send({
    "one copy": [
        execnet is execnet_c is sys.modules["execnet"],
        base is execnet.gateway_base is importlib.import_module("execnet_c.gateway_base"),
        type(channel) is execnet.Channel is base.Channel,
        dumps is execnet.dumps is base.dumps,
        isinstance(channel.gateway, base.BaseGateway),
        isinstance(channel.gateway.execmodel, ExecModel),
        type(base.get_execmodel("thread")) is ExecModel,
        pickle.loads(pickle.dumps(execnet.RemoteError)) is execnet.RemoteError,
        XSpec("popen//id=one") == execnet.XSpec("popen//id=one"),
        refused,
    ],
    "loaded": [execnet.loads(data), execnet.load(stream), base.loads_internal(base.dumps_internal("s"))],
    "version": execnet.__version__,
    "core": type(channel).__module__,
})
"""
FOUND = {
    "one copy": [True] * 10,
    "loaded": [[1, 2.5, {"a": (None, b"b")}], "in a stream", "s"],
}


def run(program, *options, status=0):
    """What a program says, a line each."""
    done = subprocess.run(
        [sys.executable, *options, "-c", program],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=3 * TIMEOUT,
    )
    assert done.returncode == status, done.stderr
    return done.stdout.splitlines() if not status else done.stderr.strip().splitlines()


def says(program):
    """A program that says what one expression is."""
    [line] = run(program)
    return eval(line)


CHECKS = """
import importlib, importlib.metadata, importlib.util, pickle, pkgutil
import execnet, execnet.gateway_base as base, execnet.multi
from execnet import gateway_io
from execnet import *

modules = ["gateway", "gateway_base", "gateway_bootstrap", "gateway_io", "multi", "rsync", "xspec"]
before = {name: sys.modules[name] for name in sys.modules if name.startswith("execnet")}
print([
    execnet is execnet_c,
    Channel is execnet.Channel is execnet_c.Channel is base.Channel,
    base.dumps is execnet_c.dumps is execnet.gateway_base.dumps is sys.modules["execnet_c.gateway_base"].dumps,
    all(importlib.import_module("execnet." + n) is importlib.import_module("execnet_c." + n) for n in modules),
    all(getattr(execnet, n) is sys.modules["execnet." + n] for n in modules),
    execnet.multi.Group is execnet_c.Group is Group,
    gateway_io is execnet_c.gateway_io,
    all(pickle.loads(pickle.dumps(kind)) is kind for kind in (Channel, Gateway, Group, RemoteError, XSpec, DumpError)),
    pickle.loads(b"cexecnet.gateway_base\\nRemoteError\\n.") is RemoteError,
    pkgutil.resolve_name("execnet.gateway_base:dumps") is dumps,
    {"execnet.gateway_base", "execnet.rsync"} <= {m.name for m in pkgutil.iter_modules(execnet.__path__, "execnet.")},
    importlib.util.find_spec("execnet.rsync") is not None,
    importlib.util.find_spec("execnet.nothing") is None,
    importlib.reload(execnet) is execnet_c and execnet.Channel is Channel and execnet.loads is loads,
    importlib.reload(base) is execnet_c.gateway_base and base.dumps is dumps and base.Channel is Channel,
    base.__spec__.name == base.__name__ == "execnet_c.gateway_base",
])
"""


def test_one_copy_of_everything():
    assert says(BEGIN + CHECKS) == [True] * 16


def test_of_two_copies_one_would_be_seen():
    """Had importlib loaded our files under execnet's names, the checks would say so."""
    program = BEGIN + "sys.meta_path.remove(execnet_c.far.alias._finder)\nimport execnet.gateway_base as base\n"
    program += "print([base is sys.modules['execnet_c.gateway_base']])"
    program = program.replace("import sys, execnet_c\n", "import sys, execnet_c, execnet_c.far.alias, execnet_c.gateway_base\n")
    assert says(program) == [False]


def test_distributions_are_as_they_were():
    ask = "import importlib.metadata as m; print(sorted((d.name, d.version) for d in m.distributions()))"
    assert run(BEGIN + ask) == run(ask)


def test_calling_it_again_does_nothing():
    again = "before = list(sys.meta_path), set(sys.modules)\nexecnet_c.install_as_execnet()\n"
    assert says(BEGIN + again + "print((list(sys.meta_path), set(sys.modules)) == before)")


def test_it_is_cheap():
    """No core is chosen by it, and nothing of ours is imported but the one room."""
    program = "import sys, execnet_c\nbefore = set(sys.modules)\nexecnet_c.install_as_execnet()\n"
    assert says(program + "print(sorted(n for n in set(sys.modules) - before if n.startswith('execnet')))") == [
        "execnet",
        "execnet_c.far",
        "execnet_c.far.alias",
    ]


def test_a_module_that_was_removed_is_found_again():
    program = BEGIN + "import execnet.multi\nfor name in ('execnet', 'execnet.multi'): del sys.modules[name]\n"
    assert says(program + "import execnet.multi as m, execnet as e\nprint((e is execnet_c, m.Group is execnet_c.Group))")


def test_what_is_not_there_is_not_found():
    lines = run(BEGIN + "import execnet.nothing", status=1)
    assert lines[-1] == "ModuleNotFoundError: No module named 'execnet.nothing'"


def test_after_execnet_itself_it_is_an_error():
    pytest.importorskip("execnet")
    program = pairing.HEAD + "import execnet, execnet_c, sys\n"
    program += "try: execnet_c.install_as_execnet()\nexcept RuntimeError as exc: print([str(exc), execnet.__file__])\n"
    program += "assert sys.modules['execnet'] is execnet and execnet_c.far.alias._finder not in sys.meta_path"
    text, path = says(program)
    assert f"execnet itself has been imported already, from {path}" in text
    assert "before anything imports execnet" in text


# --- workers --------------------------------------------------------------------------------------------------------

ASK = BEGIN + "import execnet\ngateway = execnet.makegateway({spec!r})\n"
ASK += "print([gateway.remote_exec({task!r}).receive(60)])\n"


def found_by(spec, task=TASK):
    return says(ASK.format(spec=spec, task=task))[0]


def test_in_a_worker():
    found = found_by("popen")
    core = "execnet_c._core" if pairing.far == "C" else "execnet_c.twin.pychannel"
    import execnet_c

    assert found == {**FOUND, "version": execnet_c.__version__, "core": core}


@pytest.mark.parametrize("end", PLAIN, ids=lambda end: end.name)
def test_in_a_worker_with_nothing_installed(end):
    found = found_by(end.spec())
    import execnet_c

    assert found == {**FOUND, "version": execnet_c.__version__, "core": "_execnet_c.pychannel"}


def bare():
    here = [end for end in PLAIN if not end.missing]
    if not here:
        pytest.skip("no Python without execnet_c here")
    return here[0].spec()


def test_in_workers_of_workers():
    inner = "import execnet; channel.send((execnet.__name__, isinstance(channel, execnet.Channel)))"
    task = f"import execnet\ngateway = execnet.makegateway('popen')\nchannel.send(gateway.remote_exec({inner!r}).receive(60))\n"
    task += "execnet.default_group.terminate(30)\n"
    assert found_by("popen", task) == ("execnet_c", True)


def test_in_a_worker_that_goes_through_another():
    task = "import execnet; channel.send(isinstance(channel, execnet.gateway_base.Channel))"
    program = BEGIN + "import execnet\ngroup = execnet.Group(['popen//id=a', 'popen//via=a', {spec!r}])\n"
    program += "print([g.remote_exec({task!r}).receive(60) for g in group])"
    assert says(program.format(spec=bare() + "//via=a", task=task)) == [True] * 3


def test_a_worker_that_was_sent_its_core_says_what_it_has_not():
    task = "import execnet\ntry: execnet.makegateway\nexcept AttributeError as exc: channel.send(str(exc))\n"
    text = found_by(bare(), task)
    assert "'makegateway'" in text and "not installed" in text
    task = "try: import execnet.multi\nexcept ImportError as exc: channel.send(str(exc))\n"
    assert found_by(bare(), task) == "No module named 'execnet.multi'"


WHOLE = """
import execnet, execnet.gateway_io, execnet_c
execnet_c.install_as_execnet()
import execnet.multi

class Ours(execnet.RSync):
    pass

gateway = execnet.makegateway("popen")
found = gateway.remote_exec("channel.send(channel.receive() * 2)")
found.send(21)
channel.send([found.receive(), execnet.__file__, execnet_c.__name__, type(channel) is execnet_c.Channel])
execnet.default_group.terminate(30)
"""


def test_a_worker_that_was_sent_its_core_gives_way_to_execnet_itself(tmp_path):
    """What is installed with it may need more of it than was sent."""
    theirs = importlib.util.find_spec("execnet") or pytest.skip("there is no execnet here")
    (tmp_path / "execnet").symlink_to(os.path.dirname(theirs.origin))
    python = bare().partition("python=")[2].partition("//")[0]
    found = found_by(f"popen//python=env PYTHONPATH={tmp_path} {python}", WHOLE)
    assert found == [42, str(tmp_path / "execnet/__init__.py"), "_execnet_c", True]


def test_a_directory_called_execnet_is_not_execnet_itself(tmp_path):
    (tmp_path / "execnet").mkdir()
    task = "import execnet; channel.send(execnet.__name__)"
    assert found_by(f"{bare()}//chdir={tmp_path}", task) == "_execnet_c"
    python = bare().partition("python=")[2].partition("//")[0]
    assert found_by(f"popen//python=env PYTHONPATH={tmp_path} {python}", task) == "_execnet_c"


def test_a_worker_that_was_sent_its_core_has_one_copy_though_its_path_holds_the_package():
    """As with pytest-xdist, which hands on its sys.path."""
    import execnet_c

    task = f"import sys; sys.path.insert(0, {os.path.dirname(os.path.dirname(execnet_c.__file__))!r})\n"
    task += "import execnet_c, execnet; execnet_c.install_as_execnet()\n"
    task += "channel.send((execnet is execnet_c, type(channel) is execnet_c.Channel))"
    assert found_by(bare(), task) == (True, True)


@pytest.mark.parametrize("spec", ["popen", "bare"])
def test_without_it_workers_know_nothing_of_it(spec):
    task = "import sys; channel.send(sorted(n for n in sys.modules if n.split('.')[0] == 'execnet' or n.endswith('.alias')))"
    spec = bare() if spec == "bare" else spec
    ask = ASK.replace("execnet_c.install_as_execnet()", "sys.modules['execnet'] = execnet_c")
    assert says(ask.format(spec=spec, task=task)) == [[]]


def test_a_worker_that_has_imported_execnet_itself_is_refused(tmp_path):
    """Its site does, say: tasks would get the wrong one."""
    (tmp_path / "sitecustomize.py").write_text("import os\nif os.environ.get('WORKER'): import execnet\n")
    (tmp_path / "execnet.py").write_text("")
    program = BEGIN + f"import os\nos.environ.update(PYTHONPATH={str(tmp_path)!r}, WORKER='1')\n"
    program += "import execnet\ngateway = execnet.makegateway('popen')\n"
    program += "try: gateway.remote_exec('').waitclose(60)\nexcept execnet.GatewayDied as exc: print([str(exc)])"
    [text] = says(program)
    assert "execnet itself has been imported already" in text


def test_what_workers_are_sent_is_what_the_packed_text_leaves_out():
    from execnet_c.far import alias, sent

    assert {name: sorted(functions.split()) for name, functions in alias._REST.items()} == {
        name: sorted(sent.NEAR[name].split()) for name in alias._REST
    }
