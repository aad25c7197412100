"""Streams of documents through gateways, for PerceptronTagger.pipe(). Packed words go there, and numbers of tags come back. They
are paired with the words here, which takes less than to load pairs.
"""

from importlib import import_module

from .stream import next_batch, parse_error, tokenized


def ready(tagger, use_tagdict):
    """The state of a worker."""
    return tagger, use_tagdict


def numbers_of(state, packed):
    tagger, use_tagdict = state
    return tagger.tag_numbers(packed, use_tagdict)


def stream_over(gateways, tagger, source, batch_size, tokenize, use_tagdict, as_doc):
    """As stream(), in the workers of a pool. An item of the pool is a packed batch, with its documents beside it."""
    model = tagger._compiled()
    results = import_module("..pool", __package__).pipe(
        numbers_of, _packed(model, source, batch_size, tokenize), group=gateways, as_tuples=True, batch_size=1,
        initializer=ready, initargs=(tagger, use_tagdict),
    )  # fmt: skip
    return _paired(results, model, as_doc)


def _paired(results, model, as_doc):
    with results:
        for numbers, docs in results:
            yield from model.pair(docs, numbers, as_doc)


def _packed(model, source, batch_size, tokenize):
    end = None
    while end is None:
        texts, end = next_batch(source, batch_size)
        docs, end = tokenized(texts, tokenize, end)
        try:
            packed = model.pack(docs)
        except Exception as error:
            place, error = _first_bad(model, docs, error)
            docs, end = docs[:place], parse_error(texts[place], error)
            packed = model.pack(docs)
        if docs:
            yield packed, [*map(tuple, docs)]  # the source may change its documents before their tags are here
    if not isinstance(end, StopIteration):
        raise end


def _first_bad(model, docs, error):
    for place, doc in enumerate(docs):
        try:
            model.pack([doc])
        except Exception as why:
            return place, why
    raise error
