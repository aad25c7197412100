"""What a stream raises: exceptions of the function as themselves, with the item they are about."""

import builtins
import pickle

from ..cores import module as _core
from .carry import unpack
from .functions import needs_cloudpickle

# The words of who dies because there is no memory.
WITHOUT_MEMORY = ("MemoryError", "bad_alloc", "Cannot allocate memory", "no memory", "out of memory", "memory allocation")
SHOWN = 200  # characters of an item in an error

_set_cause = vars(BaseException)["__cause__"].__set__  # as `raise` does it: a class may refuse that attributes are set


class ItemTimeout(_core.TimeoutError, builtins.TimeoutError):
    """The function took longer for an item than `timeout` says."""

    __module__ = "execnet_c.pool"


class Failed:
    """In the place of a result: why there is none."""

    def __init__(self, error):
        self.error = error

    def __getstate__(self):  # a pickled exception loses its cause; those that are no RemoteError may not be fit for pickling
        cause = self.error.__cause__
        return self.error, cause if type(cause) is _core.RemoteError else None

    def __setstate__(self, state):
        self.error, cause = state
        if cause is not None:
            _set_cause(self.error, cause)


def shown(item):
    try:
        text = repr(item)
    except Exception as exc:
        return f"<{type(item).__name__} whose repr() fails: {exc!r}>"
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


def about(index, item):
    return f"item {index}, {shown(item)}"


def remote(packed, text, where):
    """The exception that a worker has sent, with a RemoteError as its cause that has the traceback from there; if it
    cannot be unpickled here, that RemoteError."""
    cause = _core.RemoteError(f"{where}\n{text}" if where else text)
    if packed is not None:
        try:
            error = unpack(packed)
        except Exception:
            return cause
        if type(error) is AttributeError and "module '__main__'" in text:
            error = _not_importable(error, text.rstrip().rpartition("AttributeError: ")[2])
        if isinstance(error, BaseException):
            _set_cause(error, cause)
            return error
    return cause


def _not_importable(error, says):
    """A worker lacks what `__main__` defines here: the error says what to do, unless cloudpickle is there."""
    try:
        import cloudpickle  # noqa: F401
    except ImportError:
        return AttributeError(f"{says}; no worker can import it from __main__; {needs_cloudpickle()}")
    return error


def of_item(packed, text, index, item, gateway):
    """The same for an item of a stream. Its index and repr stand in the cause, and in a note where Python has those."""
    what = about(index, item)
    error = remote(packed, text, f"{what} (gateway {gateway.id!r}):")
    if error.__cause__ is not None and hasattr(error, "add_note"):
        try:
            error.add_note(what)
        except Exception:
            pass  # its class refuses that
    return error


def ended(error, index, items):
    """As the death `error` of a worker, saying at which items it worked."""
    if len(items) == 1:
        what = f"it was working at {about(index, items[0])}"
    else:
        what = f"it was working at items {index} to {index + len(items) - 1}, the first being {shown(items[0])}"
    return saying(error, what)


def of_memory(error, limit):
    """As the death `error` of a worker whose memory is limited, saying that if it died of that, as far as it has told."""
    if any(word in str(error) for word in WITHOUT_MEMORY):
        return saying(error, f"worker_options: memory={limit}")
    return error


def saying(error, what):
    """As `error`, with `what` behind its text."""
    try:
        named = type(error)(f"{error}; {what}")
        vars(named).update({**vars(error), **vars(named)})  # the text of a RemoteError is an attribute
    except Exception:
        return error
    return named


def late(seconds, index, item):
    return ItemTimeout(f"{about(index, item)}: no result after {seconds!r} seconds")


def cannot_pickle(error, index, item):
    """The reason why an item cannot be sent, saying which one it is."""
    kind = type(error) if type(error) in (TypeError, AttributeError, pickle.PicklingError) else pickle.PicklingError
    named = kind(f"{about(index, item)}, cannot be pickled: {error}")
    named.__cause__ = error
    return named
