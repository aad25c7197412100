"""Gateways: how they start, what they tell, and how they end."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import weakref

import pytest

from conftest import TIMEOUT, children_of, plain_repr, stderr_has, wait_until
from gateways import PID, add, pid_of
from masters import is_gone


# ---- starting


def test_a_gateway_is_another_process(gw):
    pid = pid_of(gw)
    assert pid != os.getpid()
    assert pid in children_of(os.getpid())


def test_ids_are_counted_or_given(group):
    assert group.makegateway().id == "gw0"
    assert group.makegateway("popen//id=mine").id == "mine"
    assert group.makegateway("popen").id == "gw1"


def test_a_spec_is_kept_and_only_what_is_unset_is_filled_in(lib, group):
    spec = lib.XSpec("popen")
    gw = group.makegateway(spec)
    assert gw.spec is spec
    assert (spec.id, spec.execmodel) == ("gw0", "thread")
    assert str(spec) == "popen"
    given = lib.XSpec("popen//id=mine//execmodel=main_thread_only")
    gw = group.makegateway(given)
    assert gw.spec is given
    assert (gw.id, given.id, given.execmodel) == ("mine", "mine", "main_thread_only")
    assert str(given) == "popen//id=mine//execmodel=main_thread_only"
    assert group.makegateway("popen").spec == lib.XSpec("popen")


def test_a_spec_that_names_no_kind_of_gateway_is_an_error(group):
    with pytest.raises(ValueError, match="no gateway type found for 'id=x'"):
        group.makegateway("id=x")
    with pytest.raises(ValueError, match="duplicate key: 'popen'"):
        group.makegateway("popen//popen")
    assert list(group) == []


def test_env_is_set_over_there(group, monkeypatch):
    monkeypatch.setenv("EXECNET_TEST_KEPT", "kept")
    monkeypatch.setenv("EXECNET_TEST_CHANGED", "old")
    gw = group.makegateway("popen//env:EXECNET_TEST_NEW=a=b c//env:EXECNET_TEST_CHANGED=new//env:EXECNET_TEST_EMPTY=")
    channel = gw.remote_exec(
        """
        import os, subprocess, sys
        names = ["EXECNET_TEST_" + name for name in ("NEW", "CHANGED", "EMPTY", "KEPT")]
        channel.send([os.environ.get(name) for name in names])
        code = "import os; print(os.environ['EXECNET_TEST_NEW'])"
        channel.send(subprocess.check_output([sys.executable, "-c", code]).decode().strip())
        """
    )
    assert channel.receive(TIMEOUT) == ["a=b c", "new", "", "kept"]
    assert channel.receive(TIMEOUT) == "a=b c"
    assert "EXECNET_TEST_NEW" not in os.environ


def test_chdir_enters_a_directory_and_makes_it_if_need_be(group, tmp_path):
    cwd = "import os\nchannel.send(os.getcwd())"
    old, new = tmp_path / "there is one", tmp_path / "made"
    old.mkdir()
    assert group.makegateway(f"popen//chdir={old}").remote_exec(cwd).receive(TIMEOUT) == str(old)
    assert group.makegateway(f"popen//chdir={new}").remote_exec(cwd).receive(TIMEOUT) == str(new)
    assert new.is_dir()
    assert group.makegateway("popen").remote_exec(cwd).receive(TIMEOUT) == os.getcwd()


def test_nice_makes_it_nicer(group):
    gw = group.makegateway("popen//nice=5")
    channel = gw.remote_exec("import os\nchannel.send(os.getpriority(os.PRIO_PROCESS, os.getpid()))")
    assert channel.receive(TIMEOUT) == min(os.nice(0) + 5, 19)


@pytest.mark.ours
def test_nice_holds_for_every_task(group):
    # Linux keeps the value for each thread; a thread has that of the one that started it.
    gw = group.makegateway("popen//nice=5")
    channels = [gw.remote_exec("import os\nchannel.send(os.nice(0))\nchannel.receive()") for _ in range(3)]
    assert [channel.receive(TIMEOUT) for channel in channels] == [min(os.nice(0) + 5, 19)] * 3


def test_dont_write_bytecode(group, monkeypatch):
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    flag = "import sys\nchannel.send(sys.dont_write_bytecode)"
    assert group.makegateway("popen//dont_write_bytecode").remote_exec(flag).receive(TIMEOUT) is True
    assert group.makegateway("popen").remote_exec(flag).receive(TIMEOUT) is False


def test_several_gateways_live_side_by_side(group):
    gateways = [group.makegateway("popen") for _ in range(4)]
    channels = [gw.remote_exec(PID) for gw in gateways]
    assert len({channel.receive(TIMEOUT) for channel in channels}) == 4


# ---- the far end's world


def test_argv_and_name(gw):
    channel = gw.remote_exec("import sys\nchannel.send((sys.argv, __name__, '__file__' in globals()))")
    assert channel.receive(TIMEOUT) == (["-c"], "__channelexec__", False)


def test_the_far_end_is_this_interpreter(gw):
    channel = gw.remote_exec("import sys\nchannel.send((sys.executable, sys.prefix, sys.version))")
    assert channel.receive(TIMEOUT) == (sys.executable, sys.prefix, sys.version)


def test_stdin_is_empty_and_stdout_leads_nowhere(gw):
    channel = gw.remote_exec(
        """
        import os, subprocess, sys
        channel.send((sys.stdin.read(), os.read(0, 10)))
        channel.send([os.readlink("/proc/self/fd/%d" % fd) for fd in (0, 1)])
        print("text that must not reach the wire")
        sys.stdout.write("more text")
        sys.stdout.flush()
        os.write(1, b"\\x00" * 1000)
        os.system("echo from a child")
        subprocess.check_call([sys.executable, "-c", "print(input.__name__ * 1000)"])
        channel.send("undisturbed")
        """
    )
    assert channel.receive(TIMEOUT) == ("", b"")
    assert channel.receive(TIMEOUT) == ["/dev/null", "/dev/null"]
    assert channel.receive(TIMEOUT) == "undisturbed"
    channel.waitclose(TIMEOUT)


def test_stderr_is_ours(capfd, group):
    channel = group.makegateway("popen").remote_exec("import sys\nsys.stderr.write('said over there')\nsys.stderr.flush()")
    channel.waitclose(TIMEOUT)
    assert stderr_has(len("said over there"))
    assert "said over there" in capfd.readouterr().err


def test_each_task_has_globals_of_its_own(gw):
    gw.remote_exec("x = 1\nchannel.send(x)").waitclose(TIMEOUT)
    channel = gw.remote_exec("channel.send(sorted(name for name in globals() if name != '__builtins__'))")
    assert channel.receive(TIMEOUT) == ["__name__", "channel"]


def test_modules_stay_imported(gw):
    gw.remote_exec("import json\njson.mark = 5").waitclose(TIMEOUT)
    assert gw.remote_exec("import json\nchannel.send(json.mark)").receive(TIMEOUT) == 5


# ---- what a gateway tells


def test_remote_status_counts(gw):
    status = gw.remote_status()
    assert (status.numchannels, status.numexecuting, status.execmodel) == (0, 0, "thread")
    channels = [gw.remote_exec("channel.send(1)\nchannel.receive()") for _ in range(3)]
    for channel in channels:
        assert channel.receive(TIMEOUT) == 1
    status = gw.remote_status()
    assert (status.numchannels, status.numexecuting) == (3, 3)
    for channel in channels:
        channel.send(None)
        channel.waitclose(TIMEOUT)
    assert wait_until(lambda: gw.remote_status().numexecuting == 0)
    assert wait_until(lambda: gw.remote_status().numchannels == 0)
    assert repr(status) == "<RInfo 'execmodel=thread, numchannels=3, numexecuting=3'>"


def test_remote_status_is_told_while_tasks_compute(gw):
    channel = gw.remote_exec("channel.send(1)\nwhile not stop: pass".replace("stop", "channel.isclosed()"))
    assert channel.receive(TIMEOUT) == 1
    assert gw.remote_status().numexecuting == 1
    channel.close()
    assert wait_until(lambda: gw.remote_status().numexecuting == 0)


def test_rinfo(gw, group):
    info = gw._rinfo()
    assert info.executable == sys.executable
    assert tuple(info.version_info) == tuple(sys.version_info)
    assert info.platform == sys.platform
    assert info.cwd == os.getcwd()
    assert info.pid == pid_of(gw)
    assert gw._rinfo() is info
    assert gw._rinfo(update=True) is not info
    assert gw._rinfo().pid == info.pid


def test_rinfo_is_answered_while_the_worker_is_busy(gw):
    channel = gw.remote_exec(PID + "\nchannel.receive()")
    pid = channel.receive(TIMEOUT)
    assert gw._rinfo().pid == pid
    channel.send(None)
    channel.waitclose(TIMEOUT)


def test_repr_tells_id_state_and_channels(gw):
    assert plain_repr(gw) == "<Gateway id='gw0' receive-live, thread model, 0 active channels>"
    one, two = gw.newchannel(), gw.newchannel()
    assert plain_repr(gw) == "<Gateway id='gw0' receive-live, thread model, 2 active channels>"
    one.close()
    assert plain_repr(gw) == "<Gateway id='gw0' receive-live, thread model, 1 active channels>"
    del two
    assert plain_repr(gw) == "<Gateway id='gw0' receive-live, thread model, 0 active channels>"
    gw.exit()
    gw.join(TIMEOUT)
    assert wait_until(lambda: not gw.hasreceiver())
    assert plain_repr(gw) == "<Gateway id='gw0' not-receiving, thread model, 0 active channels>"


def test_the_gateway_over_there_has_a_name(gw):
    channel = gw.remote_exec("channel.send((channel.gateway.id, channel.gateway.newchannel().id % 2))")
    assert channel.receive(TIMEOUT) == ("gw0-worker", 0)


def test_a_gateway_takes_attributes(gw):
    gw.node = ["anything"]
    assert gw.node == ["anything"]
    assert vars(gw)["node"] == ["anything"]
    assert not hasattr(gw, "other")


def test_a_weak_reference_to_a_gateway(group):
    gw = group.makegateway("popen")
    ref = weakref.ref(gw)
    assert ref() is gw
    assert {gw: 1}[ref()] == 1


def test_the_class_can_be_subclassed_and_patched(lib, gw, monkeypatch):
    class Mine(lib.Gateway):
        def more(self):
            return self.id

    assert issubclass(Mine, lib.Gateway)
    monkeypatch.setattr(lib.Gateway, "more", lambda self: self.id + "!", raising=False)
    assert gw.more() == "gw0!"
    original, calls = lib.Gateway.remote_exec, []

    def remote_exec(self, source, **kwargs):
        calls.append(source)
        return original(self, source, **kwargs)

    monkeypatch.setattr(lib.Gateway, "remote_exec", remote_exec)
    assert gw.remote_exec("channel.send(1)").receive(TIMEOUT) == 1
    assert calls == ["channel.send(1)"]


# ---- ending


def test_hasreceiver_and_join(gw):
    assert gw.hasreceiver() is True
    assert gw.join(timeout=0.01) is None
    assert gw.hasreceiver() is True
    gw.exit()
    assert gw.join() is None
    assert wait_until(lambda: gw.hasreceiver() is False)
    gw.join(timeout=1)
    gw.join()


def test_exit_ends_the_process_and_may_be_called_again(group):
    gw = group.makegateway("popen")
    pid = pid_of(gw)
    gw.exit()
    gw.exit()
    assert gw not in list(group)
    assert len(group) == 0
    gw.join(TIMEOUT)
    group.terminate(timeout=5.0)
    gw.exit()
    assert wait_until(lambda: is_gone(pid))


def test_use_after_exit_is_an_oserror(gw):
    channel = gw.remote_exec("channel.send(1)\nchannel.receive()")
    assert channel.receive(TIMEOUT) == 1
    gw.exit()
    gw.join(TIMEOUT)
    for use in [gw.newchannel, gw.remote_status, lambda: gw.remote_exec("pass"), lambda: channel.send(1)]:
        with pytest.raises(OSError):
            use()
    with pytest.raises(EOFError):
        channel.receive(TIMEOUT)
    assert repr(channel).startswith("<Channel id=1 ")


def test_exit_wakes_those_who_wait_here(gw):
    channel = gw.remote_exec("channel.send(1)\nchannel.receive()")
    assert channel.receive(TIMEOUT) == 1
    ends = []

    def receive():
        try:
            channel.receive(TIMEOUT)
        except EOFError:
            ends.append("receive")

    thread = threading.Thread(target=receive)
    thread.start()
    gw.exit()
    thread.join(TIMEOUT)
    assert ends == ["receive"]


def test_items_sent_before_exit_are_received_by_the_task(gw, tmp_path):
    path = tmp_path / "got"
    channel = gw.remote_exec(
        """
        path = channel.receive()
        channel.send(1)
        items = list(channel)
        import os
        with open(path + ".new", "w") as file:
            file.write(repr(items))
        os.rename(path + ".new", path)
        """
    )
    channel.send(str(path))
    assert channel.receive(TIMEOUT) == 1
    for i in range(10):
        channel.send(i)
    gw.exit()
    assert wait_until(path.exists)
    assert path.read_text() == repr(list(range(10)))


@pytest.mark.parametrize("death", ["os._exit(7)", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_the_death_of_the_worker_ends_all_its_channels(gw, death):
    other = gw.remote_exec("channel.send(1)\nchannel.receive()")
    assert other.receive(TIMEOUT) == 1
    channel = gw.remote_exec(f"import os, signal\nchannel.send(2)\nchannel.receive()\n{death}")
    assert channel.receive(TIMEOUT) == 2
    channel.send(None)
    with pytest.raises(EOFError):
        channel.receive(TIMEOUT)
    with pytest.raises(EOFError):
        other.waitclose(TIMEOUT)
    with pytest.raises(EOFError):
        other.receive(TIMEOUT)
    gw.join(TIMEOUT)
    assert wait_until(lambda: not gw.hasreceiver())
    with pytest.raises(OSError):
        gw.remote_exec("pass")


@pytest.mark.ours
@pytest.mark.parametrize(
    "death, says",
    [("os._exit(7)", "7"), ("os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL"), ("os.abort()", "SIGABRT")],
)
def test_the_error_tells_how_the_worker_died(gw, death, says):
    channel = gw.remote_exec(f"import os, signal\n{death}")
    with pytest.raises(EOFError, match=says):
        channel.receive(TIMEOUT)


def test_items_of_a_worker_that_died_are_not_lost(gw):
    channel = gw.remote_exec("import os\nfor i in range(100): channel.send(i)\nos._exit(1)")
    assert [channel.receive(TIMEOUT) for _ in range(100)] == list(range(100))
    with pytest.raises(EOFError):
        channel.receive(TIMEOUT)


def test_another_gateway_does_not_mind_a_death(group):
    one, two = group.makegateway("popen"), group.makegateway("popen")
    os.kill(pid_of(one), signal.SIGKILL)
    one.join(TIMEOUT)
    assert two.remote_exec("channel.send(1)").receive(TIMEOUT) == 1


def test_the_worker_ends_with_its_master(lib, tmp_path):
    """A process that dies without a word leaves no worker behind."""
    code = textwrap.dedent(
        f"""
        import os, signal, pairing, {lib.__name__} as execnet
        gw = execnet.makegateway("popen")
        print(gw.remote_exec("import os; channel.send(os.getpid())").receive(), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    master = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, timeout=TIMEOUT, cwd=tmp_path, env=env
    )
    assert master.returncode == -signal.SIGKILL
    pid = int(master.stdout)

    assert wait_until(lambda: is_gone(pid))


def test_a_gateway_may_be_used_from_any_thread(gw):
    results = []

    def work(number):
        channel = gw.remote_exec(add, a=number)
        results.append(channel.receive(TIMEOUT)[0])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
    assert sorted(results) == list(range(8))


def test_gateways_may_be_made_in_threads(group):
    made = []
    threads = [threading.Thread(target=lambda: made.append(pid_of(group.makegateway("popen")))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
    assert len(set(made)) == 4
    assert sorted(gw.id for gw in group) == ["gw0", "gw1", "gw2", "gw3"]


@pytest.mark.ours
@pytest.mark.parametrize("spec", ["popen", "popen//maxqueue=1000", f"popen//python={sys.executable}", "popen//stderr=capture"])
def test_python_says_what_it_imports(group, monkeypatch, capfd, spec):
    """As under python -v: the worker's stderr is never quiet."""
    monkeypatch.setenv("PYTHONVERBOSE", "1")
    gw = group.makegateway(spec)
    channel = gw.remote_exec("for item in channel: channel.send(item)")
    channel.set_limit(1000)
    channel.send(1)
    assert channel.receive(TIMEOUT) == 1
    assert gw.remote_status().numexecuting == 1
    gw.exit()
    assert gw._wait_gone(TIMEOUT)
    capfd.readouterr()
