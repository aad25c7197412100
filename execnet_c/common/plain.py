"""strict=False: enums, and subclasses of plain types, as the plain values that they are. Both cores call this when an item
cannot be sent as it is.

This module is also sent to far ends without the package.
"""

import sys

_EXACT = {str, int, float, bool, bytes, complex, type(None)}
_OF = {str: str.__str__, int: int.__int__, float: float.__float__}
_CONTAINERS = list, tuple, dict, set, frozenset


def plain(item):
    """`item` with the value in the place of each enum, and in that of each instance of a subclass one of the type itself,
    also inside of containers. All else stays as it is. No recursion; what is in two places stays one object."""
    done, begun, stack = {}, {}, [item]
    while stack:
        now = stack[-1]
        if id(now) not in begun:
            base, parts = _taken_apart(now)
            begun[id(now)] = base, parts, now  # kept, so that no other object gets its id
            stack += [part for part in parts if type(part) not in _EXACT and id(part) not in begun]
            continue
        stack.pop()
        if id(now) not in done:
            base, parts, _ = begun[id(now)]
            done[id(now)] = _made(now, base, [done.get(id(part), part) for part in parts])
    return done[id(item)]


def _taken_apart(item):
    """(what it is made into, its parts); the enum's class stands for the value of an enum, None for what stays."""
    kind = type(item)
    enum = getattr(sys.modules.get("enum"), "Enum", ())
    if issubclass(kind, enum):
        return enum, [item.value]
    for base in _CONTAINERS:
        if issubclass(kind, base):
            parts = base(item)
            return base, [*parts, *parts.values()] if base is dict else [*parts]
    for base in _OF:
        if issubclass(kind, base):
            return base, []
    return None, []


def _made(item, base, parts):
    if base is None or base in _OF:
        return _OF[base](item) if base else item
    try:
        if base is dict:
            return dict(zip(parts[: len(parts) // 2], parts[len(parts) // 2 :]))
        return base(parts) if base in _CONTAINERS else parts[0]
    except TypeError:
        return item  # a value that cannot be a key
