"""The far end of tag_corpus.py: a pickled tagger, then batches of sentences.

The first answer says whether tagging can start: "" or what is missing here. Each batch is answered by its tags and the
seconds that its tagging took of this thread's CPU.
"""

import pickle
import sys
import time

if __name__ == "__channelexec__":
    try:
        tagger = pickle.loads(channel.receive())
    except ImportError as error:
        ours = (error.name or "").startswith("execnet_c")
        remedy = "install execnet_c for it, or use --tagger nltk" if ours else "install nltk for it"
        channel.send(f"{sys.executable} there can not import {error.name}; {remedy}")
    else:
        channel.send("")
        for batch in channel:
            start = time.thread_time()
            tagged = tagger.tag_sents(batch)
            seconds = time.thread_time() - start
            channel.send(([[tag for _, tag in sentence] for sentence in tagged], seconds))
