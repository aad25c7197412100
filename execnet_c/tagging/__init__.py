"""NLTK's averaged perceptron tagger, in C and without the GIL: the same answers, in threads that run side by side.

    from execnet_c.tagging import PerceptronTagger

    tagger = PerceptronTagger()                 # NLTK's weights, found by NLTK
    tagger.tag(["the", "dog"])
    for tagged in tagger.pipe(sentences, n_threads=2):
        ...

A trained tagger is one block of bytes that never changes: threads share it, forked processes share its pages, and pickle
takes it as it is. NLTK's dicts are made from it when a program asks for them. If the program changes one of them, the
tagger changes, too: the block is built anew before the next sentence.

NLTK is needed to find its data by name, for accuracy() and the like, and for to_nltk(); not for tagging.
"""

try:
    from .._tagger import Doc
except ImportError as error:
    from ..common.unbuilt import reason

    raise ImportError(
        f"the tagger of execnet_c is in C, and its module execnet_c._tagger {reason('_tagger', error)}. Where it "
        "can not be built, use NLTK's: tagger.to_nltk() makes one of a tagger of execnet_c, to be sent instead",
        name="execnet_c._tagger",
    ) from error

from .functions import install_into_nltk, pos_tag, pos_tag_sents
from .perceptron import AveragedPerceptron
from .tagger import PerceptronTagger, _ModelOf, _restored, make_known

__all__ = ["AveragedPerceptron", "Doc", "PerceptronTagger", "install_into_nltk", "pos_tag", "pos_tag_sents"]

# Pickles have these as execnet_c.tagging.NAME, so that these names must not change.
for _one in (AveragedPerceptron, PerceptronTagger, _ModelOf, _restored, install_into_nltk, pos_tag, pos_tag_sents):
    _one.__module__ = __name__

make_known()
