"""String coercion of gateways and channels: what a str arrives as, from when on, and what it leaves alone."""

import pytest

from conftest import TIMEOUT

pytestmark = pytest.mark.timeout(120)

# The worker's answer to each item: what it was there. `repr` comes as text whatever this end has texts loaded as.
TELL = "for item in channel: channel.send(repr(item).encode())"
ECHO = "for item in channel: channel.send(item)"
# (py2str_as_py3str, py3str_as_py2str)
BOTH_WAYS = [(False, False), (False, True), (True, False), (True, True)]


def loaded(text, py3str_as_py2str):
    return text.encode() if py3str_as_py2str else text


def tell(channel, item):
    channel.send(item)
    return channel.receive(TIMEOUT).decode()


def answer(channel, item):
    channel.send(item)
    return channel.receive(TIMEOUT)


@pytest.mark.parametrize("options", BOTH_WAYS)
def test_a_gateway_s_holds_at_both_ends(gw, options):
    gw.reconfigure(*options)
    assert tell(gw.remote_exec(TELL), ["text", b"bytes"]) == repr([loaded("text", options[1]), b"bytes"])
    there = gw.remote_exec("channel.send({'key': ('text', b'bytes')})").receive(TIMEOUT)
    assert there == {loaded("key", options[1]): (loaded("text", options[1]), b"bytes")}


@pytest.mark.parametrize("options", BOTH_WAYS)
def test_a_channel_s_holds_at_both_ends(gw, options):
    channel, other = gw.remote_exec(TELL), gw.remote_exec(TELL)
    channel.reconfigure(*options)
    assert tell(channel, "text") == repr(loaded("text", options[1]))
    assert tell(other, "text") == "'text'"
    channel = gw.remote_exec("channel.receive()\nchannel.send('text')")
    channel.reconfigure(py3str_as_py2str=options[1])
    channel.send(None)
    assert channel.receive(TIMEOUT) == loaded("text", options[1])


def test_by_default_text_is_text(gw):
    gw.reconfigure(py3str_as_py2str=True)
    gw.reconfigure()
    assert answer(gw.remote_exec(ECHO), ["text", b"b"]) == ["text", b"b"]


def test_a_gateway_s_is_for_channels_made_from_then_on(gw):
    early, early_here = gw.remote_exec(ECHO), gw.newchannel()
    early.send(early_here)  # it exists at both ends from now on
    assert early.receive(TIMEOUT) is early_here
    gw.reconfigure(py3str_as_py2str=True)
    late, late_here = gw.remote_exec(ECHO), gw.newchannel()
    gw.remote_exec("for c in channel.receive(): c.send('text')").send([early_here, late_here])
    assert answer(early, "text") == "text"
    assert answer(late, "text") == b"text"
    assert (early_here.receive(TIMEOUT), late_here.receive(TIMEOUT)) == ("text", b"text")
    gw.reconfigure()
    assert answer(late, "text") == b"text"


def test_what_has_arrived_stays_what_it_is(gw):
    channel = gw.remote_exec("channel.send('first')\nchannel.send('second')")
    channel.waitclose(TIMEOUT)
    channel.reconfigure(py3str_as_py2str=True)
    assert [channel.receive(TIMEOUT), channel.receive(TIMEOUT)] == ["first", "second"]


def test_items_around_a_change_there(gw):
    """The far end takes it in the order in which it was sent, though it receives the items only later."""
    channel = gw.remote_exec(
        """
        go = channel.receive()
        go.receive()
        channel.send([repr(channel.receive()).encode() for _ in range(3)])
        """
    )
    go = gw.newchannel()
    channel.send(go)
    channel.send("one")
    channel.reconfigure(py3str_as_py2str=True)
    channel.send("two")
    channel.reconfigure()
    channel.send("three")
    go.send(None)
    assert channel.receive(TIMEOUT) == [b"'one'", b"b'two'", b"'three'"]


def test_a_change_from_there(gw):
    channel = gw.remote_exec(
        """
        channel.send('before')
        channel.reconfigure(py3str_as_py2str=True)
        channel.send('after')
        channel.send(repr(channel.receive()).encode())
        """
    )
    assert [channel.receive(TIMEOUT), channel.receive(TIMEOUT)] == ["before", b"after"]
    assert tell(channel, "text") == "b'text'"


def test_callbacks(gw):
    got = []
    channel = gw.remote_exec(
        """
        channel.send('before')
        channel.reconfigure(py3str_as_py2str=True)
        channel.send('after')
        """
    )
    channel.setcallback(got.append, endmarker="end")
    channel.waitclose(TIMEOUT)
    assert got == ["before", b"after", "end"]


@pytest.mark.parametrize("callback", [False, True])
def test_tasks_and_errors_are_text_always(lib, gw, callback):
    def task(channel, word, data):
        channel.send([repr(word).encode(), repr(data).encode()])
        raise ValueError("what it says")

    gw.reconfigure(py2str_as_py3str=False, py3str_as_py2str=True)
    channel = gw.remote_exec(task, word="text", data=b"bytes")
    got = []
    if callback:
        channel.setcallback(got.append)
    else:
        got.append(channel.receive(TIMEOUT))
    with pytest.raises(lib.RemoteError, match="ValueError: what it says") as caught:
        channel.waitclose(TIMEOUT)
    assert got == [[b"'text'", b"b'bytes'"]]
    assert isinstance(caught.value.formatted, str)


def test_an_error_told_by_close(lib, gw):
    gw.reconfigure(py3str_as_py2str=True)
    channel = gw.remote_exec(
        """
        try:
            channel.receive()
        except channel.RemoteError as error:
            import sys
            sys.stored = [type(error.formatted).__name__.encode(), error.formatted.encode()]
        """
    )
    channel.close("no more of that")
    told = gw.remote_exec(
        """
        import sys, time
        while not hasattr(sys, "stored"):
            time.sleep(0.01)
        channel.send(sys.stored)
        """
    )
    assert told.receive(TIMEOUT) == [b"str", b"no more of that"]


def test_files(gw):
    channel = gw.remote_exec("channel.send('one\\ntwo\\n')")
    channel.reconfigure(py3str_as_py2str=False)
    assert channel.makefile("r").readline() == "one\n"
    channel = gw.remote_exec("channel.receive()\nchannel.send('one\\ntwo\\n')")
    channel.reconfigure(py3str_as_py2str=True)
    channel.send(None)
    file = channel.makefile("r")
    assert [file.read(4), file.read(4)] == [b"one\n", b"two\n"]


def test_a_closed_channel_and_an_exited_gateway(group):
    gw = group.makegateway("popen")
    channel = gw.remote_exec("channel.receive()")
    channel.close()
    channel.reconfigure(False, True)
    gw.exit()
    with pytest.raises(OSError, match="closed"):
        gw.reconfigure(py3str_as_py2str=True)


@pytest.mark.parametrize("arguments", [(1, 2, 3), (), {"other": True}], ids=repr)
def test_arguments(gw, arguments):
    channel = gw.newchannel()
    for one in (gw, channel):
        if arguments == ():
            assert one.reconfigure() is None
            continue
        with pytest.raises(TypeError):
            one.reconfigure(**arguments) if isinstance(arguments, dict) else one.reconfigure(*arguments)
