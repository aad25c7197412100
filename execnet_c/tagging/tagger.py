"""The tagger: a block of bytes that the C code reads, and its parts as Python objects."""

import json
import os
import sys
from array import array
from collections import defaultdict

from .._tagger import Model, Pipe
from .files import component, read, write
from .parts import Parts
from .perceptron import AveragedPerceptron, confidence, plain
from .stream import stream

# Methods of NLTK's TaggerI, which are taken from there when they are called.
_INHERITED = (
    *("_check_params", "_confusion_cached", "accuracy", "confusion", "evaluate", "evaluate_per_tag", "f_measure"),
    *("precision", "recall"),
)

# What the C code computes itself; a subclass cannot change it.
_IN_C = ("START", "END", "normalize", "_get_features")


def nltk_module(name, purpose):
    """A module of NLTK. Raises ImportError that says for which `purpose` it is needed."""
    from importlib import import_module

    try:
        module = import_module(name)
    except ImportError as error:
        raise ImportError(f"{purpose} needs NLTK (pip install nltk): {error}", name=name) from error
    make_known()
    return module


def make_known():
    """If NLTK has been imported, make PerceptronTagger one of its taggers for isinstance()."""
    api = sys.modules.get("nltk.tag.api")
    if api is not None and not issubclass(PerceptronTagger, api.TaggerI):
        api.TaggerI.register(PerceptronTagger)


class _ModelOf(AveragedPerceptron):
    """A tagger's `model`: its weights and classes are the tagger's."""

    def __init__(self, tagger):
        self._tagger = tagger
        self._start_learning()

    @property
    def weights(self):
        return self._tagger._as_parts().weights

    @weights.setter
    def weights(self, weights):
        self._tagger._set_part("weights", weights)

    @property
    def classes(self):
        return self._tagger.classes

    @classes.setter
    def classes(self, classes):
        self._tagger.classes = classes


class PerceptronTagger:
    """Stands in for nltk.tag.perceptron.PerceptronTagger, with the same tags for the same weights."""

    json_tag = "nltk.tag.perceptron.PerceptronTagger"

    START = ["-START-", "-START2-"]
    END = ["-END-", "-END2-"]

    def __init__(self, load=True, lang="eng", loc=None):
        self._start(lang)
        if load:
            self.load_from_json(lang, loc)

    def _start(self, lang="eng", model=None):
        from tempfile import gettempdir

        make_known()
        self._block = model  # None: to be built from the parts
        self._parts = Parts({}, {}, set(), True) if model is None else None  # None: to be made from the model
        self.model = _ModelOf(self)
        self.lang = lang
        self.TRAINED_TAGGER_PATH = gettempdir()
        self.TAGGER_NAME = "averaged_perceptron_tagger"
        self._save_dir = None

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        own = [name for name in _IN_C if name in vars(cls)]
        if own:
            raise TypeError(
                f"{cls.__name__} defines {', '.join(own)}, which is in C here and can not be another; "
                "derive from NLTK's PerceptronTagger for this"
            )

    def __getattr__(self, name):
        if name in _INHERITED:
            method = getattr(nltk_module("nltk.tag.api", f"{type(self).__name__}.{name}()").TaggerI, name)
            return method.__get__(self)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __repr__(self):
        return f"<{type(self).__module__}.{type(self).__qualname__} of {len(self.classes)} classes>"

    # --- what it consists of

    def _compiled(self):
        """The C model, built anew if a part has changed."""
        parts = self._parts
        if parts is not None and parts.note.changed:
            self._block = Model(Model.build(parts.weights, parts.tagdict, parts.classes))
            parts.watch()
        return self._block

    def _as_parts(self):
        if self._parts is None:
            self._parts = Parts.of(self._block)
        return self._parts

    def _set_part(self, name, value):
        setattr(self._as_parts(), name, value)
        self._parts.note.changed = True

    @property
    def weights(self):
        return self._as_parts().weights

    @weights.setter
    def weights(self, weights):
        self._set_part("weights", weights)

    @property
    def tagdict(self):
        return self._as_parts().tagdict

    @tagdict.setter
    def tagdict(self, tagdict):
        self._set_part("tagdict", tagdict)

    @property
    def classes(self):
        return self._as_parts().classes

    @classes.setter
    def classes(self, classes):
        self._set_part("classes", classes)

    @classmethod
    def from_nltk(cls, tagger):
        """A tagger with the weights of a trained one of NLTK."""
        return cls._of_parts(tagger.model.weights, tagger.tagdict, tagger.model.classes, getattr(tagger, "lang", "eng"))

    @classmethod
    def _of_parts(cls, weights, tagdict, classes, lang="eng"):
        self = cls.__new__(cls)
        self._start(lang, Model(Model.build(weights, tagdict, classes)))
        return self

    def to_nltk(self):
        """A tagger of NLTK with the same weights, for a far end that has no C module."""
        tagger = nltk_module("nltk.tag.perceptron", "to_nltk()").PerceptronTagger(load=False)
        tagger.lang = self.lang
        model = self._compiled()
        tagger.decode_json_params((model.weights(), model.tagdict(), list(model.classes)))
        return tagger

    def __reduce__(self):
        kept = {
            name: value
            for name, value in vars(self).items()
            if name not in ("_block", "_parts", "model", "_save_dir", "TRAINED_TAGGER_PATH")
        }
        return _restored, (type(self), self._compiled().block, kept)

    # --- tagging

    def tag(self, tokens, return_conf=False, use_tagdict=True):
        """Tag a sentence: [(word, tag), ...], or [(word, tag, confidence), ...]."""
        if return_conf:
            return self._tag_with_confidence(tokens, use_tagdict)
        return self._compiled().tag(tokens, use_tagdict)

    def tag_sents(self, sentences, *, as_doc=False):
        """Tag sentences, on this thread, without the GIL: a list of what tag() gives, or of Docs."""
        return self._compiled().tag_sents(sentences, True, as_doc)

    def _tag_with_confidence(self, tokens, use_tagdict):
        model = self._compiled()
        tags, sums, counted = model.tag_with_sums(tokens, use_tagdict)
        step = 8 * len(model.classes)
        scores = (array("d", sums[start : start + step]) for start in range(0, len(sums), step))
        confidences = [confidence(row) if is_counted else 1.0 for row, is_counted in zip(scores, counted)]
        return list(zip(tokens, tags, confidences))

    def pipe(self, texts, batch_size=1000, n_threads=2, *, tokenize=None, use_tagdict=True, as_doc=False, gateways=None):
        """Tag a stream of documents, in its order, in batches, on `n_threads` threads: this one and others; or in `gateways`, a
        Group or a list of them, where execnet_c.tagging can be imported.

        `texts` yields documents: lists of words, or objects from which `tokenize` makes such lists. The stream yields
        [(word, tag), ...] for each, or a Doc if `as_doc` is true. It is lazy: it reads at most two batches ahead. The
        threads hold no Python object and need no GIL. They start when the first document is asked for, and end with the
        stream: at its end, by close(), after an error, or when the stream is deleted.

        A document that is none raises ValueError("Error parsing doc: ..."), after the results of all before it. Ctrl-C
        takes effect after a batch.

        A gateway has at most two batches. `texts` is drawn on a thread then. A gateway that dies is started anew in its group;
        nothing is lost.
        """
        if batch_size < 1:
            raise ValueError("batch_size is to be 1 or more")
        if n_threads < 1:
            raise ValueError("n_threads is to be 1 or more")
        if gateways is not None:
            from .gateways import stream_over

            return stream_over(gateways, self, iter(texts), batch_size, tokenize, use_tagdict, as_doc)
        model = self._compiled()
        return stream(lambda: Pipe(model, n_threads, use_tagdict, as_doc), iter(texts), batch_size, tokenize)

    def tag_numbers(self, sentences, use_tagdict=True):
        """The tags of sentences as indexes into sorted(classes), one byte each (two if there are more than 256).

        A worker may answer with these instead of words that the other side has anyway: see pair(). `sentences` may also be
        the bytes that pack() has made: then no str is made here.
        """
        return self._compiled().tag_numbers(sentences, use_tagdict)

    def pack(self, sentences):
        """Sentences as bytes, about as long as their text, to send to a worker that answers with tag_numbers()."""
        return self._compiled().pack(sentences)

    def pair(self, sentences, numbers, as_doc=False):
        """[[(word, tag), ...], ...] of a list of sentences and what tag_numbers() returned for them, here or in a worker.

        If `as_doc` is true, Docs instead of lists: they are made faster.
        """
        return self._compiled().pair(sentences, numbers, as_doc)

    # --- training

    def train(self, sentences, save_loc=None, nr_iter=5):
        """Learn from sentences, each a list of (word, tag), in `nr_iter` rounds; save the tagger in `save_loc`."""
        import logging
        import random

        given = self._as_parts()
        parts = Parts(plain(given.weights), dict(given.tagdict), set(given.classes), True)
        sentences = [sentence for sentence in sentences]
        self._make_tagdict(sentences, parts)
        learner = AveragedPerceptron(parts.weights)
        learner.weights = parts.weights
        learner.classes = parts.classes
        learner._totals, learner._tstamps, learner.i = self.model._totals, self.model._tstamps, self.model.i
        for number in range(nr_iter):
            right = seen = 0
            for sentence in sentences:
                right += self._learn(sentence, learner, parts.tagdict)
                seen += len(sentence)
            random.shuffle(sentences)
            logging.getLogger("execnet_c.tagging").info("round %d: %d of %d", number, right, seen)
        learner.average_weights()
        block = Model(Model.build(parts.weights, parts.tagdict, parts.classes))
        self.model.i = learner.i
        self._block, self._parts = block, None
        if save_loc is not None:
            self.save_to_json(lang=self.lang, loc=save_loc)

    def _learn(self, sentence, learner, tagdict):
        """Learn from one sentence; return for how many words the guess was right."""
        words, tags = zip(*sentence)
        prev, prev2 = self.START
        context = [*self.START, *map(self.normalize, words), *self.END]
        right = 0
        for i, word in enumerate(words):
            guess = tagdict.get(word)
            if not guess:
                features = self._get_features(i, word, context, prev, prev2)
                guess, _ = learner.predict(features)
                learner.update(tags[i], guess, features)
            prev2, prev = prev, guess
            right += guess == tags[i]
        return right

    def _make_tagdict(self, sentences, parts):
        """Enter words that are frequent and nearly always have the same tag: they need no features."""
        counts = defaultdict(lambda: defaultdict(int))
        for sentence in sentences:
            for word, tag in sentence:
                counts[word][tag] += 1
                parts.classes.add(tag)
        for word, tags in counts.items():
            tag, most = max(tags.items(), key=lambda item: item[1])
            n = sum(tags.values())
            if n >= 20 and most / n >= 0.97:
                parts.tagdict[word] = tag

    def normalize(self, word):
        """The word as features have it: in lower case. One word stands for all words with a hyphen, one for all years, one
        for all others that begin with a digit."""
        if "-" in word and word[0] != "-":
            return "!HYPHEN"
        if word.isdigit() and len(word) == 4:
            return "!YEAR"
        if word and word[0].isdigit():
            return "!DIGITS"
        return word.lower()

    def _get_features(self, i, word, context, prev, prev2):
        """{feature: 1}: the features that decide the tag of a word, in the order in which their weights are added up."""
        i += len(self.START)
        before, after = context[i - 1], context[i + 1]
        features = (
            "bias",
            "i suffix " + word[-3:],
            "i pref1 " + word[:1],
            "i-1 tag " + prev,
            "i-2 tag " + prev2,
            f"i tag+i-2 tag {prev} {prev2}",
            "i word " + context[i],
            f"i-1 tag+i word {prev} {context[i]}",
            "i-1 word " + before,
            "i-1 suffix " + before[-3:],
            "i-2 word " + context[i - 2],
            "i+1 word " + after,
            "i+1 suffix " + after[-3:],
            "i+2 word " + context[i + 2],
        )
        return dict.fromkeys(features, 1)

    # --- files

    @property
    def save_dir(self):
        """A new directory to save this tagger in, made at the first use; NLTK, if installed, may read from there."""
        if self._save_dir is None:
            prefix = f"nltk_{component(self.TAGGER_NAME)}_{component(self.lang)}_"
            try:
                from nltk.data import make_staging_dir
            except ImportError:
                from tempfile import mkdtemp as make_staging_dir
            self._save_dir = make_staging_dir(prefix=prefix)
        return self._save_dir

    def param_files(self, lang="eng"):
        """The names of the three files of a tagger."""
        component(lang)
        return tuple(component(f"{self.TAGGER_NAME}_{lang}.{part}.json") for part in ("weights", "tagdict", "classes"))

    def save_to_json(self, lang="xxx", loc=None):
        """Write NLTK's three files into a directory, each complete or not at all."""
        files = self.param_files(lang)
        loc = os.fspath(loc or self.save_dir)
        texts = [json.dumps(part) for part in self.encode_json_obj()]
        os.makedirs(loc, mode=0o700, exist_ok=True)
        for name, text in zip(files, texts):
            write(os.path.join(loc, name), text)

    def load_from_json(self, lang="eng", loc=None):
        """Read NLTK's three files from a directory; without one, those that NLTK finds for the language."""
        files = self.param_files(lang)
        if isinstance(loc, bytes):
            loc = os.fsdecode(loc)
        if isinstance(loc, (str, os.PathLike)) and not os.fspath(loc).strip():
            raise ValueError(f"{loc!r} names no directory of a tagger's")
        if loc is None or (isinstance(loc, str) and not os.path.isabs(loc)):
            find = nltk_module("nltk.data", "finding a tagger by name").find
            loc = find(f"taggers/averaged_perceptron_tagger_{lang}/" if loc is None else loc)
        self.decode_json_params(read(loc, name) for name in files)

    def decode_json_params(self, params):
        """Take (weights, tagdict, list of classes) over. If they are not valid the tagger stays as it was."""
        weights, tagdict, classes = params
        if not isinstance(classes, (list, tuple, set, frozenset)):
            raise TypeError("classes are to be a list")
        self._block, self._parts = Model(Model.build(weights, tagdict, classes)), None

    def encode_json_obj(self):
        model = self._compiled()
        return model.weights(), model.tagdict(), list(model.classes)

    @classmethod
    def decode_json_obj(cls, obj):
        tagger = cls(load=False)
        tagger.decode_json_params(obj)
        return tagger


def _restored(cls, block, kept):
    """A tagger from its pickle."""
    tagger = cls.__new__(cls)
    tagger._start(model=Model(block))
    vars(tagger).update(kept)
    return tagger
