"""The far end of tag_corpus.py: a pickled tagger, then batches of sentences; each batch is answered by its tags.

The first answer says whether tagging can start: "" or what is missing here.
"""

import pickle
import sys

if __name__ == "__channelexec__":
    try:
        tagger = pickle.loads(channel.receive())
    except ImportError as error:
        channel.send(f"{sys.executable} there can not import {error.name}; install nltk for it")
    else:
        channel.send("")
        for batch in channel:
            channel.send([[tag for _, tag in tagger.tag(sentence)] for sentence in batch])
