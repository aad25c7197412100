"""Channels as files: what print() and readers of files find at either end."""

import os
import signal
import sys

import pytest

from conftest import TIMEOUT

PIECES = ["ab", "c\nd", "", "ef\n", "\n", "g"]
WHOLE = "".join(PIECES)
LINES = ["abc\n", "def\n", "\n", "g"]

AT_BOTH_ENDS = pytest.mark.parametrize("end", ["here", "there"])


def evaluate(gw, end, items, expression):
    """What an expression gives for the file `f` at that end of a channel, whose other end has sent `items`."""
    if end == "here":
        task = gw.remote_exec("for item in channel.receive(): channel.send(item)")
        task.send(items)
        return eval(expression, {"f": task.makefile("r")})
    task = gw.remote_exec("f = channel.receive().makefile('r'); channel.send(eval(channel.receive(), {'f': f}))")
    channel = gw.newchannel()
    task.send(channel)
    task.send(expression)
    for item in items:
        channel.send(item)
    channel.close()
    return task.receive(TIMEOUT)


# ---- making one


def test_modes(gw):
    channel = gw.newchannel()
    for write in (channel.makefile(), channel.makefile("w"), channel.makefile(mode="w", proxyclose=False)):
        assert (hasattr(write, "write"), hasattr(write, "read")) == (True, False)
    for read in (channel.makefile("r"), channel.makefile("r", True), channel.makefile(mode="r")):
        assert (hasattr(read, "write"), hasattr(read, "read")) == (False, True)
    for file in (write, read):
        assert file.channel is channel
        assert not file.isatty()
        assert repr(file) == "<ChannelFile 1 open>"
    channel.close()
    assert repr(write) == repr(read) == "<ChannelFile 1 closed>"


@pytest.mark.parametrize("mode", ["x", "rb", "", "rw", None, 5, ("r",), ()])
def test_another_mode_is_an_error(gw, mode):
    channel = gw.newchannel()
    with pytest.raises(ValueError) as caught:
        channel.makefile(mode)
    assert str(caught.value) == f"mode {mode!r} not available"


def test_arguments_that_it_does_not_know(gw):
    channel = gw.newchannel()
    for arguments, keywords in [(("w", False, 1), {}), ((), {"x": 1}), (("w",), {"mode": "w"})]:
        with pytest.raises(TypeError):
            channel.makefile(*arguments, **keywords)


# ---- writing


def test_each_write_is_an_item(gw):
    channel = gw.remote_exec("channel.send(list(channel.receive()))")
    other = gw.newchannel()
    channel.send(other)
    file = other.makefile()
    assert file.write("text") is None
    assert file.write(b"bytes") is None
    file.flush()
    file.write("")
    file.write(5)
    other.close()
    assert channel.receive(TIMEOUT) == ["text", b"bytes", "", 5]


def test_what_is_written_there_is_received_here(gw):
    channel = gw.remote_exec("f = channel.makefile('w')\nf.write('a\\n')\nf.flush()\nprint('b', 1, file=f, flush=True)")
    items = list(channel)
    assert items[0] == "a\n"
    assert "".join(items) == "a\nb 1\n"


@AT_BOTH_ENDS
def test_a_file_as_sys_stdout(gw, end, monkeypatch):
    if end == "there":
        channel = gw.remote_exec(
            """
            import sys
            before, sys.stdout = sys.stdout, channel.makefile()
            try:
                print("one", 2)
                print("three", end="", flush=True)
                sys.stdout.write("\\n")
            finally:
                sys.stdout = before
            """
        )
    else:
        collector = gw.remote_exec("for item in channel.receive(): channel.send(item)")
        channel = gw.newchannel()
        collector.send(channel)
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", channel.makefile())
            print("one", 2)
            print("three", end="", flush=True)
            sys.stdout.write("\n")
        channel.close()
        channel = collector
    assert "".join(channel) == "one 2\nthree\n"


def test_a_traceback_goes_to_a_file_as_sys_stderr(gw):
    channel = gw.remote_exec(
        """
        import sys, traceback
        before, sys.stderr = sys.stderr, channel.makefile()
        try:
            try:
                raise KeyError("over there")
            except KeyError:
                traceback.print_exc()
                sys.excepthook(*sys.exc_info())
        finally:
            sys.stderr = before
        """
    )
    assert "".join(channel).count("KeyError: 'over there'\n") == 2


def test_a_write_that_fails_is_the_channel_s_error(lib, gw):
    channel = gw.newchannel()
    file = channel.makefile()
    with pytest.raises(lib.DumpError, match="can't serialize"):
        file.write(object())
    file.write("next")
    channel.close()
    with pytest.raises(OSError, match="^cannot send to <Channel id=1 closed>$"):
        file.write("too late")
    with pytest.raises(OSError, match="^cannot send to <Channel id=1 closed>$"):
        print("too late", file=file)


def test_a_patched_send_is_used(gw):
    sent = []
    channel = gw.newchannel()
    channel.send = sent.append
    print("text", file=channel.makefile())
    assert sent == ["text", "\n"]


@pytest.mark.ours
def test_writelines(gw):
    channel = gw.remote_exec("channel.makefile().writelines(line + '\\n' for line in 'abc')")
    assert list(channel) == ["a\n", "b\n", "c\n"]


# ---- reading


@AT_BOTH_ENDS
def test_read_gives_so_many_and_less_at_the_end_only(gw, end):
    for n in (1, 2, 3, 5, len(WHOLE)):
        pieces = [WHOLE[at : at + n] for at in range(0, len(WHOLE), n)]
        assert evaluate(gw, end, PIECES, f"[f.read({n}) for _ in range({len(pieces) + 2})]") == [*pieces, "", ""]
    assert evaluate(gw, end, PIECES, "[f.read(1000), f.read(1000)]") == [WHOLE, ""]
    assert evaluate(gw, end, [b"ab", b"", b"\0d"], "[f.read(3), f.read(3), f.read(3)]") == [b"ab\0", b"d", b""]


@AT_BOTH_ENDS
def test_readline_gives_lines(gw, end):
    assert evaluate(gw, end, PIECES, "[f.readline() for _ in range(6)]") == [*LINES, "", ""]
    assert evaluate(gw, end, ["a\nb\n"], "[f.readline() for _ in range(4)]") == ["a\n", "b\n", "", ""]
    assert evaluate(gw, end, ["", "\n", ""], "[f.readline(), f.readline()]") == ["\n", ""]


@AT_BOTH_ENDS
def test_read_and_readline_share_one_place(gw, end):
    expression = "[f.read(2), f.readline(), f.read(1), f.readline(), f.read(2), f.readline(), f.read(0)]"
    assert evaluate(gw, end, PIECES, expression) == ["ab", "c\n", "d", "ef\n", "\ng", "", ""]


@AT_BOTH_ENDS
def test_nothing_to_read(gw, end):
    for items in ([], [""], ["", ""]):
        assert evaluate(gw, end, items, "[f.read(1), f.readline(), f.read(5)]") == ["", "", ""]


def test_a_line_is_given_before_the_next_one_is_sent(gw):
    channel = gw.remote_exec("for line in channel: channel.send(line + '\\nrest')")
    file = channel.makefile("r")
    channel.send("a")
    assert file.readline() == "a\n"
    assert file.read(2) == "re"
    channel.send("b")
    assert file.readline() == "stb\n"


@AT_BOTH_ENDS
def test_input_reads_from_a_file_as_sys_stdin(gw, end, monkeypatch):
    source = "import sys\nsys.stdin, before = f, sys.stdin\ntry: lines = input(), input(), input()\nfinally: sys.stdin = before"
    if end == "there":
        expression = f"[exec({source!r}, d) or d['lines'] for d in [dict(f=f)]]"
        assert evaluate(gw, end, PIECES, expression) == [("abc", "def", "")]
    else:
        task = gw.remote_exec(f"for item in {PIECES!r}: channel.send(item)")
        monkeypatch.setattr(sys, "stdin", task.makefile("r"))
        assert (input(), input(), input(), input()) == ("abc", "def", "", "g")
        with pytest.raises(EOFError):
            input()


def test_the_remote_error_comes_out_of_a_read_and_takes_nothing_away(lib, gw):
    channel = gw.remote_exec("channel.send('ab'); channel.send('cd'); raise ValueError('over there')")
    file = channel.makefile("r")
    assert file.read(1) == "a"
    with pytest.raises(lib.RemoteError, match="ValueError: over there"):
        file.read(100)
    assert file.read(100) == "bcd"
    assert file.read(100) == ""


def test_a_channel_with_a_callback_cannot_be_read(gw):
    channel = gw.newchannel()
    channel.setcallback(print)
    with pytest.raises(OSError, match=r"^cannot receive\(\), channel has receiver callback$"):
        channel.makefile("r").read(1)


@pytest.mark.ours
@AT_BOTH_ENDS
def test_read_to_the_end(gw, end):
    for call in ("f.read()", "f.read(-1)", "f.read(None)", "f.read(n=-5)"):
        assert evaluate(gw, end, PIECES, f"[f.read(2), {call}, {call}]") == ["ab", WHOLE[2:], ""]
    assert evaluate(gw, end, [b"a", b"b"], "[f.read(), f.read()]") == [b"ab", b""]
    assert evaluate(gw, end, [], "f.read()") == ""


@pytest.mark.ours
@AT_BOTH_ENDS
def test_lines_by_iteration(gw, end):
    assert evaluate(gw, end, PIECES, "list(f)") == LINES
    assert evaluate(gw, end, [b"a", b"b\nc\n", b"d"], "list(f)") == [b"ab\n", b"c\n", b"d"]
    assert evaluate(gw, end, [], "list(f)") == []


@pytest.mark.ours
@AT_BOTH_ENDS
def test_lines_of_bytes(gw, end):
    lines = [b"ab\n", b"\n", b"c", b"", b""]
    assert evaluate(gw, end, [b"a", b"b\n\n", b"", b"c"], "[f.readline() for _ in range(5)]") == lines


@pytest.mark.ours
def test_an_item_that_does_not_belong_is_an_error_and_takes_nothing_away(gw):
    channel = gw.remote_exec("for item in ('a', 5, b'b', 'c', None): channel.send(item)")
    file = channel.makefile("r")
    for kind in ("int", "bytes"):
        with pytest.raises(TypeError, match=f"^an item of type {kind} in a file of str$"):
            file.readline()
    with pytest.raises(TypeError, match="^an item of type NoneType in a file of str$"):
        file.read()
    assert file.read() == "ac"
    channel = gw.remote_exec("channel.send([]); channel.send(b'b')")
    file = channel.makefile("r")
    with pytest.raises(TypeError, match="^an item of type list in a file of str or bytes$"):
        file.read(1)
    assert file.read(1) == b"b"


@pytest.mark.ours
def test_a_read_of_nothing_waits_for_nothing(gw):
    channel = gw.newchannel()
    assert channel.makefile("r").read(0) == ""


@pytest.mark.ours
def test_a_far_end_that_died_is_no_end_of_the_file(lib, gw):
    channel = gw.remote_exec("import os\nchannel.send('ab\\ncd')\nchannel.send(os.getpid())\nchannel.receive()")
    file = channel.makefile("r")
    assert file.readline() == "ab\n"
    with pytest.raises(TypeError):
        file.readline()
    [pid] = gw.remote_exec("import os\nchannel.send(os.getpid())")
    os.kill(pid, signal.SIGKILL)
    for wait in (file.readline, file.read, lambda: file.read(3), lambda: next(file)):
        with pytest.raises(lib.GatewayDied, match="killed by SIGKILL"):
            wait()
    assert file.read(2) == "cd"


@pytest.mark.ours
def test_many_lines_in_one_item_and_one_line_in_many_items(gw):
    """Either costs its length, not its square."""
    count = 300_000
    channel = gw.remote_exec(f"channel.send('line\\n' * {count})")
    assert sum(line == "line\n" for line in channel.makefile("r")) == count
    channel = gw.remote_exec(f"for i in range({count}): channel.send('x' * 100)")
    assert len(channel.makefile("r").readline()) == 100 * count


# ---- closing


@pytest.mark.parametrize("mode", ["w", "r"])
def test_close_closes_the_channel_if_it_was_asked_to(gw, mode):
    channel = gw.newchannel()
    file = channel.makefile(mode)
    file.close()
    assert not channel.isclosed()
    assert repr(file) == "<ChannelFile 1 open>"
    file = channel.makefile(mode, proxyclose=True)
    file.close()
    file.close()
    assert channel.isclosed()
    assert repr(file) == "<ChannelFile 1 closed>"


@pytest.mark.parametrize("mode", ["w", "r"])
def test_close_there_ends_the_channel_here(gw, mode):
    channel = gw.remote_exec(f"channel.receive().makefile({mode!r}, True).close(); channel.receive()")
    other = gw.newchannel()
    channel.send(other)
    assert list(other) == []
    assert other.isclosed()
    channel.send(None)


def test_a_closed_file_without_its_channel_goes_on(gw):
    channel = gw.remote_exec("for item in channel: channel.send(item)")
    write, read = channel.makefile(), channel.makefile("r")
    write.close()
    read.close()
    write.write("text")
    assert read.read(4) == "text"


def test_the_end_of_what_is_read_closes_a_channel_that_goes_with_the_file(gw):
    task = gw.remote_exec(
        """
        f = channel.receive().makefile("r", proxyclose=True)
        channel.send((f.read(3), f.channel.isclosed()))
        channel.send((f.readline(), f.channel.isclosed()))
        """
    )
    channel = gw.newchannel()
    task.send(channel)
    channel.send("abc")
    assert task.receive(TIMEOUT) == ("abc", False)
    channel.close()
    assert task.receive(TIMEOUT) == ("", True)


def test_the_channel_of_a_task_cannot_be_closed_by_a_file(gw):
    channel = gw.remote_exec(
        """
        try:
            channel.makefile(proxyclose=True).close()
        except OSError as error:
            channel.send(str(error))
        """
    )
    assert channel.receive(TIMEOUT) == "cannot explicitly close channel within remote_exec"


@pytest.mark.ours
def test_the_end_of_what_a_task_reads_is_no_error(gw):
    """Its channel is closed by its end, whatever the file is to do."""
    task = gw.remote_exec(
        """
        other = channel.receive()
        f = channel.makefile("r", proxyclose=True)
        other.send((f.read(2), f.read(2)))
        """
    )
    other = gw.newchannel()
    task.send(other)
    task.send("abc")
    task.close()
    assert other.receive(TIMEOUT) == ("ab", "c")


@pytest.mark.ours
def test_files_in_with_blocks(gw):
    channel = gw.newchannel()
    with channel.makefile() as file:
        file.write("text")
    assert not channel.isclosed()
    with pytest.raises(KeyError), channel.makefile(proxyclose=True):
        raise KeyError
    assert channel.isclosed()
