"""Gateways over ssh: the recipe, what a spec can say, many at once, and how they end."""

import importlib
import os
import shutil
import signal
import subprocess
import threading
import time

import pairing
import pytest

if pairing.name in ("C-Python", "Python-C"):
    pytest.skip("hosts over ssh have a core of their own: C-C and Python-Python do", allow_module_level=True)

import execnet_c
import ssh_hosts
from conftest import TIMEOUT
from gateways import evaluate
from masters import is_asleep, is_gone, run, wait_until
from ssh_hosts import server_fixture  # noqa: F401 (fixtures)
from test_terminal import CTRL_C, Terminal

# A connection and an interpreter on a busy machine; many of them at once take longer.
SLOW_TIMEOUT = 60.0
MANY = 40

FACTS = "import os, sys; channel.send((sys.version_info[:2], sys.executable, os.getpid(), os.getcwd()))"

pytestmark = pytest.mark.timeout(240)


# ---- the recipe


def test_a_task_over_ssh(lib, server, group):
    gateway = group.makegateway(server.spec("h1", "python=python", "id=one"))
    assert gateway.id == "one"
    assert gateway.remoteaddress == "h1"
    assert gateway.spec.ssh == "h1"
    channel = gateway.remote_exec("channel.send(channel.receive() + 1)\nfor item in channel: channel.send(item)")
    channel.send(41)
    assert channel.receive(SLOW_TIMEOUT) == 42
    items = [None, True, 1 << 100, 1.5, "\N{SNOWMAN}", b"\0\r\n\x1b~.", [1, (2,)], {"a": {1, 2}}, b"x" * 3_000_000]
    for item in items:
        channel.send(item)
    assert [channel.receive(SLOW_TIMEOUT) for _ in items] == items
    channel.close()
    with pytest.raises(lib.RemoteError, match="ZeroDivisionError"):
        gateway.remote_exec("1 / 0").waitclose(SLOW_TIMEOUT)
    assert evaluate(gateway, "os.getpid()") in server.sessions(), "it runs at the far end"
    assert tuple(gateway._rinfo().version_info[:2]) == evaluate(gateway, "tuple(sys.version_info[:2])")


@pytest.mark.parametrize(
    "host",
    [
        *("{user}@h1", "-v h1", "-o Compression=yes -q h1", "-p {port} {user}@h1", "-qp{port} h1"),
        *("h1 -p {port}", "-q h1 -4 -l {user}", "-J h2 h1", "-- h1"),
    ],
)
def test_options_of_ssh_and_a_user(lib, server, group, host):
    host = host.format(user=server.user, port=server.port)
    gateway = group.makegateway(server.spec(host, "python=python"))
    assert evaluate(gateway, "os.getpid()") in server.sessions()
    assert gateway.remoteaddress == host


def test_a_binary_stream_stays_what_it_is(server, group):
    """Whatever ssh or a terminal could take for something else: all bytes, and ssh's escapes at the start of a line."""
    gateway = group.makegateway(server.spec("h1", "python=python"))
    channel = gateway.remote_exec("for item in channel: channel.send(item)")
    data = bytes(range(256)) * 500 + b"\n~.\n~C\n~~\r\n~B" * 2000
    for _ in range(3):
        channel.send(data)
    assert [channel.receive(SLOW_TIMEOUT) == data for _ in range(3)] == [True] * 3
    channel.close()


# ---- which Python


def version_of(path):
    code = "import sys; print(sys.version_info[:2])"
    return eval(subprocess.run([path, "-c", code], capture_output=True, text=True, check=True).stdout)


@pytest.mark.ours
@pytest.mark.parametrize("host, name", [("h1", "python"), ("h2", "python3"), ("h3", "python3")])
def test_without_python_there_the_first_that_can_serve(server, group, host, name):
    if host == "h3" and not ssh_hosts.OLD:
        pytest.skip("there is no Python here that is too old")
    path = server.home(host) / "bin" / name
    version, executable, pid, _ = group.makegateway(server.spec(host)).remote_exec(FACTS).receive(SLOW_TIMEOUT)
    assert version == version_of(path)
    assert os.path.realpath(executable) == os.path.realpath(path)
    assert pid in server.sessions()


@pytest.fixture
def at_home(server):
    """Pythons in unusual places of h1's home directory."""
    home = server.home("h1")
    for place in ("x/bin", "with space/bin"):
        (home / place).mkdir(parents=True, exist_ok=True)
        link = home / place / "python"
        if not link.exists():
            link.symlink_to(ssh_hosts.OLDEST)
    return home


@pytest.mark.parametrize(
    "text",
    [
        "~/x/bin/python",
        "$HOME/x/bin/python",
        "'{home}/with space/bin/python'",
        '"$HOME/with space/bin/python" -I',
        "~/with\\ space/bin/python",
        "cd {home}/x && exec ./bin/python",
        "HIDDEN=1 ~/x/bin/python",
        "test -e ~/x && ~/x/bin/python",
        "exec env A='two words' ~/x/bin/python -u",
    ],
)
def test_python_is_shell_text(lib, server, group, at_home, text):
    spec = server.spec("h1", "python=" + text.format(home=at_home))
    version, executable, pid, cwd = group.makegateway(spec).remote_exec(FACTS).receive(SLOW_TIMEOUT)
    assert version == version_of(ssh_hosts.OLDEST)
    assert os.path.realpath(executable) == os.path.realpath(ssh_hosts.OLDEST)
    assert pid in server.sessions()
    if text.startswith("cd"):
        assert os.path.realpath(cwd) == os.path.realpath(at_home / "x")


def test_what_stands_in_front_of_python_counts(lib, server, group):
    gateway = group.makegateway(server.spec("h1", "python=nice -n 5 python3"))
    assert evaluate(gateway, "os.nice(0)") == 5 + os.nice(0)
    gateway = group.makegateway(server.spec("h1", "python=env A='two  words' python3"))
    assert evaluate(gateway, "os.environ['A']") == "two  words"


# ---- settings


@pytest.mark.ours
def test_settings(server, group):
    """They are there before anything else runs."""
    where = server.home("h1") / "made" / "here"
    where.parent.mkdir(exist_ok=True)
    keys = [f"chdir={where}", "nice=7", "env:ONE=1", "env:WORDS=a b ' \" $HOME ; # é", "python=python"]
    gateway = group.makegateway(server.spec("h1", *keys))
    assert os.path.realpath(evaluate(gateway, "os.getcwd()")) == os.path.realpath(where)
    assert evaluate(gateway, "os.nice(0)") == 7 + os.nice(0)
    assert evaluate(gateway, "os.environ['ONE']") == "1"
    assert evaluate(gateway, "os.environ['WORDS']") == "a b ' \" $HOME ; # é"
    assert evaluate(gateway, "os.environ['HOME']") == str(server.home("h1"))


@pytest.mark.ours
def test_a_setting_that_fails_over_there(server, group):
    with pytest.raises(execnet_c.RemoteError, match="NotADirectoryError|FileExistsError|FileNotFoundError"):
        group.makegateway(server.spec("h1", "chdir=/dev/null/x"))
    assert list(group) == []


@pytest.mark.ours
@pytest.mark.deep
def test_keepalive_of_a_link_that_is_well(server, group):
    gateway = group.makegateway(server.spec("h1", "keepalive=5"))
    channel = gateway.remote_exec("import time; time.sleep(8); channel.send(1)")
    assert channel.receive(SLOW_TIMEOUT) == 1
    assert gateway.hasreceiver()


@pytest.mark.ours
@pytest.mark.parametrize("value", ["keepalive", "keepalive=", "keepalive=soon", "keepalive=-1"])
def test_a_keepalive_that_is_none(server, group, value):
    with pytest.raises(ValueError, match="keepalive"):
        group.makegateway(server.spec("h1", value))
    assert list(group) == []


@pytest.mark.ours
@pytest.mark.parametrize(
    "spec", ["ssh", "ssh=", "ssh= ", "ssh=h1//python", "ssh=h1//python=", "ssh=-v", "ssh=-p h1", "ssh=h1 h2", "ssh=h1 'x"]
)
def test_a_spec_that_names_no_host_or_no_python(group, spec):
    """-v alone would have ssh take our command for the host's name; -p h1 takes the host for a port."""
    with pytest.raises(ValueError, match="ssh|python"):
        group.makegateway(spec)
    assert list(group) == []


# ---- many


def test_forty_threads_start_a_gateway_each(server):
    """sshd drops connections at random when more than ten have not logged in yet."""
    group = execnet_c.Group()
    found, failed = {}, []

    def start(number):
        try:
            gateway = group.makegateway(server.spec("h1", f"id=many{number}"))
            found[number] = gateway.remote_exec(f"import os; channel.send(({number}, os.getpid()))").receive(SLOW_TIMEOUT * 2)
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=start, args=(number,)) for number in range(MANY)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failed == []
        assert {number: answer[0] for number, answer in found.items()} == {number: number for number in range(MANY)}
        pids = {pid for _, pid in found.values()}
        assert len(pids) == MANY
        assert pids <= server.sessions()
    finally:
        group.terminate(timeout=20)
    assert wait_until(lambda: all(map(is_gone, pids)))


def test_a_group_of_specs_on_several_hosts(server):
    hosts = ["h1", "h2", "h3", "h1", "h2", "h3"]
    group = execnet_c.Group([server.spec(host) for host in hosts] + ["popen"])
    try:
        channels = group.remote_exec("import os; channel.send(os.environ['HOME'])")
        homes = channels.receive_each()
        assert homes[:-1] == [str(server.home(host)) for host in hosts]
        assert homes[-1] == os.environ["HOME"]
    finally:
        group.terminate(timeout=20)


def test_one_of_a_group_that_can_not_come_up_takes_the_others_down(server):
    with pytest.raises(execnet_c.HostRefused):
        execnet_c.Group([server.spec("h1"), server.spec("refusing"), server.spec("h2")])


# ---- a connection that others share


@pytest.fixture
def master(server):
    """Ends the connection that is kept for `by-master` and `auto-master`, if there is one then."""
    yield lambda *words: subprocess.run(server.command("by-master", *words), stdin=subprocess.DEVNULL, check=True)
    subprocess.run(
        ["ssh", "-O", "exit", *server.command("by-master")[1:]], stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT
    )


@pytest.mark.ours
def test_through_a_master_that_runs_already(server, group, master):
    command = ["ssh", "-o", "ControlMaster=yes", "-o", "ControlPersist=yes", "-N", "-f", *server.command("by-master")[1:]]
    subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    logins = server.log().count("Accepted publickey")
    gateways = [group.makegateway(server.spec("by-master")) for _ in range(3)]
    pids = [evaluate(gateway, "os.getpid()") for gateway in gateways]
    assert server.log().count("Accepted publickey") == logins, "they share the master's connection"
    assert len({server.session_of(pid)[-1] for pid in pids}) == 1
    gateways[0].exit()
    assert wait_until(lambda: is_gone(pids[0]))
    assert [evaluate(gateway, "os.getpid()") for gateway in gateways[1:]] == pids[1:]
    group.terminate(timeout=10)
    assert wait_until(lambda: all(map(is_gone, pids)))


def test_gateways_that_make_a_master_do_not_depend_on_each_other(server, master):
    """The first connection becomes the others' road: its gateway may end, and the road stays."""
    first, second = execnet_c.Group(), execnet_c.Group()
    try:
        one = first.makegateway(server.spec("auto-master"))
        pid = evaluate(one, "os.getpid()")
        two = second.makegateway(server.spec("auto-master"))
        other = evaluate(two, "os.getpid()")
        first.terminate(timeout=10)
        assert wait_until(lambda: is_gone(pid))
        assert evaluate(two, "os.getpid()") == other
    finally:
        first.terminate(timeout=10)
        second.terminate(timeout=10)


# ---- ends


def test_ctrl_c_ends_no_link():
    """It goes to the whole process group, ssh among it if that were so started."""
    run(
        """
        import ssh_hosts
        heard = []
        signal.signal(signal.SIGINT, lambda *args: heard.append(args))
        os.setpgid(0, 0)
        with ssh_hosts.running() as server:
            group = execnet_c.Group([server.spec("h1"), server.spec("h1", "python=python")])
            pids = [worker_of(gateway) for gateway in group]
            for count in (1, 2):
                os.killpg(0, signal.SIGINT)
                assert wait_until(lambda: len(heard) == count)
                time.sleep(0.5)  # for what should not happen
                assert [worker_of(gateway) for gateway in group] == pids
            group.terminate(timeout=10)
            assert wait_until(lambda: not server.sessions())
        """,
        stderr=None,
    )


def test_ctrl_c_typed_at_a_terminal_ends_no_link():
    with Terminal(
        """
        import ssh_hosts
        with ssh_hosts.running() as server:
            group = execnet_c.Group([server.spec("h1"), server.spec("h2")])
            pids = [worker_of(gateway) for gateway in group]
            for number in (1, 2):
                try:
                    print("waiting", flush=True)
                    group[0].newchannel().receive()
                except KeyboardInterrupt:
                    print("interrupted", flush=True)
                assert [worker_of(gateway) for gateway in group] == pids
            group.terminate(timeout=10)
            print("done", flush=True)
        """
    ) as terminal:
        for _ in range(2):
            terminal.expect("waiting")
            assert wait_until(lambda: is_asleep(terminal.pid))
            terminal.type(CTRL_C)
            terminal.expect("interrupted")
        assert "Traceback" not in terminal.expect("done")
        assert terminal.status() == 0


def test_ssh_may_ask_at_a_terminal():
    """As it does for a host key that it does not know, or a password: our far ends are no reason to be silent."""
    with Terminal(
        """
        import ssh_hosts
        with ssh_hosts.running() as server:
            options = f"-o BatchMode=no -o StrictHostKeyChecking=ask -o UserKnownHostsFile={server.directory}/known"
            group = execnet_c.Group()
            gateway = group.makegateway(server.spec(options + " h1"))
            print("there:", worker_of(gateway) in server.sessions(), flush=True)
            group.terminate(timeout=10)
        """
    ) as terminal:
        terminal.expect("(yes/no")
        terminal.type(b"yes\n")
        terminal.expect("there: True")
        assert terminal.status() == 0


def test_ctrl_c_while_it_connects():
    """makegateway is interrupted, and nothing is left of what it began."""
    run(
        """
        import ssh_hosts
        with ssh_hosts.running() as server:
            group = execnet_c.Group()
            with interrupted("makegateway"):
                group.makegateway(server.spec("-o ConnectTimeout=50 mute"))
            assert list(group) == []
            start = time.monotonic()
            group.terminate(timeout=5)
            assert time.monotonic() - start < 10
        """,
        stderr=None,
    )


TASKS = {
    "idle": None,
    "sleeps": "import time; time.sleep(1000)",
    "computes": "while True: pass",
    "receives": "channel.receive()",
    "ignores": "import signal, time\nfor s in (1, 2, 15): signal.signal(s, signal.SIG_IGN)\nwhile True: time.sleep(1)",
}


@pytest.mark.parametrize(
    "task", [pytest.param(task, marks=[pytest.mark.deep] * (task in ("computes", "ignores"))) for task in TASKS]
)
def test_terminate_leaves_nothing_on_either_side(server, task):
    group = execnet_c.Group()
    gateway = group.makegateway(server.spec("h1"))
    pid = evaluate(gateway, "os.getpid()")
    if TASKS[task]:
        gateway.remote_exec("channel.send(1)\n" + TASKS[task]).receive(SLOW_TIMEOUT)
    own = gateway._state()["pid"]
    start = time.monotonic()
    group.terminate(timeout=2.0)
    took = time.monotonic() - start
    print(f"{task}: {took:.2f} s")
    assert took < 15
    assert is_gone(own)
    assert wait_until(lambda: is_gone(pid)), "the worker lives on"
    with pytest.raises(OSError):
        gateway.remote_exec("pass")


@pytest.mark.parametrize("task", ["sleeps", "computes", "ignores"])
def test_a_near_end_that_is_killed_leaves_nothing_over_there(server, task):
    from masters import Program

    code = """
    group = execnet_c.Group()
    gateway = group.makegateway(sys.argv[1])
    pid = worker_of(gateway)
    gateway.remote_exec("channel.send(1)\\n" + sys.argv[2]).receive(60)
    print(pid, flush=True)
    time.sleep(1000)
    """
    with Program(code, server.spec("h1"), TASKS[task]) as program:
        pid = int(program.line())
        assert pid in server.sessions()
        os.kill(program.pid, signal.SIGKILL)
        assert wait_until(lambda: is_gone(pid)), "the worker lives on"
        assert wait_until(lambda: not program.family()), "ssh lives on"


@pytest.mark.ours
def test_where_nobody_has_ssh(server, group, monkeypatch):
    monkeypatch.setenv("PATH", os.path.dirname(shutil.which("true")) + "/no-such-directory")
    with pytest.raises(OSError, match="ssh"):
        group.makegateway(server.spec("h1"))
    assert list(group) == []


# ---- a program's own command line


def test_a_program_s_own_command_line(lib, server, group, monkeypatch):
    """As deployment tools set it: ssh, the host, and one word with the line that they take from the library."""
    room = importlib.import_module(lib.__name__ + ".gateway_io")

    def own(spec):
        line = '%s -c "%s"' % (spec.python or "python", room.popen_bootstrapline)
        return ["ssh", "-C", "-F", spec.ssh_config, spec.ssh, line]

    monkeypatch.setattr(room, "ssh_args", own)
    gateway = group.makegateway(server.spec("h1", "python=python", "type=own"))
    assert evaluate(gateway, "sys.argv") == ["-c"]
    channel = gateway.remote_exec("channel.send(channel.receive())")
    channel.send(b"x" * 1_000_000)
    assert channel.receive(SLOW_TIMEOUT) == b"x" * 1_000_000
