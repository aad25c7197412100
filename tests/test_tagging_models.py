"""A tagger's parts: the block, what is made of it, what it is made of, and all that is not one."""

import contextlib
import copy
import importlib.util
import json
import os
import pickle
import random
import subprocess
import sys

import pytest

import execnet_c
from execnet_c import _tagger
from execnet_c.tagging import Doc, PerceptronTagger
from trained import SENTENCES, TRAINING, tagger_fixture, trained_fixture  # noqa: F401 (fixtures)

with contextlib.suppress(ImportError):
    import nltk.tag  # noqa: F401  (with scikit-learn it starts threads: before they are counted)


def run(code, **env):
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=110,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


# --- who loads what -------------------------------------------------------------------------------------------------


def test_nobody_loads_it_who_does_not_tag():
    code = "import sys, execnet_c; execnet_c.Group; execnet_c.dumps(1); print([m for m in sys.modules if 'tagg' in m])"
    assert run(code) == "[]\n"


def test_nltk_is_not_needed(trained, tmp_path):
    trained.save_to_json("xyz", tmp_path)
    code = f"""
import sys
sys.modules["nltk"] = None
from execnet_c.tagging import PerceptronTagger
tagger = PerceptronTagger(lang="xyz", loc={str(tmp_path)!r})
assert tagger.tag_sents({SENTENCES!r}) == {trained.tag_sents(SENTENCES)!r}
tagger.train([[("a", "B")]], nr_iter=1)
for attempt in (PerceptronTagger, tagger.to_nltk, lambda: tagger.accuracy([])):
    try:
        attempt()
    except ImportError as error:
        assert "needs NLTK" in str(error), error
    else:
        raise SystemExit("no error")
"""
    run(code)


@pytest.mark.skipif(importlib.util.find_spec("nltk") is None, reason="there is no NLTK")
def test_one_of_nltk_s_once_that_is_imported():
    code = """
from execnet_c.tagging import PerceptronTagger
import sys
assert "nltk" not in sys.modules
from nltk.tag.api import TaggerI
assert isinstance(PerceptronTagger(load=False), TaggerI)
"""
    run(code)


def test_without_the_c_module(trained):
    """As at a far end where it could not be built."""
    code = f"""
import sys
sys.modules["execnet_c._tagger"] = None
import pickle
try:
    pickle.loads({pickle.dumps(trained)!r})
except ImportError as error:
    assert error.name == "execnet_c._tagger" and "tagger.to_nltk()" in str(error), error
else:
    raise SystemExit("no error")
"""
    run(code)


def test_where_nothing_is_installed(trained):
    group = execnet_c.Group()
    try:
        gateway = group.makegateway(f"popen//python={sys.executable} -I -S")
        channel = gateway.remote_exec("import pickle; pickle.loads(channel.receive())")
        channel.send(pickle.dumps(trained))
        with pytest.raises(execnet_c.RemoteError, match=r"No module named 'execnet_c'(.|\n)*tagger\.to_nltk\(\)"):
            channel.receive(60)
    finally:
        group.terminate(timeout=5.0)


def test_through_a_channel(trained):
    group = execnet_c.Group()
    try:
        channel = group.makegateway("popen").remote_exec(
            "import pickle; tagger = pickle.loads(channel.receive())\n"
            "for sentences in channel: channel.send(tagger.tag_numbers(sentences))"
        )
        channel.send(pickle.dumps(trained))
        sentences = [sentence for sentence in SENTENCES if "\ud800x" not in sentence]
        channel.send(sentences)
        assert trained.pair(sentences, channel.receive(60)) == trained.tag_sents(sentences)
        channel.send(trained.pack(SENTENCES))
        assert trained.pair(SENTENCES, channel.receive(60)) == trained.tag_sents(SENTENCES)
    finally:
        group.terminate(timeout=5.0)


# --- the parts ------------------------------------------------------------------------------------------------------


def test_changing_a_part_changes_the_tagger(tagger):
    tagdict, weights = tagger.tagdict, tagger.model.weights
    assert tagger.weights is weights and tagger.classes is tagger.model.classes
    tagdict["dog"] = "UH"
    assert tagger.tag(["dog"]) == [("dog", "UH")]
    tagdict["dog"] = "CD"
    assert tagger.tag(["dog"]) == [("dog", "CD")]
    tagdict.pop("dog")
    assert tagger.tag(["dog"]) == [("dog", "NN")]
    weights["bias"]["UH"] = 1e6
    assert tagger.tag(["dog", "cat"]) == [("dog", "UH"), ("cat", "UH")]
    weights["bias"] = {"CD": 1e6}
    assert tagger.tag(["dog"]) == [("dog", "CD")]
    weights["bias"]["CD"] = 0.0
    assert tagger.tag(["dog"]) == [("dog", "NN")]
    tagger.classes.add("new")
    tagger.tagdict.update(dog="new")
    assert tagger.tag(["dog"]) == [("dog", "new")]


def test_parts_may_be_replaced(tagger):
    before = tagger.tag_sents(SENTENCES)
    other = PerceptronTagger(load=False)
    other.model.weights = json.loads(json.dumps(tagger.weights))
    other.tagdict = dict(tagger.tagdict)
    other.classes = other.model.classes = set(tagger.classes)
    assert other.tag_sents(SENTENCES) == before
    other.weights = {}
    other.tagdict = {}
    assert {tag for _, tag in other.tag(["dog", "the"])} == {max(tagger.classes)}


def test_what_is_handed_out_is_plain_for_others(tagger):
    assert type(copy.deepcopy(tagger.weights)) is dict and type(pickle.loads(pickle.dumps(tagger.classes))) is set
    assert type(tagger.tagdict.copy()) is dict
    weights, tagdict, classes = tagger.encode_json_obj()
    assert {type(weights), type(tagdict), *map(type, weights.values())} == {dict} and type(classes) is list
    again = PerceptronTagger.decode_json_obj(json.loads(json.dumps((weights, tagdict, classes))))
    assert again.tag_sents(SENTENCES) == tagger.tag_sents(SENTENCES)


def test_features_that_no_word_has_are_kept():
    weights = {"made up": {"A": 1.0}, "i-1 tag Q": {"B": 2.0}, "bias2": {}, "i word": {"A": 3.0}, "bias": {"A": 0.5}}
    tagger = PerceptronTagger.decode_json_obj((weights, {}, ["A", "B"]))
    assert tagger.weights == weights and list(tagger.weights) == list(weights)
    assert tagger.tag(["x"]) == [("x", "A")]


def test_back_to_nltk(trained):
    pytest.importorskip("nltk")
    assert [trained.to_nltk().tag(sentence) for sentence in SENTENCES] == trained.tag_sents(SENTENCES)
    again = PerceptronTagger.from_nltk(trained.to_nltk())
    assert again.weights == trained.weights


class Fine(PerceptronTagger):
    pass


def test_no_other_features():
    with pytest.raises(TypeError, match="normalize"):

        class Other(PerceptronTagger):
            def normalize(self, word):
                return word

    assert isinstance(pickle.loads(pickle.dumps(Fine(load=False))), Fine)


# --- files ----------------------------------------------------------------------------------------------------------


def test_files(trained, tmp_path):
    trained.save_to_json("abc", tmp_path / "new" / "er")
    names = sorted(os.listdir(tmp_path / "new" / "er"))
    assert names == sorted(trained.param_files("abc"))
    for loc in (tmp_path / "new" / "er", str(tmp_path / "new" / "er"), os.fsencode(tmp_path / "new" / "er")):
        again = PerceptronTagger(lang="abc", loc=loc)
        assert (again.weights, again.tagdict, again.classes) == (trained.weights, trained.tagdict, trained.classes)
    random.seed(1)
    other = PerceptronTagger(load=False, lang="abc")
    other.train(TRAINING * 8, save_loc=tmp_path / "saved", nr_iter=3)
    assert PerceptronTagger(lang="abc", loc=tmp_path / "saved").weights == trained.weights


def test_saving_replaces_a_link_and_does_not_follow_it(trained, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / trained.param_files("abc")[0]).symlink_to(victim)
    trained.save_to_json("abc", tmp_path)
    assert victim.read_text() == "mine"
    assert sorted(os.listdir(tmp_path)) == sorted(["victim", *trained.param_files("abc")])


def test_a_directory_of_its_own(tagger, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nltk.data", None)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert os.path.dirname(tagger.save_dir) == str(tmp_path) and tagger.save_dir == tagger.save_dir
    tagger.save_to_json()
    assert len(os.listdir(tagger.save_dir)) == 3


@pytest.mark.parametrize("lang", ["", " ", "..", "a/b", "a\\b", "a\0b"])
def test_names_that_lead_elsewhere(tagger, lang, tmp_path):
    with pytest.raises(ValueError, match="file's name"):
        tagger.load_from_json(lang, tmp_path)
    with pytest.raises(ValueError, match="file's name"):
        tagger.save_to_json(lang, tmp_path)
    assert os.listdir(tmp_path) == []


BAD_FILES = {
    "weights": ['{"bias": {"NN": 1', "", "[]", "3", '{"bias": 3}', '{"bias": {"NN": "x"}}', '{"bias": {"XX": 1.0}}'],
    "tagdict": ['{"a": ', "[]", '{"a": "XX"}', '{"a": 3}', '{"a": null}'],
    "classes": ['["NN"', "{}", "3", "[3]", '["NN"]', "[]", "[null]"],
}
BAD_FILES["weights"] += ['{"bias": {"NN": NaN}}', '{"bias": {"NN": 1e999}}', '{"bias": {"NN": %s}}' % ("9" * 400), "[" * 100000]


@pytest.mark.parametrize("part, text", [(part, text) for part, texts in BAD_FILES.items() for text in texts])
def test_bad_files_change_nothing(trained, tmp_path, part, text):
    tagger = copy.copy(trained)
    trained.save_to_json("abc", tmp_path)
    (tmp_path / f"averaged_perceptron_tagger_abc.{part}.json").write_text(text)
    with pytest.raises((ValueError, TypeError, OverflowError)) as caught:
        tagger.load_from_json("abc", tmp_path)
    assert part in str(caught.value) or part == "classes" or "float" in str(caught.value)
    assert tagger.tag_sents(SENTENCES) == trained.tag_sents(SENTENCES)
    with pytest.raises(type(caught.value)):
        PerceptronTagger(lang="abc", loc=tmp_path)


def test_missing_files(tmp_path):
    with pytest.raises(FileNotFoundError):
        PerceptronTagger(loc=tmp_path)
    with pytest.raises(ValueError, match="no directory"):
        PerceptronTagger(loc=" ")


# --- input that is none ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokens", ["a text", b"a text", None, 5, {"a": 1}, {"a"}, [1], ["a", None], [b"a"], (["a"],), iter("a")])
def test_what_is_no_sentence(trained, tokens):
    with pytest.raises(TypeError, match="str"):
        trained.tag(tokens)
    with pytest.raises(TypeError):
        trained.tag_sents([["fine"], tokens])
    with pytest.raises(TypeError):
        trained.tag(tokens, return_conf=True)


def test_other_sequences(trained):
    class Words:
        def __len__(self):
            return 2

        def __getitem__(self, i):
            return ["the", "dog"][i]

    class Word(str):
        pass

    expected = trained.tag(["the", "dog"])
    assert trained.tag(("the", "dog")) == trained.tag(Words()) == trained.tag([Word("the"), "dog"]) == expected
    word = Word("dog")
    for _ in range(3):
        assert trained.tag([word])[0][0] is word
        assert type(trained.tag(["dog"])[0][0]) is str


def test_errors_of_those_who_give_sentences(trained):
    def sentences():
        yield ["the"]
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        trained.tag_sents(sentences())
    with pytest.raises(TypeError):
        trained.tag_sents(5)


def test_one_that_has_not_learnt_anything():
    empty = PerceptronTagger(load=False)
    for attempt in (empty.tag, empty.tag_sents, lambda it: list(empty.pipe(it))):
        with pytest.raises(ValueError, match="not been trained"):
            attempt([["a"]])
    assert (empty.weights, empty.tagdict, empty.classes) == ({}, {}, set())
    assert pickle.loads(pickle.dumps(empty)).classes == set()


# --- leaks and want of memory ---------------------------------------------------------------------------------------


def test_nothing_grows(trained):
    from test_leaks import assert_steady

    docs = SENTENCES * 20
    block = trained._compiled().block

    def work():
        trained.tag_sents(docs)
        list(trained.pipe(docs, 7, 2))
        next(trained.pipe(docs, 7, 2, as_doc=True))
        trained.tag(SENTENCES[0], return_conf=True)
        trained.pair(SENTENCES, trained.tag_numbers(trained.pack(SENTENCES)))
        [Doc.from_bytes(doc.to_bytes()) for doc in trained.tag_sents(SENTENCES, as_doc=True)]
        model = _tagger.Model(block)
        _tagger.Model.build(model.weights(), model.tagdict(), model.classes)
        for bad in ("text", [["a", 1]], [3]):
            try:
                trained.tag_sents(bad)
            except TypeError:
                pass
        try:
            list(trained.pipe([["a"], 3, ["b"]]))
        except ValueError:
            pass

    assert_steady(work, 10, 25)


STARVE = """
import faulthandler, pickle, sys
from _testcapi import set_nomemory, remove_mem_hooks
from execnet_c import _tagger
from execnet_c.tagging import Doc, PerceptronTagger

faulthandler.dump_traceback_later(100, exit=True)
weights = {f"i word {word}": {"A": 1.0, "B": -2.5} for word in ["the", "d\\xf6g", "\\ud800"]}
tagger = PerceptronTagger.decode_json_obj((weights, {"a": "B"}, ["A", "B"]))
model, sentences = tagger._compiled(), [["the", "d\\xf6g", "\\ud800", "a"]] * 3
[doc, *_] = model.tag_sents(sentences, True, True)
data, expected = doc.to_bytes(), model.tag_sents(sentences)
numbers, packed = model.tag_numbers(sentences), model.pack(sentences)

def pipe():
    stream = _tagger.Pipe(model, 2)
    stream.give(sentences)
    list(stream.take())
    stream.close()

acts = [
    lambda: model.tag(sentences[0]), lambda: model.tag_sents(sentences), lambda: model.tag_sents(sentences, True, True),
    lambda: model.tag_with_sums(sentences[0]), lambda: model.pair(sentences, numbers), lambda: model.tag_numbers(sentences),
    lambda: model.pair(sentences, numbers, True),
    lambda: model.pack(sentences), lambda: model.tag_numbers(packed),
    lambda: _tagger.Model(model.block), lambda: _tagger.Model.build(weights, {"a": "B"}, ["A", "B"]), model.weights,
    model.tagdict, doc.to_bytes, lambda: Doc.from_bytes(data), lambda: doc.tags, lambda: repr(doc), pipe,
]
refused = 0
for act in acts:
    for alone in (True, False):
        for first in range(2000):
            failed = False
            set_nomemory(first, first + 1 if alone else 0)
            try:
                act()
            except MemoryError:
                failed = True
            finally:
                remove_mem_hooks()
            refused += failed
            if not failed:
                break
        else:
            sys.exit("it never gets through")
    assert model.tag_sents(sentences) == expected
assert refused > 50, refused
print("good")
"""


def test_want_of_memory():
    testcapi = pytest.importorskip("_testcapi", reason="this Python was built without _testcapi")
    if not hasattr(testcapi, "set_nomemory"):
        pytest.skip("this Python's _testcapi has no set_nomemory")
    if "t" in sys.abiflags and sys.version_info < (3, 14):
        pytest.skip("where there is no memory for its items, PyList_New() itself crashes in a free-threaded Python 3.13")
    assert run(STARVE) == "good\n"
