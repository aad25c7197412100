"""Large bytes objects, each way, on this machine and over ssh; and how much memory they need at both ends.

The bytes are random: ssh may compress (execnet always tells it to), and zeros would compress too well. The end that
receives an item checks its length within the measured time, and its CRC afterwards.
"""

import mmap
import os
import statistics
import subprocess
import zlib

import limits
import peers
import tasks
from base import MIB, Clock, Line, Work, forget_peak, memory, only, talking


def hold_memory(size):
    """Fill so many bytes of memory, then free them. The host of a virtual machine may have taken back the memory that is
    free here. The first process that fills a GiB then waits for it, up to 8 s, which must not count for a peer."""
    with mmap.mmap(-1, size) as filled:
        for at in range(0, size, MIB):
            filled[at : at + MIB] = bytes(MIB)


def to_there(peer, data, crc):
    """Send `data` to the far end: (MB/s, MiB by which memory grew at the near end, and at the far end)."""
    peer.send(("take", len(data) // MIB))
    assert peer.receive() == "ready"
    forget_peak()
    before = memory("VmRSS")
    with Clock() as clock:
        peer.send_bytes(data)
        assert peer.receive() == len(data)
    grown = memory("VmHWM") - before
    found, there = peer.receive()
    assert found == crc
    return len(data) / clock.seconds / 1e6, grown, there


def from_there(peer, mib):
    """Receive so many MiB from the far end; returns the same."""
    peer.send(("give", mib))
    crc = peer.receive()
    forget_peak()
    before = memory("VmRSS")
    with Clock() as clock:
        peer.send("go")
        data = peer.receive_bytes()
    grown = memory("VmHWM") - before
    assert len(data) == mib * MIB and zlib.crc32(data) == crc
    peer.send("thanks")
    return mib * MIB / clock.seconds / 1e6, grown, peer.receive()


def moving(suffix, sizes, times):
    """The function that measures both ways; the names of its lines end in `suffix`."""

    def measure(peer, setting):
        mib = setting.pick(*sizes)
        data = os.urandom(MIB) * mib
        crc = zlib.crc32(data)
        hold_memory(len(data))
        found = {}
        with talking(peer, tasks.bulk):
            to_there(peer, data[:MIB], zlib.crc32(data[:MIB]))
            rates = [to_there(peer, data, crc) for _ in range(setting.pick(times, 1, 1))]
            del data
            found["to"], found["to_here"], found["to_there"] = map(statistics.median, zip(*rates))
            rates = [from_there(peer, mib) for _ in range(setting.pick(times, 1, 1))]
            found["from"], found["from_here"], found["from_there"] = map(statistics.median, zip(*rates))
        return {f"{name}_{suffix}": value for name, value in found.items() if f"{name}_{suffix}" in LINES[suffix]}

    return measure


def in_c(suffix, sizes, way):
    """The function that measures with the C program, whose rate is the same each way."""

    def measure(setting):
        rate = limits.run(setting, "bandwidth", way, setting.pick(*sizes))
        return {f"to_{suffix}": rate, f"from_{suffix}": rate}

    return measure


# A program that reads all of its stdin into memory, as a process that receives an item does, and then ends.
KEEP = "import sys; sys.stdout.write('x'); sys.stdout.flush(); data = sys.stdin.buffer.read()"


def by_ssh(suffix, sizes, kept=False):
    """The function that measures ssh alone. At the far end `cat` takes the bytes, and `head` gives zeros: this ssh does not
    compress, so that zeros are as good as other bytes.

    kept: the process that receives the bytes keeps all of them, in new memory.
    """
    pipe = subprocess.PIPE

    def measure(setting):
        size = setting.pick(*sizes) * MIB
        data = os.urandom(MIB)
        hold_memory(2 * size)
        taking = f'exec {setting.python} -c "{KEEP}"' if kept else "printf x; cat >/dev/null"
        with subprocess.Popen(setting.ssh(taking), stdin=pipe, stdout=pipe, bufsize=0) as process:
            assert process.stdout.read(1) == b"x"
            with Clock() as to:
                for _ in range(size // MIB):
                    process.stdin.write(data)
                process.stdin.close()
                assert process.wait() == 0
        command = setting.ssh(f"echo x; read go; head -c {size} /dev/zero")
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, bufsize=0) as process:
            assert process.stdout.read(2) == b"x\n"
            step = size if kept else MIB
            block, taken = memoryview(mmap.mmap(-1, step)), 0
            with Clock() as back:
                process.stdin.write(b"go\n")
                while piece := process.stdout.readinto(block[taken % step :]):
                    taken += piece
            assert taken == size
        return {f"to_{suffix}": size / to.seconds / 1e6, f"from_{suffix}": size / back.seconds / 1e6}

    return measure


def lines(suffix, title, with_memory):
    found = {
        f"to_{suffix}": Line(f"{title}, to the far end", "MB/s", more_is_better=True),
        f"from_{suffix}": Line(f"{title}, from the far end", "MB/s", more_is_better=True),
    }
    if with_memory:
        found[f"to_here_{suffix}"] = Line("  to it: memory grows here by", "MiB")
        found[f"to_there_{suffix}"] = Line("  to it: memory grows there by", "MiB")
        found[f"from_here_{suffix}"] = Line("  from it: memory grows here by", "MiB")
        found[f"from_there_{suffix}"] = Line("  from it: memory grows there by", "MiB")
    return found


LINES = {
    "64": lines("64", "64 MiB", with_memory=False),
    "1024": lines("1024", "1 GiB", with_memory=True),
    "ssh64": lines("ssh64", "64 MiB over ssh", with_memory=False),
    "ssh1024": lines("ssh1024", "1 GiB over ssh", with_memory=True),
}
SIZES = {"64": (64, 64, 1), "1024": (1024, 128, 2), "ssh64": (64, 16, 1), "ssh1024": (1024, 64, 2)}

NO_MITOGEN = {"mitogen": "a message of 1 GiB is beyond its max_message_size"}
NO_EXECNET = {"execnet": "its ssh compresses: a round takes minutes"}


def in_c_both(suffix):
    return {
        "C, pipes": in_c(suffix, SIZES[suffix], "pipe"),
        "C, shared memory": in_c(suffix, SIZES[suffix], "memory"),
    }


WORKS = {
    "bulk": Work(
        "64 MiB of bytes",
        moving("64", SIZES["64"], 3),
        peers.CONVERSATIONS,
        LINES["64"],
        floors=in_c_both("64"),
        rounds=(5, 1),
    ),
    "bulk-large": Work(
        "1 GiB of bytes",
        moving("1024", SIZES["1024"], 1),
        {name: peer for name, peer in peers.CONVERSATIONS.items() if name not in NO_MITOGEN},
        LINES["1024"],
        floors=in_c_both("1024"),
        left_out=NO_MITOGEN,
        rounds=(2, 0),
    ),
    "bulk-ssh": Work(
        "64 MiB of bytes over ssh",
        moving("ssh64", SIZES["ssh64"], 1),
        peers.SSH_GATEWAYS,
        LINES["ssh64"],
        floors={
            "ssh": by_ssh("ssh64", SIZES["ssh64"]),
            "ssh, kept in memory": by_ssh("ssh64", SIZES["ssh64"], kept=True),
        },
        rounds=(5, 1),
        needs_host=True,
    ),
    "bulk-large-ssh": Work(
        "1 GiB of bytes over ssh",
        moving("ssh1024", SIZES["ssh1024"], 1),
        only(peers.SSH_GATEWAYS, peers.OURS),
        LINES["ssh1024"],
        floors={
            "ssh": by_ssh("ssh1024", SIZES["ssh1024"]),
            "ssh, kept in memory": by_ssh("ssh1024", SIZES["ssh1024"], kept=True),
        },
        left_out=NO_EXECNET,
        rounds=(2, 0),
        needs_host=True,
    ),
}
