"""Streams that are cut off: by the death of the worker or by exit() here. Who did not get all is told so, and why; the
first cause stays the cause."""

import os
import signal
import threading

import pytest

from conftest import TIMEOUT, wait_until
from gateways import pid_of

pytestmark = pytest.mark.ours

STREAM = "n = 0\nwhile True:\n    channel.send(n)\n    n += 1\n    channel.receive() if n == 10 else None"


@pytest.fixture(params=["direct", "via"])
def gw(request, group):
    if request.param == "direct":
        return group.makegateway()
    group.makegateway("popen//id=outer")
    return group.makegateway("popen//via=outer//id=inner")


class Thread(threading.Thread):
    """Keeps what `function` raises."""

    def __init__(self, function):
        super().__init__()
        self.function, self.error = function, None
        self.start()

    def run(self):
        try:
            self.function()
        except BaseException as exc:
            self.error = exc

    def result(self):
        self.join(TIMEOUT)
        assert not self.is_alive()
        return self.error


def uses(channel):
    """What is waited for in a stream; all of it must say that it was cut."""
    return [
        lambda: list(channel),
        lambda: next(channel),
        channel.receive,
        lambda: channel.receive(TIMEOUT),
        channel.waitclose,
        channel.makefile("r").read,
        lambda: list(channel.makefile("r")),
    ]


@pytest.fixture
def stream(gw):
    channel = gw.remote_exec(STREAM)
    assert [channel.receive(TIMEOUT) for _ in range(10)] == list(range(10))
    return channel


@pytest.mark.parametrize("how", ["exit", "close", "exit and close"])
def test_the_first_cause_stays_the_cause(lib, gw, stream, how):
    """One thread learns of a death and ends the gateway, as programs do, or the channel; the others learn of it still."""
    others = [gw.newchannel() for _ in range(3)]
    pid = pid_of(gw)
    threads = [Thread(lambda: list(others[0])), Thread(others[1].receive), Thread(others[2].waitclose)]
    threads.append(Thread(lambda: list(stream)))
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(lib.GatewayDied, match="SIGKILL"):
        gw.newchannel().receive(TIMEOUT) if gw.hasreceiver() else gw.newchannel()
    if "exit" in how:
        gw.exit()
    if "close" in how:
        for channel in [*others, stream]:
            channel.close()
    for thread in threads:
        error = thread.result()
        assert type(error) is lib.WorkerKilled and "SIGKILL" in str(error)
    for use in uses(stream):
        with pytest.raises(lib.WorkerKilled, match="SIGKILL"):
            use()
    for use in (gw.newchannel, gw.remote_status):
        with pytest.raises(lib.WorkerKilled, match="SIGKILL"):
            use()
    if "close" not in how:
        with pytest.raises(lib.WorkerKilled, match="SIGKILL"):
            stream.send(1)


def test_a_death_that_nobody_has_noticed_before_exit(lib, gw, stream):
    thread = Thread(lambda: list(stream))
    pid = pid_of(gw)
    os.kill(pid, signal.SIGKILL)
    gw.exit()
    error = thread.result()
    assert type(error) is lib.WorkerKilled and "SIGKILL" in str(error)
    with pytest.raises(lib.WorkerKilled):
        stream.waitclose(TIMEOUT)


@pytest.mark.parametrize("how", ["exit", "terminate", "kill"])
def test_a_loop_that_did_not_get_all_does_not_look_complete(lib, group, gw, how):
    # It ends by itself, is interrupted after a while, or has to be killed.
    task = {
        "exit": "channel.send(1)\nlist(channel)\nimport os\nos._exit(0)",
        "terminate": "channel.send(1)\nimport os, signal\nsignal.signal(signal.SIGINT, lambda *_: os._exit(1))\n"
        "signal.signal(signal.SIGTERM, signal.SIG_DFL)\nimport time\ntime.sleep(1000)",
        "kill": "channel.send(1)\nimport signal, time\n"
        "for sig in (signal.SIGINT, signal.SIGTERM): signal.signal(sig, signal.SIG_IGN)\ntime.sleep(1000)",
    }
    channel = gw.remote_exec(task[how])
    assert channel.receive(TIMEOUT) == 1
    threads = [Thread(lambda: list(channel)), Thread(channel.receive), Thread(channel.waitclose)]
    if how == "exit":
        gw.exit()
    else:
        group.terminate(0.2)
    for thread in threads:
        error = thread.result()
        assert type(error) is lib.GatewayExited and str(error) == f"gateway {gw.id!r} was exited"
        assert isinstance(error, EOFError) and not isinstance(error, lib.GatewayDied)
    for use in uses(channel):
        with pytest.raises(lib.GatewayExited):
            use()
    with pytest.raises(OSError, match="was exited"):
        channel.send(1)
    with pytest.raises(lib.GatewayExited):
        lib.MultiChannel([channel]).receive_each()
    with pytest.raises(lib.GatewayExited):
        lib.MultiChannel([channel]).waitclose()


@pytest.mark.parametrize("how", ["exit", "death"])
def test_a_loop_that_got_all_is_complete(lib, gw, how):
    """The far end had closed the channel, or had let go of its end but for a callback, before it all ended."""
    channel = gw.remote_exec(
        "half = channel.receive()\nhalf.setcallback(print)\nhalf.send(5)\ndel half\n"
        "for i in range(100): channel.send(i)"
    )
    half = gw.newchannel()
    channel.send(half)
    half.waitclose(TIMEOUT)
    channel.waitclose(TIMEOUT)
    pid = pid_of(gw)
    os.kill(pid, signal.SIGKILL) if how == "death" else gw.exit()
    gw.join(TIMEOUT)
    assert list(channel) == list(range(100))
    assert list(half) == [5]
    channel.waitclose(TIMEOUT)
    half.waitclose(TIMEOUT)


def test_what_comes_after_exit_still_counts(lib, gw):
    channel = gw.remote_exec("channel.send(1)\nlist(channel)\nfor i in range(100): channel.send(i)")
    assert channel.receive(TIMEOUT) == 1
    gw.exit()
    assert list(channel) == list(range(100))


def test_a_loop_of_a_task_ends_well_with_the_goodbye(gw, tmp_path):
    path = tmp_path / "got"
    channel = gw.remote_exec(
        """
        path = channel.receive()
        channel.send(1)
        items = list(channel)
        channel.waitclose()
        with open(path, "w") as file:
            file.write(repr(items))
        """
    )
    channel.send(str(path))
    channel.send(2)
    assert channel.receive(TIMEOUT) == 1
    gw.exit()
    assert list(channel) == []  # the task has ended well
    assert path.read_text() == "[2]"


@pytest.mark.parametrize("how", ["exit", "death"])
def test_an_endmarker_may_ask_why(lib, gw, how):
    task = "import os, signal\nchannel.send(1)\nchannel.receive()\nos.kill(os.getpid(), signal.SIGKILL)"
    channel = gw.remote_exec(task if how == "death" else "channel.send(1)\nlist(channel)\nimport os\nos._exit(0)")
    assert channel.receive(TIMEOUT) == 1
    asked = []
    channel.setcallback(lambda item: asked.append(channel._getremoteerror()), endmarker=None)
    channel.send(1) if how == "death" else gw.exit()
    assert wait_until(lambda: asked)
    assert type(asked[0]) is (lib.WorkerKilled if how == "death" else lib.GatewayExited)


def test_an_item_that_cannot_be_read_is_no_end(lib, group):
    """TruncatedError is an EOFError, too."""
    gateway = group.makegateway()
    channel = gateway.newchannel()
    channel.receive = lambda timeout=None: lib.loads(b"")
    with pytest.raises(lib.TruncatedError):
        next(channel)
    channel.receive = lambda timeout=None: (_ for _ in ()).throw(EOFError("as execnet"))
    assert list(channel) == []


def test_a_goodbye_of_the_far_end_is_no_end_of_its_channels(lib, group):
    gateway = group.makegateway()
    channel = gateway.remote_exec("channel.send(1)\nchannel.gateway._goodbye()\nchannel.receive()")
    with pytest.raises(lib.GatewayDied):
        list(channel)
