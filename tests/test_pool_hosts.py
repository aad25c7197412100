"""pipe() over all kinds of gateways at once: bare Pythons, gateways through gateways, ssh, sockets; and when hosts die."""

import contextlib
import itertools
import math
import os
import signal

import pairing
import pytest

if pairing.name in ("C-Python", "Python-C"):
    pytest.skip("hosts over ssh have a core of their own: C-C and Python-Python do", allow_module_level=True)

import execnet_c
from execnet_c import pipe
from gateways import group_fixture, inner_fixture, outer_fixture, pid_of  # noqa: F401  (fixtures)
from ssh_hosts import server_fixture  # noqa: F401  (a fixture)
from test_pool_functions import old

pytestmark = [pytest.mark.ours, pytest.mark.timeout(240)]


def double(n):
    import time

    time.sleep(0.001)
    return 2 * n


def deaf(n):
    import time

    while n == 5:
        try:
            time.sleep(600)
        except KeyboardInterrupt:
            pass
    return n


def kinds(group, server):
    """A gateway of each kind."""
    group.makegateway("popen//id=outer//chdir=/tmp")
    specs = ["popen//via=outer//id=inner", old() + "//id=old", server.spec("h1", "id=ssh"), "socket//installvia=outer//id=socket"]
    return [group.makegateway(spec) for spec in specs]


def test_all_kinds_of_gateways_take_part(server, group):
    kinds(group, server)
    results = group.pipe(double, itertools.count(), batch_size=10)
    for n, result in enumerate(results):
        assert result == 2 * n
        if n % 100 == 0 and len([worker for worker in results.stats() if worker["items"]]) == 5:
            break
    results.close()


@pytest.mark.parametrize("kind", ["inner", "old", "ssh"])
def test_a_far_end_that_dies_is_started_anew(server, group, kind):
    kinds(group, server)
    for gateway in list(group):
        if gateway.id not in (kind, "outer" if kind == "inner" else kind):
            gateway.exit()
    before = pid_of(group[kind])
    results = group.pipe(double, range(1500), batch_size=10)
    got = [next(results) for _ in range(100)]
    os.kill(before, signal.SIGKILL)
    assert got + list(results) == [2 * n for n in range(1500)]
    assert pid_of(group[kind]) != before


def test_the_death_of_the_gateway_in_between_is_survived(group, outer, inner):
    results = group.pipe(double, range(1500), batch_size=10)
    got = [next(results) for _ in range(100)]
    os.kill(pid_of(outer), signal.SIGKILL)
    assert got + list(results) == [2 * n for n in range(1500)]
    assert sorted(gateway.id for gateway in group) == ["inner", "outer"]


def test_specs_of_hosts(server):
    specs = [server.spec("h1"), old(), "popen"]
    assert list(pipe(double, range(1000), specs=specs)) == [2 * n for n in range(1000)]


def use(_):
    import os
    import time

    time.sleep(0.05)
    return os.getpid(), sorted(os.sched_getaffinity(0)), os.environ.get("OMP_NUM_THREADS")


def uses(number, **options):
    """What so many workers may use: (their CPUs, their threads)."""
    found = {}
    with pipe(use, itertools.count(), batch_size=1, ordered=False, **options) as results:
        for pid, *what in results:
            found[pid] = what
            if len(found) == number:
                return sorted(found.values())


def test_workers_are_counted_for_each_host(server, monkeypatch):
    """Two here, of which one is another Python, three at the host, which is named in two ways."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    usable = sorted(os.sched_getaffinity(0))
    specs = [server.spec("h1"), "popen", server.spec("h1", "nice=1"), old(), server.spec("-C h1")]
    turns = sorted([usable[place % len(usable)]] for place in (0, 1, 2, 0, 1))
    assert uses(5, specs=specs, worker_options={"affinity": "spread"}) == [[cpus, "1"] for cpus in turns]
    shares = sorted(str(max(1, len(usable) // workers)) for workers in (3, 3, 3, 2, 2))
    assert uses(5, specs=specs) == [[usable, share] for share in shares]


def test_a_host_whose_options_cannot_be_had_is_named(server):
    with pytest.raises(OSError, match=r"worker_options: .*\(gateway 'there'\): affinity=\[1000\]: CPU 1000 cannot be used"):
        list(pipe(double, [1], specs=[server.spec("h1", "id=there")], worker_options={"affinity": [1000]}))


@pytest.mark.parametrize("kind", ["inner", "old", "ssh"])
def test_an_item_that_takes_too_long_ends_any_far_end(server, group, kind):
    kinds(group, server)
    results = list(group[kind].pipe(deaf, range(10), timeout=0.5, return_exceptions=True))
    assert isinstance(results[5], TimeoutError)
    assert [*results[:5], *results[6:]] == [0, 1, 2, 3, 4, 6, 7, 8, 9]


@pytest.mark.parametrize("kind", ["inner", "old", "ssh", "socket"])
def test_a_far_end_that_is_stopped_holds_nobody_up(server, group, kind):
    kinds(group, server)
    stopped = pid_of(group[kind])
    results = group.pipe(len, itertools.repeat(b"x" * 3_000_000), batch_size=1, ordered=False)
    try:
        next(results)
        while min(worker["items"] for worker in results.stats()) == 0:  # one that is not ready yet is not the stream's to end
            next(results)
        os.kill(stopped, signal.SIGSTOP)
        assert [next(results) for _ in range(60)] == [3_000_000] * 60
        results.close()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(stopped, signal.SIGKILL)
    assert pid_of(group[kind]) != stopped


def test_a_missing_module_names_the_host(server):
    def lacking(n):
        import no_such_module

        return no_such_module.f(n)

    with pytest.raises(ModuleNotFoundError, match="no_such_module") as caught:
        list(pipe(lacking, [1], specs=[server.spec("h1", "id=there")]))
    assert "gateway 'there'" in str(caught.value.__cause__)


def test_values_of_all_kinds_come_back(server):
    items = [None, 1.5, "\N{SNOWMAN}", b"x" * 1_000_000, {"a": [1, (2,)]}, 1 << 100, math.inf, {1, 2}, range(3), Ellipsis]
    for spec in ("popen", old(), server.spec("h1")):
        assert list(pipe(repr, items, specs=[spec])) == [repr(item) for item in items]


def test_a_host_that_is_not_there_is_an_error(server):
    with pytest.raises(execnet_c.HostNotFound):
        list(pipe(double, [1], specs=["popen", "ssh=no-such-host.invalid"]))
