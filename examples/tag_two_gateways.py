"""The recipe's next step: two gateways, each with its own tagger. Shows what each answers beside what is known."""

import pickle

import execnet_c as execnet
import remote_tag
from nltk.tag.util import tuple2str
from tagging_data import load_tagger, load_treebank

tagger, weights = load_tagger()
pickled_tagger = pickle.dumps(tagger)
treebank = load_treebank()
sentence, known = treebank.sents()[0], treebank.tagged_sents()[0]

gateways = [execnet.makegateway() for _ in range(2)]
channels = [gateway.remote_exec(remote_tag) for gateway in gateways]
for channel in channels:
    channel.send(pickled_tagger)
    channel.send(sentence)

print(f"With {weights}:")
for gateway, channel in zip(gateways, channels):
    tagged = channel.receive()
    print("tagged:", " ".join(tuple2str(pair) for pair in tagged))
    print("known: ", " ".join(tuple2str(pair) for pair in known))
    print(tagged == known)
    gateway.exit()
