"""How much memory a far end makes this process hold: what it has sent, some bytes for each message, and a constant. It sends
what it likes, and reads nothing. Each test measures the peak of a program whose far end is played by a script.
"""

import pytest

from masters import run

pytestmark = pytest.mark.not_under("asan tsan", "it counts memory")

MIB = 1 << 20
MESSAGE = 160  # bytes that a message costs beside its own, at most
CHANNELS = 48 * MIB  # 65536 channels in items that nobody has taken: 500 bytes each with the twin
CONSTANT = 4 * MIB

# Frames -> bytes that may be held beside what was sent, MESSAGE for each frame and CONSTANT.
UNRECEIVED = {
    "tiny": ("frame(4, 1, b'LQ')", 0),
    "small": ("frame(4, 1, b'A' + struct.pack('!i', 100) + bytes(100) + b'Q')", 0),
    "large": ("frame(4, 1, b'A' + struct.pack('!i', 200_000) + bytes(200_000) + b'Q')", 0),
    "empty dicts": ("frame(4, 1, b'J' * 10_000 + b'@' + struct.pack('!i', 10_000) + b'Q')", 0),
    "a channel among them": ("frame(4, 1, b'B\\0\\0\\0\\1' + b'J' * 9999 + b'@' + struct.pack('!i', 10_000) + b'Q')", 0),
    "empty sets": ("frame(4, 1, b'O\\0\\0\\0\\0' * 10_000 + b'@' + struct.pack('!i', 10_000) + b'Q')", 0),
    "not well formed": ("frame(4, 1, b'Z')", 0),
    "no UTF-8": ("frame(4, 1, b'N\\0\\0\\0\\1\\xffQ')", 0),
    "a channel each": ("frame(4, 1, b'B' + struct.pack('!i', 2 * k) + b'Q')", CHANNELS),
    "a hundred channels each": (
        "frame(4, 1, b''.join(b'B' + struct.pack('!i', 2 * (k * 100 + i)) for i in range(100)) + b'@\\0\\0\\0\\x64Q')",
        CHANNELS,
    ),
    "channels without end": (
        "frame(4, 1, b''.join(b'B' + struct.pack('!i', 2 * i) for i in range(90_000)) + b'@\\0\\1\\x5f\\x90Q')",
        5 * MIB,  # each is closed: 5 bytes are noted for each id, in a buffer that grows by doubling
    ),
    "for channels that nobody has": ("frame(4, 77, b'LQ')", 0),
    "errors for channels that nobody has": ("frame(6, 77, b'N\\0\\0\\0\\1xQ')", 0),
    "such errors with long names": (
        "frame(6, 77, b'N\\0\\0\\0\\1xN\\0\\1\\0\\0' + b'x' * 65536 + b'L@\\0\\0\\0\\3Q')",
        0,
    ),
    "goodbyes to channels": ("frame(5 + k % 2 * 2, k)", 0),
    "string coercion": ("frame(1, k, b'RR@\\0\\0\\0\\2Q')", 0),
    "long messages that go no further": (  # 64, each of 1 GiB
        "frame(9, k, struct.pack('!biq', 4, 1, 1 << 30)) + frame(10, k, b'A' + struct.pack('!i', (1 << 30) - 6) + bytes(33_000))",
        16 * MIB,  # four of them may have huge pages
    ),
    "waits for credit of channels that nobody has": ("frame(14, 77)", 0),
    "credits for channels that nobody has": ("frame(13, 77, struct.pack('!QQ', 0, 1))", 0),
    "questions": ("frame(0, 3 + 2 * k)", 0),
    "tasks": ("frame(3, 3 + 2 * k, b'LQ')", 0),
}


def check(lines, more=0, message=MESSAGE):
    sent, frames, grown = map(int, lines[0].split())
    most = sent + message * frames + more + CONSTANT
    print(f"{grown / MIB:.1f} MiB for {sent / MIB:.1f} MiB in {frames} frames; {most / MIB:.1f} MiB may be")
    assert grown < most


@pytest.mark.parametrize("what", UNRECEIVED)
def test_what_nobody_receives(what):
    frames, more = UNRECEIVED[what]
    lines = run(
        """
        import bounds
        sys.stderr = None
        bounds.end(bounds.attack(sys.argv[1], 2 << 20, lambda gateway: gateway.newchannel()))
        """,
        frames,
    )
    check(lines, more)


BEHIND_A_CALLBACK = {
    **{what: UNRECEIVED[what] for what in ("tiny", "empty dicts", "not well formed", "a hundred channels each")},
    **{what: UNRECEIVED[what] for what in ("for channels that nobody has", "goodbyes to channels", "string coercion", "tasks")},
    "channels without end": UNRECEIVED["channels without end"],
    "questions with a payload": ("frame(0, 3 + 2 * k, b'R')", 0),
}


@pytest.mark.parametrize("what", BEHIND_A_CALLBACK)
def test_what_waits_behind_a_callback(what):
    frames, more = BEHIND_A_CALLBACK[what]
    lines = run(
        """
        import bounds
        go_on = threading.Event()
        def begin(gateway):
            channel, other = gateway.newchannel(), gateway.newchannel()
            other.setcallback(lambda item: go_on.wait(60))
            return channel, other
        gateway = bounds.attack(sys.argv[1], 2 << 20, begin, "put(frame(4, 3, b'LQ'))")
        os.kill(gateway._state()["pid"], 9)
        go_on.set()
        assert gateway._wait_gone(30)
        """,
        frames,
    )
    check(lines, more)


def test_hellos_behind_a_callback_are_counted_too():
    lines = run(
        """
        import bounds
        go_on = threading.Event()
        def begin(gateway):
            channel = gateway.newchannel()
            channel.setcallback(lambda item: go_on.wait(60))
            return channel
        gateway = bounds.attack("frame(8, 0, b'LQ')", 60, begin, "put(frame(4, 1, b'LQ'))")
        assert wait_until(lambda: gateway._state()["reason"] != "XC_OK", 5), "the connection lives on"
        print(gateway._state()["reason"], gateway._state()["detail"])
        os.kill(gateway._state()["pid"], 9)
        go_on.set()
        assert gateway._wait_gone(30)
        """
    )
    assert lines[1] == "XC_BAD more than 4 hellos, and nobody takes them"


def test_what_is_told_of_channels_that_the_program_drops():
    """Each is closed with a frame, and the far end reads none."""
    lines = run(
        """
        import bounds
        item = "frame(4, 1, b''.join(b'B' + struct.pack('!i', 2 * (k * 100 + i)) for i in range(100)) + b'@\\\\0\\\\0\\\\0\\\\x64Q')"
        def begin(gateway):
            channel = gateway.newchannel()
            def receive():
                item = ()
                while item is not None:
                    try:
                        item = channel.receive(60)
                    except execnet_c.LoadError:
                        pass  # too many channels
            thread = threading.Thread(target=receive)
            thread.start()
            return thread
        gateway = bounds.attack(item, 4 << 20, begin, then="put(frame(4, 1, b'LQ')); wait_end()")
        gateway._signal(signal.SIGCONT)
        gateway.kept.join()
        bounds.end(gateway)
        """,
    )
    check(lines, CHANNELS)


@pytest.mark.parametrize("frame", ["frame(4, 1, b'RQ')", "frame(14, 1)"], ids=["items", "waits"])
def test_credits_that_a_far_end_does_not_read(frame):
    """A program with a small limit has one for each item, and each is longer than the item."""
    lines = run(
        """
        import bounds
        def begin(gateway):
            channel = gateway.newchannel()
            channel.set_limit(1)
            def receive():
                while channel.receive(60) is not None:
                    pass
            thread = threading.Thread(target=receive)
            thread.start()
            return thread
        gateway = bounds.attack(sys.argv[1], 2 << 20, begin, then="put(frame(4, 1, b'LQ')); wait_end()")
        gateway._signal(signal.SIGCONT)
        gateway.kept.join()
        bounds.end(gateway)
        """,
        frame,
    )
    check(lines, message=0 if "14" in frame else MESSAGE)  # items may wait for the thread that receives them


def test_acks_of_a_target_while_the_callback_takes_its_time(tmp_path):
    """RSync keeps one for each file, not one for each that comes."""
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "answering.py").write_text(
        "channel.receive()\nwhile not channel.receive().endswith(b'.'):\n    pass\n"
        "channel.send(('list',))\n"
        "for _ in range(100_000):\n    channel.send(('ack', 0, 0, 0))\n"
        f"open({str(tmp_path / 'done')!r}, 'w').close()\n"
        "channel.send(('done', []))\n"
    )
    lines = run(
        """
        import bounds
        from types import ModuleType
        from execnet_c import rsync
        rsync.rsync_remote = ModuleType("answering")
        place = sys.argv[1]
        rsync.rsync_remote.__file__ = place + "/answering.py"
        def callback(what, size, channel):
            assert wait_until(lambda: os.path.exists(place + "/done"))
            seen = -1
            while seen != (seen := bounds.peak()):
                time.sleep(0.5)  # the other thread receives
            print(100_000 * 35, 100_000, seen - before)
        group = execnet_c.Group(["popen"])
        sending = execnet_c.RSync(place + "/file", callback, verbose=False)
        sending.add_target(group[0], place + "/there")
        before = bounds.begin_peak()
        sending.send()
        group.terminate(5)
        """,
        tmp_path,
    )
    check(lines)
