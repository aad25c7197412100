"""How an object travels between the pool and its workers: pickled.

The far end has the same two functions, see remote.py.
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
