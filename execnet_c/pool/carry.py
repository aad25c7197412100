"""How an object travels between the pool and its workers: pickled.

The far end has the same two functions, see remote.py.

Buffers stay in the pickle, where channel.send_pickled() would send them from their owner's memory: the copy is what was drawn
or submitted, also when a source fills one array again and again or a task is sent a second time; and results would need a
near end that loads pickles from any channel, where the pool loads only what its own workers answer.
"""

import pickle

unpack = pickle.loads


def pack(obj):
    """Raises what pickle does. Objects of classes of `__main__`, which the far end cannot import, go by cloudpickle if it is
    installed."""
    data = pickle.dumps(obj, 5)
    if b"__main__" in data:
        try:
            import cloudpickle
        except ImportError:
            pass
        else:
            data = cloudpickle.dumps(obj, 5)
    return data
