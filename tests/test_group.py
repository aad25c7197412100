"""Groups of gateways, and channels to all of them."""

import os
import queue
import time

import pytest

from conftest import TIMEOUT, children_of, wait_until
from gateways import pid_of


@pytest.fixture
def pair(group):
    """A group of two gateways."""
    group.makegateway("popen//id=one")
    group.makegateway("popen//id=two")
    return group


# ---- members


def test_an_empty_group(group):
    assert len(group) == 0
    assert list(group) == []
    assert repr(group) == "<Group []>"
    assert not group
    group.terminate()
    group.terminate(timeout=1.0)


def test_members_are_found_by_number_id_and_themselves(pair):
    one, two = pair
    assert len(pair) == 2
    assert pair[0] is pair["one"] is pair[one] is one
    assert pair[1] is pair[-1] is pair["two"] is pair[two] is two
    assert one in pair
    assert "two" in pair
    assert "three" not in pair
    with pytest.raises(KeyError, match="three"):
        pair["three"]
    with pytest.raises(IndexError):
        pair[2]
    assert repr(pair) == "<Group ['one', 'two']>"
    assert [gw.id for gw in pair] == ["one", "two"]


def test_a_group_starts_what_it_is_given(lib):
    group = lib.Group(["popen", lib.XSpec("popen//id=named"), "popen"])
    try:
        assert [gw.id for gw in group] == ["gw0", "named", "gw1"]
        assert len({pid_of(gw) for gw in group}) == 3
    finally:
        group.terminate(timeout=2.0)


def test_one_spec_is_no_list_of_them(lib):
    with pytest.raises(ValueError) as caught:  # execnet: of its first letter
        lib.Group("popen")
    if lib.__name__ == "execnet_c":
        assert str(caught.value) == "a group is made of a list of specs, as in Group(['popen'])"
    assert not lib.Group("")


def test_each_group_counts_for_itself(lib, group):
    other = lib.Group()
    try:
        assert group.makegateway().id == other.makegateway().id == "gw0"
        assert len(group) == len(other) == 1
        assert group[0] is not other[0]
        assert group[0] not in list(other)
    finally:
        other.terminate(timeout=2.0)


def test_the_default_spec_is_used_for_no_spec(group):
    assert group.defaultspec == "popen"
    assert str(group.makegateway().spec) == "popen"
    assert str(group.makegateway(None).spec) == "popen"
    group.defaultspec = "popen//id=other"
    assert group.makegateway().id == "other"


def test_an_id_that_is_taken_is_an_error(group):
    group.makegateway("popen//id=gw0")
    with pytest.raises(ValueError, match="already have gateway with id 'gw0'"):
        group.makegateway("popen")
    assert len(group) == 1
    assert group.makegateway("popen").id == "gw1"


@pytest.mark.ours
def test_a_given_id_that_is_taken_starts_nothing(lib, group):
    group.makegateway("popen//id=mine")
    before = children_of(os.getpid())
    with pytest.raises(ValueError, match="already have gateway with id 'mine'"):
        group.makegateway("popen//id=mine")
    assert children_of(os.getpid()) == before
    assert len(group) == 1


def test_allocate_id_fills_in_what_is_unset(lib, group):
    spec = lib.XSpec("popen")
    group.allocate_id(spec)
    assert spec.id == "gw0"
    group.allocate_id(spec)
    assert spec.id == "gw0"
    given = lib.XSpec("popen//id=mine")
    group.allocate_id(given)
    assert given.id == "mine"
    assert group.makegateway("popen").id == "gw1"


def test_an_id_is_free_again_after_exit(group):
    gw = group.makegateway("popen//id=mine")
    gw.exit()
    assert "mine" not in group
    again = group.makegateway("popen//id=mine")
    assert again is not gw
    assert group["mine"] is again
    assert again.remote_exec("channel.send(1)").receive(TIMEOUT) == 1


def test_members_may_leave_during_iteration(pair):
    for gw in pair:
        gw.exit()
    assert len(pair) == 0


# ---- ending


def test_terminate_ends_all_and_may_be_called_again(pair):
    pids = {pid_of(gw) for gw in pair}
    assert pids <= children_of(os.getpid())
    pair.terminate(timeout=5.0)
    assert len(pair) == 0
    assert not pids & children_of(os.getpid())
    pair.terminate(timeout=5.0)
    pair.terminate()


def test_terminate_without_timeout_waits_for_tasks_to_end(gw, group):
    channel = gw.remote_exec("channel.send(1)\nfor item in channel: pass")
    assert channel.receive(TIMEOUT) == 1
    group.terminate()
    assert channel.isclosed() or channel.gateway not in list(group)
    with pytest.raises(EOFError):
        channel.receive(TIMEOUT)


def test_a_group_can_be_used_again_after_terminate(group):
    group.makegateway("popen")
    group.terminate(timeout=5.0)
    gw = group.makegateway("popen")
    assert gw.remote_exec("channel.send(1)").receive(TIMEOUT) == 1
    assert len(group) == 1


HANG = {
    "sleeping": "import time\nchannel.send(os.getpid())\ntime.sleep(1000)",
    "computing": "channel.send(os.getpid())\nwhile True: pass",
    "ignoring signals": """
        import signal, time
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        channel.send(os.getpid())
        while True:
            time.sleep(1000)
        """,
    "stopped": "import signal\nchannel.send(os.getpid())\nos.kill(os.getpid(), signal.SIGSTOP)",
    "catching everything": """
        import time
        channel.send(os.getpid())
        while True:
            try:
                time.sleep(1000)
            except BaseException:
                pass
        """,
}


@pytest.mark.parametrize("how", HANG.values(), ids=HANG.keys())
def test_terminate_kills_what_hangs(group, how):
    import textwrap

    gw, other = group.makegateway("popen"), group.makegateway("popen")
    pids = [gw.remote_exec("import os\n" + textwrap.dedent(how)).receive(TIMEOUT), pid_of(other)]
    start = time.monotonic()
    group.terminate(timeout=0.5)
    assert time.monotonic() - start < 20
    assert len(group) == 0
    assert wait_until(lambda: not set(pids) & children_of(os.getpid()))


def test_terminate_when_a_worker_is_dead_already(group):
    gw, other = group.makegateway("popen"), group.makegateway("popen")
    pid = pid_of(other)
    channel = gw.remote_exec("import os\nos._exit(3)")
    with pytest.raises(EOFError):
        channel.waitclose(TIMEOUT)
    group.terminate(timeout=5.0)
    assert len(group) == 0
    assert pid not in children_of(os.getpid())


def test_terminate_when_a_worker_was_reaped_by_someone_else(group):
    gw = group.makegateway("popen")
    pid = pid_of(gw)
    gw.remote_exec("import os\nos._exit(3)")
    assert wait_until(lambda: not gw.hasreceiver())
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:
        pass  # the library was quicker
    group.terminate(timeout=5.0)
    assert pid not in children_of(os.getpid())


@pytest.mark.ours
def test_terminate_reaps_what_left_the_group_before(group):
    gateways = [group.makegateway("popen") for _ in range(3)]
    pids = {pid_of(gw) for gw in gateways}
    for gw in gateways:
        gw.exit()
    group.terminate(timeout=5.0)
    assert not pids & children_of(os.getpid())


@pytest.mark.ours
def test_a_gateway_that_cannot_be_made_leaves_nothing(lib, group):
    before = children_of(os.getpid())
    with pytest.raises(lib.RemoteError):
        group.makegateway("popen//chdir=/proc/cannot be made")
    assert wait_until(lambda: children_of(os.getpid()) == before)
    assert len(group) == 0


# ---- the default group


def test_the_module_has_a_group_of_its_own(lib):
    gw = lib.makegateway()
    try:
        assert gw in list(lib.default_group)
        assert lib.default_group[gw.id] is gw
        assert gw.remote_exec("channel.send(1)").receive(TIMEOUT) == 1
        named = lib.makegateway("popen//id=named")
        assert lib.default_group["named"] is named
    finally:
        lib.default_group.terminate(timeout=2.0)
    assert len(lib.default_group) == 0
    assert isinstance(lib.default_group, lib.Group)


# ---- channels to all


def test_a_task_on_all_members(pair):
    channels = pair.remote_exec("channel.send(channel.receive() + 1)")
    assert len(channels) == 2
    assert [channel.gateway for channel in channels] == list(pair)
    channels.send_each(1)
    assert channels.receive_each() == [2, 2]
    channels.waitclose()


def test_a_function_on_all_members(pair):
    def task(channel, number):
        import os

        channel.send((os.getpid(), number))

    channels = pair.remote_exec(task, number=3)
    pids = [pid for pid, number in channels.receive_each()]
    assert len(set(pids)) == 2
    assert pids == [pid_of(gw) for gw in pair]


def test_a_task_on_no_members(group):
    channels = group.remote_exec("pass")
    assert len(channels) == 0
    channels.send_each(1)
    assert channels.receive_each() == []
    channels.waitclose()


def test_a_multichannel_is_a_sequence(lib, gw):
    one, two, other = (gw.newchannel() for _ in range(3))
    channels = lib.MultiChannel([one, two])
    assert len(channels) == 2
    assert list(channels) == [one, two]
    assert channels[0] is one
    assert channels[-1] is two
    assert one in channels
    assert other not in channels
    with pytest.raises(IndexError):
        channels[2]


def test_receive_each_with_the_channels(pair):
    channels = pair.remote_exec("channel.send(1)")
    assert channels.receive_each(withchannel=True) == [(channels[0], 1), (channels[1], 1)]


def test_receive_each_keeps_the_order_of_the_channels(pair):
    channels = pair.remote_exec("channel.receive()\nchannel.send(channel.gateway.id)")
    channels[1].send(None)
    channels[1].waitclose(TIMEOUT)
    channels[0].send(None)
    assert channels.receive_each() == ["one-worker", "two-worker"]


def test_a_receive_queue(pair):
    channels = pair.remote_exec("channel.send(channel.receive())\nchannel.send('last')")
    queue = channels.make_receive_queue()
    assert channels.make_receive_queue() is queue
    for i, channel in enumerate(channels):
        channel.send(i)
    got = [queue.get(timeout=TIMEOUT) for _ in range(4)]
    for i, channel in enumerate(channels):
        assert [item for sender, item in got if sender is channel] == [i, "last"]
    channels.waitclose()
    assert queue.empty()


def test_a_receive_queue_with_an_endmarker(pair):
    channels = pair.remote_exec("channel.send(1)")
    q = channels.make_receive_queue(endmarker=None)
    assert isinstance(q, queue.Queue)
    got = [q.get(timeout=TIMEOUT) for _ in range(4)]
    for channel in channels:
        assert [item for sender, item in got if sender is channel] == [1, None]
    with pytest.raises(OSError, match="cannot receive"):
        channels[0].receive()


def test_waitclose_waits_for_all_and_raises_the_first_error(lib, pair):
    channels = pair.remote_exec("if channel.receive(): raise ValueError(channel.gateway.id)")
    channels[0].send(False)
    channels[1].send(True)
    with pytest.raises(lib.RemoteError, match="ValueError: two-worker"):
        channels.waitclose()
    assert all(channel.isclosed() for channel in channels)
    channels = pair.remote_exec("raise ValueError(channel.gateway.id)")
    with pytest.raises(lib.RemoteError, match="ValueError: one-worker"):
        channels.waitclose()
    channels.waitclose()


@pytest.mark.ours
@pytest.mark.parametrize("withchannel", [False, True])
def test_receive_each_takes_nothing_when_its_time_is_over(lib, pair, withchannel):
    channels = pair.remote_exec("channel.send(channel.receive())\nchannel.send('last')")
    channels[0].send(1)
    assert channels[0]._await_item(TIMEOUT)
    for timeout in (0, 0.05):
        start = time.monotonic()
        late = f"^no item of <Channel id=.* open> of gateway 'two' after {timeout} seconds$"
        with pytest.raises(lib.TimeoutError, match=late):
            channels.receive_each(withchannel, timeout=timeout)
        assert time.monotonic() - start >= timeout
    channels[1].send(2)
    items = channels.receive_each(withchannel, timeout=TIMEOUT)
    assert items == (list(zip(channels, [1, 2])) if withchannel else [1, 2])
    assert channels.receive_each(timeout=TIMEOUT) == ["last", "last"]
    with pytest.raises(EOFError):
        channels.receive_each(timeout=TIMEOUT)


@pytest.mark.ours
def test_receive_each_takes_nothing_where_a_task_failed(lib, pair):
    channels = pair.remote_exec("channel.send(1 // channel.receive())")
    channels[0].send(1)
    channels[1].send(0)
    with pytest.raises(lib.RemoteError, match="ZeroDivisionError"):
        channels.receive_each()
    assert channels[0].receive(TIMEOUT) == 1
    for channel in channels:
        channel.waitclose(TIMEOUT)


@pytest.mark.ours
def test_receive_each_of_a_channel_with_a_callback(lib, pair):
    channels = pair.remote_exec("channel.send(1)\nchannel.receive()")
    channels[1].setcallback(lambda item: None)
    with pytest.raises(OSError, match="has receiver callback"):
        channels.receive_each(timeout=TIMEOUT)
    assert channels[0].receive(TIMEOUT) == 1


@pytest.mark.ours
def test_receive_each_in_a_callback_does_not_wait_for_ever(lib, group):
    gw = group.makegateway()
    caught = queue.Queue()
    inner = gw.remote_exec("channel.receive()")

    def callback(item):
        try:
            lib.MultiChannel([inner]).receive_each()
        except OSError as exc:
            caught.put(exc)

    channel = gw.remote_exec("channel.send(1)")
    channel.setcallback(callback)
    assert "would wait for ever" in str(caught.get(timeout=TIMEOUT))


@pytest.mark.ours
def test_waitclose_with_a_timeout(lib, pair):
    channels = pair.remote_exec("if channel.receive(): raise ValueError(channel.gateway.id)")
    channels[0].send(False)
    channels[0].waitclose(TIMEOUT)
    for timeout in (0, 0.05):
        with pytest.raises(lib.TimeoutError, match=f"^1 of 2 channels are not closed after {timeout} seconds$"):
            channels.waitclose(timeout)
    channels[1].send(True)
    with pytest.raises(lib.RemoteError, match="ValueError: two-worker"):
        channels.waitclose(timeout=TIMEOUT)
    channels.waitclose(timeout=0)


@pytest.mark.ours
def test_waitclose_whose_time_is_over_does_not_keep_an_error_to_itself(lib, pair):
    channels = pair.remote_exec("if channel.receive(): raise ValueError(channel.gateway.id)")
    channels[0].send(True)
    assert wait_until(channels[0].isclosed)
    with pytest.raises(lib.RemoteError, match="ValueError: one-worker"):
        channels.waitclose(0)
    with pytest.raises(lib.TimeoutError):
        channels.waitclose(0)


@pytest.mark.ours
def test_waitclose_waits_for_those_that_live_when_another_one_died(lib, pair):
    channels = pair.remote_exec("channel.send(1)\nif channel.receive() == 2: import os; os.kill(os.getpid(), 9)")
    channels.receive_each()
    channels[0].send(2)
    with pytest.raises(lib.TimeoutError):
        channels[1].waitclose(0)
    channels[1].send(0)
    with pytest.raises(lib.GatewayDied):
        channels.waitclose(TIMEOUT)
    assert channels[1].isclosed()
