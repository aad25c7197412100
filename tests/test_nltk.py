"""Real NLTK with real weights over gateways: the tags are those of one process."""

import pickle
import subprocess
import sys

import execnet_c
import pairing
import pytest
import tagging

SENTENCES = 500

# The recipe as it was written for NLTK 3.0: one name that NLTK has dropped is set above it, one import is changed.
OLD_RECIPE = """
import nltk.tag, nltk.data
nltk.tag._POS_TAGGER = 'taggers/averaged_perceptron_tagger/averaged_perceptron_tagger.pickle'

import pickle
import execnet_c as execnet
import remote_tag
from nltk.corpus import treebank

pickled_tagger = pickle.dumps(nltk.data.load(nltk.tag._POS_TAGGER))
gw = execnet.makegateway()
channel = gw.remote_exec(remote_tag)
channel.send(pickled_tagger)
channel.send(treebank.sents()[0])
tagged_sentence = channel.receive()
print(tagged_sentence == treebank.tagged_sents()[0])
gw.exit()
"""


def tag_over_gateways(tagger, sentences, count):
    """The sentences dealt round to `count` gateways, all sent before the first answer is taken."""
    import remote_tag

    group = execnet_c.Group()
    try:
        channels = [group.makegateway("popen").remote_exec(remote_tag) for _ in range(count)]
        pickled = pickle.dumps(tagger)
        for channel in channels:
            channel.send(pickled)
        for number, sentence in enumerate(sentences):
            channels[number % count].send(sentence)
        return [channels[number % count].receive(timeout=60) for number in range(len(sentences))]
    finally:
        group.terminate(timeout=5)


@pytest.fixture(scope="module")
def tagger():
    return tagging.tagger()


@pytest.fixture(scope="module")
def treebank(tagger):
    return [[word for word, _ in tagged] for tagged in tagging.treebank_sentences(SENTENCES)]


@pytest.fixture(scope="module")
def topics(tagger):
    import tag_corpus
    import tagging_gateways
    import tagging_data

    sentences = list(tag_corpus.split_sentences(tagging_data.python_topics()))[:SENTENCES]
    return [tagging_gateways.split_words(sentence) for sentence in sentences]


@pytest.mark.parametrize("count", [pytest.param(1, marks=pytest.mark.deep), 3])
def test_treebank_over_gateways_equals_in_process(tagger, treebank, count):
    assert len(treebank) == SENTENCES
    assert tag_over_gateways(tagger, treebank, count) == [tagger.tag(sentence) for sentence in treebank]


def test_a_text_over_gateways_equals_in_process(tagger, topics):
    assert len(topics) == SENTENCES
    assert tag_over_gateways(tagger, topics, 2) == [tagger.tag(sentence) for sentence in topics]


def test_results_are_of_plain_types(tagger, topics):
    """Lists stay lists and tuples tuples: code that compares with a corpus relies on it."""
    [tagged] = tag_over_gateways(tagger, topics[:1], 1)
    assert type(tagged) is list
    assert {type(pair) for pair in tagged} == {tuple}
    assert {type(text) for pair in tagged for text in pair} == {str}


def test_the_recipe_in_its_old_spelling(tmp_path, treebank):
    nltk_data = pytest.importorskip("nltk.data")
    try:
        nltk_data.find("taggers/averaged_perceptron_tagger_eng/")
    except LookupError:
        pytest.skip("NLTK's own weights are not there")
    script = tmp_path / "recipe.py"
    script.write_text(pairing.HEAD + f"import sys; sys.path.insert(0, {str(tagging.EXAMPLES)!r})\n{OLD_RECIPE}")
    done = subprocess.run([sys.executable, script], capture_output=True, encoding="utf-8", timeout=90, cwd=tmp_path)
    assert (done.stdout, done.stderr, done.returncode) == ("True\n", "", 0)
