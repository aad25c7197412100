"""What execnet's documentation shows, feature by feature: each of its examples in a form of our own, with both libraries.

The pages are in the order in which they stand there: the API in a nutshell, then the examples' pages, and behind each
page its programs. Other interpreters, hosts and servers are in test_documented_hosts.py.
"""

import importlib
import importlib.util
import os
import queue
import subprocess
import sys

import pairing
import pytest

from conftest import TIMEOUT, plain_repr, wait_until
from gateways import evaluate
from masters import is_gone

@pytest.fixture
def default(lib):
    """The library, whose default group ends with the test."""
    yield lib
    lib.default_group.terminate(timeout=2.0)


@pytest.fixture
def module(tmp_path, monkeypatch):
    """module(name, text): that module, imported."""
    monkeypatch.syspath_prepend(str(tmp_path))
    names = []

    def module(name, text):
        (tmp_path / f"{name}.py").write_text(text)
        names.append(name)
        importlib.invalidate_caches()
        return importlib.import_module(name)

    yield module
    for name in names:
        sys.modules.pop(name, None)


@pytest.fixture
def program(lib, tmp_path):
    """program(text, **env): what a program that calls the library `execnet` prints, and says on stderr."""

    def program(text, **env):
        head = pairing.HEAD if lib.__name__ == "execnet_c" else ""
        done = subprocess.run(
            [sys.executable, "-c", f"{head}import {lib.__name__} as execnet\n{text}"],
            env={**os.environ, "TMPDIR": str(tmp_path), **env},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            timeout=TIMEOUT,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout, done.stderr

    return program


# ---- the API: specs


@pytest.mark.parametrize(
    "text, keys",
    [
        ("ssh=heron//python=python3.9//chdir=nest", {"ssh": "heron", "python": "python3.9", "chdir": "nest"}),
        ("ssh=-p 2022 heron", {"ssh": "-p 2022 heron"}),
        ("vagrant_ssh=box", {"vagrant_ssh": "box"}),
        ("popen//python=python3.9//nice=15", {"popen": True, "python": "python3.9", "nice": "15"}),
        ("popen//dont_write_bytecode", {"popen": True, "dont_write_bytecode": True}),
        ("popen//env:TREE=elm", {"popen": True, "env": {"TREE": "elm"}}),
        ("popen//execmodel=main_thread_only", {"popen": True, "execmodel": "main_thread_only"}),
        ("socket=10.0.0.7:9999", {"socket": "10.0.0.7:9999"}),
    ],
)
def test_specs_say(lib, text, keys):
    spec = lib.XSpec(text)
    assert {key: value for key, value in vars(spec).items() if key != "_spec"} == {"env": {}, **keys}
    assert (str(spec), repr(spec)) == (text, f"<XSpec {text!r}>")
    assert (spec.keepalive_or_any_other, spec.id) == (None, None)


def test_specs_do(group, tmp_path, monkeypatch):
    monkeypatch.delenv("TREE", raising=False)
    gateway = group.makegateway(f"popen//python={sys.executable}//nice=3//env:TREE=elm//chdir={tmp_path}")
    # Of the main thread, as in Linux each thread has its own, and in execnet the others have not.
    assert evaluate(gateway, "os.getpriority(os.PRIO_PROCESS, os.getpid())") == os.nice(0) + 3
    assert evaluate(gateway, "os.environ['TREE']") == "elm"
    assert os.path.realpath(evaluate(gateway, "os.getcwd()")) == os.path.realpath(tmp_path)
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    assert evaluate(group.makegateway("popen//dont_write_bytecode"), "sys.dont_write_bytecode") is True
    assert evaluate(group.makegateway("popen//execmodel=main_thread_only"), "channel.gateway.execmodel.backend") == (
        "main_thread_only"
    )


# ---- the API: channels


def test_a_channel_s_methods(lib, gw):
    channel = gw.remote_exec(
        """
        for item in channel:
            channel.send(["heard", item])
        """
    )
    with pytest.raises(channel.TimeoutError):
        channel.receive(timeout=0.01)
    channel.send("a")
    assert channel.receive(timeout=TIMEOUT) == ["heard", "a"]
    with pytest.raises(channel.TimeoutError):
        channel.waitclose(timeout=0.01)
    channel.close()
    assert channel.isclosed()
    channel.waitclose(TIMEOUT)
    with pytest.raises(OSError):
        channel.send("b")
    failing = gw.remote_exec("raise LookupError('no such tree')")
    with pytest.raises(failing.RemoteError, match="LookupError: no such tree") as caught:
        failing.waitclose(TIMEOUT)
    assert type(caught.value) is lib.RemoteError


def test_close_with_an_error_is_raised_over_there(gw):
    watcher = gw.newchannel()
    channel = gw.remote_exec(
        """
        watcher = channel.receive()
        try:
            channel.receive()
        except channel.RemoteError as error:
            watcher.send(error.formatted)
        """
    )
    channel.send(watcher)
    channel.close("enough")
    assert watcher.receive(TIMEOUT) == "enough"


def test_a_channel_as_a_file(gw):
    file = gw.remote_exec("channel.send('elm\\noak\\nas')\nchannel.send('h\\n')").makefile("r")
    assert [file.readline(), file.read(2), file.readline(), file.readline()] == ["elm\n", "oa", "k\n", "ash\n"]
    channel = gw.remote_exec("channel.send(list(iter(channel.receive, 'end')))\nchannel.receive()")
    out = channel.makefile("w", proxyclose=True)
    print("elm", "oak", sep=",", end="end", file=out)
    assert channel.receive(TIMEOUT) == ["elm", ",", "oak"]
    assert not channel.isclosed()
    out.close()
    assert channel.isclosed()
    kept = gw.newchannel()
    kept.makefile("w").close()
    assert not kept.isclosed()


# ---- the API: groups, models, state, rsync, traces, the serializer


def test_what_is_left_ends_with_the_program(program):
    out, _ = program(
        """
group = execnet.Group(["popen"] * 2)
for gateway in [*group, execnet.makegateway()]:
    channel = gateway.remote_exec("import os; channel.send(os.getpid()); channel.receive()")
    print(channel.receive())
"""
    )
    pids = list(map(int, out.split()))
    assert len(set(pids)) == 3
    assert wait_until(lambda: all(map(is_gone, pids)))


@pytest.mark.parametrize("model", ["main_thread_only", "gevent", "eventlet"])
def test_a_model_for_either_end(program, model):
    if model != "main_thread_only" and importlib.util.find_spec(model) is None:
        pytest.skip(f"{model} is not installed")
    out, _ = program(
        f"""
execnet.set_execmodel({model!r}, "thread")
gateway = execnet.makegateway()
print(repr(gateway).partition(" channels")[0])
print(gateway.remote_status())
print(gateway.remote_exec("channel.send(6 * 7)").receive())
"""
    )
    assert out.splitlines() == [
        f"<Gateway id='gw0' receive-live, {model} model, 0 active",
        "<RInfo 'execmodel=thread, numchannels=0, numexecuting=0'>",
        "42",
    ]


def test_the_first_task_has_the_main_thread(gw):
    task = "import threading as t; channel.send(t.current_thread() is t.main_thread()); channel.receive()"
    first = gw.remote_exec(task)
    assert first.receive(TIMEOUT) is True
    assert gw.remote_exec(task).receive(TIMEOUT) is False
    first.send(None)
    first.waitclose(TIMEOUT)


def test_remote_status_counts_tasks_and_channels(gw):
    def numbers():
        status = gw.remote_status()
        return status.numexecuting, status.numchannels

    assert numbers() == (0, 0)
    channels = [gw.remote_exec("channel.send(1); channel.receive()") for _ in range(2)]
    assert [channel.receive(TIMEOUT) for channel in channels] == [1, 1]
    assert numbers() == (2, 2)
    for channel in channels:
        channel.send(None)
        channel.waitclose(TIMEOUT)
    assert wait_until(lambda: numbers()[0] == 0)


def test_rsync(lib, group, tmp_path, capfd):
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "leaf.txt").write_text("green")
    (source / "sub" / "root.bin").write_bytes(b"\0" * 1000)
    targets = [tmp_path / "one", tmp_path / "two"]
    for _ in range(2):
        rsync = lib.RSync(str(source))
        for target in targets:
            rsync.add_target(group.makegateway(), str(target))
        rsync.send()
        for target in targets:
            names = sorted(path.name for path in target.rglob("*"))
            assert names == sorted(path.name for path in source.rglob("*"))
            assert (target / "leaf.txt").read_text() == "green"
            assert (target / "sub" / "root.bin").read_bytes() == b"\0" * 1000
        (source / "added").write_text("more")


def test_traces(program, tmp_path):
    """In files of their own, or among what both say on stderr; by process."""
    text = """
import os
gateway = execnet.makegateway()
channel = gateway.remote_exec("import os; channel.send(os.getpid())")
print(os.getpid(), channel.receive())
channel.waitclose()
"""
    out, err = program(text, EXECNET_DEBUG="2")
    tags = [f"[{pid}] " for pid in out.split()]
    assert len(tags) == 2
    for tag in tags:
        assert any(line.startswith(tag) for line in err.splitlines())
    assert not list(tmp_path.glob("execnet-debug-*"))
    out, err = program(text, EXECNET_DEBUG="1")
    assert {path.name for path in tmp_path.glob("execnet-debug-*")} == {f"execnet-debug-{pid}" for pid in out.split()}
    assert err == ""


def test_dumps_and_loads(lib):
    for value in ([1, 2, 3], {"a": (1.5, None)}, {b"x", "y"}):
        assert lib.loads(lib.dumps(value)) == value
    with pytest.raises(lib.DataFormatError):
        lib.dumps(object())
    with pytest.raises(lib.DataFormatError):
        lib.loads(b"\x07nothing")


# ---- basics: code here and there


def test_a_task_that_answers(default):
    channel = default.makegateway().remote_exec("channel.send(channel.receive() - 1)")
    channel.send(43)
    assert channel.receive() == 42


def scale(channel, by):
    while not channel.isclosed():
        channel.send(channel.receive() * by)


def test_a_function_with_a_factor(group):
    gateway = group.makegateway()
    channel = gateway.remote_exec(scale, by=7)
    for number in range(6):
        channel.send(number)
        assert channel.receive() == number * 7
    gateway.exit()
    assert gateway not in group


A_GLOBAL = 7


def uses_a_global(channel):
    channel.send(A_GLOBAL)


def test_functions_that_can_not_go(gw):
    typed = {}
    exec("def typed(channel): channel.send(1)", typed)
    for function in (uses_a_global, typed["typed"], lambda channel: channel.send(1)):
        with pytest.raises(ValueError):
            gw.remote_exec(function)
    with pytest.raises(TypeError):
        gw.remote_exec("channel.send(by)", by=7)


STARTS = """
if __name__ == "__channelexec__":
    channel.send(["started", __name__])
else:
    said = [__name__]
"""


def test_a_module_knows_where_it_runs(gw, module):
    one = module("starts_there", STARTS)
    assert one.said == ["starts_there"]
    assert gw.remote_exec(one).receive() == ["started", "__channelexec__"]


def test_the_directory_is_the_same(default):
    assert evaluate(default.makegateway(), "os.getcwd()") == os.getcwd()


def test_a_callback_for_items_and_the_end(gw):
    channel = gw.remote_exec("for letter in 'heron': channel.send(letter)")
    got = []
    channel.setcallback(got.append, endmarker=None)
    channel.waitclose()
    assert got == [*"heron", None]


def test_channels_go_over_channels(gw):
    channel = gw.remote_exec(
        """
        table = channel.receive()
        for name, other in sorted(table.items()):
            other.send(name.upper())
        """
    )
    table = {name: gw.newchannel() for name in ("left", "right")}
    channel.send(table)
    assert {name: one.receive() for name, one in table.items()} == {"left": "LEFT", "right": "RIGHT"}


COMMANDS = """
import os

def increased(number, by=1):
    return number + by

def names_in(path):
    return sorted(os.listdir(path))

if __name__ == "__channelexec__":
    for line in channel:
        channel.send(eval(line))
"""


def test_a_loop_of_commands(gw, module, tmp_path):
    there = gw.remote_exec(module("serves_commands", COMMANDS))
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").touch()
    for line, answer in [
        ("increased(41)", 42),
        ("increased(40, by=2)", 42),
        (f"names_in({str(tmp_path / 'folder')!r})", ["file"]),
    ]:
        there.send(line)
        assert there.receive() == answer
    there.close()
    assert wait_until(lambda: gw.remote_status().numexecuting == 0), "the loop ends with the channel"


def test_output_that_comes_here(gw):
    output = gw.remote_exec(
        """
        import sys
        output = channel.gateway.newchannel()
        sys.stdout = output.makefile("w")
        channel.send(output)
        """
    ).receive()
    pieces = []
    output.setcallback(pieces.append)
    gw.remote_exec("print('leaf', 1)\nprint('the end')").waitclose(TIMEOUT)
    assert pieces == ["leaf", " ", "1", "\n", "the end", "\n"]


# ---- groups


def test_members_of_a_group(lib):
    group = lib.Group(["popen"] * 2)
    assert len(group) == 2
    assert repr(group) == "<Group ['gw0', 'gw1']>"
    assert list(map(plain_repr, group)) == [
        f"<Gateway id='gw{number}' receive-live, thread model, 0 active channels>" for number in range(2)
    ]
    assert "gw0" in group and "gw1" in group and "gw2" not in group
    assert group["gw0"] is group[0] and group["gw1"] is group[1]
    group.terminate()
    assert repr(group) == "<Group []>"


def test_ids_given_and_known_before(lib, group):
    gateway = group.makegateway("popen//id=elm")
    assert gateway.id == "elm" and group["elm"] is gateway
    assert plain_repr(gateway) == "<Gateway id='elm' receive-live, thread model, 0 active channels>"
    spec = lib.XSpec("popen")
    group.allocate_id(spec)
    known = spec.id
    assert group.makegateway(spec).id == known == "gw0"


def test_the_default_group(default):
    gateway = default.makegateway()
    assert gateway in default.default_group
    assert default.default_group.defaultspec == "popen"


def test_terminate_kills_what_does_not_end(lib):
    group = lib.Group()
    sleeper = group.makegateway("popen//id=sleeper")
    channel = sleeper.remote_exec("import os, time; channel.send(os.getpid()); time.sleep(1000)")
    pid = channel.receive()
    assert repr(group) == "<Group ['sleeper']>"
    group.terminate(timeout=0.2)
    assert repr(group) == "<Group []>"
    assert wait_until(lambda: is_gone(pid))


# ---- through another gateway


def test_workers_of_a_master(group):
    group.defaultspec = "popen//via=master"
    master = group.makegateway("popen//id=master")
    assert plain_repr(master) == "<Gateway id='master' receive-live, thread model, 0 active channels>"
    worker = group.makegateway()
    assert plain_repr(worker) == "<Gateway id='gw0' receive-live, thread model, 0 active channels>"
    assert repr(group) == "<Group ['master', 'gw0']>"
    # In execnet a task holds the master's main thread from now on: that has its number from elsewhere.
    assert evaluate(worker, "os.getppid()") == master._rinfo().pid


# ---- many channels


def test_a_container_of_channels(default):
    one = default.makegateway().remote_exec("channel.send(20)")
    two = default.makegateway().remote_exec("channel.send(22)")
    both = default.MultiChannel([one, two])
    assert len(both) == 2
    assert both[0] is one and both[1] is two
    assert one in both and two in both
    assert both.receive_each() == [20, 22]


def test_a_queue_of_what_they_say(lib, group):
    channels = [group.makegateway().remote_exec(f"channel.send({number})") for number in (20, 22)]
    queue = lib.MultiChannel(channels).make_receive_queue()
    said = [queue.get(timeout=TIMEOUT), queue.get(timeout=TIMEOUT)]
    assert sorted(said, key=lambda pair: pair[1]) == [(channels[0], 20), (channels[1], 22)]


def test_a_callback_while_this_side_goes_on(gw):
    channel = gw.remote_exec("channel.send(channel.receive() * 2)")
    got = []
    channel.setcallback(got.append)
    channel.send(21)
    channel.waitclose(TIMEOUT)
    assert got == [42]


def test_an_endmarker_for_each_though_they_are_killed(lib):
    group = lib.Group(["popen"] * 3)
    channels = group.remote_exec("channel.send(channel.receive() * 2)")
    queue = channels.make_receive_queue(endmarker="over")
    channels[1].send(21)
    assert queue.get(timeout=TIMEOUT) == (channels[1], 42)
    group.terminate(timeout=1)
    ends = [queue.get(timeout=TIMEOUT) for _ in range(3)]
    assert [word for _, word in ends] == ["over"] * 3
    assert {channel for channel, _ in ends} == set(channels)
    assert queue.empty() and repr(group) == "<Group []>"


def square(channel):
    channel.send("ready")
    for number in channel:
        if number is None:
            break
        channel.send(number * number)


def test_a_farm(group):
    """Who has done one piece gets the next; nothing is lost, and all end."""
    for _ in range(3):
        group.makegateway()
    workers = group.remote_exec(square)
    results = workers.make_receive_queue(endmarker=-1)
    todo, done, ended, told = list(range(12)), [], set(), False
    while len(ended) < len(workers):
        channel, item = results.get(timeout=TIMEOUT)
        if item == -1:
            ended.add(channel.gateway.id)
            continue
        if item != "ready":
            done.append(item)
        if todo:
            channel.send(todo.pop())
        elif not told:
            workers.send_each(None)
            told = True
    assert sorted(done) == [number * number for number in range(12)]
    assert ended == {"gw0", "gw1", "gw2"}


def test_answers_of_blocked_processes(lib, group):
    task = "number = channel.receive(); channel.send('had %d' % number)"
    channels = [group.makegateway().remote_exec(task) for _ in range(3)]
    many = lib.MultiChannel(channels)
    answers = many.make_receive_queue()
    with pytest.raises(queue.Empty):
        answers.get(timeout=0.1)
    many.send_each(5)
    said = [answers.get(timeout=TIMEOUT) for _ in channels]
    assert {channel for channel, _ in said} == set(channels)
    assert [text for _, text in said] == ["had 5"] * 3

