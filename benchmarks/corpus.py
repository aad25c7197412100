"""Text to serialize, to send and to tag: NLTK's treebank and Brown if they are installed, else Python's own help texts.

As in the tests, NLTK's data is searched in EXECNET_C_NLTK_DATA, NLTK_DATA and the data folder beside the checkout.
"""

import itertools
import os
import pickle
import sys

TAGS = ["DT", "NN", "VBZ", "IN", "JJ", "NNS", "RB", "PRP", "VB", ",", "CC", "TO", "NNP", "CD"]
WORDS_IN_A_SENTENCE = 25

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
EXAMPLES = os.path.join(ROOT, "examples")


def find_data():
    """Set NLTK_DATA. Must be called before nltk is imported, because nltk reads it only then."""
    named = os.environ.get("EXECNET_C_NLTK_DATA") or os.environ.get("NLTK_DATA")
    beside = os.path.join(os.path.dirname(ROOT), "shared", "nltk_data")
    if named or os.path.isdir(beside):
        os.environ["NLTK_DATA"] = named or beside


def load(number, scratch=None):
    """(where the text is from, a list of so many sentences, each a list of (word, tag) pairs).

    scratch: a directory in which the text is kept for the next measurement, because the import of nltk takes longer than
    most measurements.
    """
    return kept(f"{number} sentences", scratch, lambda: _load(number))


def load_words(number, scratch=None):
    """(where the text is from, a list of so many sentences of Brown, each a list of words)."""
    return kept(f"{number} sentences of words", scratch, lambda: _load_words(number))


def kept(name, scratch, make):
    """What make() returned to the first process that asked for that name; every process gets a copy."""
    if scratch is None:
        return make()
    path = os.path.join(scratch, name)
    if not os.path.exists(path):
        with open(path, "wb") as file:
            pickle.dump(make(), file)
    with open(path, "rb") as file:
        return pickle.load(file)


def _load(number):
    find_data()
    try:
        from nltk.corpus import treebank

        return "NLTK's treebank", [list(sentence) for sentence in treebank.tagged_sents()[:number]]
    except (ImportError, LookupError):
        return "no treebank found; words of pydoc_data.topics with made-up tags", _from_topics()[:number]


def _load_words(number):
    find_data()
    try:
        from nltk.corpus import brown

        return "Brown", [list(sentence) for sentence in brown.sents()[:number]]
    except (ImportError, LookupError):
        text, tagged = _load(number)
        return f"no Brown found; {text}", [[word for word, _ in sentence] for sentence in tagged]


def tagger():
    """A trained tagger. Raises ImportError, LookupError or NoWeights if there is none."""
    find_data()
    sys.path.insert(0, EXAMPLES)
    import tagging_data

    return tagging_data.load_tagger()[0]


def pairs():
    """One sentence of 25 pairs, the same everywhere."""
    return _from_topics()[0]


def words():
    """One sentence of 20 words, the same everywhere."""
    return [word for word, _ in pairs()[:20]]


def _from_topics():
    from pydoc_data.topics import topics

    words = (word for name in sorted(topics) for word in topics[name].split())
    pairs = list(zip(words, itertools.cycle(TAGS)))
    whole = len(pairs) - len(pairs) % WORDS_IN_A_SENTENCE
    return [pairs[i : i + WORDS_IN_A_SENTENCE] for i in range(0, whole, WORDS_IN_A_SENTENCE)]
