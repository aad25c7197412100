"""How an object travels between the pool and its workers: pickled, with large buffers beside the pickle.

The far end has the same two functions, see remote.py.
"""

import pickle


def pack(obj):
    """A plain item for `obj`: [pickle, buffers...]. Raises what pickle does. Objects of classes of `__main__`, which the far
    end cannot import, go by cloudpickle if it is installed."""
    buffers = []
    data = pickle.dumps(obj, 5, buffer_callback=buffers.append)
    if b"__main__" in data:
        try:
            import cloudpickle
        except ImportError:
            pass
        else:
            buffers.clear()
            data = cloudpickle.dumps(obj, 5, buffer_callback=buffers.append)
    return [data, *(buffer.raw().tobytes() for buffer in buffers)]


def unpack(packed):
    return pickle.loads(packed[0], buffers=packed[1:])


def size_of(packed):
    return sum(map(len, packed))
