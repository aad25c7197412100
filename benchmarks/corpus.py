"""Tagged text to serialize and to send: NLTK's treebank where it is installed, else Python's own help texts."""

import itertools

TAGS = ["DT", "NN", "VBZ", "IN", "JJ", "NNS", "RB", "PRP", "VB", ",", "CC", "TO", "NNP", "CD"]
WORDS_IN_A_SENTENCE = 25
SENTENCES = 1000


def load():
    """(where the text is from, a list of 1000 sentences, each a list of (word, tag) pairs)."""
    try:
        from nltk.corpus import treebank

        sentences = [list(sentence) for sentence in treebank.tagged_sents()[:SENTENCES]]
        return "NLTK's treebank", sentences
    except (ImportError, LookupError):
        return "words of pydoc_data.topics with made-up tags", _from_topics()[:SENTENCES]


def sentence():
    """One sentence of 25 pairs, the same everywhere."""
    return _from_topics()[0]


def _from_topics():
    from pydoc_data.topics import topics

    words = (word for name in sorted(topics) for word in topics[name].split())
    pairs = list(zip(words, itertools.cycle(TAGS)))
    whole = len(pairs) - len(pairs) % WORDS_IN_A_SENTENCE
    return [pairs[i : i + WORDS_IN_A_SENTENCE] for i in range(0, whole, WORDS_IN_A_SENTENCE)]
