"""How long RSync takes, beside execnet's: `python rsync.py [ROUNDS [FILES MIB]]`.

Five thousand small files, again with nothing changed, and one of 200 MiB (or as many and as large as said), each to one
far end and to three, all on this machine. The two libraries take turns, each in a process of its own; medians, and of
the rounds' ratios. Also what the processes, the sender and the largest of the far ends, held of memory at most.
"""

import importlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

MIB = 1024 * 1024
FILES, SIZE, LARGE = 5000, 2000, 200
TARGETS = (1, 3)
PEAK = "open('/proc/self/status').read().split('VmHWM:')[1].split()[0]"


def make_sources(top, files, mib):
    for i in range(files):
        directory = f"{top}/small/{i // 100}"
        os.makedirs(directory, exist_ok=True)
        with open(f"{directory}/{i}", "wb") as file:
            file.write(os.urandom(SIZE))
    os.makedirs(f"{top}/large")
    with open(f"{top}/large/file", "wb") as file:
        for _ in range(mib):
            file.write(os.urandom(MIB))


def measure(library, targets, top):
    """{what: seconds or MiB} of one library in this process."""
    execnet = importlib.import_module(library)
    gateways = [execnet.makegateway("popen") for _ in range(targets)]
    for gateway in gateways:
        gateway.remote_exec("channel.send(1)").receive()
    there = tempfile.mkdtemp(dir=top)

    def send(source):
        start = time.perf_counter()
        rsync = execnet.RSync(f"{top}/{source}", verbose=False)
        for i, gateway in enumerate(gateways):
            rsync.add_target(gateway, f"{there}/{source}{i}")
        rsync.send()
        return time.perf_counter() - start

    found = {"small files, s": send("small"), "unchanged, s": send("small"), "large file, s": send("large")}
    far = [int(gateway.remote_exec(f"channel.send({PEAK})").receive()) for gateway in gateways]
    found["memory here, MiB"] = int(eval(PEAK)) / 1024
    found["memory there, MiB"] = max(far) / 1024
    execnet.default_group.terminate(5)
    shutil.rmtree(there)
    return found


def main(rounds=5, files=FILES, mib=LARGE):
    print(f"{files} files of {SIZE} bytes, one of {mib} MiB; load {os.getloadavg()[0]:.1f}, {rounds} rounds")
    print(f"{'':32} {'execnet_c':>10} {'execnet':>10} {'x':>6}")
    with tempfile.TemporaryDirectory() as top:
        make_sources(top, files, mib)
        for targets in TARGETS:
            found = {"execnet_c": [], "execnet": []}
            for _ in range(rounds):
                for library, results in found.items():
                    command = [sys.executable, __file__, "--measure", library, str(targets), top]
                    results.append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))
            for what in found["execnet"][0]:
                ours, theirs = ([one[what] for one in results] for results in found.values())
                ratio = statistics.median(b / a for a, b in zip(ours, theirs))
                title = f"{targets} far end{'s' * (targets > 1)}: {what}"
                print(f"{title:32} {statistics.median(ours):10.3f} {statistics.median(theirs):10.3f} {ratio:6.2f}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(sys.argv[2], int(sys.argv[3]), sys.argv[4])))
    else:
        main(*map(int, sys.argv[1:]))
