"""The tagger in C: compared with those of NLTK and fastnltk on one thread; and on two threads, beside Python work, and on two
gateways.

All have the same weights. The tags are compared with those of NLTK. These are made before the time starts, and kept for the
other measurements. The text of the first work is short, because NLTK is slow.
"""

import gc
import pickle
import statistics
import time

import corpus
import peers
from base import Clock, Line, Missing, Work, only
from gil import beside

BATCH = 1000
AHEAD = 3  # batches that are sent to a gateway before the answer to the first of them

REMOTE_TAG = """
import pickle
tagger = pickle.loads(channel.receive())
channel.send("ready")
for packed in channel:
    channel.send(tagger.tag_numbers(packed))
"""


def nltk_tagger():
    try:
        return corpus.tagger()
    except ImportError:
        raise
    except Exception as error:
        raise Missing(str(error).strip().splitlines()[0]) from error


def count(sentences):
    return sum(map(len, sentences))


def seconds(function, sentences):
    """(seconds that function(sentences) takes, what it returns)"""
    with Clock() as clock:
        tagged = function(sentences)
    return clock.seconds, tagged


# --- on one thread ----------------------------------------------------------------------------------------------------


def one_thread(peer, setting):
    tagger = nltk_tagger()
    number, before = setting.pick((2000, 500), (400, 100), (30, 5))
    text, tagged = corpus.load(number + before, setting.scratch)
    words = [[word for word, _ in sentence] for sentence in tagged]
    sentences, others = words[:number], words[number:]
    known = corpus.kept(f"NLTK's tags of {number} sentences", setting.scratch, lambda: tagger.tag_sents(sentences))
    peer.start(tagger)
    peer.tag_sents(others)
    # Measured once only: a second time the weights that this text needs would be in the CPU's caches.
    spent, found = seconds(peer.tag_sents, sentences)
    other = 0
    for mine, right in zip(found, known):
        assert [word for word, _ in mine] == [word for word, _ in right]
        other += sum(tuple(a) != b for a, b in zip(mine, right))
    assert not (other and peer.exact)
    return {"text": text, "tag_one": count(sentences) / spent, "tag_other": 100 * other / count(sentences)}


# --- on two threads, on two gateways ----------------------------------------------------------------------------------


def over(channels, tagger, as_doc):
    """The function that tags through two channels: it sends batches ahead; the far ends answer with the numbers of tags,
    which are paired with the words here."""

    def tag(sentences):
        batches, tagged = [sentences[at : at + BATCH] for at in range(0, len(sentences), BATCH)], []
        for number, batch in enumerate(batches[: 2 * AHEAD]):
            channels[number % 2].send(tagger.pack(batch))
        for number, batch in enumerate(batches):
            tagged += tagger.pair(batch, channels[number % 2].receive(), as_doc)
            if number + 2 * AHEAD < len(batches):
                channels[number % 2].send(tagger.pack(batches[number + 2 * AHEAD]))
        return tagged

    return tag


def in_turns(ways, sentences, budget):
    """{way: tokens a second}, the medians. All functions must return the same tagged sentences, or None."""
    times, end, known = {way: [] for way in ways}, time.perf_counter() + budget, None
    while known is None or time.perf_counter() < end:
        for way, function in ways.items():
            spent, tagged = seconds(function, sentences)
            times[way].append(spent)
            if tagged is None:
                continue
            if not isinstance(tagged[0], list):
                tagged = [list(doc) for doc in tagged]
            assert known is None or tagged == known, way
            if known is None:
                known = tagged
                gc.freeze()  # so that the garbage collector does not scan `known` while the time runs
    return {way: count(sentences) / statistics.median(spent) for way, spent in times.items()}


def more_than_one(peer, setting):
    """The text of Brown several times over, so that the start of threads and gateways does not count much."""
    import execnet_c

    number, times = setting.pick((8000, 6), (4000, 3), (30, 2))
    text, sentences = corpus.load_words(number, setting.scratch)
    sentences = sentences * times
    peer.start(nltk_tagger())
    tagger = peer.tagger
    group = execnet_c.Group(["popen"] * 2)
    channels = [gateway.remote_exec(REMOTE_TAG) for gateway in group]
    for channel in channels:
        channel.send(pickle.dumps(tagger))
    assert [channel.receive() for channel in channels] == ["ready"] * 2

    def stream(sentences):
        for _ in tagger.pipe(sentences, BATCH, 2):
            pass

    ways = {
        "tag_calling": tagger.tag_sents,
        "tag_stream": stream,
        "tag_pipe": lambda sentences: list(tagger.pipe(sentences, BATCH, 2)),
        "tag_calling_docs": lambda sentences: tagger.tag_sents(sentences, as_doc=True),
        "tag_pipe_docs": lambda sentences: list(tagger.pipe(sentences, BATCH, 2, as_doc=True)),
        "tag_far": over(channels, tagger, False),
        "tag_far_docs": over(channels, tagger, True),
    }
    found = in_turns(ways, sentences, setting.pick(3, 1, 0))
    group.terminate(timeout=5.0)

    def pipe_all():
        for _ in tagger.pipe(sentences, BATCH, 1):
            pass

    work, free, spent = beside(pipe_all, setting)
    return {
        "text": text,
        **found,
        "tag_stream_times": found["tag_stream"] / found["tag_calling"],
        "tag_pipe_times": found["tag_pipe"] / found["tag_calling"],
        "tag_docs_times": found["tag_pipe_docs"] / found["tag_calling_docs"],
        "tag_far_times": found["tag_far"] / found["tag_pipe"],
        "tag_far_docs_times": found["tag_far_docs"] / found["tag_pipe_docs"],
        "tag_beside": work,
        "tag_beside_free": free,
        "tag_beside_rate": count(sentences) / spent,
    }


WORKS = {
    "tagging": Work(
        "Tagging on one thread: tag_sents, with the same weights",
        one_thread,
        peers.TAGGERS,
        {
            "tag_one": Line("tokens a second", "1/s", more_is_better=True),
            "tag_other": Line("tokens whose tag is not NLTK's", "%"),
        },
        left_out={"spaCy": "of its trained models PyPI has only copies by others"},
        rounds=(3, 0),
    ),
    "tagging-threads": Work(
        "Tagging on two threads and on two gateways: Brown, repeated",
        more_than_one,
        only(peers.TAGGERS, peers.OURS),
        {
            "tag_calling": Line("tag_sents, on the calling thread", "1/s", more_is_better=True),
            "tag_stream": Line("pipe, two threads", "1/s", more_is_better=True),
            "tag_stream_times": Line("  times tag_sents", "", more_is_better=True),
            "tag_pipe": Line("pipe, two threads, all kept in a list", "1/s", more_is_better=True),
            "tag_pipe_times": Line("  times tag_sents", "", more_is_better=True),
            "tag_calling_docs": Line("tag_sents, as Docs", "1/s", more_is_better=True),
            "tag_pipe_docs": Line("pipe, two threads, all kept as Docs", "1/s", more_is_better=True),
            "tag_docs_times": Line("  times tag_sents", "", more_is_better=True),
            "tag_beside": Line("Python work beside pipe on one thread", "%", more_is_better=True),
            "tag_beside_free": Line("  time without waiting for the GIL", "%", more_is_better=True),
            "tag_beside_rate": Line("  what pipe tags beside it", "1/s", more_is_better=True),
            "tag_far": Line("two gateways, numbers of tags come back", "1/s", more_is_better=True),
            "tag_far_times": Line("  times two threads, all kept", "", more_is_better=True),
            "tag_far_docs": Line("two gateways, as Docs", "1/s", more_is_better=True),
            "tag_far_docs_times": Line("  times two threads, all kept as Docs", "", more_is_better=True),
        },
        rounds=(2, 0),
    ),
}
