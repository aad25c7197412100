"""How long a far end takes to come up, with any Python: `python far_ends.py [COMMAND LINE ...]`.

From makegateway() to the first word of a task, beside that interpreter's own `-c pass`, in turn; medians of 15 rounds,
and of the rounds' ratios. Also what core served there, and the size of the text that it was sent. Without arguments: the
interpreter that runs this, as `popen` and as `python=`.
"""

import shlex
import statistics
import subprocess
import sys
import time

import execnet_c
from execnet_c.pack import pack

ROUNDS = 15
FIRST_WORD = "import sys; channel.send(type(channel).__module__)"


def far_end(spec):
    """(seconds to the first word, the core that said it)"""
    start = time.perf_counter()
    gateway = execnet_c.makegateway(spec)
    module = gateway.remote_exec(FIRST_WORD).receive()
    took = time.perf_counter() - start
    gateway.exit()
    gateway._wait_gone(10)
    return took, "C" if module == "execnet_c._core" else "Python"


def bare(command):
    start = time.perf_counter()
    subprocess.run([*command, "-c", "pass"], check=True)
    return time.perf_counter() - start


def measure(name, spec, command):
    far_end(spec)
    rounds = [(*far_end(spec), bare(command)) for _ in range(ROUNDS)]
    first, own = (statistics.median(one[i] for one in rounds) * 1000 for i in (0, 2))
    ratio = statistics.median(took / alone for took, _, alone in rounds)
    print(f"{name:50.50} {rounds[0][1]:7} {first:7.1f} ms {own:7.1f} ms {ratio:6.2f}x")


def main():
    sizes = {kind: len(pack(kind == "with code objects")) for kind in ("with code objects", "as source")}
    print("the text:", ", ".join(f"{size} bytes {kind}" for kind, size in sizes.items()))
    print(f"near end: the {execnet_c.core} core")
    print(f"{'far end':50} {'core':7} {'first word':>10} {'-c pass':>10}")
    if not sys.argv[1:]:
        measure("popen", "popen", [sys.executable])
    for line in sys.argv[1:] or [sys.executable]:
        measure(line, f"popen//python={line}", shlex.split(line))
    execnet_c.default_group.terminate(5)


if __name__ == "__main__":
    main()
