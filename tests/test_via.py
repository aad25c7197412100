"""Gateways through other gateways: what goes through, who is held up by whom, how each of them ends."""

import os
import shlex
import signal
import sys
import textwrap
import threading
import time

import pairing
import pytest

import execnet_c
from execnet_c.cores import module as _core
from execnet_c.near import via
from conftest import TIMEOUT
from far_ends import PLAIN, TOO_OLD
from gateways import inner_fixture, outer_fixture  # noqa: F401 (fixtures)
from masters import Program, is_gone, run, wait_until, worker_of

HERE = [end for end in PLAIN if not end.missing]
FOREIGN = pytest.mark.skipif(
    pairing.name in ("C-Python", "Python-C"), reason="foreign far ends have a core of their own: C-C and Python-Python do"
)


ours = pytest.mark.ours  # in execnet a task holds the main thread of the gateway in between, and deaths are not told


def echo(gateway):
    return gateway.remote_exec("while True: channel.send(channel.receive())")


# --- what goes through ------------------------------------------------------------------------------------------------


def test_items_go_there_and_back(inner):
    channel = echo(inner)
    for item in (None, 1, "text", b"\0" * 100000, [1, (2.5, {"a": None})], {1, 2}, list(range(5000))):
        channel.send(item)
        assert channel.receive() == item


def test_it_is_a_process_of_the_gateway_in_between(outer, inner):
    assert inner.spec.via == "outer" and inner.id == "inner"
    assert "inner" in repr(inner)
    parent = inner.remote_exec("import os; channel.send(os.getppid())").receive()
    assert parent == outer.remote_exec("import os; channel.send(os.getpid())").receive()


@ours
def test_it_is_a_local_gateway_of_there(inner):
    with pytest.raises(AttributeError):
        inner.remoteaddress
    assert type(inner).__name__ == "Gateway" and isinstance(inner, execnet_c.Gateway)
    assert inner._rinfo().executable == sys.executable
    assert inner.remote_status().numexecuting == 0


def test_an_unknown_id(lib, group, outer):
    with pytest.raises(KeyError):
        group.makegateway("popen//via=nobody")
    if lib is execnet_c:
        with pytest.raises(ValueError, match="via names no gateway of this group; there are: 'outer'$"):
            group.makegateway("popen//via=nobody")
        with pytest.raises(ValueError, match="via names no gateway"):
            group.makegateway("popen//via")
        with pytest.raises(ValueError, match="no gateway type"):
            group.makegateway("via=outer")
        assert [gateway.id for gateway in group] == ["outer"]


def test_chains(group, inner):
    group.makegateway("popen//via=inner//id=third")
    fourth = group.makegateway("popen//via=third")
    parents = "import os; channel.send([os.getpid(), os.getppid()])"
    pids = [gateway.remote_exec(parents).receive() for gateway in group]
    assert len(pids) == 4
    for above, below in zip(pids, pids[1:]):
        assert below[1] == above[0]
    channel = echo(fourth)
    for number in range(200):
        channel.send(number)
        assert channel.receive() == number


@ours
def test_100_megabytes_through_two_gateways(group, inner):
    third = group.makegateway("popen//via=inner")
    item = os.urandom(1 << 20) * 100
    channel = echo(third)
    channel.send(item)
    assert channel.receive(TIMEOUT * 3) == item


@ours
def test_many_small_items_one_way(inner):
    count = 30000
    channel = inner.remote_exec(
        f"for i in range({count}): channel.send(i)\nchannel.send(sum(channel.receive() for _ in range({count})))"
    )
    for i in range(count):
        channel.send(i)
    assert [channel.receive(TIMEOUT) for _ in range(count)] == list(range(count))
    assert channel.receive(TIMEOUT) == sum(range(count))


@ours
def test_many_through_one(group, outer):
    gateways = list(map(group.makegateway, ["popen//via=outer"] * 10))
    failures = []

    def talk(gateway, number):
        try:
            channel = echo(gateway)
            for i in range(100):
                item = [number, i, bytes([number]) * (i * 100)]
                channel.send(item)
                assert channel.receive(TIMEOUT) == item
        except BaseException as exc:
            failures.append(exc)

    threads = [threading.Thread(target=talk, args=pair) for pair in zip(gateways, range(10))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len({worker_of(gateway) for gateway in group}) == 11


@ours
def test_a_group_of_them_at_once():
    specs = ["popen//id=a", "popen//via=a//id=b", "popen//via=b//id=c", "popen//via=a//id=d"]
    group = execnet_c.Group(specs)
    try:
        assert [gateway.id for gateway in group] == list("abcd")
        assert group.remote_exec("channel.send(channel.gateway.id)").receive_each() == [f"{name}-worker" for name in "abcd"]
    finally:
        group.terminate(timeout=TIMEOUT)


@ours
def test_settings_are_those_of_the_inner_one(group, outer, tmp_path):
    here = outer._rinfo().cwd
    spec = f"popen//via=outer//chdir={tmp_path}/new//env:THIS_TEST=here//nice=3//dont_write_bytecode"
    inner = group.makegateway(spec)
    task = "import os, sys; channel.send([os.getcwd(), os.environ['THIS_TEST'], os.nice(0), sys.dont_write_bytecode])"
    nice = outer.remote_exec("import os; channel.send(os.nice(0))").receive(TIMEOUT)
    assert inner.remote_exec(task).receive(TIMEOUT) == [f"{tmp_path}/new", "here", min(nice + 3, 19), True]
    assert outer._rinfo(update=True).cwd == here
    with pytest.raises(execnet_c.RemoteError, match="Error"):
        group.makegateway("popen//via=outer//chdir=/proc/nowhere")
    assert len(group) == 2


@ours
@FOREIGN
def test_other_pythons_behind_each_other(group):
    for number, end in enumerate([*HERE, HERE[0]]):
        keys = [f"id=gw{number}", f"via=gw{number - 1}"] if number else ["id=gw0"]
        group.makegateway(end.spec(*keys))
    versions = [tuple(gateway._rinfo().version_info[:2]) for gateway in group]
    print(versions)
    channel = echo(group[len(HERE)])
    for item in (1, b"x" * 300000, ["y"] * 1000):
        channel.send(item)
        assert channel.receive(TIMEOUT) == item
    with pytest.raises(execnet_c.GatewayDied, match="killed by SIGKILL"):
        group[len(HERE)].remote_exec("import os; os.kill(os.getpid(), 9)").receive(TIMEOUT)
    pids = [gateway._rinfo().pid for gateway in list(group)[:-1]]
    group.terminate(timeout=TIMEOUT)
    assert wait_until(lambda: all(map(is_gone, pids)))


@ours
@FOREIGN
def test_this_python_behind_a_foreign_one(group):
    group.makegateway(HERE[-1].spec("id=outer"))
    inner = group.makegateway(f"popen//via=outer//python={shlex.quote(sys.executable)}")
    assert inner._rinfo().executable == sys.executable
    plain = group.makegateway("popen//via=outer")  # the interpreter of there
    assert plain._rinfo().version_info == group["outer"]._rinfo().version_info


# --- who is held up by whom -------------------------------------------------------------------------------------------

WHICH = "import threading; channel.send(threading.current_thread() is threading.main_thread())"


@ours
def test_a_close_of_a_stream_that_is_half_ended_ends_what_the_process_says(outer):
    """It goes on writing, and nobody reads that any more."""
    writer = "import os\nwhile True: os.write(1, b'x' * 1000)"
    stream, control, started = outer.newchannel(), outer.newchannel(), outer.newchannel()
    task = {"stream": stream, "control": control, "argv": [sys.executable, "-c", writer], "set_python": ""}
    outer._post(_core.EXEC, started.id, (via._TASK, "<a test>", "start", task))
    while (answer := started.receive(TIMEOUT)) in ("pylaunch", "pyrelay"):
        started.send(via.module_source(answer))
    assert answer["pid"] > 0
    assert stream.receive(TIMEOUT)
    outer._send(7, stream.id)  # LAST_MESSAGE
    outer._send(_core.CLOSE, stream.id)
    status, stderr = control.receive(TIMEOUT)
    assert b"BrokenPipeError" in stderr


@ours
def test_the_main_thread_in_between_stays_free(group, outer, inner):
    for gateway in (outer, inner):
        assert gateway.remote_exec(WHICH).receive(TIMEOUT) is True
    group.makegateway("popen//via=outer")
    assert outer.remote_exec(WHICH).receive(TIMEOUT) is True


@ours
def test_tasks_in_between_hold_nothing_up(group, outer):
    busy = outer.remote_exec("channel.send(1); channel.receive()")
    assert busy.receive(TIMEOUT) == 1
    inner = group.makegateway("popen//via=outer")  # in a thread of its own over there
    channel = echo(inner)
    spinning = outer.remote_exec("channel.send(1)\nwhile not channel.isclosed(): pass")
    assert spinning.receive(TIMEOUT) == 1
    for number in range(20):
        channel.send(number)
        assert channel.receive(TIMEOUT) == number
    spinning.close()
    busy.send(None)
    busy.waitclose(TIMEOUT)


@ours
def test_a_slow_callback_of_the_gateway_in_between_holds_nothing_up(outer, inner):
    called, done = threading.Event(), threading.Event()

    def wait(item):
        called.set()
        done.wait(TIMEOUT)

    slow = outer.remote_exec("channel.receive(); channel.send(1)")
    slow.setcallback(wait)
    slow.send(None)
    assert called.wait(TIMEOUT)
    try:
        channel = echo(inner)
        for item in (1, b"x" * 300000):
            channel.send(item)
            assert channel.receive(TIMEOUT) == item
        assert not slow.isclosed()  # its end waits for the callback
    finally:
        done.set()
    slow.waitclose(TIMEOUT)


# --- deaths -----------------------------------------------------------------------------------------------------------

DEATHS = {
    "KILL": ("os.kill(os.getpid(), 9)", execnet_c.WorkerKilled, None, 9, "killed by SIGKILL"),
    "_exit 3": ("os._exit(3)", execnet_c.WorkerExited, 3, None, "exit status 3"),
    "last words": ("os.write(2, b'last words'); os._exit(4)", execnet_c.WorkerExited, 4, None, "last words"),
}


@ours
@pytest.mark.parametrize("how", DEATHS)
@pytest.mark.parametrize("hops", [1, 2])
def test_how_it_died_is_told(group, inner, outer, how, hops):
    body, kind, status, number, text = DEATHS[how]
    gateway = inner if hops == 1 else group.makegateway("popen//via=inner//id=third")
    pid = worker_of(gateway)
    idle = gateway.newchannel()
    channel = gateway.remote_exec(f"import os; channel.send(1); {body}")
    assert channel.receive(TIMEOUT) == 1
    for use in (channel.receive, idle.receive, lambda: idle.send(1), gateway.newchannel, lambda: echo(gateway)):
        with pytest.raises(kind) as error:
            use()
        assert (error.value.status, error.value.signal) == (status, number)
        assert text in str(error.value) and gateway.id in str(error.value) and str(pid) in str(error.value)
        assert error.value.command[0] == sys.executable
    assert not gateway.hasreceiver()
    assert is_gone(pid)
    assert outer.remote_exec("channel.send(5)").receive(TIMEOUT) == 5


NONSENSE = ["None", "5", "()", "(1,)", "(1, b'', 2)", "('a', b'')", "(1.5, b'')", "(None, 'text')", "(1 << 70, b'')"]
MALFORMED = "channel.gateway._write(b'\\4' + control.id.to_bytes(4, 'big') + b'\\0\\0\\0\\1\\xff')"


@ours
@pytest.mark.parametrize("say", [f"control.send({word})" for word in NONSENSE] + [MALFORMED])
def test_a_gateway_in_between_that_tells_of_an_end_what_cannot_be(group, outer, monkeypatch, say):
    """Who waits learns who it was that told so."""
    relayed = "relay(stream, channel.gateway.newchannel(), argv)"
    monkeypatch.setattr(via, "_TASK", via._TASK.replace("relay(stream, control, argv)", f"{relayed}; {say}"))
    inner = group.makegateway("popen//via=outer//id=inner")
    channel = inner.remote_exec("import os; channel.receive(); os._exit(0)")
    channel.send(1)
    for use in (channel.receive, inner.newchannel):
        with pytest.raises(execnet_c.GatewayDied, match="'inner': gateway 'outer', .* tells of its process what cannot be"):
            use()
    assert outer.remote_exec("channel.send(5)").receive(TIMEOUT) == 5


ANSWERS = ["None", "7", "()", "(1,)", "('a', 'b')", "(2, b'x')", "{}", "{'pid': 'x', 'executable': b''}", "{'pid': 1}"]


@ours
@pytest.mark.parametrize("answer", [*ANSWERS, "'../../secret'", "'worker'"])
def test_a_gateway_in_between_that_answers_what_cannot_be(group, outer, monkeypatch, answer):
    monkeypatch.setattr(via, "_TASK", f"def start(channel, **_):\n    channel.send({answer})")
    with pytest.raises(execnet_c.GatewayDied, match="'inner': gateway 'outer', .* tells of its process what cannot be"):
        group.makegateway("popen//via=outer//id=inner")
    assert [gateway.id for gateway in group] == ["outer"]
    assert outer.remote_exec("channel.send(5)").receive(TIMEOUT) == 5


@ours
def test_all_threads_learn_how_it_died(inner):
    channels = [inner.newchannel() for _ in range(8)]
    errors = []

    def wait(channel):
        try:
            channel.receive(TIMEOUT)
        except EOFError as exc:
            errors.append(exc)

    threads = [threading.Thread(target=wait, args=[channel]) for channel in channels]
    for thread in threads:
        thread.start()
    inner.remote_exec("import os; os._exit(9)")
    for thread in threads:
        thread.join()
    assert [type(error) for error in errors] == [execnet_c.WorkerExited] * 8
    assert {error.status for error in errors} == {9}


@ours
def test_what_cannot_be_started(group, outer, tmp_path):
    with pytest.raises(FileNotFoundError, match="by gateway 'outer': start a process.*: /nonexistent/python"):
        group.makegateway("popen//via=outer//python=/nonexistent/python")
    plain = tmp_path / "plain"
    plain.write_text("no program")
    with pytest.raises(PermissionError, match=str(plain)):
        group.makegateway(f"popen//via=outer//python={plain}")
    line = "sh -c 'echo no python here >&2; exit 127'"
    with pytest.raises(execnet_c.WorkerExited, match="status 127") as error:
        group.makegateway(f"popen//via=outer//python={line}")
    assert "no python here" in str(error.value) and "exit 127" in str(error.value) and error.value.status == 127
    for end in TOO_OLD[:1]:
        with pytest.raises(OSError, match="3.8 is the oldest"):
            group.makegateway(end.spec("via=outer"))
    assert [gateway.id for gateway in group] == ["outer"]
    assert outer.remote_exec(WHICH).receive(TIMEOUT) is True
    assert wait_until(lambda: outer.remote_status().numchannels <= 1)


@ours
@pytest.mark.parametrize("state", ["idle", "waiting", "computing"])
def test_the_gateway_in_between_is_killed(group, outer, inner, state):
    third = group.makegateway("popen//via=inner//id=third")
    pids = [worker_of(gateway) for gateway in group]
    if state == "computing":
        for gateway in (inner, third):
            gateway.remote_exec("while True: pass")
    channel = third.remote_exec("channel.receive()")
    killer = threading.Timer(0.3 if state == "waiting" else 0.0, os.kill, [pids[0], signal.SIGKILL])
    killer.start()
    if state == "idle":
        assert wait_until(lambda: not third.hasreceiver(), TIMEOUT)
    for use in (channel.receive, channel.waitclose, lambda: echo(third)):
        with pytest.raises(execnet_c.LinkLost) as error:
            use()
        for text in ("gateway 'third'", "gateway 'inner'", "gateway 'outer'", "killed by SIGKILL"):
            assert text in str(error.value)
    with pytest.raises(execnet_c.LinkLost, match="'inner'.* 'outer'"):
        inner.newchannel()
    killer.join()
    assert wait_until(lambda: all(map(is_gone, pids)), TIMEOUT)  # nobody has to see to it
    with pytest.raises(execnet_c.GatewayDied, match="'outer'.*SIGKILL"):
        group.makegateway("popen//via=outer")
    assert len(group) == 3


@ours
@pytest.mark.parametrize("busy", [False, True])
def test_the_gateway_in_between_is_exited(group, outer, inner, busy):
    pid = worker_of(inner)
    channel = inner.remote_exec("channel.receive()")
    if busy:  # it ends when its task has, and has told how the inner one's process ended by then
        task = outer.remote_exec("import time; channel.send(1); time.sleep(0.5)")
        assert task.receive(TIMEOUT) == 1
    outer.exit()
    assert wait_until(lambda: not inner.hasreceiver())
    with pytest.raises(execnet_c.LinkLost, match="'inner'.*'outer' was exited"):
        channel.receive(TIMEOUT)
    assert wait_until(lambda: is_gone(pid))
    with pytest.raises(KeyError, match="'inner'"):
        group.makegateway("popen//via=outer")


@ours
def test_an_exit_ends_the_inner_one_only(outer, inner):
    pid = worker_of(inner)
    late = inner.remote_exec("channel.receive(); channel.send('late')")
    late.send(None)
    assert late.receive(TIMEOUT) == "late"
    inner.exit()
    inner.exit()
    assert wait_until(lambda: is_gone(pid) and not inner.hasreceiver())
    with pytest.raises(OSError, match="was exited"):
        inner.newchannel()
    assert outer.remote_exec("channel.send(5)").receive(TIMEOUT) == 5
    assert wait_until(lambda: outer.remote_status().numchannels <= 1)


# --- the end of a group -----------------------------------------------------------------------------------------------

HANGS = {
    "sleeping": "import time; time.sleep(1000)",
    "computing": "while True: pass",
    "deaf": "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    "channel.send(1)\nwhile True: pass",
}


@ours
@pytest.mark.parametrize("where", ["inner", "everywhere"])
@pytest.mark.parametrize("how", HANGS)
def test_terminate_with_hung_tasks(group, outer, inner, how, where):
    third = group.makegateway("popen//via=inner")
    pids = [worker_of(gateway) for gateway in group]
    for gateway in [third] if where == "inner" else group:
        channel = gateway.remote_exec("channel.send(1)\n" + HANGS[how])
        assert channel.receive(TIMEOUT) == 1
        if how == "deaf":
            assert channel.receive(TIMEOUT) == 1
    start = time.monotonic()
    group.terminate(timeout=0.5)
    assert time.monotonic() - start < 15
    assert all(map(is_gone, pids))
    assert list(group) == []


@ours
def test_terminate_when_one_in_between_is_stopped(group, outer, inner):
    pids = [worker_of(gateway) for gateway in group]
    os.kill(pids[0], signal.SIGSTOP)
    start = time.monotonic()
    group.terminate(timeout=0.5)
    assert time.monotonic() - start < 15
    assert wait_until(lambda: all(map(is_gone, pids)))


@ours
@pytest.mark.parametrize("timeout", [None, 1e12, float("inf")])
def test_terminate_with_all_the_time_there_is(group, outer, inner, timeout):
    pids = [worker_of(gateway) for gateway in group]
    group.terminate(timeout=timeout)
    assert all(map(is_gone, pids))


@ours
def test_terminate_lets_them_end_in_order(group, outer, inner, tmp_path):
    log = tmp_path / "log"
    task = "import atexit\natexit.register(lambda: open(%r, 'a').write(%r))"
    for gateway in group:
        gateway.remote_exec(task % (str(log), gateway.id + " ")).waitclose(TIMEOUT)
    group.terminate(timeout=TIMEOUT)
    assert log.read_text() == "inner outer "


@ours
@pytest.mark.parametrize("depth", [1, 2])
def test_terminate_waits_for_one_that_was_exited_before(group, outer, inner, tmp_path, depth):
    """It has work to do, and a megabyte of it on the way, which those that it goes through bring it."""
    last = inner if depth == 1 else group.makegateway("popen//via=inner")
    channel = last.remote_exec(
        """
        import time
        path = channel.receive()
        channel.send("ready")
        time.sleep(0.5)
        total = sum(len(channel.receive()) for _ in range(10))
        with open(path, "w") as file:
            file.write(str(total))
        """
    )
    path = tmp_path / "total"
    channel.send(str(path))
    assert channel.receive(TIMEOUT) == "ready"
    for _ in range(10):
        channel.send("x" * 100_000)
    last.exit()
    group.terminate(10)
    assert path.read_text() == "1000000"


PROGRAM = """
group = execnet_c.Group()
outer = group.makegateway("popen//id=outer")
inner = group.makegateway("popen//via=outer//id=inner")
assert inner.remote_exec("channel.send(1)").receive(30) == 1
"""


@pytest.mark.parametrize("task", ["pass", "while True: pass", "import time; time.sleep(1000)"])
def test_a_program_that_ends_leaves_nothing(task):
    run(PROGRAM + f"\ninner.remote_exec({task!r})\n")


def test_a_program_that_is_killed_leaves_nothing():
    run(PROGRAM + "\ninner.remote_exec('while True: pass')\nos.kill(os.getpid(), 9)\n", status=-9)


def test_forked_children_hold_nothing():
    """Neither one of the program nor one of a task in between keeps the inner one alive, or ends it."""
    code = """
        fork = "import os, time\\nif os.fork() == 0:\\n    time.sleep(1000)\\n    os._exit(0)\\nchannel.send(1)"
        assert outer.remote_exec(fork).receive(30) == 1
        child = os.fork()
        if child == 0:
            assert "parent process" in str(raises(OSError, inner.newchannel))
            group.terminate(timeout=1)
            print("forked\\n", end="", flush=True)
            time.sleep(1000)
        pid = worker_of(inner)
        print("told\\n", end="", flush=True)
        outer._signal(signal.SIGKILL)
        assert wait_until(lambda: is_gone(pid) and not inner.hasreceiver(), 30)
        raises(execnet_c.LinkLost, inner.newchannel)
        print("gone\\n", end="", flush=True)
    """
    with Program(textwrap.dedent(PROGRAM) + textwrap.dedent(code)) as program:
        assert sorted(program.line() for _ in range(3))[1:] == ["gone", "told"]
