"""NLTK's functions pos_tag and pos_tag_sents with this tagger, and how NLTK's own ones are made to use it."""

from .tagger import PerceptronTagger, nltk_module

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
    map_tag = nltk_module("nltk.tag.mapping", "a tagset").map_tag
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
        self._module = nltk_module("nltk.tag", "install_into_nltk()")
        self._before = self._module._get_tagger
        self._ours = lambda lang=None: _tagger_for(lang)
        self._module._get_tagger = self._ours

    def undo(self):
        """Let NLTK use its own tagger again. Calling it again does nothing."""
        if self._module._get_tagger is self._ours:
            self._module._get_tagger = self._before

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.undo()


def install_into_nltk():
    """Have nltk.pos_tag and nltk.pos_tag_sents use this tagger; what is returned has undo()."""
    return _Installed()
