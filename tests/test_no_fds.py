"""A far end whose task keeps all the fds there are: the others go on."""

import pytest

from conftest import TIMEOUT
from far_ends import PLAIN

pytestmark = [
    pytest.mark.ours,
    pytest.mark.parametrize("far", [None, *PLAIN], ids=lambda end: end.name if end else "popen"),
]


def test_threads_end_where_a_task_keeps_all_fds(group, far):
    """The C library may want to load a file for that."""
    gw = group.makegateway(far.spec() if far else "popen")
    keeper = gw.remote_exec(
        """
        import os
        held = []
        try:
            while True:
                held.append(os.open("/dev/null", 0))
        except OSError as exc:
            channel.send(exc.errno)
        channel.receive()
        """
    )
    assert keeper.receive(TIMEOUT) == 24
    channel = gw.remote_exec(
        """
        import os, time
        from _thread import allocate_lock, start_new_thread
        last = allocate_lock()
        last.acquire()
        before = os.stat("/proc/self/task").st_nlink
        start_new_thread(last.release, ())
        last.acquire()
        while os.stat("/proc/self/task").st_nlink > before:
            time.sleep(0.01)
        channel.send("ended")
        """
    )
    assert channel.receive(TIMEOUT) == "ended"
    assert gw.remote_exec("channel.send(1)").receive(TIMEOUT) == 1
    keeper.send(None)
    keeper.waitclose(TIMEOUT)


def test_a_worker_ends_well_where_a_task_keeps_all_fds(group, far, capfd):
    """Python ends other threads when the interpreter ends: the C library may want to load a file for that, too."""
    gw = group.makegateway(far.spec() if far else "popen")
    channel = gw.remote_exec(
        """
        import os, sys, time
        from _thread import start_new_thread

        def run():
            while True:
                time.sleep(0.0001)

        for _ in range(3):
            start_new_thread(run, ())
        try:
            while True:
                os.open("/dev/null", 0)
        except OSError as exc:
            channel.send(exc.errno)
        """
    )
    assert channel.receive(TIMEOUT) == 24
    channel.waitclose(TIMEOUT)
    gw.exit()
    assert gw._wait_gone(TIMEOUT)
    assert (gw._state()["status"], capfd.readouterr().err) == (0, "")


def test_the_connection_outlives_a_task_that_allows_no_more_fds(group, far):
    """poll() takes no more of them than a process may have."""
    gw = group.makegateway(far.spec() if far else "popen")
    gw.remote_exec("import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))").waitclose(TIMEOUT)
    channel = gw.remote_exec("for item in channel: channel.send(item)")
    for item in (1, "x" * 5_000_000, 3):
        channel.send(item)
        assert channel.receive(TIMEOUT) == item
        assert not gw.remote_exec("").waitclose(TIMEOUT)
