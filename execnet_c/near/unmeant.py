"""Mistakes in a spec: unknown keys, and values that were cut at a `//`. Looked for when a gateway is made.

Programs may give specs keys of their own, as with execnet. So an unknown key is accepted, but one that looks like a known
key gets a warning, unless it begins with `x-`. A key that is not even a name is an error: it is the rest of a value that
had `//` in it. This file is imported only for a spec that XSpec._is_odd() has found to be worth a look.
"""

import sys
import warnings
from difflib import get_close_matches

from ..xspec import XSpec

OWN = "x-"  # a key that begins with this is the program's own: no warning
TYPES = ("popen", "ssh", "vagrant_ssh", "socket")
_FLAGS = {"popen": "python= names another interpreter", "dont_write_bytecode": "leave it out to have bytecode written"}
_VALUES_WITH_SLASHES = ("chdir", "python", "ssh_config")


def check(spec):
    """Warn of mistakes in the text of `spec`. Raises ValueError for a key that is the rest of a value, and for an id without
    a value."""
    if not any(getattr(spec, key) for key in TYPES):
        return  # argv_of() raises an error for that
    text, before = str(spec), ("", "")
    if spec.id is True:
        raise ValueError(f"spec {text!r}: id needs a value, as in id=...")
    for item in text.split("//"):
        key, equals, value = item.partition("=")
        if key in _FLAGS and equals:
            _warn(f"spec {text!r}: {key} takes no value; {_FLAGS[key]}")
        if not (key.startswith(("env:", OWN)) or hasattr(type(spec), key)):
            _check_unknown(text, key, equals, *before)
        elif key not in _VALUES_WITH_SLASHES and not key.startswith(("env:", OWN)) and holds_a_key(item):
            _warn(f"spec {text!r}: keys are separated by //, so that {key} is {value!r} here")
        before = key, value


def holds_a_key(item):
    """Whether a known key stands behind a single slash, where two were meant."""
    keys = [part.partition("=") for part in item.split("/")[1:]]
    return any(equals and (key.startswith("env:") or vars(XSpec).get(key, "") is None) for key, equals, _ in keys)


def nearest(key, known=None):
    """The known key that a misspelt one looks like, if any."""
    known = known or [*(name for name, value in vars(XSpec).items() if value is None), "env:NAME"]
    name, colon, _ = key.partition(":")
    return next(iter(get_close_matches(name.lower() + (colon and ":NAME"), known, 1)), None)


def _check_unknown(text, key, equals, last_key, last_value):
    """Raise or warn for the unknown `key`. last_key, last_value: what stands in front of it."""
    says = f"spec {text!r}: {key!r} is no key"
    if not _is_name(key) or last_value.endswith(":"):
        raise ValueError(f"{says}; {_cut(text, last_key, last_value)}" if last_key else says)
    takes_slashes = last_key in _VALUES_WITH_SLASHES or last_key.startswith("env:")
    if not equals and takes_slashes and ("/" in last_value or not last_value):
        _warn(f"{says}; {_cut(text, last_key, last_value)}")
    elif near := nearest(key):
        _warn(f"{says}; did you mean {near!r}? (A key of your own that begins with {OWN!r} is never taken for another.)")


def _cut(text, key, value):
    """For an error text: that `//` has cut the value of `key`, and how to set a value with `//` in it."""
    if key.startswith("env:"):
        set_it = f"spec.env[{key[4:]!r}] = ..."
    else:
        set_it = f"spec.{key} = ..." if key.isidentifier() else f"setattr(spec, {key!r}, ...)"
    return (
        f"// ends a value, so that {key} is {value!r} here. A value with // in it is set on the spec itself: "
        f"spec = XSpec({text.partition('//')[0]!r}); {set_it}"
    )


def _is_name(key):
    return "/" not in key and key.partition(":")[0].replace("-", "_").isidentifier()


def _warn(text):
    """Warn; Python shows the line of the program that made the gateway."""
    depth, frame = 1, sys._getframe()
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] == __package__.partition(".")[0]:
        depth, frame = depth + 1, frame.f_back
    warnings.warn(text, UserWarning, depth)
