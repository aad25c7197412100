"""Execution models: where a worker runs its tasks, how groups and gateways are told, what their objects offer."""

import threading
import time

import execnet_c
import pytest
from conftest import TIMEOUT, plain_repr, wait_until
from far_ends import PLAIN

MAIN = "import threading\nmain = threading.current_thread() is threading.main_thread()\n"
REFUSED = "concurrent remote_exec would cause deadlock for main_thread_only execmodel"
BUSY = "channel.send('busy')\nchannel.receive()"


@pytest.fixture
def lone(group):
    """A gateway whose worker has only its main thread for tasks."""
    return group.makegateway("popen//execmodel=main_thread_only")


def occupy(gw):
    """A task that runs until it is sent something."""
    running = gw.remote_exec(BUSY)
    assert running.receive(TIMEOUT) == "busy"
    return running


def error_of(lib, channel):
    with pytest.raises(lib.RemoteError) as caught:
        channel.receive(TIMEOUT)
    return str(caught.value)


# ---- tasks for the main thread alone


def test_one_task_after_the_other_runs_on_the_main_thread(lone):
    for _ in range(5):
        channel = lone.remote_exec(MAIN + "channel.send(main)")
        assert channel.receive(TIMEOUT) is True
        channel.waitclose(TIMEOUT)
    assert lone.remote_status().execmodel == "main_thread_only"


def test_a_task_that_waits_too_long_for_the_main_thread_is_refused(lib, lone):
    running = occupy(lone)
    refused = lone.remote_exec("channel.send('ran')")
    assert error_of(lib, refused) == REFUSED
    assert refused.isclosed()
    running.send(None)
    running.waitclose(TIMEOUT)
    assert lone.remote_exec(MAIN + "channel.send(main)").receive(TIMEOUT) is True


def test_each_in_the_line_has_a_second_and_what_was_refused_is_gone(lib, lone):
    running = occupy(lone)
    began = time.monotonic()
    line = [lone.remote_exec("channel.send('ran')") for _ in range(3)]
    for n, channel in enumerate(line, 1):
        assert error_of(lib, channel) == REFUSED
        assert time.monotonic() - began > n - 0.1
    running.send(None)
    running.waitclose(TIMEOUT)
    assert wait_until(lambda: lone.remote_status().numexecuting == 0)
    assert wait_until(lambda: lone.remote_status().numchannels == 0)  # our end of `running` hears of it first


def test_a_task_that_ends_soon_makes_room(lone):
    running = lone.remote_exec("channel.send('busy')\nimport time\ntime.sleep(0.3)")
    assert running.receive(TIMEOUT) == "busy"
    assert lone.remote_exec(MAIN + "channel.send(main)").receive(TIMEOUT) is True
    running.waitclose(TIMEOUT)


def test_no_thread_runs_a_task(lone):
    channel = lone.remote_exec("import threading\nchannel.send(1)\nchannel.receive()\nchannel.send(threading.active_count())")
    other = lone.remote_exec("channel.send('ran')")
    assert channel.receive(TIMEOUT) == 1
    with pytest.raises(other.RemoteError):
        other.receive(TIMEOUT)
    channel.send(None)
    assert channel.receive(TIMEOUT) <= 2  # execnet's thread that receives is one


@pytest.mark.ours
def test_what_the_running_task_waits_for_comes_through(lone):
    """execnet's worker reads nothing while it waits for the main thread: the task that runs cannot end."""
    running = occupy(lone)
    waiting = lone.remote_exec(MAIN + "channel.send(main)")
    running.send(None)
    assert waiting.receive(TIMEOUT) is True
    running.waitclose(TIMEOUT)


@pytest.mark.ours
def test_the_worker_answers_while_a_task_waits(lone):
    running = occupy(lone)
    waiting = lone.remote_exec("channel.send('ran')")
    assert lone.remote_status().numexecuting == 2
    running.send(None)
    assert waiting.receive(TIMEOUT) == "ran"


@pytest.mark.ours
@pytest.mark.parametrize("end", ["1 / 0", "raise KeyboardInterrupt", "raise SystemExit(3)", "raise EOFError('mine')", "("])
def test_a_task_that_fails_does_not_keep_out_the_next_one(lib, lone, end):
    """execnet never takes notice of its end."""
    for _ in range(2):
        with pytest.raises(lib.RemoteError):
            lone.remote_exec(end).waitclose(TIMEOUT)
        assert lone.remote_exec(MAIN + "channel.send(main)").receive(TIMEOUT) is True


@pytest.mark.ours
def test_a_channel_that_was_closed_meanwhile_hears_nothing(lone, capfd):
    running = occupy(lone)
    lone.remote_exec("channel.send('ran')").close()
    assert wait_until(lambda: lone.remote_status().numexecuting == 1)  # it was refused all the same
    running.send(None)
    running.waitclose(TIMEOUT)
    assert capfd.readouterr().err == ""


@pytest.mark.ours
def test_the_channels_among_a_refused_task_s_arguments_are_closed(lone):
    def task(channel, other):
        channel.send("ran")

    running, other = occupy(lone), lone.newchannel()
    refused = lone.remote_exec(task, other=other)
    with pytest.raises(refused.RemoteError):
        refused.receive(TIMEOUT)
    other.waitclose(TIMEOUT)
    assert other.isclosed()
    running.send(None)
    running.waitclose(TIMEOUT)


def test_goodbye_while_a_task_waits(group, lone):
    running = occupy(lone)
    waiting = lone.remote_exec("channel.send('ran')")
    running.send(None)
    group.terminate(timeout=TIMEOUT)
    assert len(group) == 0
    del waiting


def test_many_tasks_from_many_threads_run_one_at_a_time(lone):
    """Those that are not refused: here they wait for each other's end."""
    source = MAIN + "import sys\nsys.depth = getattr(sys, 'depth', 0) + 1\nchannel.send((main, sys.depth))\nsys.depth -= 1"
    turn, got = threading.Lock(), []

    def run():
        for _ in range(10):
            with turn:
                channel = lone.remote_exec(source)
                got.append(channel.receive(TIMEOUT))
                channel.waitclose(TIMEOUT)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
    assert got == [(True, 1)] * 40


# ---- who is told what


def test_a_group_s_model_is_its_far_ends(lib):
    group = lib.Group(execmodel="main_thread_only")
    try:
        assert group.execmodel.backend == group.remote_execmodel.backend == "main_thread_only"
        gw = group.makegateway("popen")
        assert gw.execmodel.backend == gw.spec.execmodel == "main_thread_only"
        assert gw.remote_status().execmodel == "main_thread_only"
        assert plain_repr(gw) == "<Gateway id='gw0' receive-live, main_thread_only model, 0 active channels>"
        other = group.makegateway("popen//execmodel=thread")
        assert (other.spec.execmodel, other.execmodel.backend) == ("thread", "main_thread_only")
        assert other.remote_status().execmodel == "thread"
    finally:
        group.terminate(timeout=2.0)


def test_models_of_both_ends_may_differ(lib):
    group = lib.Group()
    assert (group.execmodel.backend, group.remote_execmodel.backend) == ("thread", "thread")
    group.set_execmodel("thread", "main_thread_only")
    try:
        gw = group.makegateway("popen")
        assert gw.execmodel.backend == "thread"
        assert gw.remote_status().execmodel == "main_thread_only"
        assert plain_repr(gw) == "<Gateway id='gw0' receive-live, thread model, 0 active channels>"
        with pytest.raises(ValueError, match="^can not set execution models if gateways have been created already$"):
            group.set_execmodel("thread")
    finally:
        group.terminate(timeout=2.0)
    group.set_execmodel("main_thread_only")
    assert group.remote_execmodel.backend == "main_thread_only"
    group.set_execmodel("thread", remote_execmodel="main_thread_only")
    assert group.execmodel.backend == "thread"


def test_models_can_be_given_as_objects(lib):
    model = lib.Group(execmodel="main_thread_only").execmodel
    group = lib.Group((), model)
    assert group.execmodel is model
    assert group.remote_execmodel.backend == "main_thread_only"


def test_an_unknown_model_is_an_error(lib):
    with pytest.raises(ValueError, match="^unknown execmodel 'other'"):
        lib.Group(execmodel="other")
    with pytest.raises(ValueError, match="^unknown execmodel 'other'"):
        lib.Group().set_execmodel("thread", "other")


@pytest.mark.ours
def test_the_error_names_the_models_there_are(lib, group):
    for call in (lambda: lib.Group(execmodel="x"), lambda: group.makegateway("popen//execmodel=x")):
        with pytest.raises(ValueError, match="unknown execmodel 'x'; there are 'thread', 'main_thread_only', 'gevent' and 'eventlet'$"):
            call()
    with pytest.raises(ValueError, match="spec 'popen//execmodel': unknown execmodel True"):
        group.makegateway("popen//execmodel")
    assert len(group) == 0
    with pytest.raises(ValueError):
        group.set_execmodel("main_thread_only", "x")
    assert group.execmodel.backend == group.remote_execmodel.backend == "thread"  # as they were


def test_the_default_group_s_model(lib):
    lib.set_execmodel("main_thread_only")
    try:
        assert lib.default_group.execmodel.backend == "main_thread_only"
        gw = lib.makegateway()
        assert gw.remote_status().execmodel == "main_thread_only"
        with pytest.raises(ValueError, match="can not set execution models"):
            lib.set_execmodel("thread")
    finally:
        lib.default_group.terminate(timeout=2.0)
        lib.set_execmodel("thread")


# ---- the object


@pytest.mark.parametrize("name", ["thread", "main_thread_only"])
def test_the_object(lib, name, tmp_path):
    import queue
    import socket
    import subprocess

    model = lib.Group(execmodel=name).execmodel
    assert repr(model) == f"<ExecModel {name!r}>"
    assert (model.queue, model.socket, model.subprocess) == (queue, socket, subprocess)
    assert model.get_ident() == threading.get_ident()
    done, got = model.Event(), []
    model.start(lambda *args: (got.append((args, model.get_ident())), done.set()), (1, 2))
    assert done.wait(TIMEOUT) and got[0][0] == (1, 2) and got[0][1] != model.get_ident()
    done.clear()
    assert not done.is_set() and not done.wait(0)
    done.clear()
    model.start(done.set)
    assert done.wait(TIMEOUT)
    for lock in (model.Lock(), model.RLock()):
        with lock, lock:
            pass
    began = time.monotonic()
    model.sleep(0.02)
    assert time.monotonic() - began > 0.01
    path = tmp_path / "file"
    path.write_bytes("\u00e9\n".encode())
    fd = path.open("rb")
    with model.fdopen(fd.fileno(), "r", closefd=False) as file:
        assert file.read() == "\u00e9\n"
    fd.seek(0)
    assert fd.read() == b"\xc3\xa9\n"
    fd.close()


OVER_THERE = """
model = channel.gateway.execmodel
event, lock = model.Event(), model.RLock()
model.start(event.set)
queue = model.queue.Queue()
queue.put(4)
with lock, lock:
    channel.send((model.backend, repr(model), event.wait(20), queue.get()))
"""


@pytest.mark.parametrize("name", ["thread", "main_thread_only"])
def test_the_object_over_there(group, name):
    gw = group.makegateway(f"popen//execmodel={name}")
    answer = gw.remote_exec(OVER_THERE).receive(TIMEOUT)
    assert answer == (name, f"<ExecModel {name!r}>", True, 4)
    assert gw.newchannel().gateway.execmodel is gw.execmodel


# ---- where nothing is installed


@pytest.mark.parametrize("end", PLAIN, ids=lambda end: end.name)
def test_other_pythons(end):
    group = execnet_c.Group()
    try:
        lone = group.makegateway(f"{end.spec()}//execmodel=main_thread_only")
        assert lone.remote_status().execmodel == "main_thread_only"
        answer = lone.remote_exec(OVER_THERE).receive(TIMEOUT)
        assert answer == ("main_thread_only", "<ExecModel 'main_thread_only'>", True, 4)
        running = occupy(lone)
        assert error_of(execnet_c, lone.remote_exec("channel.send('ran')")) == REFUSED
        running.send(None)
        running.waitclose(TIMEOUT)
        assert lone.remote_exec(MAIN + "channel.send(main)").receive(TIMEOUT) is True
    finally:
        group.terminate(timeout=5.0)
