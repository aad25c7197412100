"""Streams of documents through a Pipe, in batches, for PerceptronTagger.pipe()."""

from itertools import islice


def stream(start, source, batch_size, tokenize):
    """Yield what the Pipe that start() makes has tagged. It has up to two batches: while its threads tag one, this thread
    reads the next or yields the last."""
    pipe, waiting, end = start(), 0, None
    try:
        while True:
            while end is None and waiting < 2:
                texts, end = next_batch(source, batch_size)
                docs, end = tokenized(texts, tokenize, end)
                bad = pipe.give(docs)
                waiting += 1
                if bad is not None:
                    end = parse_error(texts[bad[0]], bad[1])
            if not waiting:
                break
            yield from pipe.take()
            waiting -= 1
    finally:
        pipe.close()
    if not isinstance(end, StopIteration):
        raise end


def next_batch(source, size):
    """(the next documents, None); at the end (the last documents, the exception that says why there are no more)."""
    texts = []
    try:
        texts.extend(islice(source, size))
    except Exception as error:
        return texts, error
    return texts, None if len(texts) == size else StopIteration()


def tokenized(texts, tokenize, end):
    if tokenize is None:
        return texts, end
    docs = []
    for text in texts:
        try:
            docs.append(tokenize(text))
        except Exception as error:
            return docs, parse_error(text, error)
    return docs, end


def parse_error(text, cause):
    """An error that names the document."""
    if not isinstance(cause, Exception) or isinstance(cause, MemoryError):
        return cause
    if not isinstance(text, str):
        try:
            text = " ".join(text)
        except TypeError:
            text = repr(text)
    error = ValueError(f"Error parsing doc: {text if len(text) <= 200 else text[:200] + '...'}")
    error.__cause__ = cause
    return error
