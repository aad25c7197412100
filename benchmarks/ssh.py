"""Gateways over ssh, beside ssh itself and beside execnet: `python ssh.py [--host HOST --ssh-config FILE]`.

Without a host it starts a private sshd on loopback, for which OpenSSH's server has to be installed. In each round all
take turns, and the same ssh carries them:

- throughput: 64 MiB of random bytes to the far end and back, as one item, beside `cat` over there fed with as much, and
  beside execnet;
- round trip: an int there and back, beside one byte through that `cat`, and beside execnet;
- start: from makegateway() to the first word of a task, beside `ssh HOST true`, and beside execnet.

Random bytes, because a compressing ssh (execnet's always does) would otherwise show how well zeros compress. Medians,
with the least and the most; ratios are medians of the rounds' own. Needs execnet for its lines; they are left out
without it.
"""

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import threading
import time

import execnet_c

MIB = 1024 * 1024
SIZE = 64  # MiB
TRIPS = 300
ROUNDS = 7

ECHO = "for item in channel: channel.send(item)"
FIRST_WORD = "channel.send(1)"

try:
    import execnet
except ImportError:
    execnet = None


class Library:
    """execnet or execnet_c, to that host."""

    def __init__(self, module, spec):
        self.module = module
        self.spec = spec

    def started(self, task):
        group = self.module.Group()
        return group, group.makegateway(self.spec).remote_exec(task)

    @contextlib.contextmanager
    def echo(self):
        group, channel = self.started(ECHO)
        try:
            yield channel
            channel.close()
        finally:
            group.terminate(timeout=5.0)

    def throughput(self, data):
        with self.echo() as channel:
            channel.send(0)
            assert channel.receive() == 0
            start = time.perf_counter()
            channel.send(data)
            back = channel.receive()
            spent = time.perf_counter() - start
        assert back == data
        return 2 * len(data) / spent / 1e6

    def round_trip(self):
        with self.echo() as channel:
            for number in range(20):
                channel.send(number)
                assert channel.receive() == number
            start = time.perf_counter()
            for number in range(TRIPS):
                channel.send(number)
                channel.receive()
            return (time.perf_counter() - start) / TRIPS * 1e6

    def start(self):
        start = time.perf_counter()
        group, channel = self.started(FIRST_WORD)
        assert channel.receive() == 1
        spent = time.perf_counter() - start
        group.terminate(timeout=5.0)
        return spent * 1e3


class Bare:
    """ssh itself, with `cat` at the other end."""

    def __init__(self, command):
        self.command = command

    @contextlib.contextmanager
    def cat(self):
        pipe = subprocess.PIPE
        with subprocess.Popen([*self.command, "cat"], stdin=pipe, stdout=pipe, bufsize=0) as process:
            try:
                self.trip(process, b"x")
                yield process
            finally:
                process.stdin.close()

    def trip(self, process, byte):
        os.write(process.stdin.fileno(), byte)
        assert os.read(process.stdout.fileno(), 1) == byte

    def throughput(self, data):
        with self.cat() as process:
            start = time.perf_counter()
            writer = threading.Thread(target=process.stdin.write, args=(data,))
            writer.start()
            back, taken, fd = memoryview(bytearray(len(data))), 0, process.stdout.fileno()
            while taken < len(data):
                taken += os.readv(fd, [back[taken : taken + MIB]])
            spent = time.perf_counter() - start
            writer.join()
        assert back == data
        return 2 * len(data) / spent / 1e6

    def round_trip(self):
        with self.cat() as process:
            for _ in range(20):
                self.trip(process, b"x")
            start = time.perf_counter()
            for _ in range(TRIPS):
                self.trip(process, b"x")
            return (time.perf_counter() - start) / TRIPS * 1e6

    def start(self):
        start = time.perf_counter()
        subprocess.run([*self.command, "true"], check=True, stdin=subprocess.DEVNULL)
        return (time.perf_counter() - start) * 1e3


def lines(peers, mib):
    """(title, unit, whether more is better, {peer: a function that measures once}); ours comes first."""
    data = os.urandom(mib * MIB)
    yield f"{mib} MiB there and back", "MB/s", True, {name: lambda p=p: p.throughput(data) for name, p in peers.items()}
    yield "round trip", "us", False, {name: peer.round_trip for name, peer in peers.items()}
    yield "start to the first word", "ms", False, {name: peer.start for name, peer in peers.items()}


def show(title, unit, more_is_better, values):
    ours = values["execnet_c"]
    for name, numbers in values.items():
        text = f"{title:24} {name:12} {statistics.median(numbers):9.1f} {unit:5} ({min(numbers):.1f} - {max(numbers):.1f})"
        if numbers is not ours:
            ratios = [a / b if more_is_better else b / a for a, b in zip(ours, numbers)]
            text += f"   x {statistics.median(ratios):.2f} ({min(ratios):.2f} - {max(ratios):.2f})"
        print(text)
        title = ""


def measure(host, ssh_config, python, rounds, mib):
    keys = [f"ssh={host}"] + ([f"ssh_config={ssh_config}"] if ssh_config else []) + [f"python={python}"]
    peers = {"execnet_c": Library(execnet_c, "//".join(keys))}
    peers["ssh"] = Bare(["ssh", *(["-F", ssh_config] if ssh_config else []), host])
    if execnet:
        peers["execnet"] = Library(execnet, "//".join(keys))
    print(f"{rounds} rounds, load {os.getloadavg()[0]:.1f}, near end: the {execnet_c.core} core, far end: {python}")
    for title, unit, more_is_better, works in lines(peers, mib):
        values = {name: [] for name in works}
        for work in works.values():
            work()  # the first time is another matter: files are read, memory is got
        for _ in range(rounds):
            for name, work in works.items():
                values[name].append(work())
        show(title, unit, more_is_better, values)
    print("x: how many times better execnet_c is than that one; below 1: worse.")


@contextlib.contextmanager
def own_host():
    sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "tests"))
    import sshd

    if reason := sshd.why_not():
        sys.exit(f"no host of our own: {reason}; name one with --host")
    base = os.path.realpath(sys.executable)  # not this environment's Python: the far end is one with nothing installed
    with sshd.running({"h1": sshd.Host({"python3": base})}) as server:
        yield "h1", str(server.ssh_config)


def main():
    parser = argparse.ArgumentParser(description="Measure gateways over ssh.")
    parser.add_argument("--host", help="a host that ssh reaches without a question (default: a private sshd here)")
    parser.add_argument("--ssh-config", metavar="FILE")
    parser.add_argument("--python", default="python3", help="the command over there (python3)")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--mib", type=int, default=SIZE, help=f"size of the item there and back ({SIZE} MiB)")
    options = parser.parse_args()
    given = contextlib.nullcontext((options.host, options.ssh_config))
    with given if options.host else own_host() as (host, ssh_config):
        measure(host, ssh_config, options.python, options.rounds, options.mib)


if __name__ == "__main__":
    main()
