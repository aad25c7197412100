"""Greenlets that wait for credit: the others go on, and each end of the wait is as with threads."""

import pytest

from test_greenlets import library, run  # noqa: F401 (fixtures)

pytestmark = [pytest.mark.ours, pytest.mark.timeout(200)]


def test_while_one_waits_for_credit(library):  # noqa: F811
    run(
        library,
        """
        gateway = group.makegateway("popen//maxqueue=20000")
        go = gateway.newchannel()
        channel = gateway.remote_exec("go = channel.receive(); go.receive()\\nfor item in channel: channel.send(len(item))")
        channel.send(go)
        senders = [spawn(lambda: [channel.send(b"x" * 1000) for _ in range(100)]) for _ in range(2)]
        with others_run():
            raises(execnet.TimeoutError, lambda: channel.send(b"x", timeout=0.3))
        go.send(1)
        assert [channel.receive(60) for _ in range(200)] == [1000] * 200
        for sender in senders:
            result(sender)
        stuck = gateway.remote_exec("channel.gateway.newchannel().receive()")
        stopped = spawn(lambda: [stuck.send(b"x" * 1000) for _ in range(100)])
        go_on()
        kill(stopped)
        ended = spawn(lambda: raises(OSError, lambda: [stuck.send(b"x" * 1000) for _ in range(100)]))
        go_on()
        stuck.close()
        assert "cannot send to" in str(result(ended))
        """,
    )
