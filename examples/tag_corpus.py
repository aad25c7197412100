"""Tags a whole text over any number of gateways and writes it in its own order, one sentence of word/TAG a line.

    tag_corpus.py [FILE ...] [--tx SPEC ...] [--tagger nltk|c] [--output FILE]

Every gateway gets the pickled tagger once and then batches of sentences, a few of them ahead, so that it never
waits for this process. What one gateway fails to do is done by the others. The output equals what the tagger gives
in one process. With --tagger c the gateways get execnet_c's tagger with the same weights, which finds the same tags.

A sentence ends at a blank line, or at ``.``, ``!`` or ``?`` (quotes and brackets may follow) before white space and
a capital, a digit or an opening quote or bracket; abbreviations before a capital therefore end one too. Words are
those of NLTK's TreebankWordTokenizer, brackets written as the treebank does. None of this needs NLTK's data.
"""

import argparse
import contextlib
import itertools
import os
import pickle
import re
import sys
import threading
import time
from collections import deque

import execnet_c as execnet
import remote_tag_batches
from nltk.tag.util import tuple2str
from nltk.tokenize import TreebankWordTokenizer
from tagging_data import NoWeights, load_tagger, python_topics
from tqdm import tqdm

BATCH_SENTENCES = 32
BATCHES_AHEAD = 4
LEAVE_SECONDS = 5  # how long a gateway may take to end

PARAGRAPH_END = re.compile(r"\n[ \t]*\n")
SENTENCE_END = re.compile(r"""(?<=[.!?])["')\]]*(\s+)(?=["'(\[]?[A-Z0-9])""")


class Failed(Exception):
    """Nothing more can be done; the message says why, in one line."""


def split_sentences(text):
    """The sentences of `text`, as texts without surrounding white space."""
    for paragraph in PARAGRAPH_END.split(text):
        start = 0
        for end in SENTENCE_END.finditer(paragraph):
            yield paragraph[start : end.start(1)].strip()
            start = end.end()
        if rest := paragraph[start:].strip():
            yield rest


_tokenizer = TreebankWordTokenizer()


def split_words(sentence):
    return _tokenizer.tokenize(sentence, convert_parentheses=True)


class Work:
    """The batches of one text, shared by the threads that feed the gateways.

    A batch without a result is in exactly one place: among the waiting ones or in the hands of one thread, which
    brings its result or gives it back.
    """

    def __init__(self, sentences, feeders):
        self._changed = threading.Condition()
        batches = [sentences[at : at + BATCH_SENTENCES] for at in range(0, len(sentences), BATCH_SENTENCES)]
        self._waiting = deque(enumerate(batches))
        self._count = self._missing = len(batches)
        self._results = {}
        self.seconds = 0.0  # that the gateways' CPUs have spent on nothing but tagging
        self._feeders = feeders
        self._stopped = False
        self._fatal = None

    def take(self, wait):
        """The next (number, sentences); None if there is none, with `wait` only when every batch has its result."""
        with self._changed:
            while not self._waiting:
                if not wait or not self._missing:
                    return None
                self._changed.wait()
            return self._waiting.popleft()

    def bring(self, number, result, seconds):
        with self._changed:
            self.seconds += seconds
            self._results[number] = result
            self._missing -= 1
            self._changed.notify_all()

    def give_up(self, name, error, taken=(), fatal=False):
        """A gateway is of no use any more: says why and leaves what it has taken to the others, unless it is fatal."""
        with self._changed:
            if fatal:
                self._fatal = self._fatal or error
            elif not self._stopped:
                say(f"{name} failed: {one_line(error)}")
            self._waiting.extendleft(reversed(taken))
            self._feeders -= 1
            self._changed.notify_all()

    def stop(self):
        """From here on gateways end because they are told to, which is no failure."""
        with self._changed:
            self._stopped = True

    def results(self):
        """All results in the order of the text, each as soon as it and those before it are there."""
        for number in range(self._count):
            with self._changed:
                while number not in self._results or self._fatal:
                    if self._fatal:
                        raise self._fatal
                    if not self._feeders:
                        raise Failed("no gateway is left to go on")
                    self._changed.wait()
                result = self._results.pop(number)
            yield result


def feed(name, channel, pickled_tagger, work):
    """Keeps one gateway busy until all work is done or the gateway fails."""
    taken = deque()  # (batch as taken, its words), in the order in which the gateway answers
    try:
        channel.send(pickled_tagger)
        if missing := channel.receive():
            raise Failed(missing)
        while True:
            while len(taken) < BATCHES_AHEAD and (batch := work.take(wait=not taken)):
                words = [split_words(sentence) for sentence in batch[1]]
                taken.append((batch, words))
                channel.send(words)
            if not taken:
                return
            tags, seconds = channel.receive()
            (number, _), words = taken.popleft()
            work.bring(number, [list(zip(*sentence)) for sentence in zip(words, tags)], seconds)
    except Exception as error:
        work.give_up(name, real_cause(channel, error), [batch for batch, _ in taken])


def real_cause(channel, error):
    """A send to a gateway that has died only finds the channel closed; the channel knows more."""
    if isinstance(error, OSError):
        try:
            channel.waitclose(timeout=1)
        except Exception as known:
            return known
    return error


def one_line(error):
    """What went wrong: of a remote traceback, its last line."""
    lines = str(error).strip().splitlines()
    if isinstance(error, Failed):
        return lines[-1]
    return f"{type(error).__name__}: {lines[-1]}" if lines else type(error).__name__


def say(message):
    tqdm.write(f"tag_corpus: {message}", file=sys.stderr)


def tag_text(text, specs, tagger, write):
    """Writes `text` tagged and says how fast that went. Raises Failed if some of it can not be done."""
    started = time.monotonic()
    sentences = list(split_sentences(text))
    work = Work(sentences, len(specs))
    pickled_tagger = pickle.dumps(tagger, protocol=4)  # 4: whatever Python 3 is at the far end can read it
    group = execnet.Group()
    words = 0
    try:
        for number, spec in enumerate(specs, 1):
            name = f"gateway {number} ({spec})"
            threading.Thread(target=serve, args=(group, name, spec, pickled_tagger, work), daemon=True).start()
        with tqdm(total=len(sentences), unit=" sentences", file=sys.stderr) as bar:
            for batch in work.results():
                for tagged in batch:
                    write(" ".join(tuple2str(pair) for pair in tagged) + "\n")
                    words += len(tagged)
                bar.update(len(batch))
        seconds = time.monotonic() - started
        say(f"{words} tokens in {seconds:.1f} s, {words / seconds:.0f} tokens a second over {len(specs)} gateway(s)")
        if work.seconds:
            say(f"the tagger alone: {words / work.seconds:.0f} tokens a second of a gateway's CPU")
    finally:
        work.stop()
        group.terminate(timeout=LEAVE_SECONDS)


def serve(group, name, spec, pickled_tagger, work):
    """Starts a gateway and feeds it; on a thread of its own, so that hosts come up side by side. One that does not
    start is left out, after a word on why; a spec that is none ends it all."""
    try:
        channel = group.makegateway(spec).remote_exec(remote_tag_batches)
    except (ValueError, AttributeError) as error:
        work.give_up(name, Failed(f"--tx {spec}: {error}"), fatal=True)
    except Exception as error:
        work.give_up(name, error)
    else:
        feed(name, channel, pickled_tagger, work)


def expand_spec(text):
    """`4*popen` is four times `popen`."""
    times, _, spec = text.partition("*") if re.match(r"\d+\*", text) else ("1", "*", text)
    if int(times) == 0 or not spec or spec.startswith("*"):
        raise argparse.ArgumentTypeError(f"{text!r} names no gateway; write SPEC or N*SPEC, as in 4*popen")
    return [spec] * int(times)


def in_c(tagger):
    """execnet_c's tagger with the weights of this one of NLTK's."""
    try:
        from execnet_c.tagging import PerceptronTagger
    except ImportError as error:
        why = error.__cause__ or error
        raise Failed(f"--tagger c needs the C module of execnet_c.tagging, which is not here: {why}") from error
    return PerceptronTagger.from_nltk(tagger)


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
        with open(path, "w", encoding="utf-8") as file:
            yield file
    except OSError as error:
        raise Failed(f"can not write {path}: {error.strerror or error}") from error


def run(options):
    text, name = read_texts(options.files)
    specs = list(itertools.chain.from_iterable(options.tx or [expand_spec("2*popen")]))
    tagger, weights = load_tagger()
    if options.tagger == "c":
        tagger = in_c(tagger)
    say(f"tagging {name} by {'execnet_c' if options.tagger == 'c' else 'NLTK'}'s tagger with {weights}")
    with open_output(options.output) as file:
        tag_text(text, specs, tagger, file.write)


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Tag a text with parts of speech over any number of gateways.")
    parser.add_argument("files", nargs="*", metavar="FILE", help="text in UTF-8 (default: Python's own reference)")
    parser.add_argument(
        "--tx", action="append", type=expand_spec, metavar="SPEC", help="a gateway, or several as N*SPEC (2*popen)"
    )
    parser.add_argument("--tagger", choices=["nltk", "c"], default="nltk", help="NLTK's own or execnet_c's (nltk)")
    parser.add_argument("--output", metavar="FILE", help="write the tagged text there instead of to stdout")
    options = parser.parse_args(arguments)
    try:
        run(options)
    except (Failed, NoWeights) as error:
        print(f"tag_corpus: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of stdout has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
