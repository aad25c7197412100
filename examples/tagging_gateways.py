"""Sentences through taggers in gateways, for tag_corpus.py and tag_stream.py; and what their command lines have in common."""

import argparse
import contextlib
import itertools
import os
import re
import sys
from concurrent.futures import ThreadPoolExecutor

import execnet_c as execnet
from nltk.tag.util import tuple2str
from nltk.tokenize import TreebankWordTokenizer
from remote_tag_sentences import can_import, ready, tag_words
from tagging_data import NoWeights, load_tagger
from tqdm import tqdm

LEAVE_SECONDS = 5  # how long a gateway may take to end

# What a far end has to import for each tagger, and what to do where it can not.
NEEDS = {
    "nltk": ("nltk.tag.perceptron", "install nltk for it"),
    "c": ("execnet_c.tagging", "install execnet_c for it, or use --tagger nltk"),
}

_tokenizer = TreebankWordTokenizer()


class Failed(Exception):
    """Nothing more can be done; the message says why, in one line."""


def split_words(sentence):
    return _tokenizer.tokenize(sentence, convert_parentheses=True)


def tagged(sentences, group, tagger):
    """((tags, seconds of a gateway's CPU), words) for each sentence, in order, as they come. The sentences may have no end."""
    pairs = ((words, words) for words in map(split_words, sentences))
    return group.pipe(tag_words, pairs, initializer=ready, initargs=(tagger,), as_tuples=True)


def line_of(words, tags):
    return " ".join(map(tuple2str, zip(words, tags))) + "\n"


@contextlib.contextmanager
def gateways(specs, tagger):
    """A group with a gateway for each spec. They start side by side. One that does not serve is left out, after a word on why; a
    spec that is none ends it all."""
    group = execnet.Group()
    try:
        with ThreadPoolExecutor(len(specs)) as threads:
            list(threads.map(lambda numbered: _make(group, *numbered, *NEEDS[tagger]), enumerate(specs, 1)))
        if not len(group):
            raise Failed("no gateway is left to go on")
        yield group
    finally:
        group.terminate(timeout=LEAVE_SECONDS)


def _make(group, number, spec, module, remedy):
    try:
        gateway = group.makegateway(spec)
        missing = gateway.remote_exec(can_import, name=module).receive()
        if missing:
            gateway.exit()
            say(f"gateway {number} ({spec}) failed: {missing}; {remedy}")
    except (ValueError, AttributeError) as error:
        raise Failed(f"--tx {spec}: {error}") from error
    except Exception as error:
        say(f"gateway {number} ({spec}) failed: {one_line(error)}")


def one_line(error):
    lines = str(error).strip().splitlines() or [""]
    return lines[-1] if isinstance(error, (Failed, NoWeights)) else f"{type(error).__name__}: {lines[-1]}"


def program():
    return os.path.splitext(os.path.basename(sys.argv[0]))[0]


def say(message):
    tqdm.write(f"{program()}: {message}", file=sys.stderr)


def load(kind):
    """The tagger and whose weights it has."""
    tagger, weights = load_tagger()
    if kind == "nltk":
        return tagger, f"NLTK's tagger with {weights}"
    try:
        from execnet_c.tagging import PerceptronTagger
    except ImportError as error:
        why = error.__cause__ or error
        raise Failed(f"--tagger c needs the C module of execnet_c.tagging, which is not here: {why}") from error
    return PerceptronTagger.from_nltk(tagger), f"execnet_c's tagger with {weights}"


def parser(description):
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--tx", action="append", type=expand_spec, metavar="SPEC", help="a gateway, or several as N*SPEC (2*popen)"
    )
    parser.add_argument("--tagger", choices=["nltk", "c"], default="nltk", help="NLTK's own or execnet_c's (nltk)")
    return parser


def expand_spec(text):
    """`4*popen` is four times `popen`."""
    times, _, spec = text.partition("*") if re.match(r"\d+\*", text) else ("1", "*", text)
    if int(times) == 0 or not spec or spec.startswith("*"):
        raise argparse.ArgumentTypeError(f"{text!r} names no gateway; write SPEC or N*SPEC, as in 4*popen")
    return [spec] * int(times)


def specs_of(options):
    return list(itertools.chain.from_iterable(options.tx or [["popen", "popen"]]))


def status_of(run, options):
    """run(options), and with which status the program is to end."""
    try:
        run(options)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of stdout has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (Failed, NoWeights, OSError) as error:
        text = str(error) if isinstance(error, (Failed, NoWeights)) else one_line(error)
        print(f"{program()}: {text}", file=sys.stderr)
        return 1
    return 0
