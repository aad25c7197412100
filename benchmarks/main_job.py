"""The main job: tagging the treebank over two far ends, compared with two processes that do not communicate.

Sentences are sent in three ways: in lockstep (a far end gets its next sentence when its last answer has arrived), all
ahead of the answers, and in batches of 100. Each far end has the pickled tagger before the time starts. The words of all
answers are checked, and the tags of the first.
"""

import pickle
import threading

import corpus
import peers
from base import Clock, Line, Missing, Work

BATCH = 100
CHECKED = 20

# The task of a far end: an item is a sentence or a batch of them. It sends "ready" when NLTK, which takes long, is imported.
REMOTE_TAG = """
import pickle
tagger = pickle.loads(channel.receive())
channel.send("ready")
for item in channel:
    channel.send([tagger.tag(sentence) for sentence in item] if item and isinstance(item[0], list) else tagger.tag(item))
"""


class Job:
    def __init__(self, setting, number):
        try:
            tagger = corpus.tagger()
        except ImportError:
            raise
        except Exception as error:
            raise Missing(str(error).strip().splitlines()[0]) from error
        self.pickled = pickle.dumps(tagger)
        self.text, tagged = corpus.load(number, setting.scratch)
        self.sentences = [[word for word, _ in sentence] for sentence in tagged]
        self.batches = [self.sentences[at : at + BATCH] for at in range(0, len(self.sentences), BATCH)]
        self._known = [tagger.tag(sentence) for sentence in self.sentences[:CHECKED]]

    def rate(self, function):
        """Sentences a second of function(), which must return all sentences tagged, in their order."""
        with Clock() as clock:
            tagged = function()
        assert [[word for word, _ in sentence] for sentence in tagged] == self.sentences
        assert [list(map(tuple, sentence)) for sentence in tagged[:CHECKED]] == self._known
        return len(self.sentences) / clock.seconds


def flat(batches):
    return [sentence for batch in batches for sentence in batch]


def job(setting):
    return Job(setting, setting.pick(800, 200, 30))


def with_gateways(peer, setting):
    work = job(setting)
    group = peer.module.Group(["popen"] * 2)
    channels = [gateway.remote_exec(REMOTE_TAG) for gateway in group]
    for channel in channels:
        channel.send(work.pickled)
    assert [channel.receive() for channel in channels] == ["ready"] * 2

    def ahead(items):
        for i, item in enumerate(items):
            channels[i % 2].send(item)
        return [channels[i % 2].receive() for i in range(len(items))]

    def ask(number, sentence):
        channels[number].send(sentence)
        return channels[number].receive()

    found = {
        "text": work.text,
        "job_lockstep": work.rate(lambda: in_lockstep(ask, work.sentences)),
        "job_ahead": work.rate(lambda: ahead(work.sentences)),
        "job_batches": work.rate(lambda: flat(ahead(work.batches))),
    }
    group.terminate(timeout=5.0)
    return found


def in_lockstep(ask, sentences):
    """Tag the sentences in two threads, one for each far end. A thread calls ask(0 or 1, sentence), which returns the tagged
    sentence, for every second sentence."""
    tagged = [None] * len(sentences)

    def run(number):
        for at in range(number, len(sentences), 2):
            tagged[at] = ask(number, sentences[at])

    threads = [threading.Thread(target=run, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return tagged


def load_there(pickled):
    """In a process of a pool: load its tagger."""
    global _tagger
    _tagger = pickle.loads(pickled)


def tag(sentence):
    return _tagger.tag(sentence)


def tag_batch(sentences):
    return [_tagger.tag(sentence) for sentence in sentences]


def with_pool(peer, setting):
    import multiprocessing

    work = job(setting)
    with multiprocessing.get_context("spawn").Pool(2, load_there, (work.pickled,)) as pool:
        pool.map(tag, work.sentences[:BATCH], chunksize=BATCH // 4)
        return {
            "text": work.text,
            "job_lockstep": work.rate(lambda: in_lockstep(lambda _, words: pool.apply(tag, (words,)), work.sentences)),
            "job_ahead": work.rate(lambda: list(pool.imap(tag, work.sentences))),
            "job_batches": work.rate(lambda: list(pool.imap(tag, work.sentences, BATCH))),
        }


def with_futures(peer, setting):
    import concurrent.futures
    import multiprocessing

    work = job(setting)
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(2, spawn, load_there, (work.pickled,)) as executor:
        list(executor.map(tag, work.sentences[:BATCH], chunksize=BATCH // 4))

        def ask(_, sentence):
            return executor.submit(tag, sentence).result()

        return {
            "text": work.text,
            "job_lockstep": work.rate(lambda: in_lockstep(ask, work.sentences)),
            "job_ahead": work.rate(lambda: list(executor.map(tag, work.sentences))),
            "job_batches": work.rate(lambda: list(executor.map(tag, work.sentences, chunksize=BATCH))),
        }


def with_joblib(peer, setting):
    from joblib import Parallel, delayed

    work = job(setting)
    found = {"text": work.text}
    settings = {"n_jobs": 2, "initializer": load_there, "initargs": (work.pickled,)}

    def mapped(parallel, function, items):
        return parallel(delayed(function)(item) for item in items)

    with Parallel(batch_size=1, pre_dispatch=2, **settings) as parallel:
        mapped(parallel, tag_batch, [work.sentences[: BATCH // 4]] * 4)
        found["job_lockstep"] = work.rate(lambda: mapped(parallel, tag, work.sentences))
    with Parallel(**settings) as parallel:
        mapped(parallel, tag_batch, [work.sentences[: BATCH // 4]] * 4)
        found["job_ahead"] = work.rate(lambda: mapped(parallel, tag, work.sentences))
        found["job_batches"] = work.rate(lambda: flat(mapped(parallel, tag_batch, work.batches)))
    return found


def with_library(peer, setting):
    return FUNCTIONS[type(peer)](peer, setting)


def serve_half(connection, pickled, sentences):
    """A far end of alone(): it gets its sentences before the time starts, and sends its answers when it is over."""
    load_there(pickled)
    connection.send("ready")
    while connection.recv() == "go":
        tagged = tag_batch(sentences)
        connection.send("done")
        connection.recv()
        connection.send(tagged)


def alone(setting):
    """The floor: two processes that are told when to begin, and say when they are done. All else is sent before or after
    the measured time."""
    import multiprocessing

    work = job(setting)
    spawn = multiprocessing.get_context("spawn")
    halves = [work.sentences[0::2], work.sentences[1::2]]
    ends = []
    for half in halves:
        here, there = spawn.Pipe()
        process = spawn.Process(target=serve_half, args=(there, work.pickled, half))
        process.start()
        ends.append((here, process))

    def to_all(word):
        for here, _ in ends:
            here.send(word)
        return [here.recv() for here, _ in ends]

    assert [here.recv() for here, _ in ends] == ["ready"] * 2
    found = {"text": work.text}
    for line in LINES:
        with Clock() as clock:
            assert to_all("go") == ["done"] * 2
        first, second = to_all("answers")
        tagged = [sentence for two in zip(first, second) for sentence in two] + first[len(second) :]
        work.rate(lambda: tagged)
        found[line] = len(work.sentences) / clock.seconds
    for here, process in ends:
        here.send("stop")
        process.join()
    return found


FUNCTIONS = {
    peers.ExecnetC: with_gateways,
    peers.Execnet: with_gateways,
    peers.Pool: with_pool,
    peers.Futures: with_futures,
    peers.Joblib: with_joblib,
}

LINES = {
    "job_lockstep": Line("sentence by sentence, in lockstep", "1/s", more_is_better=True),
    "job_ahead": Line("all sentences sent ahead", "1/s", more_is_better=True),
    "job_batches": Line("batches of 100", "1/s", more_is_better=True),
}

WORKS = {
    "main-job": Work(
        "The main job: tagging over two far ends, sentences a second",
        with_library,
        {**peers.GATEWAYS, **peers.CALLS},
        LINES,
        floors={"no communication": alone},
        rounds=(3, 1),
    )
}
