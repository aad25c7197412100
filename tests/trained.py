"""What the tests of the tagger's models share: a small tagger that is trained here."""

import copy
import random

import tagging  # noqa: F401 isort: skip (before nltk, which reads NLTK_DATA once)
import pytest

from execnet_c.tagging import PerceptronTagger

try:
    import numpy  # noqa: F401 (starts threads: before the tests count them)
except ImportError:
    pass

TRAINING = [
    [("the", "DT"), ("dog", "NN"), ("barks", "VBZ"), (".", ".")],
    [("a", "DT"), ("Grün", "JJ"), ("dog", "NN"), ("saw", "VBD"), ("the", "DT"), ("cat", "NN"), (".", ".")],
    [("\ud800x", "NN"), ("😀", "UH"), ("1999", "CD"), ("x-y", "JJ"), (".", ".")],
]
SENTENCES = [[word for word, _ in sentence] for sentence in TRAINING] + [[], ["dogs", "saw", "cats"]]


@pytest.fixture(name="trained", scope="module")
def trained_fixture():
    random.seed(1)
    tagger = PerceptronTagger(load=False)
    tagger.train(TRAINING * 8, nr_iter=3)
    return tagger


@pytest.fixture(name="tagger")
def tagger_fixture(trained):
    return copy.copy(trained)
