"""How long dumps and loads take, against execnet's own and against pickle's protocol 5.

    python benchmarks/serializer.py [--rounds N] [--no-execnet]

The corpus is NLTK's treebank sample, 3,914 sentences as lists of (word, tag) tuples, where NLTK_DATA has
it; otherwise as many sentences made up from the words of pydoc_data.topics. Beside it stand one sentence
alone, a small status dict, a mebibyte of bytes, and an int. Each time is the best of its rounds.
"""

import argparse
import pickle
import random
import re
import sys
import time

import execnet_c

SENTENCES = 3914


def treebank():
    """The tagged sentences, or None with a word about what is missing."""
    try:
        from nltk.corpus import treebank

        return [list(map(tuple, sentence)) for sentence in treebank.tagged_sents()]
    except ImportError:
        print("no nltk: a synthetic corpus instead of the treebank")
    except LookupError:
        print("no treebank in NLTK_DATA: a synthetic corpus instead of it")
    return None


def synthetic():
    """Sentences of about 26 words with the stdlib's frequencies, each word with one of 46 tags."""
    from pydoc_data.topics import topics

    random.seed(1)
    words = re.findall(r"\w+|[^\w\s]", " ".join(topics.values()))
    tags = [f"T{n}" for n in range(46)]
    tag_of = {word: random.choice(tags) for word in set(words)}
    sentences = []
    for _ in range(SENTENCES):
        start = random.randrange(len(words) - 60)
        # A copy of each word: a tagger's output shares no strings either.
        sentences.append([("".join(w), tag_of[w]) for w in words[start : start + random.randint(5, 47)]])
    return sentences


def best(call, arg, rounds):
    """Seconds for one call: the best round, of as many calls as take a few milliseconds."""
    once = time.perf_counter()
    call(arg)
    once = time.perf_counter() - once
    number = max(1, int(0.005 / max(once, 1e-7)))
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(number):
            call(arg)
        times.append((time.perf_counter() - start) / number)
    return min(times)


def readable(seconds):
    for unit, size in (("s ", 1), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:8.2f} {unit}"
    return f"{seconds * 1e9:8.0f} ns"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--no-execnet", action="store_true", help="it takes most of the time")
    args = parser.parse_args()
    execnet = None
    if not args.no_execnet:
        try:
            import execnet
        except ImportError:
            print("no execnet: compared with pickle only")

    corpus = treebank() or synthetic()
    status = {"numchannels": 3, "numexecuting": 1, "execmodel": "thread", "ids": [1, 3, 5], "load": 0.25}
    cases = {
        f"{len(corpus)} sentences": corpus,
        "one sentence": corpus[0],
        "status dict": status,
        "1 MiB of bytes": b"x" * 2**20,
        "int": 7,
    }
    print(f"Python {sys.version.split()[0]}")
    print(f"{'':18}{'':7}{'execnet_c':>11}{'pickle 5':>13}{'ratio':>8}{'execnet':>13}{'times':>7}")
    for name, value in cases.items():
        data, pickled = execnet_c.dumps(value), pickle.dumps(value, 5)
        assert execnet_c.loads(data) == value
        if execnet is not None:
            assert execnet.dumps(value) == data
        for what, ours, theirs in (("dumps", value, value), ("loads", data, pickled)):
            a = best(getattr(execnet_c, what), ours, args.rounds)
            if what == "dumps":
                b = best(lambda obj: pickle.dumps(obj, 5), theirs, args.rounds)
            else:
                b = best(pickle.loads, theirs, args.rounds)
            line = f"{name:18}{what:7}{readable(a)}  {readable(b)}{a / b:8.2f}"
            if execnet is not None:
                c = best(getattr(execnet, what), ours, max(2, args.rounds // 5))
                line += f"  {readable(c)}{c / a:7.0f}"
            print(line)


if __name__ == "__main__":
    main()
