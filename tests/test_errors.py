"""What is told of an exception: its text, whatever characters and faults it has, and when there is none to tell."""

import os
import pickle
import subprocess
import sys
import textwrap

import pairing
import pytest

import execnet_c
from conftest import TIMEOUT

BAD = "caf\udce9"  # an undecodable file name, as Python gives it to programs


def failure(lib, channel):
    """The RemoteError that the channel ends with."""
    with pytest.raises(lib.RemoteError) as caught:
        channel.waitclose(TIMEOUT)
    return caught.value


# ---- characters that cannot be sent


@pytest.mark.ours
@pytest.mark.parametrize("where", ["main thread", "another thread"])
def test_a_character_that_cannot_be_sent_is_escaped(lib, gw, where):
    if where == "another thread":
        busy = gw.remote_exec("channel.send(1)\nchannel.receive()")
        assert busy.receive(TIMEOUT) == 1
    error = failure(lib, gw.remote_exec(r'raise ValueError("caf\udce9")'))
    assert str(error).endswith("ValueError: caf\\udce9\n")
    assert gw.remote_exec("channel.send(1)").receive(TIMEOUT) == 1


@pytest.mark.ours
def test_a_file_name_that_cannot_be_decoded(lib, gw):
    error = failure(lib, gw.remote_exec(r"import os; os.chdir(os.fsdecode(b'/caf\xe9'))"))
    assert "FileNotFoundError" in str(error) and "/caf\\udce9" in str(error)


@pytest.mark.ours
def test_a_callback_over_there_that_raises_what_cannot_be_sent(lib, gw):
    channel = gw.remote_exec(
        r"""
        def callback(item):
            raise LookupError(item + "\udce9")
        other = channel.receive()
        other.setcallback(callback)
        channel.send(1)
        channel.receive()
        """
    )
    other = gw.newchannel()
    channel.send(other)
    assert channel.receive(TIMEOUT) == 1
    other.send("caf")
    assert str(failure(lib, other)).endswith("LookupError: caf\\udce9\n")
    channel.send(None)
    channel.waitclose(TIMEOUT)


@pytest.mark.ours
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_callback_here_that_raises_what_cannot_be_sent(lib, gw):
    channel = gw.remote_exec(
        """
        other = channel.receive()
        other.send("caf")
        try:
            other.receive()
        except other.RemoteError as error:
            channel.send(str(error))
        """
    )
    other = gw.newchannel()

    def callback(item):
        raise LookupError(item + "\udce9")

    other.setcallback(callback)
    channel.send(other)
    assert channel.receive(TIMEOUT).endswith("LookupError: caf\\udce9\n")
    assert str(failure(lib, other)).endswith("LookupError: caf\\udce9\n")


@pytest.mark.ours
def test_a_text_of_ones_own_for_close(lib, gw):
    channel = gw.remote_exec(r"other = channel.receive(); other.close(error='caf\udce9'); channel.receive()")
    other = gw.newchannel()
    channel.send(other)
    assert str(failure(lib, other)) == "caf\\udce9"
    channel.send(None)
    channel = gw.remote_exec(
        """
        other = channel.receive()
        channel.send(1)
        try:
            other.waitclose()
        except other.RemoteError as error:
            channel.send(str(error))
        """
    )
    other = gw.newchannel()
    channel.send(other)
    assert channel.receive(TIMEOUT) == 1
    other.close(BAD)
    assert channel.receive(TIMEOUT) == "caf\\udce9"


def test_what_is_no_text_for_close_is_an_error_and_closes_nothing(lib, gw):
    channel = gw.newchannel()
    with pytest.raises(lib.DumpError):
        channel.close(object())
    assert not channel.isclosed()


@pytest.mark.ours
def test_settings_that_fail_with_what_cannot_be_sent(lib, group, tmp_path, monkeypatch):
    bad = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(bad)
    (tmp_path / "to").symlink_to(os.fsdecode(bad) + "/none/at/all")
    with pytest.raises(lib.RemoteError, match=r"(FileExists|FileNotFound)Error"):
        group.makegateway(f"popen//chdir={tmp_path}/to")


@pytest.mark.ours
def test_an_interpreter_and_a_directory_that_cannot_be_decoded(tmp_path):
    """Both are told as facts, and the worker lives with them."""
    place = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(place)
    program = """
    import os, shlex, sys, execnet_c
    os.chdir(sys.argv[1])
    os.symlink(sys.executable, "python")
    group = execnet_c.Group()
    bad = b"/caf\\xe9/python".join([os.fsencode(os.path.dirname(os.getcwdb())), b""])
    start = "import sys; sys.executable = %r" % os.fsdecode(bad)
    for spec in ("popen", "popen//python=" + shlex.quote(sys.argv[2])):
        facts = group.makegateway(spec)._rinfo()
        print(ascii([facts.executable, facts.cwd]))
    group.terminate(10)
    """
    # A name of the interpreter in that directory, which becomes sys.executable over there.
    python = os.path.join(place, b"python")
    done = subprocess.run(
        [sys.executable, "-c", pairing.HEAD + textwrap.dedent(program), place, python],
        capture_output=True,
        timeout=TIMEOUT,
        encoding="utf-8",
        errors="surrogateescape",
    )
    assert done.stderr == ""
    own, other = map(eval, done.stdout.splitlines())
    assert own[1].endswith("/caf\\udce9") and other[1].endswith("/caf\\udce9")
    assert other[0].endswith("/caf\\udce9/python")


# ---- exceptions that cannot be told


@pytest.mark.ours
@pytest.mark.parametrize(
    "fault",
    [
        "def __str__(self): raise SystemExit",
        "def __str__(self): raise KeyboardInterrupt",
        "def __str__(self): return 5",
        "__traceback__ = 5",
        "__cause__ = property(lambda self: 1 / 0)",
        "__notes__ = property(lambda self: 1 / 0)",
        "__class__ = property(lambda self: 1 / 0)",
    ],
)
def test_an_exception_that_cannot_be_told_is_a_remote_error(lib, gw, fault):
    error = failure(lib, gw.remote_exec(f"class Odd(Exception):\n    {fault}\nraise Odd()"))
    assert "Odd" in str(error)
    assert gw.remote_exec("channel.send(1)").receive(TIMEOUT) == 1


@pytest.mark.ours
@pytest.mark.parametrize("where", ["main thread", "another thread"])
@pytest.mark.parametrize(
    "broken", ["sys.modules['traceback'] = None", "sys.path[:] = []; sys.meta_path[:] = []; sys.path_hooks[:] = []"]
)
def test_an_error_where_little_works(lib, gw, broken, where):
    if where == "another thread":
        busy = gw.remote_exec("channel.send(1)\nchannel.receive()")
        assert busy.receive(TIMEOUT) == 1
    error = failure(lib, gw.remote_exec(f"import sys; {broken}\nraise LookupError('the cause')"))
    assert "LookupError" in str(error) and "the cause" in str(error)
    error = failure(lib, gw.remote_exec("raise PermissionError(13, 'Permission denied', '/x')"))
    assert str(error).strip().splitlines()[-1] == "PermissionError: [Errno 13] Permission denied: '/x'"
    assert (error.remote_type, error.remote_message) == ("PermissionError", "[Errno 13] Permission denied: '/x'")
    assert gw.remote_exec("channel.send(1)").receive(TIMEOUT) == 1


@pytest.mark.ours
def test_a_task_whose_end_cannot_be_told_does_not_look_well(lib, gw):
    """Whatever it is that keeps the worker from telling it: here its method."""
    channel = gw.remote_exec(
        """
        def close(self, error=None):
            raise KeyboardInterrupt
        before, type(channel).close = type(channel).close, close
        raise LookupError("the cause")
        """
    )
    failure(lib, channel)
    assert gw.hasreceiver()


# ---- an EOFError, and the end of a channel


@pytest.mark.ours
@pytest.mark.parametrize(
    "task",
    [
        "raise EOFError",
        "raise EOFError()",
        "class Mine(EOFError): pass\nraise Mine",
        "import multiprocessing as m; a, b = m.Pipe(False); b.close(); a.recv()",
        "import pickle, io; pickle.load(io.BytesIO())",
        "channel.receive",
    ],
)
@pytest.mark.parametrize("wait", ["loop", "receive", "waitclose"])
def test_an_eoferror_of_the_tasks_own_is_a_remote_error(lib, gw, task, wait):
    if task == "channel.receive":
        task = "try:\n    channel.receive()\nexcept EOFError as exc:\n    raise EOFError from exc"
    channel = gw.remote_exec("channel.send(1)\n" + task)
    other = gw.newchannel()
    if "channel.receive" in task:
        channel = gw.remote_exec(
            "ends = channel.receive()\nchannel.send(1)\ntry:\n    ends.receive()\n"
            "except EOFError as exc:\n    raise EOFError from exc"
        )
        channel.send(other)
        other.close()
    got = []
    with pytest.raises(lib.RemoteError, match="EOFError|Mine"):
        if wait == "loop":
            for item in channel:
                got.append(item)
        elif wait == "receive":
            got.append(channel.receive(TIMEOUT))
            channel.receive(TIMEOUT)
        else:
            got.append(channel.receive(TIMEOUT))
            channel.waitclose(TIMEOUT)
    assert got == [1]


@pytest.mark.parametrize(
    "task",
    [
        "ends.receive()",
        "ends.receive(timeout=5)",
        "try:\n    ends.receive()\nexcept EOFError:\n    raise",
        "try:\n    ends.receive()\nexcept EOFError as exc:\n    raise exc",
        "try:\n    ends.receive()\nfinally:\n    channel.send(2)",
        "while True: ends.receive()",
    ],
)
def test_a_task_that_lets_the_end_of_a_channel_through_has_ended_well(gw, task):
    channel = gw.remote_exec(f"ends = channel.receive()\nchannel.send(1)\n{task}")
    ends = gw.newchannel()
    channel.send(ends)
    ends.close()
    assert channel.receive(TIMEOUT) == 1
    assert list(channel) in ([], [2])
    channel.waitclose(TIMEOUT)


def test_an_end_that_another_thread_of_the_task_has_met(gw):
    channel = gw.remote_exec(
        """
        from concurrent.futures import ThreadPoolExecutor
        ends = channel.receive()
        with ThreadPoolExecutor(1) as pool:
            waits = pool.submit(ends.receive)
        channel.send(1)
        waits.result()
        """
    )
    ends = gw.newchannel()
    channel.send(ends)
    ends.close()
    assert list(channel) == [1]
    channel.waitclose(TIMEOUT)


@pytest.mark.ours
def test_the_end_of_a_channel_of_another_gateway_is_the_tasks_own(lib, gw):
    channel = gw.remote_exec(
        """
        import execnet_c
        inner = execnet_c.makegateway()
        try:
            ended = inner.remote_exec("pass")
            ended.receive()
        finally:
            execnet_c.default_group.terminate(5)
        """
    )
    assert "EOFError" in str(failure(lib, channel))


@pytest.mark.ours
def test_an_end_without_an_item_says_so(gw):
    channel = gw.remote_exec("1 + 1")
    with pytest.raises(EOFError, match=r"nothing .* channel\.send\(\)") as caught:
        channel.receive(TIMEOUT)
    assert type(caught.value) is EOFError
    assert list(channel) == []
    channel = gw.remote_exec("channel.send(1)")
    assert channel.receive(TIMEOUT) == 1
    with pytest.raises(EOFError) as caught:
        channel.receive(TIMEOUT)
    assert caught.value.args == ()


# ---- what the text says, and the attributes


def failing(channel, depth=0):
    if depth:
        failing(channel, depth - 1)
    raise LookupError("the cause")


@pytest.mark.ours
def test_the_frames_are_those_of_the_task(lib, gw):
    text = str(failure(lib, gw.remote_exec(failing, depth=1)))
    frames = [line for line in text.splitlines() if line.startswith("  File")]
    assert len(frames) == 2 and all(frame.endswith("in failing") for frame in frames), text
    assert text.startswith("Traceback (most recent call last):\n  File ")
    text = str(failure(lib, gw.remote_exec("try:\n    1 / 0\nexcept ZeroDivisionError as exc:\n    raise OSError from exc")))
    frames = [line for line in text.splitlines() if line.startswith("  File")]
    assert frames == ['  File "<remote exec>", line 2, in <module>', '  File "<remote exec>", line 4, in <module>']
    assert "ZeroDivisionError" in text and "direct cause" in text
    assert "File" not in str(failure(lib, gw.remote_exec(failing, no_such_argument=1)))


@pytest.mark.ours
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("end", ["here", "there"])
def test_the_frames_are_those_of_the_callback(lib, gw, end):
    if end == "there":
        channel = gw.remote_exec(
            "def callback(item): raise LookupError(item)\n"
            "other = channel.receive()\nother.setcallback(callback)\nchannel.send(1)\nchannel.receive()"
        )
        other = gw.newchannel()
        channel.send(other)
        channel.receive(TIMEOUT)
        other.send("the cause")
    else:
        channel = gw.remote_exec("other = channel.receive()\nchannel.receive()\nother.send('the cause')\nchannel.receive()")
        other = gw.newchannel()

        def callback(item):
            raise LookupError(item)

        other.setcallback(callback)
        channel.send(other)
        channel.send(None)
    error = failure(lib, other)
    frames = [line for line in str(error).splitlines() if line.startswith("  File")]
    assert len(frames) == 1 and frames[0].endswith("in callback"), str(error)
    assert (error.remote_type, error.remote_message) == ("LookupError", "the cause")
    channel.send(None)


FAILURES = {
    "raise ValueError('what')": ("ValueError", "what"),
    "raise ValueError": ("ValueError", ""),
    "raise ValueError('two\\nlines: and a colon')": ("ValueError", "two\nlines: and a colon"),
    "{}['x']": ("KeyError", "'x'"),
    "import json; json.loads('{')": (
        "json.decoder.JSONDecodeError",
        "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
    ),
    "def f():\n    class Own(Exception): pass\n    raise Own('mine')\nf()": ("__channelexec__.f.<locals>.Own", "mine"),
    "raise ValueError('Traceback (most recent call last):\\n  File \"x\"\\nKeyError: 1\\n')": (
        "ValueError",
        'Traceback (most recent call last):\n  File "x"\nKeyError: 1\n',
    ),
    "try:\n    {}[1]\nexcept KeyError as exc:\n    raise OSError(2, 'none') from exc": ("OSError", None),
    "try:\n    {}[1]\nexcept KeyError:\n    raise LookupError('then')": ("LookupError", "then"),
    "raise LookupError('then') from KeyError(1)": ("LookupError", "then"),
    "raise SystemExit(3)": ("SystemExit", "3"),
    "def def": ("SyntaxError", None),
    "raise ValueError('caf\\udce9')": ("ValueError", "caf\\udce9"),
}


@pytest.mark.ours
@pytest.mark.parametrize("task", FAILURES)
def test_the_type_and_the_message_are_attributes(lib, gw, task):
    kind, message = FAILURES[task]
    if kind == "OSError":
        kind, message = "FileNotFoundError", "[Errno 2] none"
    error = failure(lib, gw.remote_exec(task))
    assert error.remote_type == kind
    assert error.remote_message == message or (message is None and error.remote_message.startswith("invalid syntax"))
    # The far ends of execnet, and those who close a channel themselves, send the text alone.
    read = lib.RemoteError(str(error))
    assert (read.remote_type, read.remote_message) == (kind, message or ("invalid syntax" if message is None else ""))
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.remote_type, copy.remote_message) == (error.remote_type, error.remote_message)


CHAINED = """\
Traceback (most recent call last):
  File "<remote exec>", line 2, in <module>
KeyError: 1

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "<remote exec>", line 4, in <module>
    failing()
    ~~~~~~~^^
  [Previous line repeated 3 more times]
there.Odd: more
than a line
"""
GROUP = """\
  + Exception Group Traceback (most recent call last):
  |   File "<remote exec>", line 1, in <module>
  | ExceptionGroup: several (2 sub-exceptions)
  +-+---------------- 1 ----------------
    | ValueError: 1
    +---------------- 2 ----------------
    | TypeError: 2
    +------------------------------------
"""
DURING = "\n\nDuring handling of the above exception, another exception occurred:\n\n"
INNER = 'Traceback (most recent call last):\n  File "x"\nRemoteError: '


@pytest.mark.ours
@pytest.mark.any_core
@pytest.mark.parametrize(
    "text, words",
    [
        (CHAINED, ("there.Odd", "more\nthan a line")),
        (GROUP, ("ExceptionGroup", "several (2 sub-exceptions)")),
        (CHAINED.rstrip() + DURING + GROUP, ("ExceptionGroup", "several (2 sub-exceptions)")),
        (GROUP.rstrip() + DURING + INNER + "x\n", ("RemoteError", "x")),
        (INNER + CHAINED, (None, None)),  # whose second one it is cannot be known
        ("execution disallowed", (None, None)),
        ("keyboard-interrupted", (None, None)),
        ("ValueError: as I say", (None, None)),
        ("Traceback (most recent call last):\n", (None, None)),
        ("", (None, None)),
        (None, (None, None)),
    ],
)
def test_what_a_text_says(text, words):
    from execnet_c.twin import pychannel

    for kind in (execnet_c.RemoteError, pychannel.RemoteError):
        error = kind(text)
        assert (error.remote_message, error.remote_type) == words[::-1]
        assert (error.remote_type, error.remote_message) == words
        with pytest.raises(AttributeError, match="no_such"):
            error.no_such


@pytest.mark.ours
def test_an_interrupted_task_says_what_it_was(lib, gw):
    error = failure(lib, gw.remote_exec("raise KeyboardInterrupt"))
    assert str(error) == "keyboard-interrupted"
    assert (error.remote_type, error.remote_message) == ("KeyboardInterrupt", "")


@pytest.mark.ours
def test_settings_that_fail_say_what_it_was(lib, group):
    with pytest.raises(lib.RemoteError) as caught:
        group.makegateway("popen//chdir=/no/such/place")
    assert caught.value.remote_type == "FileNotFoundError"
    assert "/no/such/place" in caught.value.remote_message


@pytest.mark.ours
@pytest.mark.parametrize("words", [(1, 2, 3), ("text", 2, b"3"), ("text", "type"), ("a", "b", "c", "d"), {}, b"text", ["a"] * 3])
def test_what_a_far_end_may_close_a_channel_with(lib, gw, words):
    channel = gw.remote_exec(f"other = channel.receive(); other.close({words!r})")
    other = gw.newchannel()
    channel.send(other)
    error = failure(lib, other)
    assert str(error) == "text" if words == ("text", 2, b"3") else "cannot be read" in str(error)
    assert (error.remote_type, error.remote_message) == (None, None)


@pytest.mark.any_core
@pytest.mark.parametrize("package", [None, "", "execnet_cousin"])
def test_a_frame_of_the_program_s_is_none_of_ours_whatever_its_name(package):
    from execnet_c.common.errors import told

    scope = {"__package__": package}
    exec("def run():\n    raise ValueError('mine')", scope)
    try:
        scope["run"]()
    except ValueError as exc:
        exc.__traceback__ = exc.__traceback__.tb_next
        text, name, message = told(exc)
    assert "in run\n" in text and text.endswith("ValueError: mine\n") and (name, message) == ("ValueError", "mine")
