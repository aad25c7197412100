"""The far end of the tagging recipe: first a pickled tagger, then sentences; each comes back tagged."""

import pickle

if __name__ == "__channelexec__":
    tagger = pickle.loads(channel.receive())
    for sentence in channel:
        channel.send(tagger.tag(sentence))
