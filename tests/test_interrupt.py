"""Channel.interrupt(): KeyboardInterrupt in one task, and in nothing else."""

import random
import signal
import time

import pytest

import execnet_c
from conftest import TIMEOUT, wait_until
from far_ends import PLAIN
from gateways import group_fixture, gw_fixture  # noqa: F401  (fixtures)

FOREVER = """
import time
try:
    channel.send("here")
    {wait}
except KeyboardInterrupt:
    channel.send("caught")
    channel.receive()
    channel.send("goes on")
"""
# Where a KeyboardInterrupt ends it at once. In another thread than the main one no wait in C code is ended.
WAITS = {
    "sleep": "time.sleep(1000)",
    "loop": "while True: pass",
    "receive": "channel.receive()",
    "short sleeps": "while True: time.sleep(0.01)",
}
ASIDE = ("loop", "short sleeps")
STUBBORN = """
told = False
while True:
    try:
        if not told:
            told = True
            channel.send("here")
        channel.receive()
    except KeyboardInterrupt:
        pass
"""
HOLD = "channel.send('here')\nchannel.receive()"  # holds the main thread


def begun(gw, source):
    channel = gw.remote_exec(source)
    assert channel.receive(TIMEOUT) == "here"
    return channel


def interrupted(channel):
    """The task has ended by an interrupt that it did not catch."""
    with pytest.raises(channel.RemoteError) as error:
        channel.waitclose(TIMEOUT)
    assert error.value.remote_type == "KeyboardInterrupt"
    return True


def let_go(held):
    held.send(None)
    held.waitclose(TIMEOUT)


@pytest.fixture(params=["main thread", "other thread"])
def hold(request):
    """hold(gw): from now on tasks run in that thread."""
    return lambda gw: begun(gw, HOLD) if request.param == "other thread" else None


def waits_in(hold_result):
    return ASIDE if hold_result else WAITS


def check_interrupts(gw, held):
    for wait in waits_in(held):
        channel = begun(gw, FOREVER.format(wait=WAITS[wait]))
        channel.interrupt()
        assert channel.receive(TIMEOUT) == "caught"
        channel.send(None)
        assert channel.receive(TIMEOUT) == "goes on"
        channel.waitclose(TIMEOUT)
        channel.interrupt()  # it has ended
        channel = begun(gw, f"import time\nchannel.send('here')\n{WAITS[wait]}")
        channel.interrupt()
        assert interrupted(channel)
    assert gw.remote_exec("channel.send(1)").receive(TIMEOUT) == 1
    if held:
        let_go(held)


def test_a_task_is_interrupted_and_may_catch_it(gw, hold):
    check_interrupts(gw, hold(gw))


@pytest.mark.parametrize("end", PLAIN, ids=lambda end: end.name)
def test_in_another_python(group, hold, end):
    gw = group.makegateway(end.spec())
    held = hold(gw)
    if held and "pypy" in end.name:
        pytest.skip("PyPy raises nothing in another thread")
    check_interrupts(gw, held)


def test_with_the_main_thread_alone(group):
    gw = group.makegateway("popen//execmodel=main_thread_only")
    check_interrupts(gw, None)


def test_a_task_that_waits_does_not_begin(group):
    gw = group.makegateway("popen//execmodel=main_thread_only")
    held = begun(gw, HOLD)
    waiting, other = (gw.remote_exec("channel.send('ran')") for _ in range(2))
    waiting.interrupt()
    let_go(held)
    assert interrupted(waiting)
    with pytest.raises(EOFError):
        waiting.receive(TIMEOUT)
    assert other.receive(TIMEOUT) == "ran"


def test_a_task_behind_a_callback(gw):
    """Its interrupt arrives while the task still waits behind a callback that runs."""
    source = """
        import time
        calls, control = channel.receive(), channel
        def slow(item):
            control.send("runs")
            time.sleep(0.2)
        calls.setcallback(slow)
        channel.send("here")
        channel.receive()
    """
    calls, channel = gw.newchannel(), gw.remote_exec(source)
    channel.send(calls)
    assert channel.receive(TIMEOUT) == "here"
    calls.send(1)
    assert channel.receive(TIMEOUT) == "runs"
    late = gw.remote_exec("channel.send('ran')")
    late.interrupt()
    assert interrupted(late)
    channel.interrupt()  # not behind it, either
    assert interrupted(channel)


def test_two_in_a_row_are_one(gw, hold):
    held = hold(gw)
    source = """
        import time
        hits = 0
        told, until = False, time.monotonic() + 0.3
        while time.monotonic() < until:
            try:
                if not told:
                    told = True
                    channel.send("here")
                while time.monotonic() < until: time.sleep(0.01)
            except KeyboardInterrupt:
                hits += 1
        channel.send(hits)
    """
    channel = begun(gw, source)
    channel.interrupt()
    channel.interrupt()
    assert channel.receive(TIMEOUT) == 1
    channel.waitclose(TIMEOUT)
    if held:
        let_go(held)


def test_one_that_waits_in_what_was_loaded_just_then(group):
    """In a far end without the package functions are loaded when they are called; those that are not look alike."""
    for far in [far for far in PLAIN if not far.missing][:2]:
        channel = group.makegateway(far.spec()).remote_exec("channel.receive()")
        time.sleep(0.5)
        channel.interrupt()
        assert interrupted(channel), far.name


def test_its_own_handler_of_sigint_stays_its_own(gw):
    source = """
        import signal, time
        signal.signal(signal.SIGINT, lambda *at: channel.send("its own"))
        channel.send("here")
        channel.receive()
        signal.signal(signal.SIGINT, signal.default_int_handler)
    """
    channel = begun(gw, source)
    channel.interrupt()
    assert channel.receive(TIMEOUT) == "its own"
    channel.send(None)
    channel.waitclose(TIMEOUT)


def test_where_a_shell_has_started_the_program_in_the_background(group):
    """There SIGINT is ignored, and so it is in the worker."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        gateway = group.makegateway()
    finally:
        signal.signal(signal.SIGINT, before)
    channel = begun(gateway, "import time\nchannel.send('here')\ntime.sleep(1000)")
    channel.interrupt()
    assert interrupted(channel)


def test_ctrl_c_still_does_what_it_did(gw):
    channel = begun(gw, "import os, signal\nchannel.send('here')\nos.kill(os.getpid(), signal.SIGINT)\nchannel.receive()")
    assert interrupted(channel)


def test_a_task_that_does_not_end_is_killed(gw):
    channel = begun(gw, STUBBORN)
    channel.interrupt(kill_after=0.3)
    with pytest.raises(execnet_c.GatewayDied, match=r"a task went on for 0.3 seconds after its interrupt, so this side ended"):
        channel.receive(TIMEOUT)


def test_a_task_that_ends_in_time_is_not(gw):
    channel = begun(gw, "import time\ntry: channel.send('here'); time.sleep(1000)\nexcept KeyboardInterrupt: time.sleep(0.1)")
    channel.interrupt(kill_after=1.0)
    channel.waitclose(TIMEOUT)
    time.sleep(1.2)
    assert gw.remote_exec("channel.send(1)").receive(TIMEOUT) == 1


def test_a_task_that_is_let_go_is_interrupted_all_the_same(gw, tmp_path):
    told = tmp_path / "told"
    source = f"""
        import time
        try:
            channel.send("here")
            while True: time.sleep(0.01)
        finally:
            open({str(told)!r}, "w").close()
    """
    channel = begun(gw, source)
    channel.interrupt()
    del channel
    wait_until(told.exists)


def test_what_is_no_task(gw):
    text = "belongs to no task started here"
    with pytest.raises(ValueError, match=text):
        gw.newchannel().interrupt()
    channel = gw.remote_exec("try: channel.interrupt()\nexcept ValueError as exc: channel.send(str(exc))")
    assert text in channel.receive(TIMEOUT)


@pytest.mark.parametrize("kill_after, kind", [("1", TypeError), ([], TypeError), (-1, ValueError), (float("nan"), ValueError)])
def test_seconds_that_make_no_sense(group, kill_after, kind):
    channel = group.makegateway("popen").remote_exec("channel.receive()")
    with pytest.raises(kind):
        channel.interrupt(kill_after)


def test_a_far_end_that_cannot(group):
    gw = group.makegateway("popen")
    channel = begun(gw, HOLD)
    gw._await_greeting()
    gw._answer = {"version": "0.0"}
    with pytest.raises(NotImplementedError, match="its far end, execnet_c 0.0, cannot interrupt tasks"):
        channel.interrupt()
    let_go(channel)


def test_after_the_end(group):
    gw = group.makegateway("popen")
    ended, dead = gw.remote_exec(""), begun(gw, HOLD)
    ended.waitclose(TIMEOUT)
    gw._signal(signal.SIGKILL)
    with pytest.raises(execnet_c.GatewayDied):
        dead.waitclose(TIMEOUT)
    for channel in (ended, dead):
        channel.interrupt(kill_after=0)


def test_a_forked_child_leaves_it_to_the_parent(gw):
    source = """
        import os, time
        pid = os.fork()
        if not pid:
            time.sleep(0.3)
            os._exit(7)
        try:
            channel.send("here")
            os.waitpid(pid, 0)
            channel.send("not interrupted")
        except KeyboardInterrupt:
            channel.send(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    """
    channel = begun(gw, source)
    channel.interrupt()
    assert channel.receive(TIMEOUT) == 7


# --- no other --------------------------------------------------------------------------------------------------------

CALLED = """
other = channel.receive()
def called(item):
    try:
        for i in range(300): i * i
        other.send(item)
    except BaseException as exc:
        other.send(repr(exc))
other.setcallback(called)
"""


def check_no_other_is_hit(gw, tries, seed):
    """Interrupts at short tasks, at any moment of theirs. The task behind each, and a callback, run undisturbed."""
    chance, answers, hits = random.Random(seed), [], 0
    channel, other = gw.remote_exec(CALLED), gw.newchannel()
    channel.send(other)
    channel.waitclose(TIMEOUT)
    other.setcallback(answers.append)
    for number in range(tries):
        steps = chance.choice((1, 100, 1000, 5000, 30000))
        channel = gw.remote_exec(f"channel.send(1)\nfor i in range({steps}): i * i")
        other.send(number)
        if chance.random() < 0.7:
            channel.receive(TIMEOUT)
        until = time.perf_counter() + chance.random() * 8e-4
        while time.perf_counter() < until:
            pass
        channel.interrupt()
        behind = gw.remote_exec("for i in range(1000): i * i\nchannel.send('undisturbed')")
        try:
            channel.waitclose(TIMEOUT)
        except channel.RemoteError as exc:
            assert exc.remote_type == "KeyboardInterrupt", exc
            hits += 1
        assert behind.receive(TIMEOUT) == "undisturbed", (number, seed)
        behind.waitclose(TIMEOUT)
    wait_until(lambda: len(answers) == tries)
    assert answers == list(range(tries)), seed
    return hits


def test_no_other_task_is_hit(gw, hold):
    held = hold(gw)
    check_no_other_is_hit(gw, 100, random.randrange(1 << 30))
    if held:
        let_go(held)


@pytest.mark.deep
@pytest.mark.timeout(300)
def test_no_other_task_is_hit_in_many_tries(group, hold):
    gw = group.makegateway("popen")
    held = hold(gw)
    assert check_no_other_is_hit(gw, 10000, random.randrange(1 << 30)) > 100
    if held:
        let_go(held)
