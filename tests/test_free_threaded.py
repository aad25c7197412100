"""Threads that run side by side: objects that change while they are sent, channels that come and go, one tagger for all.

With a GIL these say that nothing is lost when threads take turns. They are made for a Python without one, and for its
thread sanitizer (`make test-tsan-python`). A free-threaded Python is PYTHON of the Makefile; here one is looked for as
EXECNET_C_FREE_THREADED, or among the commands, to see that it may do without a GIL.
"""

import gc
import os
import pathlib
import shutil
import subprocess
import sys
import threading
import time

import pytest
from conftest import TIMEOUT, wait_until
from test_threads import ECHO, THREADS, in_thread, run_together

import execnet_c
from execnet_c import cores

FREE = "t" in getattr(sys, "abiflags", "")
ROOT = pathlib.Path(__file__).resolve().parent.parent
SECONDS = 1.0


@pytest.fixture(autouse=True)
def take_turns_often():
    """With a GIL, for a thread to be stopped at any place."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def beside(change, work, threads=THREADS - 1):
    """Call work(number) again and again in threads, while another one calls change(), for some time."""

    def run(number):
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            change() if number == 0 else work(number)

    run_together(run, range(threads + 1))
    work(1)  # also when nothing changes any more: in the plain-Python core no other call may succeed


# --- the GIL stays off ----------------------------------------------------------------------------------------------

# -W error: to import an extension that needs the GIL is warned of.
IMPORTS = """
import sys
import execnet_c, execnet_c.gateway_base
from execnet_c import _core
try:
    from execnet_c import _tagger
except ImportError as exc:
    sys.exit(str(exc))
assert execnet_c.core == "C" and not sys._is_gil_enabled()
channel = execnet_c.makegateway("popen").remote_exec("import sys; channel.send([channel.receive(), sys._is_gil_enabled()])")
channel.send({"a": [1, "b"]})
assert channel.receive(30) == [{"a": [1, "b"]}, False]
print("off")
"""


def imports(python, env):
    done = subprocess.run(
        [python, "-W", "error", "-c", IMPORTS], env=env, cwd="/", capture_output=True, encoding="utf-8", timeout=2 * TIMEOUT
    )
    assert (done.stdout, done.stderr) == ("off\n", "")


@pytest.mark.any_core
@pytest.mark.skipif(not FREE, reason="this Python has a GIL")
def test_an_import_leaves_the_gil_off():
    imports(sys.executable, {**os.environ, "EXECNET_C_PURE": ""})


def other_python():
    names = [os.environ.get("EXECNET_C_FREE_THREADED", ""), "python3.14t", "python3.13t"]
    found = [path for path in map(shutil.which, filter(None, names)) if path]
    if not found:
        pytest.skip("no free-threaded Python: none in EXECNET_C_FREE_THREADED, no command python3.14t or python3.13t")
    return found[0]


@pytest.mark.any_core
@pytest.mark.deep
@pytest.mark.skipif(FREE, reason="this Python is free-threaded itself")
@pytest.mark.timeout(600)
def test_it_is_built_for_a_free_threaded_python(tmp_path):
    python = other_python()
    for name in ("src", "execnet_c", "pyproject.toml", "setup.py", "README.rst", "LICENSE"):
        here, there = ROOT / name, tmp_path / "source" / name
        there.parent.mkdir(exist_ok=True)
        shutil.copytree(here, there) if here.is_dir() else shutil.copy(here, there)
    environment = tmp_path / "venv"
    subprocess.run([python, "-m", "venv", environment], check=True, capture_output=True, timeout=300)
    installed = subprocess.run(
        [environment / "bin" / "python", "-m", "pip", "install", "--no-deps", tmp_path / "source"],
        capture_output=True,
        encoding="utf-8",
        timeout=500,
    )
    assert installed.returncode == 0, installed.stdout + installed.stderr
    imports(environment / "bin" / "python", {name: value for name, value in os.environ.items() if name != "PYTHONPATH"})


# --- objects that change while they are encoded -----------------------------------------------------------------------


def changing_size(container, add, remove):
    def change():
        for i in range(100):
            add(container, i)
        for i in range(100):
            remove(container, i)

    return change


def changing_items(container, put):
    def change():
        for i in range(100):
            put(container, i)

    return change


def new_item(i):
    """Of each kind of which the encoder may only have a borrowed reference."""
    return [f"word {i}", i * 1e3, "é" * (i + 1), [i, [f"{i}"]], (i, f"{i}"), {f"k{i}": i}, 2**80 + i][i % 7]


START = [[new_item(i) for i in range(50)], {f"key {i}": new_item(i) for i in range(50)}, set(map(str, range(50)))]


def put_set(container, i):
    """As many members before and after."""
    container.discard(str(i % 50) + "x" * (i >= 50))
    container.add(str(i % 50) + "x" * (i < 50))


CHANGES = {
    "a list's items": lambda: (
        container := list(START[0]),
        changing_items(container, lambda it, i: it.__setitem__(i % 50, new_item(i))),
    ),
    "a list's size": lambda: (
        container := list(START[0]),
        changing_size(container, lambda it, i: it.append(new_item(i)), lambda it, i: it.pop(0)),
    ),
    "a dict's values": lambda: (
        container := dict(START[1]),
        changing_items(container, lambda it, i: it.__setitem__(f"key {i % 50}", new_item(i))),
    ),
    "a dict's keys": lambda: (
        container := dict(START[1]),
        changing_size(container, lambda it, i: it.__setitem__((i, f"{i}"), new_item(i)), lambda it, i: it.popitem()),
    ),
    "a set's members": lambda: (container := set(START[2]), changing_items(container, put_set)),
    "a set's size": lambda: (
        container := set(START[2]),
        changing_size(container, lambda it, i: it.add(("m", i)), lambda it, i: it.pop()),
    ),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_what_others_change_while_it_is_encoded(kind):
    """Each encoding is well formed, of the same kind, and has nothing that never was in there; or the size is refused."""
    container, change = CHANGES[kind]()
    seen = []
    known = {repr(new_item(i)) for i in range(100)} | {repr(item) for item in START[0]}

    def encode(number):
        try:
            data = execnet_c.dumps([container, number])
        except execnet_c.DumpError as exc:
            assert "container changed its size while it was dumped" in str(exc)
            return
        except RuntimeError as exc:  # the twin's, in which the interpreter iterates
            assert cores.core == "Python" and "changed" in str(exc)
            return
        loaded, after = execnet_c.loads(data)
        assert after == number and type(loaded) is type(container)
        if type(container) is list:
            assert {repr(item) for item in loaded} <= known
        seen.append(len(loaded))

    beside(change, encode, 3)
    assert seen


def test_what_others_change_while_it_is_sent(gw):
    container, change = CHANGES["a list's items"]()
    channel = gw.remote_exec(ECHO)
    done = threading.Event()

    def change_on():
        while not done.is_set():
            change()

    changer = in_thread(change_on)
    try:
        for _ in range(200):
            channel.send(container)
            assert len(channel.receive(TIMEOUT)) == 50
    finally:
        done.set()
        changer.join(TIMEOUT)


def test_decoding_side_by_side():
    """Many short strings, which the decoder keeps, in every thread at once; also of the others."""
    values = [[f"w{(i * n) % 700}" for i in range(300)] for n in range(1, 8)]
    data = [execnet_c.dumps(value) for value in values]

    def decode(number):
        for _ in range(100):
            for value, encoded in zip(values, data):
                assert execnet_c.loads(encoded) == value

    run_together(decode)


# --- channels that come and go ----------------------------------------------------------------------------------------


def test_a_channel_is_dropped_while_it_arrives(gw):
    """Its object goes in one thread while another one gets an item with the channel in it: it works, for each of them."""
    far = gw.remote_exec("inner = channel.receive()\nfor item in channel: channel.send(inner)")
    inner = gw.newchannel()
    number = inner.id
    far.send(inner)
    del inner
    end = time.monotonic() + SECONDS
    count = [0] * THREADS

    def ask(place):
        while time.monotonic() < end:
            far.send(None)
            arrived = far.receive(TIMEOUT)
            assert arrived.id == number and arrived.gateway is gw
            assert f"id={number}" in repr(arrived)
            count[place] += 1

    run_together(ask)
    assert min(count) > 0


@pytest.mark.c_interface("near")
def test_one_object_for_a_channel(gw):
    """Of many threads that make the object of one channel at once, all get the same. Items that wait keep the channel."""
    told = gw.newchannel()
    far = gw.remote_exec(
        f"""
        told = channel.receive()
        for inner in channel:
            for _ in range({THREADS}):
                channel.send(inner)
            told.send(None)
        """
    )
    far.send(told)
    for _ in range(50):
        inner = gw.newchannel()
        far.send(inner)
        told.receive(TIMEOUT)  # all have arrived
        del inner
        got = run_together(lambda number: far.receive(TIMEOUT))
        assert len(set(map(id, got))) == 1


def test_cycles_of_channels_go_while_others_come(gw):
    """The garbage collector takes channels while threads make them."""
    end = time.monotonic() + SECONDS

    def make(number):
        while time.monotonic() < end:
            if number == 0:
                gc.collect()
                continue
            channel = gw.newchannel()
            channel.itself = channel
            channel.send(1)
            if number % 2:
                channel.close()

    run_together(make)
    gc.collect()
    assert wait_until(lambda: gw.remote_status().numchannels <= 1)


def test_attributes_and_methods_side_by_side(gw):
    channel = gw.remote_exec(ECHO)
    end = time.monotonic() + SECONDS

    def use(number):
        while time.monotonic() < end:
            channel.mark = number
            assert channel.mark in range(THREADS)
            channel.send(number)
            assert channel.receive(TIMEOUT) in range(THREADS)
            assert not channel.isclosed() and gw.hasreceiver() and gw.id
            repr(channel)

    run_together(use)


# --- callbacks ----------------------------------------------------------------------------------------------------------


def test_the_endmarker_comes_once_whoever_closes(gw):
    """The far end closes, this side closes, from threads; another thread sets the callback meanwhile."""
    for round in range(30):
        channel = gw.remote_exec("channel.send(1)" if round % 2 else "channel.receive()")
        got = []

        def act(number, channel=channel, got=got):
            if number == 0:
                channel.setcallback(got.append, endmarker="end")
            elif number < 4:
                channel.close()

        run_together(act)
        assert wait_until(lambda got=got: "end" in got)
        gw.remote_status()
        assert got.count("end") == 1 and set(got) <= {1, "end"}


def test_callbacks_send_while_threads_do(group):
    gateways = [group.makegateway("popen") for _ in range(2)]
    got = []

    def converse(number):
        channel = gateways[number % 2].remote_exec(ECHO)
        mine = []

        def callback(item):
            mine.append(item)
            if item < 200:
                channel.send(item + 1)
            else:
                channel.close()

        channel.setcallback(callback, endmarker=1000)
        channel.send(0)
        assert wait_until(lambda: mine[-1:] == [1000], 2 * TIMEOUT)
        got.append(mine)

    run_together(converse)
    assert got == [[*range(201), 1000]] * THREADS


# --- the tagger ---------------------------------------------------------------------------------------------------------


def small_model():
    tagger = pytest.importorskip("execnet_c._tagger")
    weights = {"bias": {"NN": 1.0, "VB": 0.5}, "i word run": {"VB": 3.0}, "i suffix uns": {"VB": 2.0}, "i-1 tag NN": {"VB": 0.25}}
    return tagger, tagger.Model(tagger.Model.build(weights, {"the": "DT"}, {"NN", "VB", "DT"}))


SENTENCES = [[f"the w{i % 300}", "run", "runs", f"x{i % 37}", "the", "É" * (i % 5)] for i in range(200)]


@pytest.mark.any_core
def test_one_model_for_all_threads():
    _, model = small_model()
    want = [model.tag(sentence) for sentence in SENTENCES]
    numbers = model.tag_numbers(SENTENCES)

    def tag(number):
        for _ in range(5):
            assert [model.tag(sentence) for sentence in SENTENCES] == want
            assert model.tag_sents(SENTENCES) == want
            assert model.tag_numbers(SENTENCES) == numbers
            assert model.pair(SENTENCES, numbers) == want
            assert [doc.tags for doc in model.tag_sents(SENTENCES, True, True)] == [[t for _, t in s] for s in want]
            assert model._state()["features"] == 4

    run_together(tag)


@pytest.mark.any_core
def test_a_document_changes_while_it_is_tagged():
    _, model = small_model()
    document = list(SENTENCES[0])

    def change():
        for i in range(100):
            document[i % len(document)] = f"n{i}"
            document.append(f"a{i}")
            del document[0]

    def tag(number):
        assert {tag for _, tag in model.tag(document)} <= {"NN", "VB", "DT"}
        model.pack([document])
        try:
            model.pair([document], model.tag_numbers([document]))
        except ValueError:  # it has another size by now
            pass

    beside(change, tag, 3)


@pytest.mark.any_core
def test_a_model_is_built_from_dicts_that_change():
    tagger, _ = small_model()
    row = {"NN": 1.0, "VB": 0.5}
    weights, tagdict = {"bias": row}, {"the": "DT"}

    def change():
        for i in range(100):
            weights[f"i word w{i}"] = {"NN": float(i)}
            row["DT"] = float(i)
            tagdict[f"é{i}"] = "NN"
        for i in range(100):
            del weights[f"i word w{i}"], tagdict[f"é{i}"]
        del row["DT"]

    def build(number):
        block = tagger.Model.build(weights, tagdict, ["NN", "VB", "DT"])
        assert tagger.Model(block).tag(["the"]) == [("the", "DT")]

    beside(change, build, 3)


@pytest.mark.any_core
def test_one_pipe_for_all_threads():
    """It serves one at a time and says so to the others; what it gives is right."""
    tagger, model = small_model()
    want = [model.tag(sentence) for sentence in SENTENCES]
    pipe = tagger.Pipe(model, 2)
    given, refused = [], []

    def use(number):
        for _ in range(30):
            try:
                pipe.give(SENTENCES)
                pipe.take()
                given.extend(pipe)
            except RuntimeError as exc:
                assert str(exc) in ("another thread is using this pipe", "no batch was given")
                refused.append(number)

    run_together(use)
    pipe.close()
    assert given and all(sentence in want for sentence in given)
