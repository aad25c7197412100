"""NLTK's averaged perceptron tagger, in C and without the GIL: the same answers, in threads that run side by side.

    from execnet_c.tagging import PerceptronTagger

    tagger = PerceptronTagger()                 # NLTK's weights, found by NLTK
    tagger.tag(["the", "dog"])
    for tagged in tagger.pipe(sentences, n_threads=2):
        ...

A trained tagger is one block of bytes that nobody writes to: threads share it, forked processes share its pages, and
pickle takes it as it is. NLTK's dicts are made from it when somebody asks for them; whoever changes one of them changes
the tagger, which is put together again for the next sentence.

NLTK is needed to find its data by name, for accuracy() and the like, and for to_nltk(); not for tagging.
"""

import json
import logging
import math
import os
import random
import sys
from array import array
from collections import defaultdict
from itertools import islice

try:
    from .._tagger import Doc, Model, Pipe
except ImportError as error:
    from ..common.unbuilt import reason

    raise ImportError(
        f"the tagger of execnet_c is in C, and its module execnet_c._tagger {reason('_tagger', error)}. Where it "
        "can not be built, use NLTK's: tagger.to_nltk() makes one of a tagger of execnet_c, to be sent instead",
        name="execnet_c._tagger",
    ) from error

__all__ = ["AveragedPerceptron", "Doc", "PerceptronTagger", "install_into_nltk", "pos_tag", "pos_tag_sents"]

_logger = logging.getLogger(__name__)

# What NLTK's TaggerI gives to its taggers.
_INHERITED = (
    *("_check_params", "_confusion_cached", "accuracy", "confusion", "evaluate", "evaluate_per_tag", "f_measure"),
    *("precision", "recall"),
)

# What the C code computes in its own way.
_IN_C = ("START", "END", "normalize", "_get_features")


def _nltk(name, purpose):
    """A module of NLTK's, or an error that says what it is needed for."""
    from importlib import import_module

    try:
        module = import_module(name)
    except ImportError as error:
        raise ImportError(f"{purpose} needs NLTK (pip install nltk): {error}", name=name) from error
    _make_known()
    return module


def _make_known():
    """Once NLTK is there, ours is one of its taggers."""
    api = sys.modules.get("nltk.tag.api")
    if api is not None and not issubclass(PerceptronTagger, api.TaggerI):
        api.TaggerI.register(PerceptronTagger)


# --- the dicts that are handed out ----------------------------------------------------------------------------------


class _Note:
    """Whether somebody has changed what was handed out."""

    __slots__ = ("changed",)

    def __init__(self):
        self.changed = False


def _watched(base, *mutators):
    """A subclass of dict or set whose changes are noted. Copies and pickles of it are plain."""

    def noting(name):
        method = getattr(base, name)

        def change(self, *args, **kwargs):
            self._note.changed = True
            return method(self, *args, **kwargs)

        change.__name__ = name
        return change

    def __init__(self, items, note):
        base.__init__(self, items)
        self._note = note

    body = {name: noting(name) for name in mutators}
    body.update(
        __slots__=("_note",),
        __init__=__init__,
        __reduce_ex__=lambda self, protocol: (base, (base(self),)),
        copy=lambda self: base(self),
    )
    return type(f"Watched{base.__name__.title()}", (base,), body)


_Dict = _watched(dict, "__delitem__", "__ior__", "__setitem__", "clear", "pop", "popitem", "setdefault", "update")
_Set = _watched(
    set,
    *("__iand__", "__ior__", "__isub__", "__ixor__", "add", "clear", "difference_update", "discard"),
    *("intersection_update", "pop", "remove", "symmetric_difference_update", "update"),
)


class _Parts:
    """A tagger's weights, tagdict and classes as Python has them, and whether they still are what the model says."""

    def __init__(self, weights, tagdict, classes, changed):
        self.weights, self.tagdict, self.classes = weights, tagdict, classes
        self.note = _Note()
        self.note.changed = changed

    @classmethod
    def of(cls, model):
        parts = cls(model.weights(), model.tagdict(), model.classes, False)
        parts.watch()
        return parts

    def watch(self):
        """From here on changes are noted; what somebody holds already stays the same object, if it was watched."""
        note = self.note
        if type(self.weights) is not _Dict:
            self.weights = _Dict(self.weights, note)
        for feature, row in self.weights.items():
            if type(row) is not _Dict:
                dict.__setitem__(self.weights, feature, _Dict(row, note))
        if type(self.tagdict) is not _Dict:
            self.tagdict = _Dict(self.tagdict, note)
        if type(self.classes) is not _Set:
            self.classes = _Set(self.classes, note)
        note.changed = False


# --- training -------------------------------------------------------------------------------------------------------


class AveragedPerceptron:
    """Weights of features for classes, and how they are learnt. Stands in for NLTK's class of this name."""

    json_tag = "nltk.tag.perceptron.AveragedPerceptron"

    def __init__(self, weights=None):
        self.weights = weights or {}
        self.classes = set()
        self._start_learning()

    def _start_learning(self):
        self._totals = defaultdict(int)  # (feature, class) -> the sum of its weight over all instances so far
        self._tstamps = defaultdict(int)  # ... up to which instance
        self.i = 0

    def predict(self, features, return_conf=False):
        """The class with the highest sum of weights, of equal ones the last; its confidence, or None."""
        weights, scores = self.weights, defaultdict(float)
        for feature, value in features.items():
            row = weights.get(feature)
            if row is not None and value != 0:
                for label, weight in row.items():
                    scores[label] += value * weight
        best = max(self.classes, key=lambda label: (scores[label], label))
        return best, _confidence(array("d", scores.values())) if return_conf else None

    def update(self, truth, guess, features):
        """Learn from one instance."""
        self.i += 1
        if truth == guess:
            return
        for feature in features:
            row = self.weights.setdefault(feature, {})
            before = row.get(truth, 0.0), row.get(guess, 0.0)
            for label, weight, change in ((truth, before[0], 1.0), (guess, before[1], -1.0)):
                key = feature, label
                self._totals[key] += (self.i - self._tstamps[key]) * weight
                self._tstamps[key] = self.i
                row[label] = weight + change

    def average_weights(self):
        """Each weight becomes its mean over all instances, to the thousandth; zeros are dropped."""
        weights = self.weights
        for feature, row in weights.items():
            averaged = {}
            for label, weight in row.items():
                key = feature, label
                total = self._totals[key] + (self.i - self._tstamps[key]) * weight
                if mean := round(total / self.i, 3):
                    averaged[label] = mean
            weights[feature] = averaged

    def encode_json_obj(self):
        return _plain(self.weights)

    @classmethod
    def decode_json_obj(cls, obj):
        return cls(obj)


def _plain(weights):
    return {feature: dict(row) for feature, row in weights.items()}


def _confidence(scores):
    """The softmax of the highest score, computed as NLTK does, with numpy; without it, to the last bit or two."""
    try:
        import numpy
    except ImportError:
        powers = [math.exp(score) for score in scores]
        return max(powers) / math.fsum(powers)
    powers = numpy.exp(numpy.frombuffer(scores, dtype=float))
    return max(powers / numpy.sum(powers))


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


# --- the tagger -----------------------------------------------------------------------------------------------------


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

        _make_known()
        self._block = model  # None: to be made of the parts
        self._parts = _Parts({}, {}, set(), True) if model is None else None  # None: to be made of the model
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
            method = getattr(_nltk("nltk.tag.api", f"{type(self).__name__}.{name}()").TaggerI, name)
            return method.__get__(self)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __repr__(self):
        return f"<{type(self).__module__}.{type(self).__qualname__} of {len(self.classes)} classes>"

    # --- what it consists of

    def _compiled(self):
        """The C side, put together again if somebody has changed a part."""
        parts = self._parts
        if parts is not None and parts.note.changed:
            self._block = Model(Model.build(parts.weights, parts.tagdict, parts.classes))
            parts.watch()
        return self._block

    def _as_parts(self):
        if self._parts is None:
            self._parts = _Parts.of(self._block)
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
        """The same tagger as a trained one of NLTK's."""
        return cls._of_parts(tagger.model.weights, tagger.tagdict, tagger.model.classes, getattr(tagger, "lang", "eng"))

    @classmethod
    def _of_parts(cls, weights, tagdict, classes, lang="eng"):
        self = cls.__new__(cls)
        self._start(lang, Model(Model.build(weights, tagdict, classes)))
        return self

    def to_nltk(self):
        """One of NLTK's with the same weights: for a far end that has no C module."""
        tagger = _nltk("nltk.tag.perceptron", "to_nltk()").PerceptronTagger(load=False)
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
        confidences = [_confidence(row) if is_counted else 1.0 for row, is_counted in zip(scores, counted)]
        return list(zip(tokens, tags, confidences))

    def pipe(self, texts, batch_size=1000, n_threads=2, *, tokenize=None, use_tagdict=True, as_doc=False):
        """Tag a stream of documents, in its order, in batches, on `n_threads` threads: this one and others.

        `texts` yields documents: lists of words, or what `tokenize` makes lists of words of. What comes out is
        [(word, tag), ...] for each, or a Doc if `as_doc` is true. It is a lazy stream: at most two batches are read
        beyond what has come out. The threads hold no Python object and need no GIL; they start with the first document
        asked for and end with the stream: at its end, with close(), when an error comes out or it is forgotten.

        What is no document raises ValueError("Error parsing doc: ..."), after what came before it. Ctrl-C is seen
        after each batch.
        """
        if batch_size < 1:
            raise ValueError("batch_size is to be 1 or more")
        if n_threads < 1:
            raise ValueError("n_threads is to be 1 or more")
        model = self._compiled()
        return _stream(lambda: Pipe(model, n_threads, use_tagdict, as_doc), iter(texts), batch_size, tokenize)

    def tag_numbers(self, sentences, use_tagdict=True):
        """The tags of sentences as numbers in sorted(classes), a byte each (two if there are more than 256), end to end.

        What a worker may answer instead of words that the other side has anyway: see pair. Sentences may be what pack
        made of them: then no str is made here.
        """
        return self._compiled().tag_numbers(sentences, use_tagdict)

    def pack(self, sentences):
        """Sentences as bytes, about as long as their text: what to send to a worker that is to answer with tag_numbers."""
        return self._compiled().pack(sentences)

    def pair(self, sentences, numbers, as_doc=False):
        """[[(word, tag), ...], ...] of a list of sentences and what tag_numbers gave for them, there or here.

        Docs instead of lists if `as_doc` is true, which are made in less time.
        """
        return self._compiled().pair(sentences, numbers, as_doc)

    # --- training

    def train(self, sentences, save_loc=None, nr_iter=5):
        """Learn from sentences, each a list of (word, tag), in so many rounds; save the tagger there if asked to."""
        given = self._as_parts()
        parts = _Parts(_plain(given.weights), dict(given.tagdict), set(given.classes), True)
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
            _logger.info("round %d: %d of %d", number, right, seen)
        learner.average_weights()
        block = Model(Model.build(parts.weights, parts.tagdict, parts.classes))
        self.model.i = learner.i
        self._block, self._parts = block, None
        if save_loc is not None:
            self.save_to_json(lang=self.lang, loc=save_loc)

    def _learn(self, sentence, learner, tagdict):
        """Go through one sentence; how many words were right."""
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
        """Words that are frequent and nearly always have one tag need no features."""
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
        """The word as features have it: lower case; what has a hyphen, or begins with a digit, is all one."""
        if "-" in word and word[0] != "-":
            return "!HYPHEN"
        if word.isdigit() and len(word) == 4:
            return "!YEAR"
        if word and word[0].isdigit():
            return "!DIGITS"
        return word.lower()

    def _get_features(self, i, word, context, prev, prev2):
        """What the tag of a word may depend on: {feature: 1}, in the order in which weights are added up."""
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
        """A directory of this tagger's own to save it in, made when first asked for; where NLTK may read, if it is here."""
        if self._save_dir is None:
            prefix = f"nltk_{_component(self.TAGGER_NAME)}_{_component(self.lang)}_"
            try:
                from nltk.data import make_staging_dir
            except ImportError:
                from tempfile import mkdtemp as make_staging_dir
            self._save_dir = make_staging_dir(prefix=prefix)
        return self._save_dir

    def param_files(self, lang="eng"):
        """The names of the three files of a tagger."""
        _component(lang)
        return tuple(_component(f"{self.TAGGER_NAME}_{lang}.{part}.json") for part in ("weights", "tagdict", "classes"))

    def save_to_json(self, lang="xxx", loc=None):
        """Write NLTK's three files into a directory, each complete or not at all."""
        files = self.param_files(lang)
        loc = os.fspath(loc or self.save_dir)
        texts = [json.dumps(part) for part in self.encode_json_obj()]
        os.makedirs(loc, mode=0o700, exist_ok=True)
        for name, text in zip(files, texts):
            _write(os.path.join(loc, name), text)

    def load_from_json(self, lang="eng", loc=None):
        """Read NLTK's three files from a directory; without one, those that NLTK finds for the language."""
        files = self.param_files(lang)
        if isinstance(loc, bytes):
            loc = os.fsdecode(loc)
        if isinstance(loc, (str, os.PathLike)) and not os.fspath(loc).strip():
            raise ValueError(f"{loc!r} names no directory of a tagger's")
        if loc is None or (isinstance(loc, str) and not os.path.isabs(loc)):
            find = _nltk("nltk.data", "finding a tagger by name").find
            loc = find(f"taggers/averaged_perceptron_tagger_{lang}/" if loc is None else loc)
        self.decode_json_params(_read(loc, name) for name in files)

    def decode_json_params(self, params):
        """Become the tagger of (weights, tagdict, list of classes); if they are none, stay as it was."""
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


def _component(text):
    """`text`, which becomes part of a file's name, and must not lead elsewhere."""
    text = str(text)
    if not text.strip() or text in (".", "..") or any(c in text for c in ("\0", "/", "\\")):
        raise ValueError(f"{text!r} can not be part of a file's name")
    return text


def _read(loc, name):
    """What a file of a tagger says; `loc` is a path, or one of NLTK's pointers into a folder or an archive."""
    if isinstance(loc, (str, os.PathLike)):
        with open(os.path.join(loc, name), "rb") as file:
            data = file.read()
    else:
        with loc.join(name).open() as file:
            data = file.read()
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} is no file of a tagger, or not all of it: {error}") from error


def _write(path, text):
    """A file of nobody else's, under a name of its own first: a link at `path` is replaced, not followed."""
    new = f"{path}.{os.getpid()}.{random.SystemRandom().getrandbits(64):x}"
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with open(fd, "w") as file:
            file.write(text)
        os.replace(new, path)
    except BaseException:
        os.unlink(new)
        raise


# --- streams --------------------------------------------------------------------------------------------------------


def _stream(start, source, batch_size, tokenize):
    """Batches through a Pipe, two of them under way: while threads tag one, this thread reads or hands out another."""
    pipe, waiting, end = start(), 0, None
    try:
        while True:
            while end is None and waiting < 2:
                texts, end = _next_batch(source, batch_size)
                docs, end = _tokenized(texts, tokenize, end)
                bad = pipe.give(docs)
                waiting += 1
                if bad is not None:
                    end = _parse_error(texts[bad[0]], bad[1])
            if not waiting:
                break
            yield from pipe.take()
            waiting -= 1
    finally:
        pipe.close()
    if not isinstance(end, StopIteration):
        raise end


def _next_batch(source, size):
    """The next documents, and why there are no more: an exception; None if there may be."""
    texts = []
    try:
        texts.extend(islice(source, size))
    except Exception as error:
        return texts, error
    return texts, None if len(texts) == size else StopIteration()


def _tokenized(texts, tokenize, end):
    if tokenize is None:
        return texts, end
    docs = []
    for text in texts:
        try:
            docs.append(tokenize(text))
        except Exception as error:
            return docs, _parse_error(text, error)
    return docs, end


def _parse_error(text, cause):
    """An error that names the document."""
    if not isinstance(cause, Exception) or isinstance(cause, MemoryError):
        return cause
    if not isinstance(text, str):
        try:
            text = " ".join(text)
        except TypeError:
            text = repr(text)
    error = ValueError(f"Error parsing doc: {text if len(text) <= 200 else text[:200] + '...'}")
    error.__cause__ = cause
    return error


# --- beside NLTK's functions ----------------------------------------------------------------------------------------

_LANGUAGES = ("eng", "rus")
_taggers = {}


def _tagger_for(lang=None):
    """The one tagger of a language that these functions share."""
    lang = "rus" if lang == "rus" else "eng"
    tagger = _taggers.get(lang)
    if tagger is None:
        tagger = _taggers[lang] = PerceptronTagger(lang=lang)
    return tagger


def _mapped(tagged, tagset, lang):
    if not tagset:
        return tagged
    map_tag = _nltk("nltk.tag.mapping", "a tagset").map_tag
    if lang == "rus":
        return [(word, map_tag("ru-rnc-new", tagset, tag.partition("=")[0])) for word, tag in tagged]
    return [(word, map_tag("en-ptb", tagset, tag)) for word, tag in tagged]


def _check_language(lang):
    if lang not in _LANGUAGES:
        raise NotImplementedError(f"there are taggers for {' and '.join(_LANGUAGES)}, not for {lang!r}")


def pos_tag(tokens, tagset=None, lang="eng"):
    """As nltk.pos_tag."""
    _check_language(lang)
    return _mapped(_tagger_for(lang).tag(tokens), tagset, lang)


def pos_tag_sents(sentences, tagset=None, lang="eng"):
    """As nltk.pos_tag_sents."""
    _check_language(lang)
    return [_mapped(tagged, tagset, lang) for tagged in _tagger_for(lang).tag_sents(sentences)]


class _Installed:
    """nltk.pos_tag tags with our tagger until undo(), or the end of a with block."""

    def __init__(self):
        self._module = _nltk("nltk.tag", "install_into_nltk()")
        self._before = self._module._get_tagger
        self._ours = lambda lang=None: _tagger_for(lang)
        self._module._get_tagger = self._ours

    def undo(self):
        """NLTK is as it was; doing it again does nothing."""
        if self._module._get_tagger is self._ours:
            self._module._get_tagger = self._before

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.undo()


def install_into_nltk():
    """Have nltk.pos_tag and nltk.pos_tag_sents use this tagger; what is returned has undo()."""
    return _Installed()


_make_known()
