"""What pickle is told of items that the serializer cannot carry. Both cores call this.

The buffers of an object (the numbers of an array) are no part of its pickle: they travel beside it, and are not copied
here. Channels are told apart, too: the pickle has the place of each in a tuple that travels in front of it.

This module is also sent to far ends without the package.
"""

import pickle
from io import BytesIO

PROTOCOL = 5


class Pickler(pickle.Pickler):
    def persistent_id(self, part):
        if issubclass(type(part), self.kind):
            self.channels.append(part)
            return len(self.channels) - 1


class Unpickler(pickle.Unpickler):
    def persistent_load(self, place):
        return self.channels[place]


def packed(obj, kind, error):
    """(the pickle, a list with a memoryview of each buffer, a tuple of the channels). kind: the type Channel. Raises
    `error` for an object that cannot be pickled."""
    buffers, channels = [], []
    try:
        try:
            data = pickle.dumps(obj, PROTOCOL, buffer_callback=buffers.append)
        except MemoryError:
            raise
        except Exception:  # there may be a channel in it: to look at each part takes longer
            buffers.clear()
            file = BytesIO()
            pickler = Pickler(file, PROTOCOL, buffer_callback=buffers.append)
            pickler.kind, pickler.channels = kind, channels
            pickler.dump(obj)
            data = file.getvalue()
        return data, [buffer.raw() for buffer in buffers], tuple(channels)
    except MemoryError:
        raise
    except Exception as exc:
        raise error(f"can't pickle {type(obj)!r}: {type(exc).__name__}: {exc}") from exc


def unpacked(data, buffers, channels, error):
    """The object. Raises `error` where loading its pickle fails."""
    try:
        if not channels:
            return pickle.loads(data, buffers=buffers)
        unpickler = Unpickler(BytesIO(data), buffers=buffers)
        unpickler.channels = channels
        return unpickler.load()
    except MemoryError:
        raise
    except Exception as exc:
        way = ""
        if isinstance(exc, (ImportError, AttributeError)):
            way = " (classes and functions of what was pickled must be importable where it is received)"
        raise error(f"a pickled item cannot be loaded: {type(exc).__name__}: {exc}{way}") from exc
