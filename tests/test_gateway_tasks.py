"""Tasks: what a gateway runs, how it fails, and in which threads."""

import importlib
import os
import sys
import textwrap

import pytest

from conftest import TIMEOUT, wait_until
from gateways import add, pid_of


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
