"""Flow control: what sets limits, and what is no limit; the rest of the package under limits."""

import os

import pytest

import execnet_c
from conftest import TIMEOUT, wait_until
from flows import COST, FIT, LIMIT, SENDS, Sender, numbered, received, sender_waits, sent, waits
from flows import gw_fixture  # noqa: F401 (fixtures)
from gateways import group_fixture  # noqa: F401 (fixtures)


# --- set_limit() ------------------------------------------------------------------------------------------------------


def test_set_limit_of_a_channel(group):
    gw = group.makegateway("popen")
    channel = gw.remote_exec("channel.receive()\n" + SENDS + "send(channel, 1000)")
    channel.set_limit(10 * COST)
    channel.send(None)
    sender_waits(channel)
    waiting = received(channel)
    assert (waiting["items"], waiting["bytes"], waiting["limit"]) == (10, 10 * COST, 10 * COST)
    channel.set_limit(20 * COST)
    assert wait_until(lambda: received(channel)["items"] == 20)
    channel.set_limit(3 * COST)
    for n in range(30):
        assert channel.receive(TIMEOUT) == numbered(n)
    sender_waits(channel)
    assert received(channel)["items"] <= 3
    channel.set_limit(1)
    for n in range(30, 50):
        assert channel.receive(TIMEOUT) == numbered(n)
    channel.set_limit(None)
    assert received(channel)["limit"] is None
    assert wait_until(lambda: received(channel)["items"] == 950)
    for n in range(50, 1000):
        assert channel.receive(TIMEOUT) == numbered(n)


LEARNS = """
data = channel.receive()[0]
channel.receive()
""" + SENDS + """
send(data, 1000)
"""


def fill(channel, data):
    channel.receive()
    for n in range(1000):
        data.send((b"%d " % n).ljust(994, b"x"))


@pytest.mark.parametrize("way", ["item", "argument"])
def test_set_limit_before_the_far_end_knows_the_channel(group, way):
    gw = group.makegateway("popen")
    data = gw.newchannel()
    data.set_limit(10 * COST)
    control = gw.remote_exec(LEARNS) if way == "item" else gw.remote_exec(fill, data=data)
    if way == "item":
        control.send([data])
    control.send(None)
    sender_waits(data)
    assert received(data)["items"] == 10
    for n in range(1000):
        assert data.receive(TIMEOUT) == numbered(n)


def test_a_task_limits_a_channel_before_it_sends_it(group):
    gw = group.makegateway("popen")
    task = "data = channel.gateway.newchannel(); data.set_limit(%d); channel.send(data)\nchannel.receive()\n" % (10 * COST)
    channel = gw.remote_exec(task + "for n in range(100): channel.send(data.receive()[:8])")
    data = channel.receive(TIMEOUT)
    assert wait_until(lambda: sent(data)["limit"] == 10 * COST)
    sender = Sender(data, list(map(numbered, range(100))))
    waits(data)
    assert sent(data)["bytes"] == 10 * COST
    channel.send(None)
    assert [channel.receive(TIMEOUT) for _ in range(100)] == [numbered(n)[:8] for n in range(100)]
    assert sender.end() is None


def test_set_limit_in_a_task(group):
    gw = group.makegateway("popen")
    channel = gw.remote_exec("channel.set_limit(5 * 1064); channel.send(1)\nfor item in channel: channel.send(item[:8])")
    assert channel.receive(TIMEOUT) == 1
    assert wait_until(lambda: sent(channel)["limit"] == 5 * COST)
    sender = Sender(channel, list(map(numbered, range(500))))
    for n in range(500):
        assert sent(channel)["bytes"] <= 5 * COST
        assert channel.receive(TIMEOUT) == numbered(n)[:8]
    assert sender.end() is None


def test_a_limit_that_is_set_after_much_was_sent(group):
    """Both sides have counted all along."""
    gw = group.makegateway("popen")
    channel = gw.remote_exec("go = channel.receive()\nchannel.set_limit(go.receive())\nfor item in channel: channel.send(item[:8])")
    go = gw.newchannel()
    channel.send(go)
    for n in range(500):
        channel.send(numbered(n))
    go.send(2 * COST)
    for n in range(500):
        assert channel.receive(TIMEOUT) == numbered(n)[:8]
    assert wait_until(lambda: sent(channel)["limit"] == 2 * COST)
    for n in range(500):
        channel.send(numbered(n), timeout=TIMEOUT)
        assert channel.receive(TIMEOUT) == numbered(n)[:8]


WRONG = [
    (True, TypeError, "limit must be an int of bytes or None, not bool"),
    ("100", TypeError, "not str"),
    (1.5, TypeError, "not float"),
    (0, ValueError, "limit must be at least 1 byte, not 0"),
    (-5, ValueError, "not -5"),
    (1 << 63, ValueError, "limit must be at most 9223372036854775807 bytes"),
    (1 << 200, ValueError, "limit must be at most"),
]


@pytest.mark.parametrize("limit, kind, words", WRONG, ids=[str(wrong[0])[:20] for wrong in WRONG])
def test_a_wrong_limit(gw, limit, kind, words):
    channel = gw.newchannel()
    with pytest.raises(kind, match=words):
        channel.set_limit(limit)
    assert received(channel)["limit"] == LIMIT


def test_the_largest_limit(gw):
    channel = gw.remote_exec("import sys; channel.set_limit(sys.maxsize); channel.send(channel.receive())")
    channel.set_limit(9223372036854775807)
    channel.send(5)
    assert channel.receive(TIMEOUT) == 5


def test_set_limit_of_a_closed_channel(gw):
    channel = gw.newchannel()
    channel.close()
    with pytest.raises(OSError, match=f"cannot set a limit of <Channel id={channel.id} closed>"):
        channel.set_limit(1000)


# --- the spec ---------------------------------------------------------------------------------------------------------

BAD = ["0", "-1", "-100000", "many", "1.5", "1e6", "9223372036854775808", "9" * 50, "", " 5", "1_000", "0x10", "٣"]


@pytest.mark.parametrize("text", [*("=" + bad for bad in BAD), ""])
def test_a_wrong_maxqueue(group, text):
    with pytest.raises(ValueError, match="maxqueue must be a number of bytes, from 1 to 9223372036854775807, not") as error:
        group.makegateway("popen//maxqueue" + text)
    assert repr("popen//maxqueue" + text) in str(error.value)
    assert list(group) == []


@pytest.mark.parametrize("value", [True, False, 0, -3, 2.5, [5]])
def test_a_wrong_maxqueue_of_the_spec_itself(group, value):
    spec = execnet_c.XSpec("popen")
    spec.maxqueue = value
    with pytest.raises(ValueError, match="maxqueue must be a number of bytes"):
        group.makegateway(spec)


def test_a_number_as_maxqueue_of_the_spec_itself(group):
    spec = execnet_c.XSpec("popen")
    spec.maxqueue = 5000
    assert received(group.makegateway(spec).newchannel())["limit"] == 5000


def test_the_environment_says_how_much(group, monkeypatch):
    monkeypatch.setenv("EXECNET_C_MAXQUEUE", "5000")
    assert received(group.makegateway("popen").newchannel())["limit"] == 5000
    assert received(group.makegateway("popen//maxqueue=7000").newchannel())["limit"] == 7000
    monkeypatch.setenv("EXECNET_C_MAXQUEUE", "")
    assert received(group.makegateway("popen").newchannel())["limit"] is None


@pytest.mark.parametrize("text", ["0", "-1", "lots"])
def test_a_wrong_environment(group, monkeypatch, text):
    monkeypatch.setenv("EXECNET_C_MAXQUEUE", text)
    with pytest.raises(ValueError, match=f"EXECNET_C_MAXQUEUE must be a number of bytes, from 1 to .*, not '{text}'"):
        group.makegateway("popen")


def test_channels_that_an_item_carries_and_that_the_far_end_makes_have_the_limit(gw):
    channel = gw.remote_exec(
        """
        own = channel.gateway.newchannel()
        channel.send(own)
        carried = channel.receive()
        for n in range(300): own.send(bytes(994))
        own.close()
        channel.send([each[0::3] for each in channel.gateway._stats()[0]])
        """
    )
    own = channel.receive(TIMEOUT)
    carried = gw.newchannel()
    channel.send(carried)
    sender_waits(own)
    assert received(own)["items"] == FIT
    assert [own.receive(TIMEOUT) for _ in range(300)] == [bytes(994)] * 300
    assert dict(each[:2] for each in channel.receive(TIMEOUT)).get(carried.id) == LIMIT


def test_a_far_end_that_knows_no_limits(group, monkeypatch):
    from execnet_c.near import bootstrap

    answered = bootstrap._answer

    def answer(gateway, kind):
        told = answered(gateway, kind)
        if isinstance(told, dict):
            told.pop("limits", None)
        return told

    monkeypatch.setattr(bootstrap, "_answer", answer)
    with pytest.warns(RuntimeWarning, match="gateway 'old': its far end knows no limits"):
        gw = group.makegateway(f"popen//id=old//nice=0//keepalive=100//maxqueue={LIMIT}")
    assert received(gw.newchannel())["limit"] is None
    channel = gw.newchannel()
    with pytest.warns(RuntimeWarning, match="gateway 'old': its far end knows no limits"):
        channel.set_limit(5000)
    assert received(channel)["limit"] is None


# --- the rest of the package under limits ----------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 5000, 10_000_000])
def test_a_directory_goes_to_limited_gateways(group, tmp_path, limit):
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    for n in range(5):
        (source / f"file{n}").write_bytes(bytes([n]) * (n * 50_000))
    rsync = execnet_c.RSync(source)
    rsync.add_target(group.makegateway(f"popen//maxqueue={limit}"), target)
    rsync.send()
    assert sorted(os.listdir(target)) == sorted(os.listdir(source))
    assert (target / "file4").read_bytes() == bytes([4]) * 200_000


@pytest.mark.parametrize("limit", [1, 5000])
def test_groups_files_and_facts_with_limits(group, limit):
    for _ in range(2):
        group.makegateway(f"popen//maxqueue={limit}")
    channels = group.remote_exec("for item in channel: channel.send(item + item)")
    for n in range(200):
        channels.send_each("ab" * n)
        assert channels.receive_each(timeout=TIMEOUT) == ["abab" * n] * 2
    for channel in channels:
        channel.close()
    assert {gateway._rinfo().pid for gateway in group} == {gateway._rinfo(True).pid for gateway in group}
    assert all(gateway.remote_status().numexecuting >= 0 for gateway in group)
    channel = group[0].remote_exec("with channel.makefile('w') as file:\n for n in range(500): print(n, file=file)")
    assert [int(line) for line in channel.makefile("r").read(1 << 20).split()] == list(range(500))
    queue = group.remote_exec("for n in range(300): channel.send(n)").make_receive_queue(endmarker=-1)
    got = [queue.get(timeout=TIMEOUT)[1] for _ in range(602)]
    assert sorted(got) == sorted([*range(300), -1] * 2)
