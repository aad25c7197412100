"""What the tests of the tagging examples share: NLTK's data, weights, sentences, and running an example as a user does.

NLTK's data is looked for in EXECNET_C_NLTK_DATA, NLTK_DATA and the data folder beside the checkout, in this order.
Import this before nltk, which reads NLTK_DATA once.
"""

import functools
import os
import subprocess
import sys
from pathlib import Path

import pairing
import pytest

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"


def _data_folder():
    named = os.environ.get("EXECNET_C_NLTK_DATA") or os.environ.get("NLTK_DATA")
    beside = ROOT.parent / "shared" / "nltk_data"
    return named or (str(beside) if beside.is_dir() else None)


if folder := _data_folder():
    os.environ["NLTK_DATA"] = folder
if str(EXAMPLES) not in sys.path:
    sys.path.insert(0, str(EXAMPLES))


@functools.cache
def tagger():
    """The tagger of the examples, with NLTK's weights or those of textblob-aptagger; skips if there are none."""
    tagging_data = pytest.importorskip("tagging_data", reason="nltk is not installed")
    try:
        return tagging_data.load_tagger()[0]
    except tagging_data.NoWeights:
        pytest.skip("no weights for the tagger: no NLTK data and no textblob-aptagger")


@functools.cache
def treebank_sentences(count):
    """The treebank's first sentences, each a list of (word, tag)."""
    tagging_data = pytest.importorskip("tagging_data", reason="nltk is not installed")
    treebank = tagging_data.load_treebank()
    if isinstance(treebank, tagging_data.OneSentence):
        pytest.skip("no treebank: set NLTK_DATA or EXECNET_C_NLTK_DATA to a folder that has it")
    return list(treebank.tagged_sents()[:count])


def command(name, *arguments):
    return pairing.command(EXAMPLES / name, *arguments)


def run_example(name, *arguments, cwd, env=None):
    return subprocess.run(
        command(name, *arguments),
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=90,
    )
