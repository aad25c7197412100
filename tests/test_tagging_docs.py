"""The tagger's answers as numbers and Docs."""

import copy
import gc
import pickle
import random
from array import array

import tagging  # isort: skip (before nltk, which reads NLTK_DATA once)
import pytest

from execnet_c.tagging import Doc, PerceptronTagger
from trained import SENTENCES, trained_fixture  # noqa: F401 (fixtures)


def test_numbers(trained):
    numbers = trained.tag_numbers(SENTENCES)
    tagged = trained.tag_sents(SENTENCES)
    classes = sorted(trained.classes)
    assert [classes[number] for number in numbers] == [tag for sentence in tagged for _, tag in sentence]
    assert trained.pair(SENTENCES, numbers) == trained.pair(map(tuple, SENTENCES), bytearray(numbers)) == tagged
    docs = trained.pair(map(tuple, SENTENCES), bytearray(numbers), as_doc=True)
    assert docs == trained.tag_sents(SENTENCES, as_doc=True) and list(map(list, docs)) == tagged
    for as_doc in (False, True):
        for bad in (numbers[:-1], numbers + b"\0", b"\xff" * len(numbers)):
            with pytest.raises(ValueError, match="not the tags"):
                trained.pair(SENTENCES, bad, as_doc)
        with pytest.raises(TypeError, match="not str"):
            trained.pair(["the"], numbers, as_doc)
        with pytest.raises(TypeError):
            trained.pair([3], numbers, as_doc)
    with pytest.raises(TypeError, match="token 1 is of type int"):
        trained.pair([["the", 3]], numbers, as_doc=True)
    assert not any(gc.is_tracked(doc.words) for doc in docs)


def test_words_of_a_kind_of_str_stay_what_they_are(trained):
    class Word(str):
        pass

    words = [Word("the"), "dog"]
    words[0].document = words  # a cycle, once the Doc is in it
    [doc] = trained.pair([words], trained.tag_numbers([words]), as_doc=True)
    [same] = trained.tag_sents([words], as_doc=True)
    assert type(doc.words[0]) is type(same.words[0]) is Word and doc == same
    assert gc.is_tracked(doc.words) and gc.is_tracked(same.words)


def test_packed(trained):
    packed = trained.pack(iter(SENTENCES))
    assert type(packed) is bytes
    assert trained.tag_numbers(packed) == trained.tag_numbers(SENTENCES)
    assert trained.tag_numbers(packed, False) == trained.tag_numbers(SENTENCES, False)
    assert trained.tag_numbers(trained.pack([])) == b"" == trained.tag_numbers(trained.pack([[], []]))
    for size in range(len(packed)):
        with pytest.raises(ValueError, match="no packed sentences"):
            trained.tag_numbers(packed[:size])
    choose, other = random.Random(6), copy.copy(trained)  # which comes to remember wrong normal forms
    for _ in range(5000):
        bad = bytearray(packed)
        at = choose.randrange(len(bad))
        bad[at] = choose.randrange(256)
        try:
            numbers = other.tag_numbers(bytes(bad))
        except ValueError:
            continue
        assert len(numbers) == sum(map(len, SENTENCES)) and max(numbers) < len(trained.classes)
    for bad in (5, [["a", 1]], ["text"]):
        with pytest.raises(TypeError):
            trained.pack(bad)


def many_classes():
    return PerceptronTagger.decode_json_obj(({}, {"a": "T299", "b": "T3"}, [f"T{i}" for i in range(300)]))


def test_more_than_256_classes():
    tagger = many_classes()
    assert tagger.tag(["a", "b", "c"]) == [("a", "T299"), ("b", "T3"), ("c", "T99")]
    numbers = tagger.tag_numbers([["a", "b"]])
    assert len(numbers) == 4 and tagger.pair([["a", "b"]], numbers) == [tagger.tag(["a", "b"])]
    [doc] = tagger.tag_sents([["a", "b"]], as_doc=True)
    assert tagger.pair([["a", "b"]], numbers, as_doc=True) == [doc]
    with pytest.raises(ValueError, match="not the tags"):
        tagger.pair([["a", "b"]], b"\x2b\x01\x2c\x01", as_doc=True)
    assert memoryview(doc).format == "H" and [sorted(tagger.classes)[n] for n in memoryview(doc)] == ["T299", "T3"]
    assert Doc.from_bytes(doc.to_bytes()) == doc


def test_docs(trained):
    docs = trained.tag_sents(SENTENCES, as_doc=True)
    assert [list(doc) for doc in docs] == trained.tag_sents(SENTENCES)
    for doc, sentence in zip(docs, SENTENCES):
        assert doc.words == tuple(sentence) and len(doc) == len(sentence)
        assert doc.tags == [tag for _, tag in doc] == [doc.names[number] for number in memoryview(doc)]
        again = Doc.from_bytes(doc.to_bytes())
        assert again == doc and again.words == doc.words and bytes(again) == bytes(doc)
        assert pickle.loads(pickle.dumps(doc)) == copy.deepcopy(doc) == doc
        assert Doc.from_bytes(bytearray(again.to_bytes())) == doc
    assert docs[0] != docs[1] and not docs[0] == docs[1] and docs[0] != list(docs[0])
    assert docs[0][-1] == (".", ".")
    assert repr(docs[-1]) == f"Doc({trained.tag(SENTENCES[-1])!r})"
    with pytest.raises(IndexError):
        docs[0][4]
    with pytest.raises(TypeError):
        Doc()
    with pytest.raises(TypeError):
        hash(docs[0])


def test_the_buffer_of_a_doc(trained):
    [doc] = trained.tag_sents(SENTENCES[:1], as_doc=True)
    view = memoryview(doc)
    assert (view.readonly, view.format, view.shape, view.contiguous) == (True, "B", (4,), True)
    assert array("B", view).tolist() == list(trained.tag_numbers(SENTENCES[:1]))
    numpy = pytest.importorskip("numpy")
    numbers = numpy.asarray(doc)
    assert numbers.tolist() == view.tolist() and not numbers.flags.owndata and not numbers.flags.writeable
    words = doc.words
    del doc, view
    assert numbers.tolist() == list(trained.tag_numbers([words]))


def test_a_doc_is_about_as_long_as_its_text():
    tagger = PerceptronTagger.from_nltk(tagging.tagger())
    sentences = [[word for word, _ in sentence] for sentence in tagging.treebank_sentences(300)]
    text = sum(len(" ".join(sentence)) for sentence in sentences)
    docs = tagger.tag_sents(sentences, as_doc=True)
    if tuple(sorted(tagger.classes)) == Doc.from_bytes(docs[0].to_bytes()).names:
        assert sum(len(doc.to_bytes()) for doc in docs) < 1.3 * text
    assert [Doc.from_bytes(doc.to_bytes()) for doc in docs] == docs


def test_bytes_that_are_no_doc(trained):
    docs = trained.tag_sents(SENTENCES, as_doc=True) + many_classes().tag_sents([["a", "b"]], as_doc=True)
    choose = random.Random(9)
    for doc in docs:
        data = doc.to_bytes()
        for size in range(len(data)):
            with pytest.raises(ValueError):
                Doc.from_bytes(data[:size])
        with pytest.raises(ValueError):
            Doc.from_bytes(data + b"\0")
        for _ in range(2000):
            bad = bytearray(data)
            bad[choose.randrange(len(bad))] = choose.randrange(256)
            try:
                again = Doc.from_bytes(bad)
            except ValueError:  # UnicodeDecodeError is one
                continue
            assert len(again.tags) == len(again.words) == len(again)
    with pytest.raises(TypeError):
        Doc.from_bytes("text")
