"""Streams of documents through threads: in order, lazily, and nothing left of them."""

import gc
import itertools
import os
import random
import signal
import subprocess
import sys
import threading
import time

import pytest
from conftest import TIMEOUT, Footprint, wait_until

from execnet_c import _tagger
from execnet_c.tagging import PerceptronTagger

CHOOSE = random.Random(2)
WORDS = ["the", "Dog", "saw", "x-y", "1999", "grün", "a", "", "\ud800", "of", "CATS", "12"]
TAGS = ["A", "B", "C"]
DOCS = [[CHOOSE.choice(WORDS) for _ in range(CHOOSE.randrange(12))] for _ in range(300)]


@pytest.fixture(scope="module", name="tagger")
def tagger_fixture():
    random.seed(4)
    tagger = PerceptronTagger(load=False)
    tagger.train([[(CHOOSE.choice(WORDS), CHOOSE.choice(TAGS)) for _ in range(9)] for _ in range(60)], nr_iter=2)
    return tagger


@pytest.fixture
def somebody_computes():
    """Another thread that wants the GIL all the time: it is given away between documents then."""
    over = threading.Event()

    def compute():
        while not over.is_set():
            sum(range(1000))

    thread = threading.Thread(target=compute)
    thread.start()
    yield
    over.set()
    thread.join(TIMEOUT)


@pytest.fixture(scope="module")
def expected(tagger):
    return [tagger.tag(doc) for doc in DOCS]


def threads():
    return len(Footprint().tasks)


@pytest.mark.parametrize("n_threads", [1, 2, 3, 8])
@pytest.mark.parametrize("batch_size", [1, 7, 150, 300, 1000])
def test_the_same_in_order(tagger, expected, batch_size, n_threads):
    assert list(tagger.pipe(DOCS, batch_size, n_threads)) == expected
    assert [list(doc) for doc in tagger.pipe(iter(DOCS), batch_size, n_threads, as_doc=True)] == expected


def test_of_nothing(tagger):
    assert list(tagger.pipe([])) == []
    assert list(tagger.pipe([[], []])) == [[], []]


def test_texts(tagger):
    assert list(tagger.pipe(["the Dog", "saw"], tokenize=str.split)) == [tagger.tag(["the", "Dog"]), tagger.tag(["saw"])]


def test_without_the_tagdict(tagger, expected):
    assert list(tagger.pipe(DOCS, use_tagdict=False)) == [tagger.tag(doc, use_tagdict=False) for doc in DOCS]


def test_it_reads_no_further_than_it_says(tagger):
    read = []

    def docs():
        for i in itertools.count():
            read.append(i)
            yield ["the"]

    stream = tagger.pipe(docs(), batch_size=10, n_threads=2)
    assert read == []
    for given in range(1, 200):
        next(stream)
        assert len(read) <= given + 20
    stream.close()
    assert len(read) <= 220


def test_threads_begin_and_end_with_it(tagger):
    before = threads()
    stream = tagger.pipe(itertools.repeat(["the", "Dog"]), 5, 4)
    assert threads() == before
    next(stream)
    assert threads() == before + 3
    stream.close()
    assert wait_until(lambda: threads() == before)
    stream = tagger.pipe(itertools.repeat(["the"]), 5, 2)
    next(stream)
    assert threads() == before + 1
    del stream
    gc.collect()
    assert wait_until(lambda: threads() == before)
    assert len(list(tagger.pipe(DOCS, 5, 4))) == len(DOCS)
    assert wait_until(lambda: threads() == before)


def test_one_that_was_never_begun(tagger):
    stream = tagger.pipe(DOCS)
    stream.close()
    assert list(stream) == []


def test_streams_of_several_threads(tagger, expected):
    results = {}

    def work(name):
        results[name] = [list(tagger.pipe(DOCS, 11, 2)), tagger.tag_sents(DOCS), [tagger.tag(doc) for doc in DOCS]]

    workers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(TIMEOUT)
    assert all(results[i] == [expected] * 3 for i in range(4))


def test_another_thread_goes_on_beside_it(tagger):
    """No lock is held while a batch is tagged: a sentence of a million words takes no time from the others."""
    long = [WORDS[i % len(WORDS)] for i in range(1_000_000)]
    seen = []
    done = threading.Event()

    def work():
        list(tagger.pipe([long], n_threads=1))
        done.set()

    worker = threading.Thread(target=work)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000)  # nobody is made to give the GIL away
    try:
        worker.start()
        while not done.is_set():
            seen.append(time.perf_counter())
            time.sleep(0.001)
    finally:
        sys.setswitchinterval(interval)
        worker.join(TIMEOUT)
    assert len(seen) > 5


@pytest.mark.parametrize("as_doc", [False, True])
def test_the_same_while_another_thread_computes(tagger, expected, somebody_computes, as_doc):
    results = tagger.pipe(DOCS * 20, 3000, as_doc=as_doc)
    assert [list(doc) for doc in results] == expected * 20
    assert gc.isenabled()


def test_a_pipe_is_in_use_while_others_have_the_gil(tagger, expected, somebody_computes):
    """Nobody closes it then; afterwards anybody may."""
    pipe = _tagger.Pipe(tagger._compiled(), 1)
    docs, refused, closed = DOCS * 60, [], threading.Event()

    def close():
        while not closed.is_set():
            try:
                pipe.close()
                closed.set()
            except RuntimeError as exc:
                refused.append(str(exc))

    assert pipe.give(docs) is None
    assert list(pipe.take()) == expected * 60
    assert pipe.give(docs) is None
    closer = threading.Thread(target=close)
    closer.start()
    try:
        assert list(pipe.take()) == expected * 60
    except RuntimeError as exc:
        assert str(exc) == "this pipe is closed"  # before it had begun
    closer.join(TIMEOUT)
    assert closed.is_set() and set(refused) <= {"another thread is using this pipe"}


# --- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
@pytest.mark.parametrize(
    "bad, text", [(["b", 3], r"\['b', 3\]"), ("a text", "a text"), (None, "None"), (["x", None], r"\['x', None\]"), ({}, "$")]
)
def test_the_document_is_named(tagger, bad, text, batch_size):
    before = threads()
    stream = tagger.pipe([["the"], ["Dog"], bad, ["saw"]], batch_size)
    assert [next(stream), next(stream)] == [tagger.tag(["the"]), tagger.tag(["Dog"])]
    with pytest.raises(ValueError, match=f"^Error parsing doc: {text}") as caught:
        next(stream)
    assert isinstance(caught.value.__cause__, TypeError)
    assert list(stream) == []
    assert wait_until(lambda: threads() == before)


def test_a_long_document_is_cut_in_the_message(tagger):
    with pytest.raises(ValueError) as caught:
        list(tagger.pipe([["long"] * 1000 + [1]]))
    assert len(str(caught.value)) < 300


def test_what_does_not_tokenize(tagger):
    def tokenize(text):
        return [1 / int(text), "x"] if text == "0" else [text]

    stream = tagger.pipe(["1", "2", "0", "3"], tokenize=tokenize)
    assert [next(stream), next(stream)] == [tagger.tag(["1"]), tagger.tag(["2"])]
    with pytest.raises(ValueError, match="^Error parsing doc: 0$") as caught:
        next(stream)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_errors_of_the_source_are_its_own(tagger):
    def docs():
        yield ["the"]
        yield ["Dog"]
        raise KeyError("mine")

    stream = tagger.pipe(docs())
    assert [next(stream), next(stream)] == [tagger.tag(["the"]), tagger.tag(["Dog"])]
    with pytest.raises(KeyError, match="mine"):
        next(stream)


@pytest.mark.parametrize("arguments", [{"batch_size": 0}, {"n_threads": 0}, {"n_threads": -1}])
def test_bad_arguments(tagger, arguments):
    with pytest.raises(ValueError):
        tagger.pipe(DOCS, **arguments)
    with pytest.raises(TypeError):
        tagger.pipe(5)


def test_the_c_side_alone(tagger):
    model = tagger._compiled()
    pipe = _tagger.Pipe(model, 2)
    with pytest.raises(RuntimeError, match="no batch"):
        pipe.take()
    assert pipe.give([["the"]]) is None
    number, error = pipe.give([["Dog"], 3])
    assert number == 1 and isinstance(error, TypeError)
    assert [list(pipe.take()), list(pipe.take())] == [[tagger.tag(["the"])], [tagger.tag(["Dog"])]]
    assert list(pipe) == []
    with pytest.raises(TypeError):
        pipe.give(("the",))
    for _ in range(3):
        pipe.give(DOCS)
    assert next(pipe.take()) == tagger.tag(DOCS[0])
    assert list(pipe.take()) == tagger.tag_sents(DOCS)  # what was left of the one before is given up
    assert next(pipe.take()) == tagger.tag(DOCS[0])
    pipe.close()
    pipe.close()
    for attempt in (pipe.take, lambda: pipe.give(DOCS), lambda: next(pipe)):
        with pytest.raises(RuntimeError, match="closed"):
            attempt()
    for arguments in ((model, 0), (model, 100000), (3, 1)):
        with pytest.raises((ValueError, TypeError)):
            _tagger.Pipe(*arguments)


def test_a_document_whose_own_code_closes_the_pipe(tagger):
    pipe = _tagger.Pipe(tagger._compiled(), 2)

    class Doc:
        def __len__(self):
            return 1

        def __getitem__(self, i):
            pipe.close()
            return ["the"][i]

    with pytest.raises(RuntimeError, match="closed"):
        pipe.give([Doc()])


# --- processes and signals ------------------------------------------------------------------------------------------

# Newer Pythons warn of any fork in a process with more than one thread.
forks = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")


@forks
@pytest.mark.not_under("tsan", "it allows no threads in forked children")
def test_forks(tagger, expected):
    """A child has the tagger, but not the stream; the parent's goes on."""
    stream = tagger.pipe(DOCS, 20, 2)
    first = next(stream)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            assert tagger.tag_sents(DOCS) == expected and list(tagger.pipe(DOCS, 20, 2)) == expected
            try:
                list(stream)
            except RuntimeError as error:
                status = 0 if "parent process" in str(error) else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert [first, *stream] == expected


@forks
@pytest.mark.not_under("tsan", "it allows no threads in forked children")
def test_forks_while_threads_tag(tagger, expected):
    stop = threading.Event()

    def work():
        while not stop.is_set():
            list(tagger.pipe(([f"{i}{word}" for word in doc] for i, doc in enumerate(DOCS)), 50, 2))

    worker = threading.Thread(target=work)
    worker.start()
    try:
        for _ in range(10):
            pid = os.fork()
            if pid == 0:
                signal.alarm(60)
                status = 1
                try:
                    status = tagger.tag_sents(DOCS) != expected
                finally:
                    os._exit(status)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    finally:
        stop.set()
        worker.join(TIMEOUT)


INTERRUPTED = """
import itertools, os, sys, threading
from execnet_c.tagging import PerceptronTagger
threading.Thread(target=threading.Event().wait, daemon=True).start()  # a thread sanitizer starts one of its own beside it

def threads():
    return len(os.listdir("/proc/self/task"))

before = threads()
tagger = PerceptronTagger.decode_json_obj(({"bias": {"A": 1.0}}, {}, ["A", "B"]))

def run():
    for i, doc in enumerate(tagger.pipe(itertools.repeat(["a"] * 50), n_threads=2)):
        if i == 3000:
            print("running", flush=True)

try:
    run()
except KeyboardInterrupt:
    import time
    deadline = time.monotonic() + 20
    while threads() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    print("interrupted", threads() - before, flush=True)
"""


def test_ctrl_c():
    process = subprocess.Popen([sys.executable, "-c", INTERRUPTED], stdout=subprocess.PIPE, encoding="utf-8")
    try:
        assert process.stdout.readline() == "running\n"
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=TIMEOUT)[0] == "interrupted 0\n"
    finally:
        process.kill()
        process.wait()


def test_exit_in_the_middle():
    code = INTERRUPTED.replace('print("running", flush=True)', "sys.exit(7)")
    assert subprocess.run([sys.executable, "-c", code], timeout=TIMEOUT).returncode == 7
