"""Gateways: how they start, what they run, how tasks fail, and how gateways end."""

import importlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
import weakref

import pytest

from conftest import TIMEOUT, children_of, plain_repr, stderr_has, wait_until

PID = "import os\nchannel.send(os.getpid())"


def pid_of(gw):
    return gw.remote_exec(PID).receive(TIMEOUT)


def is_gone(pid):
    """Whether the process has ended; it may not have been reaped."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


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


# ---- what is run


def test_an_indented_string(gw):
    channel = gw.remote_exec(
        """
            if channel:
                channel.send("indented")
        """
    )
    assert channel.receive(TIMEOUT) == "indented"


def test_a_string_of_any_text(gw):
    assert gw.remote_exec("channel.send('ä€😀\\n')").receive(TIMEOUT) == "ä€😀\n"
    assert gw.remote_exec("# only a comment").waitclose(TIMEOUT) is None
    assert gw.remote_exec("").waitclose(TIMEOUT) is None


def test_a_long_string(gw):
    text = "".join(f"x{i} = {i}\n" for i in range(20000)) + "channel.send(x19999)"
    assert gw.remote_exec(text).receive(TIMEOUT) == 19999


def add(channel, a, b=2, *, c=3):
    channel.send((a, b, c))


def test_a_function_with_arguments(gw):
    assert gw.remote_exec(add, a=1).receive(TIMEOUT) == (1, 2, 3)
    assert gw.remote_exec(add, a={"k": [1]}, b=None, c=b"x").receive(TIMEOUT) == ({"k": [1]}, None, b"x")


def test_a_nested_function(gw):
    def task(channel, number):
        import math

        def half():
            return 0.5

        channel.send(math.floor(number * half()))

    assert gw.remote_exec(task, number=7).receive(TIMEOUT) == 3


def test_a_module(gw, tmp_path, monkeypatch):
    (tmp_path / "task_module.py").write_text("if __name__ == '__channelexec__':\n    channel.send(channel.receive() + 1)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    module = importlib.import_module("task_module")
    try:
        channel = gw.remote_exec(module)
        channel.send(1)
        assert channel.receive(TIMEOUT) == 2
    finally:
        del sys.modules["task_module"]


def test_only_functions_take_arguments(gw):
    with pytest.raises(TypeError, match="^can't pass kwargs to non-function remote_exec$"):
        gw.remote_exec("channel.send(1)", a=1)
    with pytest.raises(TypeError, match="^can't pass kwargs to non-function remote_exec$"):
        gw.remote_exec(textwrap, a=1)


def test_arguments_that_cannot_be_sent_are_an_error_here(lib, gw):
    with pytest.raises(lib.DumpError, match="can't serialize <class 'object'>"):
        gw.remote_exec(add, a=object())
    assert gw.remote_exec(add, a=1).receive(TIMEOUT) == (1, 2, 3)


@pytest.mark.ours
@pytest.mark.parametrize(
    "value, where",
    [
        (object(), "keyword argument 'a': can't serialize <class 'object'>; send pickle.dumps() of it"),
        ([1, {"b": object()}], "keyword argument 'a': can't serialize <class 'object'> at [1]['b']; send"),
        ("\udcff", "keyword argument 'a': strings must be utf-8 encodable"),
    ],
    ids=["object", "nested", "surrogate"],
)
def test_the_argument_that_cannot_be_sent_is_named(lib, gw, value, where):
    def task(channel, a, b):
        channel.send(a)

    with pytest.raises(lib.DumpError) as caught:
        gw.remote_exec(task, a=value, b=1)
    assert str(caught.value).startswith(where)
    with pytest.raises(lib.DumpError) as caught:
        gw.remote_exec(task, b=gw.newchannel(), a=value)
    assert str(caught.value).startswith(where)


@pytest.mark.ours
def test_a_source_that_cannot_be_sent_says_so(lib, gw):
    with pytest.raises(lib.DumpError, match="^the task's source: strings must be utf-8 encodable$"):
        gw.remote_exec("a = '\udcff'")


def test_functions_that_cannot_be_sent_are_an_error_here(gw):
    outside = 1

    def closure(channel):
        return outside

    def wrong(x):
        pass

    def free(channel):
        return textwrap

    for task, text in [
        (lambda channel: None, "can't evaluate lambda functions"),
        (closure, "functions with closures can't be passed"),
        (wrong, "expected first function argument to be `channel`"),
        (free, "the use of non-builtin globals isn't supported"),
    ]:
        with pytest.raises(ValueError) as caught:
            gw.remote_exec(task)
        assert caught.value.args[0].startswith(text)
    assert gw.remote_exec(add, a=1).receive(TIMEOUT) == (1, 2, 3)


# ---- tasks that fail


def failure(gw, task, **kwargs):
    channel = gw.remote_exec(task, **kwargs)
    with pytest.raises(channel.RemoteError) as caught:
        channel.waitclose(TIMEOUT)
    return str(caught.value)


def test_the_error_of_a_string_is_a_traceback_with_its_lines(gw):
    text = failure(gw, "x = 1\n\ndef f():\n    raise ValueError('what', x)\nf()\n")
    assert text.startswith("Traceback (most recent call last):\n")
    assert '  File "<remote exec>", line 5, in <module>\n' in text
    assert '  File "<remote exec>", line 4, in f\n' in text
    assert text.endswith("\nValueError: ('what', 1)\n")


def fail(channel, how):
    x = 1
    if x:
        raise LookupError(how)


def test_the_error_of_a_function_names_its_file_and_line(gw):
    text = failure(gw, fail, how="for a reason")
    line = fail.__code__.co_firstlineno + 3
    assert f'  File "{os.path.abspath(__file__)}", line {line}, in fail\n' in text
    assert "    raise LookupError(how)\n" in text
    assert text.endswith("\nLookupError: for a reason\n")


def test_the_error_of_a_module_names_its_file(gw, tmp_path, monkeypatch):
    path = tmp_path / "failing_module.py"
    path.write_text("if __name__ == '__channelexec__':\n    1 / 0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    module = importlib.import_module("failing_module")
    try:
        text = failure(gw, module)
    finally:
        del sys.modules["failing_module"]
    assert f'  File "{path}", line 2, in <module>\n' in text
    assert text.endswith("\nZeroDivisionError: division by zero\n")


def test_chained_errors_are_told_whole(gw):
    text = failure(gw, "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    raise KeyError('k') from e\n")
    assert "ZeroDivisionError: division by zero\n" in text
    assert "direct cause" in text
    assert text.endswith("\nKeyError: 'k'\n")


def test_text_that_does_not_compile_is_a_remote_error(gw):
    text = failure(gw, "x = 1\nthis is no python\n")
    assert 'File "<remote exec>", line 2\n' in text
    assert "SyntaxError: invalid syntax" in text


def test_wrong_arguments_are_a_remote_error(gw):
    assert "TypeError: add() got an unexpected keyword argument 'z'" in failure(gw, add, a=1, z=2)
    assert "TypeError: add() missing 1 required positional argument: 'a'" in failure(gw, add)


@pytest.mark.parametrize("end", ["SystemExit(3)", "SystemExit", "GeneratorExit", "BaseException('base')"])
def test_a_task_that_ends_by_force_is_an_error_and_the_worker_lives_on(gw, end):
    pid = pid_of(gw)
    assert end.partition("(")[0] in failure(gw, f"raise {end}")
    assert "SystemExit: bye" in failure(gw, "import sys\nsys.exit('bye')")
    assert pid_of(gw) == pid


def test_an_interrupted_task_says_so_and_the_worker_lives_on(gw):
    assert failure(gw, "raise KeyboardInterrupt") == "keyboard-interrupted"
    assert gw.hasreceiver()
    assert gw.remote_exec("channel.send(1)").receive(TIMEOUT) == 1


def test_the_end_of_a_channel_ends_a_task_quietly(gw):
    channel = gw.remote_exec("channel.send(1)\nother = channel.receive()\nother.receive()")
    other = gw.newchannel()
    channel.send(other)
    other.close()
    channel.waitclose(TIMEOUT)
    assert list(channel) == [1]


@pytest.mark.ours
def test_an_eoferror_of_the_tasks_own_is_a_remote_error(lib, gw):
    # execnet takes any EOFError for the end of a channel: a task that meets a cut file seems to have ended well.
    channel = gw.remote_exec("import pickle\npickle.loads(b'')")
    with pytest.raises(lib.RemoteError, match="EOFError: Ran out of input"):
        channel.waitclose(TIMEOUT)


def test_an_exception_whose_text_fails_is_a_remote_error_still(gw):
    text = failure(gw, "class Odd(Exception):\n    def __str__(self):\n        raise ValueError\nraise Odd()")
    assert "Odd" in text
    assert gw.remote_exec("channel.send(1)").receive(TIMEOUT) == 1


def test_exceptions_are_raised_anew_for_each_channel(lib, gw):
    channels = [gw.remote_exec(f"raise ValueError({i})") for i in range(5)]
    for i, channel in enumerate(channels):
        with pytest.raises(lib.RemoteError, match=f"ValueError: {i}\n"):
            channel.waitclose(TIMEOUT)


# ---- threads over there

MAIN = "import threading\nmain = threading.current_thread() is threading.main_thread()\n"


def test_the_first_task_runs_on_the_main_thread_and_later_ones_beside_it(gw):
    first = gw.remote_exec(MAIN + "channel.send(main)\nchannel.receive()")
    assert first.receive(TIMEOUT) is True
    others = [gw.remote_exec(MAIN + "channel.send(main)\nchannel.receive()") for _ in range(3)]
    assert [other.receive(TIMEOUT) for other in others] == [False] * 3
    for channel in [first, *others]:
        channel.send(None)
        channel.waitclose(TIMEOUT)


def test_the_main_thread_is_used_again_once_it_is_free(gw):
    ask = MAIN + "channel.send(main)"
    assert gw.remote_exec(ask).receive(TIMEOUT) is True
    # A task's channel closes a moment before its thread is free.
    assert wait_until(lambda: gw.remote_exec(ask).receive(TIMEOUT))


def test_tasks_talk_at_the_same_time(gw):
    channels = [gw.remote_exec("for item in channel: channel.send(item + 1)") for _ in range(5)]
    for i in range(20):
        for channel in channels:
            channel.send(i)
        assert [channel.receive(TIMEOUT) for channel in channels] == [i + 1] * 5


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
