"""What goes wrong between here and a host over ssh: each failure has a class, fields, and a text that one can act on."""

import os
import signal
import threading
import time

import pairing
import pytest

if pairing.name in ("C-Python", "Python-C"):
    pytest.skip("hosts over ssh have a core of their own: C-C and Python-Python do", allow_module_level=True)

import execnet_c
import ssh_hosts
import sshd
from conftest import wait_until
from execnet_c.near import bootstrap
from gateways import evaluate, group_fixture  # noqa: F401 (fixtures)
from masters import is_gone, kill_all
from ssh_hosts import server_fixture  # noqa: F401 (fixtures)

SLOW_TIMEOUT = 60.0
# An error that needs no waiting is there by then, on a busy machine too.
SOON = 30.0

pytestmark = pytest.mark.timeout(240)

CLASSES = {
    "HostNotFound": "GatewayDied",
    "HostUnknown": "HostNotFound",
    "HostRefused": "HostNotFound",
    "LoginDenied": "HostNotFound",
    "HostKeyMismatch": "HostNotFound",
    "PythonMissing": "GatewayDied",
    "WorkerKilled": "GatewayDied",
    "WorkerExited": "GatewayDied",
    "LinkLost": "GatewayDied",
    "HostSilent": "GatewayDied",
}


def check(error, name, host, *words, status=None, number=None):
    """That it is exactly of that class, has its fields, and that its text says all of the words."""
    text = str(error)
    assert type(error) is getattr(execnet_c, name), repr(error)
    assert isinstance(error, execnet_c.GatewayDied) and isinstance(error, OSError) and isinstance(error, EOFError)
    assert error.host == host
    assert error.command[0].endswith("ssh")
    assert host in error.command
    assert (error.status, error.signal) == (status, number), (vars(error), text)
    assert isinstance(error.stderr, str)
    assert len(text) < 6000
    for word in (host, *words):
        assert word in text, f"{word!r} is not in: {text}"


def fails(group, spec):
    """The exception of a makegateway that can not succeed. Nothing may be left of it."""
    before = list(group)
    start = time.monotonic()
    with pytest.raises(execnet_c.GatewayDied) as error:
        group.makegateway(spec)
    took = time.monotonic() - start
    print(f"{took:.2f} s: {error.value}")
    assert took < SOON
    assert list(group) == before
    return error.value


@pytest.mark.parametrize("name", CLASSES)
def test_the_classes(name):
    kind = getattr(execnet_c, name)
    assert kind.__mro__[1] is getattr(execnet_c, CLASSES[name])
    assert issubclass(kind, execnet_c.GatewayDied) and issubclass(kind, OSError) and issubclass(kind, EOFError)
    assert name in execnet_c.__all__
    assert kind.__module__.partition(".")[0] == "execnet_c"


# ---- no way to the host


@pytest.mark.parametrize(
    "host, name, words",
    [
        ("unknown", "HostUnknown", ["no-such-host.invalid", "resolve"]),
        ("refusing", "HostRefused", ["refused", "127.0.0.1"]),
        ("mute", "HostRefused", ["timed out"]),
        ("wrong-key", "LoginDenied", ["Permission denied", "publickey"]),
        ("changed-key", "HostKeyMismatch", ["REMOTE HOST IDENTIFICATION HAS CHANGED", "known_hosts"]),
        ("unknown-key", "HostKeyMismatch", ["host key"]),
    ],
)
@pytest.mark.parametrize("keys", [[], ["python=python3"], ["keepalive=20"]], ids=["", "python", "keepalive"])
def test_no_way_to_the_host(server, group, host, name, words, keys):
    error = fails(group, server.spec(host, *keys))
    check(error, name, host, *words)
    assert error.stderr.strip()


def test_an_address_that_nobody_has(server, group):
    """Without an entry in ssh's configuration, and with a user and options in front."""
    error = fails(group, server.spec("-o ConnectTimeout=9 somebody@no-such-host.invalid"))
    assert type(error) is execnet_c.HostUnknown
    assert "no-such-host.invalid" in error.host and "somebody" in str(error)


def test_a_host_that_never_says_a_word(server, group, monkeypatch):
    """Nothing in ssh's configuration ends this: our timeout does."""
    monkeypatch.setattr(bootstrap, "HELLO_TIMEOUT", 3.0)
    error = fails(group, server.spec("-o ConnectTimeout=0 mute"))
    check(error, "HostSilent", "mute", "3.0 seconds")


def test_a_user_that_does_not_exist(server, group):
    error = fails(group, server.spec("no-such-user@h1"))
    assert type(error) is execnet_c.LoginDenied
    assert "no-such-user" in str(error)


def test_a_configuration_that_does_not_exist(group, tmp_path):
    error = fails(group, f"ssh=h1//ssh_config={tmp_path}/missing")
    check(error, "HostNotFound", "h1", f"{tmp_path}/missing")


def test_an_option_that_ssh_does_not_know(server, group):
    error = fails(group, server.spec("-o NoSuchOption=1 h1"))
    assert type(error) is execnet_c.HostNotFound
    assert "nosuchoption" in str(error).lower()


def test_an_ssh_that_says_nothing(server, group):
    """LogLevel QUIET: there is only its exit status, which says that it has failed."""
    error = fails(group, server.spec("quiet-refusing"))
    assert isinstance(error, execnet_c.HostNotFound)
    assert error.host == "quiet-refusing"


@pytest.mark.parametrize("host", ["-o ConnectTimeout=9 refusing", "refusing -o ConnectTimeout=9", "-q4 refusing -x"])
def test_the_host_is_found_among_options(server, group, host):
    error = fails(group, server.spec(host))
    assert error.host == "refusing" and "refusing" in str(error)


def test_a_failed_host_does_not_disturb_the_others(server, group):
    gateway = group.makegateway(server.spec("h1"))
    fails(group, server.spec("refusing"))
    assert evaluate(gateway, "6 * 7") == 42


# ---- no Python


def test_no_python(server, group):
    error = fails(group, server.spec("no-python"))
    check(error, "PythonMissing", "no-python", "python3", "python ", "3.8", status=127)


def test_no_python_of_that_name(server, group):
    error = fails(group, server.spec("h1", "python=/nonexistent/bin/python"))
    check(error, "PythonMissing", "h1", "/nonexistent/bin/python", status=127)


def test_a_python_that_may_not_be_run(server, group):
    (server.home("h1") / "no-program").write_text("this is none\n")
    error = fails(group, server.spec("h1", f"python={server.home('h1')}/no-program"))
    assert isinstance(error, execnet_c.GatewayDied)
    assert "no-program" in str(error) and error.host == "h1" and error.status == 126


@pytest.mark.skipif(not ssh_hosts.OLD, reason="there is no Python here that is too old")
def test_only_pythons_that_are_too_old(server, group):
    error = fails(group, server.spec("too-old"))
    assert type(error) is execnet_c.PythonMissing
    assert error.host == "too-old"
    for word in ("too-old", "3.8"):
        assert word in str(error), error


@pytest.mark.skipif(not ssh_hosts.OLD, reason="there is no Python here that is too old")
@pytest.mark.parametrize("python", ssh_hosts.OLD)
def test_a_python_that_is_too_old(server, group, python):
    with pytest.raises(OSError) as error:
        group.makegateway(server.spec("h1", f"python={python}"))
    version = python.partition("versions/")[2].split("/")[0]
    assert "3.8" in str(error.value) and version in str(error.value), error.value
    assert list(group) == []


@pytest.mark.parametrize("text", ["sh -c 'exit 3'", "exit 3;"])
def test_something_else_than_a_python(server, group, text):
    error = fails(group, server.spec("h1", f"python={text}"))
    check(error, "WorkerExited", "h1", "exit status 3", status=3)


# ---- login shells and noise


@pytest.mark.parametrize("shell", ssh_hosts.SHELLS)
@pytest.mark.parametrize("keys", [[], ["python=nice -n 1 python3"], ["env:X='; $HOME \"! %s~", "chdir=/tmp"]], ids=str)
def test_login_shells(server, group, shell, keys):
    host = f"shell-{shell}"
    if not server.home(host).exists():
        if shell in ssh_hosts.OPTIONAL_SHELLS:
            pytest.skip(f"there is no {shell}")
        ssh_hosts.missing(f"there is no {shell}")
    gateway = group.makegateway(server.spec(host, *keys))
    assert evaluate(gateway, "os.environ['HOME']") == str(server.home(host))
    if keys and keys[0].startswith("python"):
        assert evaluate(gateway, "os.nice(0)") == 1 + os.nice(0)
    elif keys:
        assert evaluate(gateway, "os.environ['X']") == "'; $HOME \"! %s~"
        assert os.path.realpath(evaluate(gateway, "os.getcwd()")) == os.path.realpath("/tmp")


@pytest.mark.parametrize("shell", ["sh", "bash", "tcsh", "fish"])
def test_python_s_text_reaches_sh_as_it_is(server, group, shell):
    host = f"shell-{shell}"
    if not server.home(host).exists():
        ssh_hosts.missing(f"there is no {shell}")
    value = "a!b !! \\ \\\\ $HOME `x` \"%s\" {a,b} [c]*? ~ # ; & | é \\"
    gateway = group.makegateway(server.spec(host, f"python=env 'A={value}' B='\\''\\' python3"))
    assert evaluate(gateway, "os.environ['A']") == value
    assert evaluate(gateway, "os.environ['B']") == "\\\\"


@pytest.mark.parametrize("shell", ["sh", "bash", "tcsh", "fish"])
def test_a_missing_python_below_login_shells(server, group, shell):
    host = f"shell-{shell}"
    if not server.home(host).exists():
        ssh_hosts.missing(f"there is no {shell}")
    error = fails(group, server.spec(host, "python=no-such-python"))
    check(error, "PythonMissing", host, "no-such-python", status=127)


@pytest.mark.parametrize("shell", ["sh", "bash", "tcsh", "fish"])
def test_ends_of_workers_below_login_shells(server, group, shell):
    host = f"shell-{shell}"
    if not server.home(host).exists():
        ssh_hosts.missing(f"there is no {shell}")
    for body, name, status, number in (
        ("os._exit(3)", "WorkerExited", 3, None),
        ("os.kill(os.getpid(), 9)", "WorkerKilled", None, 9),
    ):
        gateway = group.makegateway(server.spec(host))
        with pytest.raises(execnet_c.GatewayDied) as error:
            gateway.remote_exec("import os\n" + body).receive(SLOW_TIMEOUT)
        check(error.value, name, host, status=status, number=number)


def test_noise_on_stderr_is_no_failure(server, group):
    gateway = group.makegateway(server.spec("noisy"))
    assert evaluate(gateway, "6 * 7") == 42
    with pytest.raises(execnet_c.WorkerExited) as error:
        gateway.remote_exec("import os; os._exit(5)").receive(SLOW_TIMEOUT)
    check(error.value, "WorkerExited", "noisy", "5", status=5)


def test_noise_does_not_hide_the_cause(server, group):
    error = fails(group, server.spec("noisy", "python=no-such-python"))
    check(error, "PythonMissing", "noisy", "no-such-python", status=127)
    assert ssh_hosts.NOISE in error.stderr


def test_words_of_ssh_s_on_a_stderr_do_not_mislead(server, group):
    """What a program over there says is not what ssh says."""
    words = "ssh: Could not resolve hostname h9; Connection refused; Permission denied (publickey); Host key verification failed."
    gateway = group.makegateway(server.spec("h1"))
    with pytest.raises(execnet_c.GatewayDied) as error:
        gateway.remote_exec(f"import os; os.write(2, {words.encode()!r} + b'\\n'); os._exit(4)").receive(SLOW_TIMEOUT)
    check(error.value, "WorkerExited", "h1", "4", "Could not resolve", status=4)
    gateway = group.makegateway(server.spec("h1"))
    with pytest.raises(execnet_c.GatewayDied) as error:
        gateway.remote_exec(f"import os; os.write(2, {words.encode()!r} + b'\\n'); os._exit(255)").receive(SLOW_TIMEOUT)
    check(error.value, "WorkerExited", "h1", "255", status=255)


def test_a_host_that_prints_too_much(server, group):
    error = fails(group, server.spec("h1", "python=while :; do echo Welcome to this host; done; python3"))
    assert type(error) is execnet_c.LinkLost and error.host == "h1"
    assert "a login or site that prints too much" in str(error)
    assert "; its stdout begins with:\nWelcome to this host\n" in str(error)


def test_a_long_banner_on_stdout(server, group):
    gateway = group.makegateway(server.spec("chatty"))
    assert evaluate(gateway, "6 * 7") == 42


# ---- ends of workers

ENDS = {
    "KILL": ("os.kill(os.getpid(), signal.SIGKILL)", "WorkerKilled", None, 9, "SIGKILL"),
    "TERM": ("os.kill(os.getpid(), signal.SIGTERM)", "WorkerKilled", None, 15, "SIGTERM"),
    "SEGV": ("os.kill(os.getpid(), signal.SIGSEGV)", "WorkerKilled", None, 11, "SIGSEGV"),
    "exit 0": ("os._exit(0)", "WorkerExited", 0, None, "exit status 0"),
    "exit 3": ("os._exit(3)", "WorkerExited", 3, None, "exit status 3"),
    "exit 127": ("os._exit(127)", "WorkerExited", 127, None, "exit status 127"),
    "exit 255": ("os._exit(255)", "WorkerExited", 255, None, "exit status 255"),
}


@pytest.mark.parametrize("how", ENDS)
@pytest.mark.parametrize("keys", [[], ["python=python"]], ids=["", "python"])
def test_how_a_worker_ended(server, group, how, keys):
    body, name, status, number, words = ENDS[how]
    gateway = group.makegateway(server.spec("h1", *keys))
    before = gateway.remote_exec("channel.send(1); channel.send(2)")
    before.waitclose(SLOW_TIMEOUT)
    channel = gateway.remote_exec(f"import os, signal, time\n{body}\ntime.sleep(1000)")
    uses = [lambda: channel.receive(SLOW_TIMEOUT), channel.waitclose, gateway.newchannel, lambda: channel.send(1)]
    for use in [*uses, lambda: gateway.remote_exec("pass"), gateway.remote_status]:
        with pytest.raises(execnet_c.GatewayDied) as error:
            use()
        check(error.value, name, "h1", words, gateway.id, status=status, number=number)
    assert list(before) == [1, 2], "what came before is still there"


def test_last_words_of_a_worker(server, group):
    gateway = group.makegateway(server.spec("h1"))
    channel = gateway.remote_exec("import os; os.write(2, b'these are its last words\\n'); os._exit(6)")
    with pytest.raises(execnet_c.WorkerExited) as error:
        channel.receive(SLOW_TIMEOUT)
    check(error.value, "WorkerExited", "h1", "these are its last words", status=6)
    assert "these are its last words" in error.value.stderr


def test_a_worker_killed_while_it_sends(server, group):
    gateway = group.makegateway(server.spec("h1"))
    pid = evaluate(gateway, "os.getpid()")
    channel = gateway.remote_exec("data = b'x' * (1 << 20)\nwhile True: channel.send(data)")
    for _ in range(3):
        assert len(channel.receive(SLOW_TIMEOUT)) == 1 << 20
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(execnet_c.GatewayDied) as error:
        while True:
            assert len(channel.receive(SLOW_TIMEOUT)) == 1 << 20, "whole, or not at all"
    check(error.value, "WorkerKilled", "h1", "SIGKILL", number=9)


# ---- ends of links


@pytest.mark.parametrize("state", ["waiting", "receiving", "sending", "idle"])
def test_a_connection_that_breaks(server, group, state):
    """The host's sshd dies: nobody can know what has become of the worker, which ends by itself."""
    gateway = group.makegateway(server.spec("h1"))
    pid = evaluate(gateway, "os.getpid()")
    session = server.session_of(pid)
    data = b"x" * (1 << 20)
    bodies = {
        "waiting": "channel.receive()",
        "receiving": f"while True: channel.send(b'x' * {len(data)})",
        "sending": "for item in channel: pass",
        "idle": None,
    }
    channel = gateway.remote_exec(bodies[state]) if bodies[state] else None
    if state == "receiving":
        assert channel.receive(SLOW_TIMEOUT) == data

    def break_it():
        for one in session:
            os.kill(one, signal.SIGKILL)

    start = time.monotonic()
    with pytest.raises(execnet_c.GatewayDied) as error:
        break_it()
        if state == "idle":
            assert wait_until(lambda: not gateway.hasreceiver())
            gateway.remote_status()
        while time.monotonic() - start < SLOW_TIMEOUT:
            if state == "sending":
                channel.send(data)
            else:
                channel.receive(SLOW_TIMEOUT)
    check(error.value, "LinkLost", "h1", status=error.value.status)
    assert "h1" in str(error.value) and "connection" in str(error.value).lower()
    assert time.monotonic() - start < SOON
    assert wait_until(lambda: is_gone(pid)), "the worker lives on"


def test_an_ssh_that_is_killed(server, group):
    gateway = group.makegateway(server.spec("h1"))
    pid = evaluate(gateway, "os.getpid()")
    channel = gateway.remote_exec("channel.receive()")
    os.kill(gateway._state()["pid"], signal.SIGKILL)
    with pytest.raises(execnet_c.GatewayDied) as error:
        channel.receive(SLOW_TIMEOUT)
    assert type(error.value) is execnet_c.LinkLost, error.value
    assert error.value.host == "h1"
    assert "SIGKILL" in str(error.value), "of our own side the cause is known"
    assert wait_until(lambda: is_gone(pid)), "the worker lives on"


def test_a_worker_cut_off_by_a_master_that_ends(server, group):
    """A connection of several sessions breaks for all of them."""
    specs = [server.spec("auto-master")] * 2
    gateways = [group.makegateway(spec) for spec in specs]
    pids = [evaluate(gateway, "os.getpid()") for gateway in gateways]
    channels = [gateway.remote_exec("channel.receive()") for gateway in gateways]
    kill_all({one for pid in pids for one in server.session_of(pid)})
    for channel in channels:
        with pytest.raises(execnet_c.GatewayDied) as error:
            channel.receive(SLOW_TIMEOUT)
        assert type(error.value) is execnet_c.LinkLost, error.value
        assert error.value.host == "auto-master"
    assert wait_until(lambda: all(map(is_gone, pids)))


@pytest.mark.parametrize("host", ["h1", "quiet"])
@pytest.mark.parametrize("state", ["waiting", "sending"])
def test_a_host_that_says_nothing_any_more(server, group, host, state):
    gateway = group.makegateway(server.spec(host, "keepalive=2"))
    pid = evaluate(gateway, "os.getpid()")
    session = server.session_of(pid)
    channel = gateway.remote_exec("for item in channel: pass")
    start = time.monotonic()
    try:
        for one in session:
            os.kill(one, signal.SIGSTOP)
        with pytest.raises(execnet_c.GatewayDied) as error:
            while state == "sending" and time.monotonic() - start < SLOW_TIMEOUT:
                channel.send(b"x" * (1 << 20))
            channel.receive(SLOW_TIMEOUT)
        took = time.monotonic() - start
    finally:
        for one in session:
            os.kill(one, signal.SIGCONT)
    print(f"{took:.2f} s: {error.value}")
    check(error.value, "HostSilent", host, "keepalive", status=error.value.status)
    assert 1.0 < took < 2.0 + SOON
    assert wait_until(lambda: is_gone(pid)), "the worker lives on"


def test_a_host_that_stops_before_it_serves(server, group):
    """It has let us in, and then says nothing."""
    failed = []

    def make():
        try:
            group.makegateway(server.spec("h1", "keepalive=2", "python=sleep 1000; :"))
        except Exception as error:
            failed.append(error)

    def sleeping():
        return {pid for pid in server.sessions() if sshd.stat_of(pid) and sshd.stat_of(pid)[0] == "sleep"}

    thread = threading.Thread(target=make)
    thread.start()
    stopped = []
    try:
        assert wait_until(sleeping)
        [pid] = sleeping()
        stopped = server.session_of(pid)
        for one in stopped:
            os.kill(one, signal.SIGSTOP)
        start = time.monotonic()
        thread.join(2.0 + SOON)
        assert failed, "it waits on"
        print(f"{time.monotonic() - start:.2f} s: {failed[0]}")
    finally:
        for one in stopped:
            os.kill(one, signal.SIGKILL)
        os.kill(pid, signal.SIGKILL)  # it reads nothing, and would sleep on
        thread.join()
    check(failed[0], "HostSilent", "h1", "keepalive", status=failed[0].status)
