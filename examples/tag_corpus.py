"""Tags a whole text over any number of gateways and writes it in its own order, one sentence of word/TAG a line.

    tag_corpus.py [FILE ...] [--tx SPEC ...] [--tagger nltk|c] [--output FILE]

Every gateway gets the pickled tagger once and then sentences. What a gateway leaves that dies is done by the others, or by the one
that takes its place. The output equals what the tagger gives in one process. With --tagger c the gateways get execnet_c's tagger
with the same weights, which finds the same tags.

A sentence ends at a blank line, or at ``.``, ``!`` or ``?`` (quotes and brackets may follow) before white space and
a capital, a digit or an opening quote or bracket; abbreviations before a capital therefore end one too. Words are
those of NLTK's TreebankWordTokenizer, brackets written as the treebank does. None of this needs NLTK's data.
"""

import contextlib
import re
import sys
import time

from tagging_data import python_topics
from tagging_gateways import Failed, gateways, line_of, load, parser, say, specs_of, status_of, tagged
from tqdm import tqdm

PARAGRAPH_END = re.compile(r"\n[ \t]*\n")
SENTENCE_END = re.compile(r"""(?<=[.!?])["')\]]*(\s+)(?=["'(\[]?[A-Z0-9])""")


def split_sentences(text):
    """The sentences of `text`, as texts without surrounding white space."""
    for paragraph in PARAGRAPH_END.split(text):
        start = 0
        for end in SENTENCE_END.finditer(paragraph):
            yield paragraph[start : end.start(1)].strip()
            start = end.end()
        if rest := paragraph[start:].strip():
            yield rest


def tag_text(text, specs, kind, tagger, write):
    """Writes `text` tagged and says how fast that went."""
    started = time.monotonic()
    sentences = list(split_sentences(text))
    count = busy = 0
    with gateways(specs, kind) as group, tagged(sentences, group, tagger) as results:
        for (tags, seconds), words in tqdm(results, total=len(sentences), unit=" sentences", file=sys.stderr):
            write(line_of(words, tags))
            count += len(words)
            busy += seconds
        seconds = time.monotonic() - started
        say(f"{count} tokens in {seconds:.1f} s, {count / seconds:.0f} tokens a second over {len(group)} gateway(s)")
        if busy:
            say(f"the tagger alone: {count / busy:.0f} tokens a second of a gateway's CPU")


def read_texts(paths):
    """The text and what to call it."""
    if not paths:
        return python_topics(), "Python's own language reference"
    texts = []
    for path in paths:
        try:
            with open(path, encoding="utf-8") as file:
                texts.append(file.read())
        except (OSError, UnicodeDecodeError) as error:
            raise Failed(f"can not read {path}: {getattr(error, 'strerror', None) or error}") from error
    return "\n\n".join(texts), ", ".join(paths)


@contextlib.contextmanager
def open_output(path):
    """Where the tagged text goes. Whatever can be wrong with it shows before the `with` block is left."""
    if path is None:
        sys.stdout.reconfigure(errors="backslashreplace")
        yield sys.stdout
        sys.stdout.flush()
        return
    try:
        file = open(path, "w", encoding="utf-8")
    except OSError as error:
        raise Failed(f"can not write {path}: {error.strerror or error}") from error
    with file:
        yield file


def run(options):
    text, name = read_texts(options.files)
    tagger, whose = load(options.tagger)
    say(f"tagging {name} by {whose}")
    with open_output(options.output) as file:
        tag_text(text, specs_of(options), options.tagger, tagger, file.write)


def main():
    arguments = parser("Tag a text with parts of speech over any number of gateways.")
    arguments.add_argument("files", nargs="*", metavar="FILE", help="text in UTF-8 (default: Python's own reference)")
    arguments.add_argument("--output", metavar="FILE", help="write the tagged text there instead of to stdout")
    return status_of(run, arguments.parse_args())


if __name__ == "__main__":
    sys.exit(main())
