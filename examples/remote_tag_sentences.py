"""What tag_corpus.py and tag_stream.py run at the far ends. A worker that cannot import this file gets a function's source, so that
each is whole in itself."""


def can_import(channel, name):
    """Sends "" or what is missing here."""
    import sys

    try:
        __import__(name)
    except ImportError as error:
        channel.send(f"{sys.executable} there can not import {error.name}")
    else:
        channel.send("")


def ready(tagger):
    """The state of a worker: its tagger, once for all sentences."""
    return tagger


def tag_words(tagger, words):
    """The tags of a sentence, and the seconds that tagging it took of this thread's CPU."""
    from time import thread_time

    start = thread_time()
    tagged = tagger.tag(words)
    return [tag for _, tag in tagged], thread_time() - start
