"""Tags a text without end: a sentence a line comes on stdin, word/TAG for each goes to stdout, in order, as soon as it is there.

    tail -f FILE | tag_stream.py [--tx SPEC ...] [--tagger nltk|c]
"""

import sys

from tagging_gateways import gateways, line_of, load, parser, specs_of, status_of, tagged


def run(options):
    tagger, _ = load(options.tagger)
    sys.stdout.reconfigure(errors="backslashreplace")
    # Not sys.stdin, and not closed: a thread may wait in it for the next line when the program ends, and has its lock.
    lines = open(0, encoding="utf-8", errors="replace", closefd=False)
    with gateways(specs_of(options), options.tagger) as group, tagged(lines, group, tagger) as results:
        for (tags, _), words in results:
            sys.stdout.write(line_of(words, tags))
            sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(status_of(run, parser("Tag the sentences on stdin with parts of speech over any number of gateways.").parse_args()))
