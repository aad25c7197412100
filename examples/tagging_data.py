"""Where the tagging examples get their data: the weights of the tagger, the treebank, a text.

Weights come from NLTK's own data if NLTK finds them (``NLTK_DATA``), otherwise from the package
``textblob-aptagger`` on PyPI: the same tagger's weights by its first author, under the MIT licence. Only that
package's data file is used, so it need not be importable (``pip install --no-deps textblob-aptagger``).

The treebank is NLTK's sample of the Penn Treebank. It can not be had from PyPI; without it, the one sentence that
the recipe tags, with the tags the treebank gives it, stands in.
"""

import importlib.util
import os
import pickle

import nltk.data
import nltk.tag
from nltk.tag.perceptron import PerceptronTagger

# NLTK 3.1 dropped the name; NLTK 3.9 and later answer this path with the tagger they load from JSON.
if not hasattr(nltk.tag, "_POS_TAGGER"):
    nltk.tag._POS_TAGGER = "taggers/averaged_perceptron_tagger/averaged_perceptron_tagger.pickle"

TEXTBLOB_PACKAGE = "textblob_aptagger"
TEXTBLOB_FILE = "trontagger-0.1.0.pickle"

RECIPE_SENTENCE = [
    ("Pierre", "NNP"),
    ("Vinken", "NNP"),
    (",", ","),
    ("61", "CD"),
    ("years", "NNS"),
    ("old", "JJ"),
    (",", ","),
    ("will", "MD"),
    ("join", "VB"),
    ("the", "DT"),
    ("board", "NN"),
    ("as", "IN"),
    ("a", "DT"),
    ("nonexecutive", "JJ"),
    ("director", "NN"),
    ("Nov.", "NNP"),
    ("29", "CD"),
    (".", "."),
]


class NoWeights(Exception):
    """Neither source of the tagger's weights is there."""

    def __init__(self):
        super().__init__(
            "no weights for the tagger. Either install the package that carries them,\n"
            "    pip install --no-deps textblob-aptagger\n"
            "or set NLTK_DATA to a folder with NLTK's data that has taggers/averaged_perceptron_tagger_eng."
        )


def load_tagger():
    """The trained tagger and a line that says whose weights it has."""
    try:
        return nltk.data.load(nltk.tag._POS_TAGGER), "NLTK's own weights (averaged_perceptron_tagger_eng)"
    except LookupError:
        pass
    path = _textblob_path()
    if path is None:
        raise NoWeights()
    return _tagger_of(path), "the weights of textblob-aptagger (trontagger-0.1.0)"


def load_treebank():
    """NLTK's treebank corpus, or the one sentence that the recipe uses."""
    from nltk.corpus import treebank

    try:
        treebank.ensure_loaded()
    except LookupError:
        return OneSentence()
    return treebank


class OneSentence:
    """Stands in for the treebank as far as the recipe asks."""

    def sents(self):
        return [[word for word, _ in RECIPE_SENTENCE]]

    def tagged_sents(self):
        return [list(RECIPE_SENTENCE)]


def python_topics():
    """A real text of about 65,000 words that comes with every CPython: the language's reference, by topic."""
    from pydoc_data.topics import topics

    return "\n\n".join(topics[name] for name in sorted(topics))


def _textblob_path():
    spec = importlib.util.find_spec(TEXTBLOB_PACKAGE)  # does not import it: it needs textblob, its data does not
    for folder in spec.submodule_search_locations or () if spec else ():
        path = os.path.join(folder, TEXTBLOB_FILE)
        if os.path.isfile(path):
            return path
    return None


class _WeightsUnpickler(pickle.Unpickler):
    """Reads the file that Python 2 wrote and lets nothing in it run: it needs no class but set."""

    def find_class(self, module, name):
        if name == "set" and module in ("__builtin__", "builtins"):
            return set
        raise pickle.UnpicklingError(f"a file of weights does not need {module}.{name}")


def _tagger_of(path):
    with open(path, "rb") as file:
        weights, tagdict, classes = _WeightsUnpickler(file, encoding="latin1").load()
    tagger = PerceptronTagger(load=False)
    tagger.model.weights = weights
    tagger.tagdict = tagdict
    tagger.classes = tagger.model.classes = classes
    return tagger
