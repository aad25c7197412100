"""Tags a sentence of the treebank in another interpreter and compares it with the treebank's own tags.

This is the distributed tagging recipe of the NLTK books; `execnet_c` for `execnet` is the only change to its use
of gateways.
"""

import pickle

import execnet_c as execnet
import remote_tag
from tagging_data import load_tagger, load_treebank

tagger, _ = load_tagger()
pickled_tagger = pickle.dumps(tagger)
treebank = load_treebank()

gateway = execnet.makegateway()
channel = gateway.remote_exec(remote_tag)
channel.send(pickled_tagger)
channel.send(treebank.sents()[0])
tagged_sentence = channel.receive()
print(tagged_sentence == treebank.tagged_sents()[0])
gateway.exit()
