"""Programs that use gateways: RSync to far ends, and test runs of pytest-xdist."""

import os
import subprocess
import sys
import tempfile

import peers
from base import MIB, Clock, Line, Missing, Work, memory

PEAK = "channel.send(int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0]) / 1024)"

# Other plugins that are installed are not loaded: the import of some takes longer than all else at the start.
PYTEST = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
ALONE = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
TESTS_IN_A_FILE = 100


def make_sources(top, files, mib):
    for i in range(files):
        directory = f"{top}/small/{i // 100}"
        os.makedirs(directory, exist_ok=True)
        with open(f"{directory}/{i}", "wb") as file:
            file.write(os.urandom(2000))
    os.makedirs(f"{top}/large")
    with open(f"{top}/large/file", "wb") as file:
        file.write(os.urandom(MIB) * mib)


def tree(directory):
    """{path: content} of all files in the directory and below it."""
    found = {}
    for base, _, names in os.walk(directory):
        for name in names:
            with open(os.path.join(base, name), "rb") as file:
                found[os.path.relpath(os.path.join(base, name), directory)] = file.read()
    return found


def rsync(peer, setting):
    files, mib, targets = setting.pick((2000, 100, 3), (500, 20, 3), (20, 1, 2))
    found = {}
    with tempfile.TemporaryDirectory() as top:
        make_sources(top, files, mib)
        gateways = [peer.group.makegateway("popen") for _ in range(targets)]
        for gateway in gateways:
            assert gateway.remote_exec("channel.send(1)").receive() == 1

        def send(source):
            with Clock() as clock:
                rsync = peer.module.RSync(f"{top}/{source}", verbose=False)
                for i, gateway in enumerate(gateways):
                    rsync.add_target(gateway, f"{top}/there/{source}{i}")
                rsync.send()
            return clock.seconds * 1e3

        os.mkdir(f"{top}/there")
        for line, source in (("rsync_small", "small"), ("rsync_same", "small"), ("rsync_large", "large")):
            found[line] = send(source)
        found["rsync_here"] = memory("VmHWM")
        found["rsync_there"] = max(gateway.remote_exec(PEAK).receive() for gateway in gateways)
        for source in ("small", "large"):
            known = tree(f"{top}/{source}")
            assert all(tree(f"{top}/there/{source}{i}") == known for i in range(targets))
        peer.stop()
    return found


def make_suite(directory, tests):
    for number in range(0, tests, TESTS_IN_A_FILE):
        with open(f"{directory}/test_{number}.py", "w") as file:
            for test in range(min(TESTS_IN_A_FILE, tests - number)):
                file.write(f"def test_{test}(): pass\n")


def run_of(tests, *arguments):
    """Seconds that pytest takes for so many tests that do nothing."""
    with tempfile.TemporaryDirectory() as directory:
        make_suite(directory, tests)
        env = {**os.environ, **ALONE}
        with Clock() as clock:
            done = subprocess.run([*PYTEST, *arguments], cwd=directory, env=env, stdout=subprocess.PIPE, text=True)
        if done.returncode or f"{tests} passed" not in done.stdout:
            raise RuntimeError(f"pytest: exit status {done.returncode}\n{done.stdout}")
    return clock.seconds


def with_workers(peer, setting):
    try:
        import xdist  # noqa: F401
    except ImportError as error:
        raise Missing("pytest-xdist is not installed") from error
    plugin = [*["-p", "execnet_c.pytest_plugin"] * (peer.library == peers.OURS), "-p", "xdist.plugin"]
    tests, workers = setting.pick((2000, "8"), (200, "2"), (10, "1"))
    return {
        "xdist_many": run_of(tests, "-n", "2", *plugin),
        "xdist_start": run_of(1, "-n", workers, *plugin),
    }


def without_workers(setting):
    tests = setting.pick(2000, 200, 10)
    return {"xdist_many": run_of(tests), "xdist_start": run_of(1)}


WORKS = {
    "rsync": Work(
        "RSync to three far ends",
        rsync,
        peers.GATEWAYS,
        {
            "rsync_small": Line("2,000 small files", "ms"),
            "rsync_same": Line("again, nothing changed", "ms"),
            "rsync_large": Line("one file of 100 MiB", "ms"),
            "rsync_here": Line("  memory here, at most", "MiB"),
            "rsync_there": Line("  memory of a far end, at most", "MiB"),
        },
        rounds=(2, 0),
    ),
    "xdist": Work(
        "pytest-xdist",
        with_workers,
        peers.GATEWAYS,
        {
            "xdist_many": Line("2,000 tests that do nothing, -n 2", "s"),
            "xdist_start": Line("1 test, -n 8", "s"),
        },
        floors={"pytest without workers": without_workers},
        rounds=(2, 0),
    ),
}
