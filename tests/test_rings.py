"""Gateways whose frames go through memory that both processes share: when they do, and what may go wrong with it."""

import hashlib
import os
import resource
import signal
import sys
import threading

import execnet_c as execnet
import pytest
from conftest import TIMEOUT, wait_until
from masters import run

RING = 2 * 1024 * 1024

ECHO = """
for item in channel:
    channel.send(item)
"""

# How a far end finds the memory: the pages of indexes come first in it.
FIND = """
import ctypes
def shared():
    with open("/proc/self/maps") as file:
        lines = [line.split() for line in file if "memfd:execnet_c" in line]
    return sorted(tuple(int(x, 16) for x in line[0].split("-")) for line in lines)
"""


def can_share():
    gw = execnet.makegateway()
    try:
        return gw.remote_status().transport == "ring"
    finally:
        execnet.default_group.terminate(TIMEOUT)


pytestmark = pytest.mark.skipif(not can_share(), reason="no shared memory on this system")


@pytest.fixture(params=["popen", f"popen//python={sys.executable}"], ids=["born", "moved"])
def spec(request):
    """Of far ends that share memory from birth, and of those that move once they have said that they can."""
    return request.param


@pytest.fixture
def group():
    group = execnet.Group()
    yield group
    group.terminate(TIMEOUT)


# ---- when


def test_an_interpreter_with_the_c_core_shares_memory(group, spec):
    for keys in ("", "//dont_write_bytecode", "//chdir=/", "//execmodel=main_thread_only", "//env:A=1"):
        gateway = group.makegateway(spec + keys)
        assert gateway.remote_exec("channel.send(7)").receive(TIMEOUT) == 7
        assert gateway.remote_status().transport == "ring", keys
        assert repr(gateway).endswith(" active channels, ring>")


def test_where_frames_go_through_pipes(group):
    group.makegateway("popen//id=master")
    python = f"popen//python={sys.executable}"
    pure = f"popen//python=env EXECNET_C_PURE=1 {sys.executable}"
    for spec in ("popen//transport=pipe", python + "//transport=pipe", pure, "popen//via=master", python + "//via=master"):
        gateway = group.makegateway(spec)
        assert gateway.remote_exec("channel.send(7)").receive(TIMEOUT) == 7
        assert gateway.remote_status().transport == "pipe", spec
        assert repr(gateway).endswith(" active channels, pipe>")


@pytest.mark.parametrize("spec", ["ssh=h", "popen//ssh=h", "popen//vagrant_ssh=h", "socket=h:1", "popen//via=gw0"])
def test_who_is_elsewhere_is_offered_nothing(spec):
    from execnet_c.near.transport import may_share

    assert not may_share(execnet.XSpec(spec))
    assert may_share(execnet.XSpec("popen")) and may_share(execnet.XSpec("popen//python=python3"))


@pytest.mark.parametrize("text", ["transport", "transport=tcp", "transport="])
def test_a_transport_that_there_is_not(group, text):
    with pytest.raises(ValueError, match="transport may be pipe"):
        group.makegateway(f"popen//{text}")
    assert list(group) == []


def test_the_transport_is_no_fact_of_the_far_end(group):
    status = group.makegateway().remote_status()
    assert repr(status) == "<RInfo 'execmodel=thread, numchannels=0, numexecuting=0'>"


def test_without_memory_to_share_pipes_do(group, spec):
    """A limit on the size of files is one on such memory, too."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (RING, limit[1]))
    try:
        gateway = group.makegateway(spec)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    channel = gateway.remote_exec(ECHO)
    channel.send(b"x" * RING)
    assert channel.receive(TIMEOUT) == b"x" * RING
    assert gateway.remote_status().transport == "pipe"


def test_no_process_of_a_task_gets_the_memory(group, spec):
    channel = group.makegateway(spec).remote_exec(
        FIND
        + """
import os, subprocess
links = []
for fd in os.listdir("/proc/self/fd"):
    try:
        links.append(os.readlink("/proc/self/fd/" + fd))
    except OSError:
        pass
channel.send(links)
channel.send(len(shared()) > 0)
child = os.fork()
if child == 0:
    os._exit(len(shared()))
channel.send(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
channel.send(subprocess.run(["ls", "-l", "/proc/self/fd"], capture_output=True, text=True).stdout)
"""
    )
    assert not [link for link in channel.receive(TIMEOUT) if "memfd:execnet_c (" in link]  # its last words' file is another
    assert channel.receive(TIMEOUT), "the far end itself has it"
    assert channel.receive(TIMEOUT) == 0
    assert "memfd" not in channel.receive(TIMEOUT)


# ---- how another interpreter comes to it


def memory_fds():
    links = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink("/proc/self/fd/" + fd))
        except OSError:
            pass  # the listing's own
    return [link for link in links if "memfd:execnet_c" in link]


def test_nothing_stays_open(group):
    for keys in ("", "//env:EXECNET_C_PURE=1"):
        gateway = group.makegateway(f"popen//python={sys.executable}{keys}")
        assert gateway.remote_exec("channel.send(7)").receive(TIMEOUT) == 7
        assert memory_fds() == []


def test_what_is_taken_in_vain_is_closed():
    from execnet_c import _core

    def null():
        return os.open(os.devnull, os.O_RDWR)

    def open_fds():
        return os.listdir("/proc/self/fd")

    before = open_fds()
    with pytest.raises(execnet.DataFormatError, match="no memory that can be sealed"):
        _core.Gateway()._serve(null(), null(), null())
    with pytest.raises(OSError, match="was not started"):
        _core.Gateway()._attach(null())
    assert open_fds() == before


def another_file(tmp_path, offered):
    os.mkfifo(tmp_path / "fifo")  # to open it waits for who writes
    return (str(tmp_path / "fifo"), *offered[1:])


def a_directory(tmp_path, offered):
    about = os.stat(tmp_path)
    return (str(tmp_path), about.st_dev, about.st_ino, offered[3])


def a_file_of_that_size(tmp_path, offered):
    with open(tmp_path / "memory", "wb") as file:
        file.truncate(2 * os.sysconf("SC_PAGE_SIZE") + 2 * RING)
    about = os.stat(file.name)
    return file.name, about.st_dev, about.st_ino, offered[3]


@pytest.mark.parametrize(
    "changed",
    [
        another_file,
        a_directory,
        a_file_of_that_size,
        lambda path, offered: ("/proc/1/fd/no-such-fd", *offered[1:]),
        lambda path, offered: (*offered[:2], offered[2] + 1, offered[3]),
        lambda path, offered: (*offered[:3], "another kernel"),
    ],
    ids=["file", "directory", "no-memory", "nothing", "inode", "kernel"],
)
def test_memory_that_the_far_end_does_not_find(group, changed, tmp_path, monkeypatch):
    """Another machine, behind a command of the user's: it has other things at that place, or nothing."""
    from execnet_c.common import rings

    offer = rings.offer
    monkeypatch.setattr(rings, "offer", lambda gateway: changed(tmp_path, offer(gateway)))
    gateway = group.makegateway(f"popen//python={sys.executable}")
    channel = gateway.remote_exec(ECHO)
    channel.send(b"x" * RING)
    assert channel.receive(TIMEOUT) == b"x" * RING
    assert gateway.remote_status().transport == "pipe"
    assert memory_fds() == []


def test_memory_in_another_namespace_of_processes(group):
    """There this process has no number, or another one."""
    import shutil
    import subprocess

    command = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if not shutil.which("unshare") or subprocess.run([*command, "true"], capture_output=True).returncode:
        pytest.skip("no namespace of processes can be made here")
    gateway = group.makegateway(f"popen//python={' '.join(command)} {sys.executable}")
    assert gateway.remote_exec("import os; channel.send(os.getpid())").receive(TIMEOUT) == 1
    assert gateway.remote_status().transport == "pipe"


# ---- sizes: what fits, and what just does not


@pytest.mark.parametrize("around", [16 * 1024, 64 * 1024, 256 * 1024, RING, 2 * RING])
def test_sizes_around_those_that_matter(group, spec, around):
    channel = group.makegateway(spec).remote_exec(ECHO)
    for size in range(around - 20, around + 3):
        item = hashlib.sha256(b"%d" % size).digest() * (size // 32) + b"y" * (size % 32)
        channel.send(item)
        assert channel.receive(TIMEOUT) == item
    channel.close()


def test_many_threads_on_one_gateway(group, spec):
    """Each channel keeps its order, nothing is lost or mixed up."""
    gateway = group.makegateway(spec)
    sizes = [1, 100, 5000, 70_000, 300_000, RING + 1]
    failed = []

    def talk(number):
        channel = gateway.remote_exec(ECHO)
        for n in range(60):
            item = (number, n, bytes([number]) * sizes[(number + n) % len(sizes)])
            channel.send(item)
            if channel.receive(TIMEOUT) != item:
                failed.append((number, n))
        channel.close()

    threads = [threading.Thread(target=talk, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * TIMEOUT)
    assert failed == [] and not any(thread.is_alive() for thread in threads)


# ---- nobody reads


def test_a_far_end_that_sends_much_is_not_held_up(group, spec, tmp_path):
    """Here nobody waits for it: the I/O thread takes it in."""
    done = tmp_path / "done"
    channel = group.makegateway(spec).remote_exec(
        f"for n in range(8):\n    channel.send(bytes([n]) * {RING})\nopen({str(done)!r}, 'w').close()"
    )
    assert wait_until(done.exists)
    for n in range(8):
        assert channel.receive(TIMEOUT) == bytes([n]) * RING


def test_a_far_end_that_computes_does_not_hold_us_up(group, spec, tmp_path):
    """Over there nobody waits either: all of it goes out while the task is busy."""
    sent = tmp_path / "sent"
    channel = group.makegateway(spec).remote_exec(
        f"""
import os
channel.send("begun")
while not os.path.exists({str(sent)!r}):
    pass
channel.send([len(channel.receive()) for _ in range(8)])
"""
    )
    assert channel.receive(TIMEOUT) == "begun"
    for _ in range(8):
        channel.send(b"x" * RING)
    sent.touch()
    assert channel.receive(TIMEOUT) == [RING] * 8


def test_callbacks_get_all_in_order(group, spec):
    seen = []
    channel = group.makegateway(spec).remote_exec("for n in range(20000): channel.send(n)")
    channel.setcallback(seen.append, endmarker="end")
    channel.waitclose(TIMEOUT)
    assert seen == [*range(20000), "end"]


def test_at_rest_nobody_wakes_up(group, spec):
    gateway = group.makegateway(spec)
    channel = gateway.remote_exec(
        """
import os, time
def switches():
    total = 0
    for task in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{task}/status") as file:
            total += sum(int(line.split()[1]) for line in file if "ctxt_switches" in line)
    return total
for seconds in channel:
    channel.send(switches())
    time.sleep(seconds)
    channel.send(switches())
"""
    )
    channel.send(1.5)
    before, after = channel.receive(TIMEOUT), channel.receive(TIMEOUT)
    assert after - before < 40, "of all its threads, in 1.5 seconds"


# ---- deaths, and worse


@pytest.mark.parametrize("seconds", [0, 0.001, 0.003, 0.01, 0.03])
def test_a_far_end_killed_while_it_sends(group, spec, seconds):
    gateway = group.makegateway(spec)
    channel = gateway.remote_exec(
        f"""
import os, signal, threading, time
channel.send(os.getpid())
def kill():
    time.sleep({seconds})
    os.kill(os.getpid(), signal.SIGKILL)
threading.Thread(target=kill).start()
while True:
    channel.send(b"x" * {3 * RING})
    channel.send(list(range(100)))
"""
    )
    channel.receive(TIMEOUT)
    with pytest.raises(execnet.GatewayDied) as caught:
        while True:
            item = channel.receive(TIMEOUT)
            assert item == b"x" * (3 * RING) or item == list(range(100))
    assert caught.value.signal == signal.SIGKILL


@pytest.mark.parametrize("seconds", [0, 0.002, 0.02])
def test_a_master_killed_while_both_send(seconds, spec):
    """Its far end learns of it, and ends; so no process is left, which is what run() sees to."""
    run(
        """
        seconds = float(sys.argv[1])
        gateway = execnet_c.makegateway(sys.argv[2])
        channel = gateway.remote_exec("for item in channel: channel.send(item)")
        def kill():
            time.sleep(seconds)
            os.kill(os.getpid(), signal.SIGKILL)
        channel.send(1)
        assert channel.receive() == 1
        threading.Thread(target=kill).start()
        while True:
            channel.send(b"x" * (5 << 20))
            channel.send(list(range(100)))
        """,
        str(seconds),
        spec,
        status=-signal.SIGKILL,
    )


@pytest.mark.parametrize("byte", [0x00, 0x01, 0x7F, 0xFF])
def test_a_far_end_that_writes_nonsense_into_the_indexes(group, spec, byte):
    """It spoils its own connection; this process goes on, and is told that it was nonsense or that nothing more came."""
    gateway, other = group.makegateway(spec), group.makegateway()
    channel = gateway.remote_exec(
        FIND
        + f"""
import os, time
channel.send(1)
time.sleep(0.1)
start = shared()[0][0]
ctypes.memset(start, {byte}, 2 * os.sysconf("SC_PAGE_SIZE"))
time.sleep(0.2)
os._exit(3)
"""
    )
    assert channel.receive(TIMEOUT) == 1
    with pytest.raises((EOFError, OSError)):
        while True:
            channel.send(b"x" * 100_000)
            if not gateway.hasreceiver():
                channel.receive(TIMEOUT)
    assert other.remote_exec("channel.send(6 * 7)").receive(TIMEOUT) == 42


def test_a_far_end_cannot_shrink_the_memory(group, spec):
    channel = group.makegateway(spec).remote_exec(
        FIND
        + """
import os
start, end = shared()[0]
try:
    fd = os.open(f"/proc/self/map_files/{start:x}-{end:x}", os.O_RDWR)
except OSError as exc:
    channel.send("not even opened")
else:
    try:
        os.ftruncate(fd, 0)
    except PermissionError:
        channel.send("sealed")
"""
    )
    assert channel.receive(TIMEOUT) in ("sealed", "not even opened")


def test_what_a_start_up_file_prints_does_no_harm(group, tmp_path, monkeypatch):
    """It goes to the pipe, where the far end's calls come too, and is quoted if the far end dies of it."""
    site = tmp_path / "sitecustomize.py"
    site.write_text("import os\nos.write(1, b'hello world ' * 1000)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    channel = group.makegateway().remote_exec(ECHO)
    for n in range(100):
        channel.send(n)
        assert channel.receive(TIMEOUT) == n
    site.write_text("import os\nos.write(1, b'no licence')\nos._exit(4)\n")
    dead = group.makegateway()
    with pytest.raises(execnet.GatewayDied, match="no licence"):
        dead.remote_exec("pass").waitclose(TIMEOUT)


def test_a_pure_far_end_is_not_expected_to_share(group, monkeypatch):
    monkeypatch.setenv("EXECNET_C_PURE", "1")
    gateway = group.makegateway()
    assert gateway.remote_exec("channel.send(1)").receive(TIMEOUT) == 1
    assert gateway.remote_status().transport == "pipe"
    assert os.environ["EXECNET_C_PURE"] == "1"
