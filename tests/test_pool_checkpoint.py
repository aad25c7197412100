"""pipe(checkpoint=...): however often a program is killed, each run of it yields the whole stream, and what was noted is not computed
again."""

import itertools
import os
import pickle
import random
import signal
import struct
import subprocess
import sys
import time

import pytest

import execnet_c
import pooled
from execnet_c import pipe
from gateways import group_fixture  # noqa: F401  (a fixture)
from masters import wait_until

pytestmark = pytest.mark.ours

HERE = os.path.dirname(os.path.abspath(__file__))

PROGRAM = """
import itertools, sys
import execnet_c
import pooled
from execnet_c import pipe

checkpoint, output, ordered = sys.argv[1:]
with open(output, "ab+") as file:
    file.seek(0)
    lines = file.read()
    file.truncate(lines.rfind(b"\\n") + 1)
    results = pipe(pooled.logged, range(1500), max_workers=2, ordered=ordered == "True", batch_size=7, checkpoint=checkpoint)
    for result in itertools.islice(results, lines.count(b"\\n"), None):
        file.write(b"%d\\n" % result)
        file.flush()
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "checkpoint"


def noted(path):
    """The indexes that are noted in the file, in order. What is torn is left out."""
    data = path.read_bytes() if path.exists() else b""
    at = data.find(b"\n") + 1
    found = []
    while at + 12 <= len(data):
        length, _ = struct.unpack_from(">QI", data, at)
        if at + 12 + length > len(data):
            break
        found.append(pickle.loads(data[at + 12 : at + 12 + length]))
        at += 12 + length
    return [index for start, results in found[1:] for index in range(start, start + len(results))]


# ---- killed


@pytest.mark.parametrize("ordered", [True, pytest.param(False, marks=pytest.mark.deep)])
def test_a_program_that_is_killed_at_any_time_loses_nothing_and_has_nothing_twice(tmp_path, path, ordered):
    output, log = tmp_path / "output", tmp_path / "log"
    chance = random.Random(ordered)
    kills = 0
    for run in itertools.count():
        before = set(noted(path))
        environ = {**os.environ, "PYTHONPATH": HERE, "EXECNET_TEST_LOG": str(log), "EXECNET_TEST_RUN": str(run)}
        command = [sys.executable, "-c", PROGRAM, str(path), str(output), str(ordered)]
        with subprocess.Popen(command, env=environ) as process:
            have = len(before)
            if run < 25:
                wait_until(lambda have=have, process=process: len(noted(path)) > have or process.poll() is not None)
                time.sleep(chance.random() * 0.1)
                process.send_signal(signal.SIGKILL)
                kills += 1
            status = process.wait(60)
        computed = [int(line.split()[1]) for line in log.read_text().splitlines() if int(line.split()[0]) == run]
        assert not before & set(computed)
        assert len(computed) == len(set(computed))
        if status == 0:
            break
    assert kills > 5
    results = [int(line) for line in output.read_text().splitlines()]
    assert (results if ordered else sorted(results)) == [n * n for n in range(1500)]
    assert sorted(noted(path)) == list(range(1500))


@pytest.mark.parametrize("ordered", [True, False])
def test_a_torn_end_is_cut_wherever_it_is(group, path, ordered):
    group.makegateway()
    expected = [n * n for n in range(12)]
    options = {"batch_size": 3, "ordered": ordered, "checkpoint": path}
    assert list(group.pipe(pooled.square, range(12), **options)) == expected
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert list(group.pipe(pooled.square, range(12), **options)) == expected
        assert path.read_bytes() == whole or not ordered
        assert sorted(noted(path)) == list(range(12))


def test_what_is_behind_a_wrong_byte_is_computed_again(group, path):
    group.makegateway()
    expected = [n * n for n in range(12)]
    assert list(group.pipe(pooled.square, range(12), batch_size=3, checkpoint=path)) == expected
    whole = path.read_bytes()
    for place in range(len(b"execnet_c checkpoint 1\n"), len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x41]) + whole[place + 1 :])
        assert list(group.pipe(pooled.square, range(12), batch_size=3, checkpoint=path)) == expected
        assert path.read_bytes() == whole


# ---- what comes again


def test_what_is_noted_is_not_computed_again(group, path):
    group.makegateway()
    with group.pipe(pooled.pid, range(100), checkpoint=path, batch_size=10) as results:
        first = list(itertools.islice(results, 35))
    assert noted(path) == list(range(41))  # the first item is a batch of its own
    group.terminate(5)
    again = list(pipe(pooled.pid, range(100), checkpoint=path, max_workers=1))
    assert again[:35] == first
    assert len(again) == 100 and len(set(again[:41])) == 1 and not set(again[:41]) & set(again[41:])
    assert list(pipe(pooled.pid, range(100), checkpoint=path, max_workers=1)) == again


def test_out_of_order_it_comes_again_as_it_came(group, path):
    group.makegateway()
    group.makegateway()
    seconds = [0.4, *[0.001] * 19]
    options = {"checkpoint": path, "batch_size": 1, "ordered": False, "as_tuples": True}
    with group.pipe(pooled.sleep, zip(seconds, itertools.count()), **options) as results:
        first = list(itertools.islice(results, 10))
    assert noted(path) == [context for _, context in first] and 0 not in noted(path)
    again = list(group.pipe(pooled.sleep, zip(seconds, itertools.count()), **options))
    assert again[:10] == first
    assert sorted(context for _, context in again) == list(range(20))
    assert all(result == seconds[context] for result, context in again)


def test_contexts_come_from_the_source(group, path):
    group.makegateway()
    for _ in range(2):
        pairs = [(n, object()) for n in range(30)]
        results = list(group.pipe(pooled.square, pairs, as_tuples=True, batch_size=4, checkpoint=path))
        assert results == [(n * n, context) for n, context in pairs]


def test_exceptions_that_are_results_are_noted_with_what_they_say(group, path):
    group.makegateway()
    runs = [
        list(group.pipe(pooled.divide, [1, 0, 5], return_exceptions=True, checkpoint=path, batch_size=size)) for size in (2, 1)
    ]
    assert noted(path) == [0, 1, 2]
    for results in runs:
        assert results[0] == 100 and results[2] == 20
        assert type(results[1]) is ZeroDivisionError
        assert "item 1, 0" in str(results[1].__cause__)


def test_an_exception_that_is_raised_is_tried_again(group, path, tmp_path):
    group.makegateway()
    flag = tmp_path / "flag"
    items = [str(flag) if n == 3 else n for n in range(6)]
    results = []
    with pytest.raises(FileNotFoundError):
        for result in group.pipe(pooled.size_of, items, checkpoint=path, batch_size=2):
            results.append(result)
    assert results == [0, 1, 2] and noted(path) == [0, 1, 2]
    flag.write_text("four")
    assert list(group.pipe(pooled.size_of, items, checkpoint=path, batch_size=2)) == [0, 1, 2, 4, 4, 5]


def test_a_death_that_is_a_result_is_noted(path):
    for _ in range(2):
        results = list(pipe(pooled.die, [12, 13, 14], max_workers=1, return_exceptions=True, checkpoint=path, batch_size=1))
        assert results[::2] == [12, 14] and "item 1, 13" in str(results[1])


def test_the_indexes_of_errors_go_on(group, path):
    group.makegateway()
    with group.pipe(pooled.divide, [1] * 10 + [0], checkpoint=path, batch_size=1) as results:
        list(itertools.islice(results, 5))
    with pytest.raises(ZeroDivisionError) as caught:
        list(group.pipe(pooled.divide, [1] * 10 + [0], checkpoint=path, batch_size=1))
    assert "item 10, 0" in str(caught.value.__cause__)


def test_an_endless_source_is_drawn_no_further_than_needed(group, path):
    group.makegateway()
    for _ in range(3):
        source = pooled.Watched()
        with group.pipe(pooled.square, source, checkpoint=path, buffersize=4) as results:
            for n in range(50):
                assert next(results) == n * n
                assert source.drawn - n <= 4 + 4
    source = pooled.Watched()
    with group.pipe(pooled.square, source, checkpoint=path) as results:
        assert source.drawn == 0 and next(results) == 0
        assert source.drawn <= 20


def test_an_empty_source_notes_nothing(group, path):
    group.makegateway()
    for _ in range(2):
        assert list(group.pipe(pooled.square, [], checkpoint=path)) == []


def test_a_stage_may_have_one(group, path):
    group.makegateway()
    for _ in range(2):
        first = group.pipe(pooled.square, range(20), checkpoint=path)
        assert list(group.pipe(pooled.square, first, checkpoint=f"{path}2")) == [n**4 for n in range(20)]
    first = group.pipe(pooled.square, itertools.count(), checkpoint=path)
    with group.pipe(pooled.square, first, checkpoint=f"{path}2") as results:  # ended while it repeats what was noted
        assert next(results) == 0
    assert first._stream.crew is None or not first._stream.crew.workers or wait_until(lambda: first._stream.crew.owner is None)


def test_the_bar_counts_what_was_noted(group, path, capsys, monkeypatch):
    monkeypatch.setattr(pytest.importorskip("tqdm").tqdm, "monitor_interval", 0)  # else a thread of tqdm's stays
    group.makegateway()
    for _ in range(2):
        list(group.pipe(pooled.square, range(30), checkpoint=path, progress=True))
        assert "30/30" in capsys.readouterr().err


def test_items_that_are_equal_need_not_be_pickled_alike(path):
    code = """
import sys, pooled
from execnet_c import pipe
items = [{"a", "b", "c", "d", "e", "f", "g"}, {"h"}]
print([sorted(each) for each in pipe(pooled.same, items, max_workers=1, checkpoint=sys.argv[1])])
"""
    for seed in "123":
        environ = {**os.environ, "PYTHONPATH": HERE, "PYTHONHASHSEED": seed}
        said = subprocess.run([sys.executable, "-c", code, str(path)], env=environ, capture_output=True, text=True, timeout=60)
        assert (said.stdout, said.stderr) == ("[['a', 'b', 'c', 'd', 'e', 'f', 'g'], ['h']]\n", "")


# ---- another one's


@pytest.mark.parametrize(
    "func, source, options, text",
    [
        (pooled.same, range(5), {}, "of the function square, not of same"),
        (pooled.square, range(1, 5), {}, "whose first item was another than 1"),
        (pooled.square, [], {}, "whose source was not empty"),
        (pooled.square, range(5), {"ordered": False}, "with ordered=True"),
        (pooled.square, range(3), {}, "results of 5 items, and the source ends before"),
    ],
    ids=["function", "item", "empty", "order", "shorter"],
)
def test_a_checkpoint_of_another_stream_is_refused(group, path, func, source, options, text):
    group.makegateway()
    list(group.pipe(pooled.square, range(5), batch_size=5, checkpoint=path))
    before = path.read_bytes()
    with pytest.raises(ValueError, match=text):
        list(group.pipe(func, source, checkpoint=path, **options))
    assert path.read_bytes() == before


def test_a_file_that_is_no_checkpoint_is_left_alone(group, path):
    group.makegateway()
    path.write_text("my thesis")
    with pytest.raises(ValueError, match="is no checkpoint, and is left as it is"):
        list(group.pipe(pooled.square, range(5), checkpoint=path))
    assert path.read_text() == "my thesis"


def test_a_checkpoint_serves_one_stream_at_a_time(group, path):
    group.makegateway()
    with group.pipe(pooled.square, range(500), checkpoint=path) as results:
        next(results)
        with pytest.raises(BlockingIOError, match="in use by a stream that runs"):
            next(group.pipe(pooled.square, range(500), checkpoint=path))
        pid = os.fork()
        if pid == 0:
            time.sleep(30)
            os._exit(0)
    try:
        assert list(group.pipe(pooled.square, range(500), checkpoint=path)) == [n * n for n in range(500)]
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@pytest.mark.parametrize("value", [5, True, ["file"]])
def test_what_is_no_path_is_refused_at_once(value):
    with pytest.raises(TypeError):
        pipe(pooled.square, [1], checkpoint=value)


def test_a_directory_that_is_not_there_is_said(path):
    with pytest.raises(FileNotFoundError):
        list(pipe(pooled.square, [1], max_workers=1, checkpoint=path / "no" / "such"))


def test_a_result_that_cannot_be_noted_says_so(group, path):
    group.makegateway()
    with pytest.raises(TypeError, match="results of items 1 to 1 cannot be noted in a checkpoint"):
        for result in group.pipe(pooled.once_only, [0, 1], batch_size=1, checkpoint=path):
            assert result == 0
    assert noted(path) == [0]


def test_a_file_that_cannot_grow_is_said_and_goes_on_when_it_can(path):
    code = """
import resource, sys, pooled
from execnet_c import pipe
if sys.argv[2] != "any":
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
print(sum(pipe(pooled.square, range(50), max_workers=1, batch_size=5, checkpoint=sys.argv[1])))
"""
    environ = {**os.environ, "PYTHONPATH": HERE}
    for limit in ("10", "150", "200", "any"):
        command = [sys.executable, "-c", code, str(path), limit]
        said = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)
        assert "File too large" in said.stderr if limit != "any" else said.stdout == f"{sum(n * n for n in range(50))}\n"


@pytest.mark.parametrize("is_async", [True, False])
def test_an_event_loop_goes_on_behind_it(group, path, is_async):
    import asyncio

    group.makegateway()

    async def source():
        for n in range(40):
            await asyncio.sleep(0)
            yield n

    async def drawn(number):
        stream = source() if is_async else iter(range(40))
        async with execnet_c.apipe(pooled.pid, stream, group=group, checkpoint=path, batch_size=4) as results:
            return [result async for _, result in aenumerate(results, number)]

    async def aenumerate(results, number):
        n = 0
        async for result in results:
            yield n, result
            n += 1
            if n == number:
                return

    first = asyncio.run(drawn(10))
    before = noted(path)
    group.terminate(5)
    group.makegateway()
    again = asyncio.run(drawn(100))
    assert len(first) == 10 and again[:10] == first and len(again) == 40
    assert len(set(again)) == 2 and len(set(again[: len(before)])) == 1
