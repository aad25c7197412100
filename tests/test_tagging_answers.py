"""The tagger in C gives NLTK's answers: the same tags, confidences and weights, for whatever text."""

import itertools
import random
import unicodedata

import tagging  # isort: skip (before nltk, which reads NLTK_DATA once)
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

nltk_perceptron = pytest.importorskip("nltk.tag.perceptron", reason="nltk is not installed")

from execnet_c.tagging import AveragedPerceptron, PerceptronTagger  # noqa: E402


@pytest.fixture(scope="module")
def nltks():
    return tagging.tagger()


@pytest.fixture(scope="module")
def ours(nltks):
    return PerceptronTagger.from_nltk(nltks)


def textblobs():
    """The weights of textblob-aptagger, which are not NLTK's."""
    tagging_data = pytest.importorskip("tagging_data")
    path = tagging_data._textblob_path()
    if path is None:
        pytest.skip("textblob-aptagger is not installed")
    return tagging_data._tagger_of(path)


def plain(sentences):
    return [[word for word, _ in sentence] for sentence in sentences]


def same(ours, nltks, sentences):
    expected = [nltks.tag(sentence) for sentence in sentences]
    assert ours.tag_sents(sentences) == expected
    assert [ours.tag(sentence) for sentence in sentences[:200]] == expected[:200]


def brown(stride):
    corpora = pytest.importorskip("nltk.corpus")
    try:
        corpora.brown.ensure_loaded()
    except LookupError:
        pytest.skip("no Brown corpus: set NLTK_DATA or EXECNET_C_NLTK_DATA to a folder that has it")
    return [list(sentence) for sentence in itertools.islice(corpora.brown.sents(), 0, None, stride)]


# --- texts ----------------------------------------------------------------------------------------------------------


@pytest.mark.deep
def test_the_treebank(ours, nltks):
    sentences = plain(tagging.treebank_sentences(None))
    assert len(sentences) > 3900
    same(ours, nltks, sentences[::3])


@pytest.mark.deep
def test_brown(ours, nltks):
    same(ours, nltks, brown(40))


def test_python_s_reference(ours, nltks):
    from pydoc_data.topics import topics

    same(ours, nltks, [topics[name].split() for name in sorted(topics)][::3])


def test_other_weights():
    nltks = textblobs()
    sentences = plain(tagging.treebank_sentences(400))
    same(PerceptronTagger.from_nltk(nltks), nltks, sentences)


# What lower(), isdigit() and slices make something of: digits that are none in ASCII, characters that become two, or
# another one at the end of a word, hyphens and what looks like them, lone surrogates, the marks around a sentence.
ODD = [
    *("", "-", "--", "a-", "-a", "a-b", "1", "12", "1999", "19999", "1a", "a1", "²³", "²", "Ⅻ", "١٩٩٩", "١", "१२३४", "1²34"),
    *("İ", "İSTANBUL", "ß", "STRASSE", "ẞ", "ΟΔΟΣ", "ΟΔΟΣΑ", "Σ", "ǅ", "Ω", "e\u0301", "\u2010x", "x\u2010y", "x\u2212y"),
    *("\ud800", "a\udfff", "\ud83d\ude00", "😀", "😀😀😀😀", "x😀y", "𝟙𝟡𝟡𝟡", "\0", "a\0b", " ", "a b", "\n", "\xa0"),
    *("-START-", "-START2-", "-END-", "-END2-", "!HYPHEN", "!YEAR", "!DIGITS", "é", "É", "abcé", "ñandú", "日本語", "한국어"),
    *("the", "The", "THE", "dogs", "Nov.", "'s", "``", "x" * 300, "É" * 300, "a" * 63, "a" * 64, "a" * 65),
]

words = st.one_of(
    st.sampled_from(ODD),
    st.text(max_size=8),
    st.text(st.one_of(st.characters(), st.integers(0xD800, 0xDFFF).map(chr)), max_size=5),
    st.text("aAbB01-9İß²é", max_size=6),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(words, max_size=12), st.booleans())
def test_whatever_text(ours, nltks, tokens, use_tagdict):
    expected = nltks.tag(tokens, use_tagdict=use_tagdict)
    assert ours.tag(tokens, use_tagdict=use_tagdict) == expected
    assert list(ours.pipe([tokens, tokens], use_tagdict=use_tagdict)) == [expected, expected]


@settings(max_examples=300, deadline=None)
@given(words)
def test_normal_forms_and_features(ours, nltks, word):
    assert ours.normalize(word) == nltks.normalize(word)
    context = [*nltks.START, nltks.normalize(word), *nltks.END]
    expected = nltks._get_features(0, word, context, "A", "B")
    assert list(ours._get_features(0, word, context, "A", "B").items()) == list(expected.items())


def test_every_character_once(ours, nltks):
    """Alone, and at both ends of a word: what is lower case or a digit is CPython's own business."""
    characters = [chr(i) for i in range(0x20000) if unicodedata.category(chr(i)) != "Cn"]
    sentences = [[c, f"{c}ab", f"ab{c}"] for c in characters[::23]] + [[c + "999"] for c in characters if c.isdigit()]
    same(ours, nltks, sentences)


# --- confidences ----------------------------------------------------------------------------------------------------


def test_confidences(ours, nltks):
    pytest.importorskip("numpy")
    for sentence in plain(tagging.treebank_sentences(150)) + [[], ["the"], ODD]:
        for use_tagdict in (True, False):
            expected = nltks.tag(sentence, return_conf=True, use_tagdict=use_tagdict)
            got = ours.tag(sentence, return_conf=True, use_tagdict=use_tagdict)
            assert got == expected
            assert [type(conf) for *_, conf in got] == [type(conf) for *_, conf in expected]


def test_confidences_without_numpy(ours, nltks, monkeypatch):
    pytest.importorskip("numpy")
    [sentence] = plain(tagging.treebank_sentences(1))
    expected = nltks.tag(sentence, return_conf=True)
    monkeypatch.setitem(__import__("sys").modules, "numpy", None)
    got = ours.tag(sentence, return_conf=True)
    assert [row[:2] for row in got] == [row[:2] for row in expected]
    assert [conf for *_, conf in got] == pytest.approx([conf for *_, conf in expected], rel=1e-12)


# --- training -------------------------------------------------------------------------------------------------------


def trained(kind, sentences, seed, rounds, tagger=None):
    tagger = tagger or kind(load=False)
    random.seed(seed)
    tagger.train(sentences, nr_iter=rounds)
    return tagger


def equal_models(ours, nltks):
    assert ours.model.weights == nltks.model.weights
    assert list(ours.model.weights) == list(nltks.model.weights)
    assert [list(row) for row in ours.weights.values()] == [list(row) for row in nltks.model.weights.values()]
    assert (ours.tagdict, ours.classes, ours.model.classes) == (nltks.tagdict, nltks.classes, nltks.model.classes)


@pytest.mark.deep
def test_training():
    sentences = tagging.treebank_sentences(400)
    nltks = trained(nltk_perceptron.PerceptronTagger, sentences[:250], 7, 3)
    ours = trained(PerceptronTagger, iter(sentences[:250]), 7, 3)
    equal_models(ours, nltks)
    same(ours, nltks, plain(sentences))
    # What it has learnt it goes on from.
    trained(None, sentences[250:320], 8, 2, nltks)
    trained(None, sentences[250:320], 8, 2, ours)
    equal_models(ours, nltks)
    assert random.random() == (random.seed(8), random.shuffle(list(range(70))), random.shuffle(list(range(70))), random.random())[3]


def test_training_of_tags_with_spaces():
    """Features that can be read in more than one way."""
    choose = random.Random(5).choice
    tags, tokens = ["A", "A B", "B", "B C", "C", "", "-START-"], ["a", "b", "B c", "c", "b c", "C", "", "a-b", "c d"]
    sentences = [[(choose(tokens), choose(tags)) for _ in range(7)] for _ in range(60)]
    nltks = trained(nltk_perceptron.PerceptronTagger, sentences, 1, 4)
    ours = trained(PerceptronTagger, sentences, 1, 4)
    equal_models(ours, nltks)
    same(ours, nltks, [[choose(tokens) for _ in range(9)] for _ in range(200)])


WEIGHTS = st.one_of(
    st.integers(-3, 3).map(lambda n: n / 10),
    st.integers(-3, 3).map(float),
    st.floats(allow_nan=False, allow_infinity=False, width=32),
    st.integers(-(10**6), 10**6),
)
FEATURES = st.sampled_from(
    [
        *("bias", "i suffix a", "i pref1 a", "i-1 tag -START-", "i-2 tag -START2-", "i tag+i-2 tag -START- -START2-"),
        *("i word a", "i-1 tag+i word X a", "i-1 tag+i word -START- a", "i-1 word -start2-", "i-1 suffix T2-"),
        *("i-1 word -START2-", "i-2 word -START-", "i+1 word -END-", "i+1 suffix ND-", "i+2 word -END2-", "i+2 word", "x"),
        *("i tag+i-2 tag X Y Z", "i-1 tag X Y", "i-2 tag Z", "i tag+i-2 tag X Y X Y"),
    ]
)
CLASSES = ["X", "X Y", "Y", "Y Z", "Z"]


@settings(max_examples=400, deadline=None)
@given(
    st.dictionaries(FEATURES, st.dictionaries(st.sampled_from(CLASSES), WEIGHTS), max_size=12),
    st.lists(st.sampled_from(["a", "A", "", "ba"]), min_size=1, max_size=5),
)
def test_whatever_weights(weights, tokens):
    """Ties, sums that only rounding tells apart, integers, weights that are no thousandths."""
    nltks = nltk_perceptron.PerceptronTagger(load=False)
    nltks.decode_json_params((weights, {"ba": "Y"}, CLASSES))
    ours = PerceptronTagger.from_nltk(nltks)
    assert ours.tag(tokens) == nltks.tag(tokens)
    assert ours.weights == weights


def test_rounding_decides():
    """0.1 + 0.2 - 0.3 is more than nothing, and of two that have nothing the last would win."""
    weights = {"bias": {"A": 0.1}, "i suffix a": {"A": 0.2}, "i pref1 a": {"A": -0.3}}
    tagger = PerceptronTagger.decode_json_obj((weights, {}, ["A", "B"]))
    assert tagger.tag(["a"]) == [("a", "A")]
    assert tagger._compiled()._state()["ties"] == 1
    assert tagger.tag(["b", "a"])[0] == ("b", "A")


def test_the_perceptron_alone():
    nltks, ours = nltk_perceptron.AveragedPerceptron(), AveragedPerceptron()
    choose = random.Random(3)
    for model in (nltks, ours):
        model.classes = {"A", "B", "C"}
    for _ in range(300):
        features = {f"f{choose.randrange(20)}": choose.randrange(3) for _ in range(5)}
        truth = choose.choice("ABC")
        assert ours.predict(features) == nltks.predict(features)
        guess = nltks.predict(features)[0]
        nltks.update(truth, guess, features)
        ours.update(truth, guess, features)
    nltks.average_weights()
    ours.average_weights()
    assert ours.weights == nltks.weights
    assert AveragedPerceptron.decode_json_obj(ours.encode_json_obj()).weights == nltks.weights


# --- what NLTK's taggers have besides -------------------------------------------------------------------------------


def test_methods_of_every_tagger(ours, nltks):
    from nltk.tag.api import TaggerI

    gold = tagging.treebank_sentences(60)
    assert isinstance(ours, TaggerI) and issubclass(PerceptronTagger, TaggerI)
    assert ours.accuracy(gold) == nltks.accuracy(gold)
    assert ours.precision(gold) == nltks.precision(gold)
    assert ours.recall(gold) == nltks.recall(gold)
    assert ours.f_measure(gold) == nltks.f_measure(gold)
    assert str(ours.confusion(gold)) == str(nltks.confusion(gold))
    assert ours.evaluate_per_tag(gold) == nltks.evaluate_per_tag(gold)
    for name in dir(TaggerI):
        if not name.startswith("__") and name != "_abc_impl":
            assert hasattr(ours, name), name
    with pytest.raises(AttributeError, match="nonesuch"):
        ours.nonesuch


def test_the_same_constructor_and_files():
    import inspect

    theirs = nltk_perceptron.PerceptronTagger
    for name in ("__init__", "tag", "train", "save_to_json", "load_from_json", "param_files", "decode_json_params"):
        expected = inspect.signature(getattr(theirs, name))
        assert str(inspect.signature(getattr(PerceptronTagger, name))) == str(expected), name
    assert PerceptronTagger(load=False).param_files("x") == theirs(load=False).param_files("x")
    assert PerceptronTagger.json_tag == theirs.json_tag
    assert (PerceptronTagger.START, PerceptronTagger.END) == (theirs.START, theirs.END)


def test_in_nltk_s_place(ours, nltks, monkeypatch):
    import nltk

    from execnet_c import tagging as subject

    monkeypatch.setattr(subject.functions, "_taggers", {"eng": ours})
    monkeypatch.setattr(nltk.tag, "_get_tagger", lambda lang=None: nltks)
    before = nltk.tag._get_tagger
    sentences = plain(tagging.treebank_sentences(30))
    expected = [nltk.pos_tag(sentence) for sentence in sentences]
    assert [subject.pos_tag(sentence) for sentence in sentences] == expected == subject.pos_tag_sents(sentences)
    handle = subject.install_into_nltk()
    assert nltk.tag._get_tagger("eng") is ours
    assert [nltk.pos_tag(sentence) for sentence in sentences] == expected == nltk.pos_tag_sents(sentences)
    handle.undo()
    handle.undo()
    assert nltk.tag._get_tagger is before
    with subject.install_into_nltk():
        assert nltk.tag._get_tagger("eng") is ours
    assert nltk.tag._get_tagger is before
    with pytest.raises(NotImplementedError):
        subject.pos_tag(["a"], lang="deu")
    with pytest.raises(TypeError):
        subject.pos_tag("a text")


def test_tagsets(ours, nltks, monkeypatch):
    import nltk

    from execnet_c import tagging as subject

    monkeypatch.setattr(subject.functions, "_taggers", {"eng": ours})
    monkeypatch.setattr(nltk.tag, "_get_tagger", lambda lang=None: nltks)
    [sentence] = plain(tagging.treebank_sentences(1))
    try:
        expected = nltk.pos_tag(sentence, tagset="universal")
    except LookupError:
        pytest.skip("no universal_tagset among NLTK's data")
    assert subject.pos_tag(sentence, tagset="universal") == expected
    assert subject.pos_tag_sents([sentence], tagset="universal") == [expected]
