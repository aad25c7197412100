"""A tagger as bytes: pickles, and blocks that are none."""

import base64
import copy
import json
import pickle
import pickletools
import struct
import zlib

import tagging  # isort: skip (before nltk, which reads NLTK_DATA once)
import pytest

from execnet_c import _tagger
from execnet_c.tagging import AveragedPerceptron, PerceptronTagger, install_into_nltk, pos_tag, pos_tag_sents
from trained import SENTENCES, tagger_fixture, trained_fixture  # noqa: F401 (fixtures)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles(tagger, protocol):
    tagger.note = "kept"
    again = pickle.loads(pickle.dumps(tagger, protocol))
    assert again.tag_sents(SENTENCES) == tagger.tag_sents(SENTENCES)
    assert (again.weights, again.tagdict, again.classes) == (tagger.weights, tagger.tagdict, tagger.classes)
    assert (again.note, again.lang) == ("kept", tagger.lang)


def test_a_pickle_is_not_much_longer_than_the_json(trained):
    assert len(pickle.dumps(trained)) < 1.5 * len(json.dumps(trained.encode_json_obj())) + 10_000


def test_a_large_pickle_is_shorter_than_the_json_and_loads_fast():
    tagger = PerceptronTagger.from_nltk(tagging.tagger())
    block = tagger._compiled().block
    assert len(pickle.dumps(tagger)) < len(json.dumps(tagger.encode_json_obj()))
    import time

    times = []
    for _ in range(5):
        start = time.process_time()
        _tagger.Model(block)
        times.append(time.process_time() - start)
    assert min(times) < 0.5  # takes 2 ms


def test_copies(tagger):
    for other in (copy.copy(tagger), copy.deepcopy(tagger)):
        other.tagdict["dog"] = "UH"
        assert other.tag(["dog"]) == [("dog", "UH")]
        assert tagger.tag(["dog"]) == [("dog", "NN")]


def test_every_cut_and_every_flipped_byte_is_seen(trained):
    block = trained._compiled().block
    for size in [*range(0, 200), *range(200, len(block), 97), len(block) - 1]:
        with pytest.raises(ValueError, match="tagger model"):
            _tagger.Model(block[:size])
    for at in range(0, len(block), 61):
        bad = bytearray(block)
        bad[at] ^= 1
        with pytest.raises(ValueError, match="tagger model"):
            _tagger.Model(bytes(bad))
    for bad in (b"", b"xctagger", block + b"\0", bytes(len(block))):
        with pytest.raises(ValueError, match="tagger model"):
            _tagger.Model(bad)
    for bad in ("text", None, bytearray(block)):
        with pytest.raises(TypeError):
            _tagger.Model(bad)


def test_other_versions_and_byte_orders_are_named(trained):
    block = trained._compiled().block
    with pytest.raises(ValueError, match="version 2"):
        _tagger.Model(block[:8] + struct.pack("=I", 2) + block[12:])
    with pytest.raises(ValueError, match="byte order"):
        _tagger.Model(block[:12] + block[12:16][::-1] + block[16:])


# Made when the tagger was one module: (a tagger, an AveragedPerceptron, the tagger's model, pos_tag), base 85 of zlib's.
STORED = (
    b"c-rllF-yZh6vr=3AQc^ICs9xY!MgM-NX61Y8l`j(*W@)hiAl&^w2PpixEwh2{BBOVc64yBcWGj~>E8Rn<=*?}{~j+H--Gq$G*Ll|Z^Hz<7?|s|"
    b"84dyx2ZC?78BmsF;ESmU5pP^U=0VD`Bpyl+WKuqRZy+@BSdkmDm1Wipr75mIpXLX%k7K3R<f(2{#s${mveA;6iO_dxsI7X-ygKtgP_4~>_!LN^"
    b"(P%UpjYgwca}50pG#bsCaXxe$76KCYqQ$KUt7V7@>bW`W^m^Ta>vZ~E!FTa3WH<odO@B8d?qU@p@)t2sOOs}&^emSrVk%A^i{ADfkRW7KCfphk"
    b"Tm&`85xvu|#VC|=+lw%zK*g)zw#yQRBPu8Hk|+X?kt9}`4`ZB1%qJd`?RkBalZX-Z$|SLpp5-{a?lQ{oO-e<$7w#95LBs{hM{?4-+fRImF2^hL"
    b"RbLZsg*#PAc=#I~m8Eu?P-T^sOtgOhR@~)g"
)
TRAINED = {"bias": {"NN": 1.0, "DT": 0.5}}, {"the": "DT"}, ["DT", "NN"]


def test_a_pickle_that_was_stored_still_loads():
    tagger, perceptron, model, function = pickle.loads(zlib.decompress(base64.b85decode(STORED)))
    assert type(tagger) is PerceptronTagger and tagger.tag(["the", "dog"]) == [("the", "DT"), ("dog", "NN")]
    assert tagger.weights == model.weights == TRAINED[0] and model.classes == {"DT", "NN"}
    assert type(perceptron) is AveragedPerceptron and perceptron.weights == {"bias": {"NN": 1.0}}
    assert function is pos_tag


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_name_the_package_and_no_module_in_it(protocol):
    tagger = PerceptronTagger.decode_json_obj(TRAINED)
    data = pickle.dumps((tagger, tagger.model, AveragedPerceptron(), pos_tag, pos_tag_sents, install_into_nltk), protocol)
    names = set()
    for _, text, _ in pickletools.genops(data):
        if isinstance(text, str) and text.startswith("execnet_c"):
            names.add(text.split()[0])
    assert names == {"execnet_c.tagging"}
