"""The I/O thread of the plain-Python core, whatever the near end runs on: how it is started, and what it writes last."""

import os
import sys
import threading
from types import SimpleNamespace

import pytest
from conftest import wait_until

from execnet_c.twin import pylaunch, pypump, pywire

TIMEOUT = 10


class Interrupt(Exception):
    """What a signal handler raises."""


def interrupted_after(calls, func, *args):
    """func(*args), with an Interrupt after so many calls of C functions in pypump.py, where Python looks for signals.
    Returns whether it came to that."""
    left = calls

    def look(frame, event, _):
        nonlocal left
        if event == "c_return" and frame.f_code.co_filename == pypump.__file__:
            left -= 1
            if left == 0:
                raise Interrupt

    sys.setprofile(look)
    try:
        func(*args)
    except Interrupt:
        return True
    finally:
        sys.setprofile(None)
    return False


@pytest.fixture
def pipes(monkeypatch):
    """Those that are made meanwhile. One that an interrupt has taken from whoever made it is closed here."""
    made, threads = [], len(os.listdir("/proc/self/task"))

    def pipe():
        made.extend((fd, os.fstat(fd)) for fd in os.pipe())
        return [fd for fd, _ in made[-2:]]

    monkeypatch.setattr(pypump, "pipe", pipe)
    yield
    assert wait_until(lambda: len(os.listdir("/proc/self/task")) <= threads)  # or a thread that ends would close them, too
    for fd, file in made:
        if pypump.file_of(fd) and os.path.samestat(os.fstat(fd), file):
            os.close(fd)


@pytest.mark.parametrize("running", [False, True])
def test_an_interrupt_as_it_is_started_or_woken_harms_no_later_job(pipes, running, capfd):
    for calls in range(1, 100):
        pump, done = pypump.Pump(), threading.Event()
        if running:
            pump.post(lambda pump=pump: pump.after(TIMEOUT, int))
        interrupted = interrupted_after(calls, pump.post, int)
        pump.post(done.set)
        assert done.wait(TIMEOUT), f"interrupted after {calls} calls"
        pump.post(lambda pump=pump: pump.cancel(int))
        assert wait_until(lambda pump=pump: pump._bell is None)
        if not interrupted:
            break
    assert 1 < calls < 99
    assert capfd.readouterr().err == ""


def test_what_an_interrupt_finds_half_way_is_not_started_or_says_goodbye(pipes):
    for calls in range(1, 100):
        begun, ended, done = [], [], threading.Event()
        gateway = SimpleNamespace(_goodbye=lambda ended=ended: ended.append(1))
        interrupted = interrupted_after(calls, pylaunch.by_pump, lambda begun=begun: begun.append(1), gateway)
        pypump.pump.post(done.set)
        assert done.wait(TIMEOUT)
        assert ended == (begun if interrupted else []), f"interrupted after {calls} calls"
        assert wait_until(lambda: pypump.pump._bell is None)
        if not interrupted:
            break
    assert 1 < calls < 99


def test_the_goodbye_comes_behind_what_a_thread_was_sending():
    """exit() in another thread, at each step of a send(): what that has taken arrives, else it is refused."""
    goodbye = pywire.frame(pywire.TERMINATE, 0)
    for calls in range(1, 200):
        far, near = os.pipe()
        os.set_blocking(near, False)
        pypump.own(near)
        writer, left, ran = pywire.Writer(near), calls, threading.Event()

        def look(frame, event, _):
            nonlocal left
            if event in ("c_call", "c_return") and frame.f_code.co_filename == pywire.__file__:
                left -= 1
                if left == 0:
                    writer.end(goodbye)
                    pypump.pump.post(ran.set)
                    assert ran.wait(TIMEOUT)

        sys.setprofile(look)
        try:
            sent = writer.send(pywire.Batch([b"item"]))
        finally:
            sys.setprofile(None)
        if left > 0:
            writer.end(goodbye)
        with open(far, "rb") as file:
            assert file.read() == b"item" * sent + goodbye[0], f"ended after {calls} calls"
        if left > 0:
            break
    assert 5 < calls < 199
