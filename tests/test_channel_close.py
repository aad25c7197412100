"""How channels are closed, for both directions or one, and what becomes of one that is forgotten."""

import threading

import pytest

from conftest import TIMEOUT


# ---- close


def test_close_here_ends_the_iteration_over_there(gw):
    channel = gw.remote_exec(
        """
        other = channel.receive()
        channel.send(list(other))
        other.waitclose()
        channel.send(other.isclosed())
        """
    )
    other = gw.newchannel()
    channel.send(other)
    other.send(1)
    other.send(2)
    assert not other.isclosed()
    other.close()
    assert other.isclosed()
    assert channel.receive(TIMEOUT) == [1, 2]
    assert channel.receive(TIMEOUT) is True


def test_close_over_there_ends_the_channel_here(gw):
    channel = gw.remote_exec(
        """
        other = channel.receive()
        other.send(1)
        other.close()
        other.close()
        channel.send(other.isclosed())
        """
    )
    other = gw.newchannel()
    channel.send(other)
    other.waitclose(TIMEOUT)
    assert other.isclosed()
    assert list(other) == [1]
    assert channel.receive(TIMEOUT) is True


def test_close_here_with_an_error_is_a_remote_error_over_there(gw):
    channel = gw.remote_exec(
        """
        other = channel.receive()
        channel.send(other.receive())
        for wait in (other.receive, other.receive, other.waitclose):
            try:
                channel.send(wait())
            except other.RemoteError as error:
                channel.send(("RemoteError", str(error), error.formatted, repr(error)))
            except EOFError as error:
                channel.send(("EOFError", str(error)))
        """
    )
    other = gw.newchannel()
    channel.send(other)
    other.send("first")
    other.close("what went wrong")
    assert list(channel) == [
        "first",
        ("RemoteError", "what went wrong", "what went wrong", "RemoteError: what went wrong"),
        ("EOFError", ""),
        None,
    ]
    other.waitclose(TIMEOUT)


def test_close_over_there_with_an_error_is_a_remote_error_here(lib, gw):
    channel = gw.remote_exec("other = channel.receive()\nother.send(1)\nother.close('what went wrong')")
    other = gw.newchannel()
    channel.send(other)
    assert other.receive(TIMEOUT) == 1
    with pytest.raises(lib.RemoteError) as caught:
        other.receive(TIMEOUT)
    assert str(caught.value) == caught.value.formatted == "what went wrong"
    assert repr(caught.value) == "RemoteError: what went wrong"
    channel.waitclose(TIMEOUT)


def test_closing_twice_is_fine(gw):
    channel = gw.newchannel()
    channel.close()
    channel.close()
    channel.close("too late")
    channel.waitclose(TIMEOUT)
    with pytest.raises(EOFError):
        channel.receive(TIMEOUT)
    ended = gw.remote_exec("pass")
    ended.waitclose(TIMEOUT)
    ended.close()
    assert ended.isclosed()


def test_close_wakes_a_waiting_receive(gw):
    channel = gw.newchannel()
    ends = []

    def receive():
        try:
            channel.receive(TIMEOUT)
        except EOFError:
            ends.append("receive")

    def wait():
        channel.waitclose(TIMEOUT)
        ends.append("waitclose")

    threads = [threading.Thread(target=receive), threading.Thread(target=receive), threading.Thread(target=wait)]
    for thread in threads:
        thread.start()
    channel.close()
    for thread in threads:
        thread.join(TIMEOUT)
    assert sorted(ends) == ["receive", "receive", "waitclose"]


def test_send_on_a_closed_channel_is_an_error(gw):
    channel = gw.newchannel()
    channel.close()
    with pytest.raises(OSError, match="^cannot send to <Channel id=1 closed>$"):
        channel.send(1)
    ended = gw.remote_exec("pass")
    ended.waitclose(TIMEOUT)
    with pytest.raises(OSError, match="^cannot send to <Channel id=3 closed>$"):
        ended.send(1)


def test_send_to_a_closed_channel_over_there_is_an_error_too(gw):
    channel = gw.remote_exec(
        """
        other = channel.receive()
        other.waitclose()
        try:
            other.send(1)
        except OSError as error:
            channel.send(str(error))
        """
    )
    other = gw.newchannel()
    channel.send(other)
    other.close()
    assert channel.receive(TIMEOUT) == "cannot send to <Channel id=3 closed>"


def test_a_task_cannot_close_its_own_channel(gw):
    channel = gw.remote_exec(
        """
        try:
            channel.close()
        except OSError as error:
            channel.send(str(error))
        channel.send("still open")
        """
    )
    assert channel.receive(TIMEOUT) == "cannot explicitly close channel within remote_exec"
    assert channel.receive(TIMEOUT) == "still open"


def test_closing_the_channel_of_a_running_task_wakes_it(gw):
    report = gw.newchannel()
    channel = gw.remote_exec(
        """
        report = channel.receive()
        report.send("waiting")
        try:
            channel.receive()
        except EOFError:
            report.send("ended")
        """
    )
    channel.send(report)
    assert report.receive(TIMEOUT) == "waiting"
    channel.close()
    assert report.receive(TIMEOUT) == "ended"


# ---- half closed


def test_a_collected_channel_with_a_callback_stays_open_for_sending(gw):
    channel = gw.remote_exec(
        """
        other = channel.receive()
        other.setcallback(channel.send)
        other.send(1)
        other.send(2)
        del other
        channel.receive()
        """
    )
    other = gw.newchannel()
    channel.send(other)
    other.waitclose(TIMEOUT)
    assert not other.isclosed()
    assert repr(other) == "<Channel id=3 open>"
    other.send("a")
    assert channel.receive(TIMEOUT) == "a"
    assert list(other) == [1, 2]
    with pytest.raises(EOFError):
        other.receive(TIMEOUT)
    other.send("b")
    assert channel.receive(TIMEOUT) == "b"
    assert not other.isclosed()
    other.close()
    assert other.isclosed()
    with pytest.raises(OSError, match="cannot send to <Channel id=3 closed>"):
        other.send("c")
    channel.send(None)
    channel.waitclose(TIMEOUT)


def test_the_same_with_the_callback_here(gw):
    channel = gw.remote_exec(
        """
        other = channel.receive()
        try:
            channel.send(other.receive())
        except EOFError:
            channel.send("no more")
        channel.send(other.isclosed())
        other.send("for the callback")
        other.close()
        channel.send(other.isclosed())
        """
    )
    other = gw.newchannel()
    seen, came = [], threading.Event()

    def callback(item):
        seen.append(item)
        came.set()

    channel.send(other)
    other.setcallback(callback)
    del other
    assert channel.receive(TIMEOUT) == "no more"
    assert channel.receive(TIMEOUT) is False
    assert came.wait(TIMEOUT)
    assert channel.receive(TIMEOUT) is True
    assert seen == ["for the callback"]


def test_collecting_a_channel_here_closes_it_over_there(gw):
    channel = gw.remote_exec(
        """
        other = channel.receive()
        channel.send(list(other))
        other.waitclose()
        channel.send(other.isclosed())
        """
    )
    other = gw.newchannel()
    channel.send(other)
    other.send(1)
    del other
    assert channel.receive(TIMEOUT) == [1]
    assert channel.receive(TIMEOUT) is True


def test_collecting_a_channel_over_there_closes_it_here(gw):
    channel = gw.remote_exec(
        """
        other = channel.gateway.newchannel()
        channel.send(other)
        other.send(1)
        del other
        channel.receive()
        """
    )
    other = channel.receive(TIMEOUT)
    other.waitclose(TIMEOUT)
    assert other.isclosed()
    assert list(other) == [1]
    channel.send(None)
    channel.waitclose(TIMEOUT)


def test_the_channel_of_a_task_can_be_dropped_while_it_runs(gw):
    report = gw.newchannel()
    channel = gw.remote_exec(
        """
        report = channel.receive()
        report.send("running")
        try:
            channel.receive()
        except EOFError:
            report.send("dropped")
        """
    )
    channel.send(report)
    assert report.receive(TIMEOUT) == "running"
    del channel
    assert report.receive(TIMEOUT) == "dropped"
