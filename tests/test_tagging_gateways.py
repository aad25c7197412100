"""PerceptronTagger.pipe() over gateways: the same documents in the same order as on threads, whatever becomes of the gateways."""

import itertools
import os
import pickle
import signal
import sys

import pytest

from gateways import group_fixture, pid_of  # noqa: F401  (a fixture)
from test_tagging_pipe import DOCS, WORDS, tagger_fixture  # noqa: F401  (a fixture)

pytestmark = pytest.mark.ours


@pytest.fixture(name="two")
def two_fixture(group):
    group.makegateway()
    group.makegateway()
    return group


@pytest.mark.parametrize("batch_size", [1, 7, 150, 1000])
def test_the_same_in_order(tagger, two, batch_size):
    for options in ({}, {"use_tagdict": False}, {"as_doc": True}):
        found = list(tagger.pipe(iter(DOCS), batch_size, gateways=two, **options))
        assert found == list(tagger.pipe(DOCS, batch_size, **options))
    assert list(tagger.pipe([], gateways=two)) == []
    assert list(tagger.pipe([" ".join(doc) for doc in DOCS], batch_size, tokenize=str.split, gateways=[two[0]])) == list(
        tagger.pipe([" ".join(doc) for doc in DOCS], tokenize=str.split)
    )


def test_a_word_is_paired_with_each_of_its_tags(tagger):
    """Pairs that were made before are given out again: for the same word and tag only."""

    class Word(str):
        pass

    classes = sorted(tagger.classes)
    words = ["the", "".join(["t", "he"]), Word("the"), "thé", "th\u0113", *WORDS, *map(str, range(300_000))]
    for _ in range(2):
        for number, tag in enumerate(classes):
            [found] = tagger.pair([words], bytes([number]) * len(words))
            assert found == [(word, tag) for word in words]
            assert [type(word) for word, _ in found[:3]] == [str, str, Word]


def test_a_source_may_use_its_list_again(tagger, two):
    def docs():
        doc = []
        for n in range(200):
            doc[:] = DOCS[n]
            yield doc

    assert list(tagger.pipe(docs(), 1, gateways=two)) == [tagger.tag(doc) for doc in DOCS[:200]]


def test_it_reads_no_further_than_it_says(tagger, two):
    read = []

    def docs():
        for n in itertools.count():
            read.append(n)
            yield ["the"]

    stream = tagger.pipe(docs(), 10, gateways=two)
    assert read == []
    for given in range(1, 200):
        next(stream)
        assert len(read) <= given + 2 * 2 * 10
    stream.close()


def test_gateways_that_are_killed_lose_nothing(tagger, two):
    found, killed = [], 0
    for n, tagged in enumerate(tagger.pipe(itertools.chain(DOCS, DOCS), 3, gateways=two)):
        if n % 150 == 20:
            try:
                os.kill(pid_of(two[n % 2]), signal.SIGKILL)
                killed += 1
            except OSError:
                pass  # it is being replaced
        found.append(tagged)
    assert killed >= 2
    assert found == [tagger.tag(doc) for doc in DOCS + DOCS]


@pytest.mark.parametrize("bad", [5, "text", ["the", 3], None, {}])
@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_the_document_is_named(tagger, two, bad, batch_size):
    found, errors = [], []
    for options in ({}, {"gateways": two}):
        stream = tagger.pipe([["the"], ["Dog", "saw"], [], bad, ["the"]], batch_size, **options)
        with pytest.raises(ValueError, match="Error parsing doc: ") as caught:
            for tagged in stream:
                found.append(tagged)
        errors.append((str(caught.value), repr(caught.value.__cause__)))
    assert found[:3] == found[3:] == [tagger.tag(doc) for doc in (["the"], ["Dog", "saw"], [])]
    assert errors[0] == errors[1]


def test_errors_of_the_source_and_of_tokenize_are_as_on_threads(tagger, two):
    def docs():
        yield "1"
        yield "0"
        raise KeyError("mine")

    for tokenize, kind in ((lambda text: [str(1 / int(text))], ValueError), (list, KeyError)):
        for options in ({}, {"gateways": two}):
            with pytest.raises(kind) as caught:
                list(tagger.pipe(docs(), tokenize=tokenize, **options))
            assert kind is KeyError or isinstance(caught.value.__cause__, ZeroDivisionError)


def test_bad_arguments(tagger, two):
    for options in ({"batch_size": 0}, {"gateways": []}):
        with pytest.raises(ValueError):
            tagger.pipe(DOCS, **{"gateways": two, **options})
    with pytest.raises(TypeError):
        tagger.pipe(5, gateways=two)


def test_a_far_end_without_the_tagger_says_so(tagger, two, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['execnet_c._tagger'] = None\n")
    gateway = two.makegateway(f"popen//python=env PYTHONPATH={tmp_path} {sys.executable}")
    with pytest.raises(ImportError, match="the tagger of execnet_c is in C"):
        list(tagger.pipe(DOCS, gateways=[gateway]))


def test_the_tagger_goes_as_it_was_when_the_stream_was_made(tagger, two):
    mine = pickle.loads(pickle.dumps(tagger))
    stream = mine.pipe(DOCS, 50, gateways=two)
    mine.tagdict["the"] = "C"
    assert list(stream) == [tagger.tag(doc) for doc in DOCS]
