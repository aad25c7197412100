"""How much memory a far end makes this process, and the one in between, hold by what is no frame: a stderr without lines, and
noise before the marker that does not end.
"""

import sys

import pytest

from masters import run
from test_bounds import check

pytestmark = pytest.mark.ours

MIB = 1 << 20
SAYS = "import os\nfor _ in range(1024): os.write(2, b'\\xff' * 65536)\nos.write(2, b'\\nend\\n')\nchannel.send(1)"  # 64 MiB

# How the near end has it -> MiB that it may hold at most: what it keeps, and as much again while that becomes text, twice.
KEPT = {"passed on": 2, "capture": 2, "handler": 12, "slow handler": 12}


@pytest.mark.parametrize("how", KEPT)
def test_a_stderr_without_lines(how):
    lines = run(
        f"SAYS = {SAYS!r}\n"
        """
if True:
        import bounds
        how, told, ended, go_on = sys.argv[1], [], threading.Event(), threading.Event()
        def handler(gateway, line):
            told.append(len(line))
            line == "end" and ended.set()
            if how == "slow handler":
                go_on.wait(30)
        if how == "passed on":
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        group = execnet_c.Group()
        if "handler" in how:
            group.set_stderr_handler(handler)
        gateway = group.makegateway("popen//stderr=capture" if how == "capture" else "popen//python=" + sys.executable)
        gateway.remote_exec("channel.send(1)").receive(30)
        before = bounds.begin_peak()
        assert gateway.remote_exec(SAYS).receive(30) == 1
        if how == "handler":
            assert ended.wait(30)
        print(bounds.peak() - before, max(told, default=0))
        go_on.set()
        group.terminate(10)
        """,
        how,
        stderr=None,
    )
    grown, longest = map(int, lines[0].split())
    print(f"{how}: {grown / MIB:.1f} MiB, lines of up to {longest / MIB:.1f} MiB")
    more = 3 if "t" in sys.abiflags else 1  # without a GIL an allocator keeps what each thread has freed
    assert grown < KEPT[how] * more * MIB and longest <= 2 * MIB


def test_a_stderr_without_lines_of_one_behind_another_gateway():
    lines = run(
        f"SAYS = {SAYS!r}\n"
        """
if True:
        import bounds
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        group = execnet_c.Group(["popen//id=between", "popen//via=between//id=inner"])
        peak = '''
            while True:
                if channel.receive():
                    open("/proc/self/clear_refs", "w").write("5")
                with open("/proc/self/status") as file:
                    channel.send(int(file.read().split("VmHWM:")[1].split()[0]) * 1024)
        '''
        between = group["between"].remote_exec(peak)
        def look(begins):
            between.send(begins)
            return between.receive(30)
        group["inner"].remote_exec("channel.send(1)").receive(30)
        before, before_there = bounds.begin_peak(), look(True)
        assert group["inner"].remote_exec(SAYS).receive(30) == 1
        print(bounds.peak() - before, look(False) - before_there)
        group.terminate(10)
        """,
        stderr=None,
    )
    here, there = map(int, lines[0].split())
    print(f"{here / MIB:.1f} MiB here, {there / MIB:.1f} MiB in between")
    assert here < 2 * MIB and there < 2 * MIB


def test_noise_before_the_marker_that_does_not_end():
    lines = run(
        """
        import bounds
        gateway = pairing.module.Gateway()
        before = bounds.begin_peak()
        gateway._start([sys.executable, "-I", "-S", "-c", "import os\\nfor _ in range(1024): os.write(1, b'x' * 65536)"], None)
        gateway.join(30)
        state = gateway._state()
        print(bounds.peak() - before, len(state["preamble"]), state["reason"])
        assert gateway._wait_gone(30)
        """,
        stderr=None,
    )
    grown, kept, reason = lines[0].split()
    print(f"{int(grown) / MIB:.1f} MiB")
    assert int(grown) < 4 * MIB and int(kept) <= 65536 and reason == "XC_BAD"


@pytest.mark.parametrize("size", [0, 1, 40_000], ids=["empty", "tiny", "large"])
def test_pieces_for_a_process_that_does_not_read_beyond_the_credit_for_them(size):
    """By a near end that does not wait: the one in between holds what was sent, as for items that nobody takes."""
    lines = run(
        """
        import struct
        from execnet_c.near import via
        outer = execnet_c.Group(["popen//id=outer"])[0]
        peak = '''
            while True:
                if channel.receive():
                    open("/proc/self/clear_refs", "w").write("5")
                with open("/proc/self/status") as file:
                    channel.send(int(file.read().split("VmHWM:")[1].split()[0]) * 1024)
        '''
        between = outer.remote_exec(peak)
        def look(begins):
            between.send(begins)
            return between.receive(60)
        control, started = outer.newchannel(), outer.newchannel()
        stream = execnet_c.Channel(outer, 9001)  # one for which this end does not know all that was sent
        argv = [sys.executable, "-c", "import time; time.sleep(1000)"]
        task = {"stream": stream, "control": control, "argv": argv, "set_python": ""}
        outer._send(3, started.id, (via._TASK, "<a test>", "start", task))
        assert started.receive(60)["pid"] > 0
        def piece(size):
            return struct.pack("!biici", 4, stream.id, size + 6, b"A", size) + bytes(size) + b"Q"
        outer._write(piece(70_000) * 30)  # its pipe is full now, of which the kernel has 1 MiB at most
        before, size = look(True), int(sys.argv[1])
        count = (2 << 20) // (size + 15)
        for _ in range(count // 50):
            outer._write(piece(size) * 50)
        print((2 << 20), count, look(False) - before)
        control.send(9)
        assert control.receive(60)[0] == -9
        outer._group.terminate(10)
        """,
        size,
    )
    check(lines)
