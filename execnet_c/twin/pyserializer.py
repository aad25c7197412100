"""The serializer in plain Python. It writes the same bytes as that of the C core, and has the same limits and errors.

There is no recursion: nested objects need memory, but not Python's stack. No object is made before its bytes are known to
be in the input. This module is sent to far ends and compiled there at each start: so it is short, and imports only what
every interpreter has loaded.
"""

from itertools import chain, repeat
from marshal import dumps as _marshal, loads as _unmarshal  # for floats; not struct, which would have to be loaded
from sys import maxsize

LARGE = 65536  # bytes: a bytes object or text of this size or more is a part of its own, and not copied
DUMP_DEPTH = 2000
LOAD_DEPTH = 100000
HASH_DEPTH = 1000  # of a dict key or set member: to hash it Python recurses on the C stack
I4_MAX = 0x7FFFFFFF

channel_type = ()  # the type Channel, for dumps(); pychannel sets it


class DataFormatError(Exception):
    """An object cannot be serialized, or what arrived is not well formed."""


class DumpError(DataFormatError):
    """An object cannot be serialized. The text names its type and where it sits."""


class LoadError(DataFormatError):
    """What was to be loaded is not well formed. The text names the offset."""


class TruncatedError(LoadError, EOFError):
    """What was to be loaded ends too early."""


for _class in DataFormatError, DumpError, LoadError, TruncatedError:
    _class.__module__ = "execnet_c"


# --- dump -----------------------------------------------------------------------------------------------------------

_CONTAINERS = {list, tuple, dict, set, frozenset}
_CHANGED = "container changed its size while it was dumped"
_KNOWN = "NoneType bool int long float complex str bytes list dict set frozenset tuple Channel".split()
_TEXTS = [b"N\0\0\0%c" % n for n in range(64)]  # opcode and length of a text of n bytes
_steps = [b"F\0\0\0\0"]  # what is written before each item of a list: its index, behind SETITEM; grows to 1024 entries


def _i4(op, n):
    return op + n.to_bytes(4, "big")


def _list_steps(n):
    global _steps
    steps = _steps
    if n > len(steps):
        more = map(b"PF".__add__, map(int.to_bytes, range(len(steps), n), repeat(4), repeat("big")))
        if n > 1024:
            return chain(steps, more)
        _steps = steps = [*steps, *more]
    return steps


def _open(item, kind):
    """What is written before the items of a container; pairs (what is written before an item, item); what is written
    behind them; the number of items."""
    if kind is dict:
        n = len(item)
        return b"J", zip([b"", b""] + [b"P", b""] * (n - 1), chain.from_iterable(item.items())), b"P" if n else b"", n
    copy = tuple(item)  # another thread may change the container at any time, and n is written
    n = len(copy)
    if n > I4_MAX:
        raise DumpError(("set" if kind is frozenset else kind.__name__) + " is too long")
    if kind is list:
        return _i4(b"K", n), zip(_list_steps(n), copy), b"P" if n else b"", n
    return b"", zip(repeat(b""), copy), _i4(b"@" if kind is tuple else b"O" if kind is set else b"E", n), n


def _dump(obj, channels, prefix=b""):
    """The encoding as a list of pieces, and the indexes of the large ones. `obj` is handled as the only item of a container
    that begins with `prefix` and ends with STOP. Without a prefix it is a message, which may have huge texts."""
    pieces, large, frames = [], [], []
    huge = {} if prefix else {b"A": b"U", b"N": b"V"}
    add = pieces.append
    top, size, pairs, end = (), 0, iter(((prefix, obj),)), b"Q"

    def add_sized(op, data):
        n = len(data)
        if n > I4_MAX and op not in huge:
            raise DumpError("string is too long")
        add(_i4(op, n) if n <= I4_MAX else huge[op] + n.to_bytes(8, "big"))
        if n >= LARGE:
            large.append(len(pieces))
        add(data)

    try:
        while True:
            for prefix, item in pairs:
                add(prefix)
                kind = type(item)
                if kind is str:
                    data = item.encode()
                    if len(data) < 64:
                        add(_TEXTS[len(data)])
                        add(data)
                    else:
                        add_sized(b"N", data)
                elif kind is int:
                    if -0x80000000 <= item <= I4_MAX:
                        add(b"F")
                        add((item & 0xFFFFFFFF).to_bytes(4, "big"))
                    else:
                        add_sized(b"H", repr(item).encode())
                elif kind in _CONTAINERS:
                    before, inside, behind, n = _open(item, kind)
                    add(before)
                    if not n:
                        add(behind)
                        continue
                    if len(frames) == DUMP_DEPTH and not (kind is tuple and all(map(_is_plain, item))):
                        raise DumpError(f"can't serialize {kind!r}: nested deeper than 2000, or it contains itself,")
                    frames.append((top, size, pairs, end))
                    top, size, pairs, end = item, n, inside, behind
                    break
                elif item is None:
                    add(b"L")
                elif kind is float:
                    add(b"D")
                    add(_marshal(item, 2)[:0:-1])
                elif kind is bool:
                    add(b"R" if item else b"C")
                elif kind is bytes:
                    add_sized(b"A", item)
                else:
                    add(_dump_other(item, kind, channels))
            else:
                if len(top) != size:
                    item, top = top, frames.pop()[0]
                    raise DumpError(_CHANGED)
                add(end)
                if not frames:
                    return pieces, large
                top, size, pairs, end = frames.pop()
    except (DumpError, ValueError, RuntimeError) as exc:
        raise _explain_dump(exc, kind, [frame[0] for frame in frames] + [top, item], size)


def _explain_dump(exc, kind, path, size):
    """The exception to raise for `exc`. path: the containers around the item, and the item."""
    text, cause, way = str(exc), exc, ""
    if isinstance(exc, DumpError):
        text, cause, way = exc.args[0], None, "".join(exc.args[1:])
    elif isinstance(exc, RuntimeError) and len(path[-2]) != size:  # raised by the iterator of a dict
        text, cause = _CHANGED, None
        path.pop()
    elif isinstance(exc, UnicodeError) and kind is str:
        text = "strings must be utf-8 encodable"
    elif isinstance(exc, ValueError) and kind is int:
        text = f"can't serialize <class 'int'> ({exc})"
    else:
        return exc  # raised by the attribute `id` of a channel
    error = DumpError(text + _show_path(path) + way)
    error.__cause__ = cause
    return error


def _dump_other(item, kind, channels):
    if kind is complex:
        return b"T" + _marshal(item.real, 2)[:0:-1] + _marshal(item.imag, 2)[:0:-1]
    if isinstance(item, channels):
        return _i4(b"B", item.id & 0xFFFFFFFF)
    name = kind.__name__
    if name == "bool" and kind.__module__ == "numpy" and not kind.__flags__ & 512:  # 512: made by a class statement
        return b"R" if item else b"C"
    stranger = " (it shares no more than its name with the known type)"
    text = f"can't serialize {kind!r}" + (stranger if name.rpartition(".")[2] in _KNOWN else "")
    raise DumpError(text, _show_way(kind))


def _show_way(kind):
    """For an error text: how to convert an object of type `kind` into one that can be sent. The first attribute that the
    type has decides."""
    for way in (
        "_member_map_:.value casefold:str() decode:bytes() toreadonly:bytes() tolist isoformat total_seconds to_dict "
        "from_bytes:int() setdefault:dict() __dataclass_fields__:dataclasses.asdict() __fspath__:str() "
        "as_integer_ratio:str() with_traceback:str() __iter__:list()"
    ).split():
        name, _, way = way.partition(":")
        if any(name in vars(base) for base in kind.__mro__):
            return f"; send {way or f'.{name}()'} or pickle.dumps() of it"
    return "; send pickle.dumps() of it"


def _is_plain(item):
    """Whether a tuple at the depth limit may hold this item."""
    kind = type(item)
    if kind is str:
        return len(item) < LARGE and item.isascii()
    return item is None or kind in (bool, float) or kind is int and -0x80000000 <= item <= I4_MAX


def _show_path(path):
    """For an error text: the way from path[1], the object that was dumped, to the last. Each is searched in the one before
    it. The first place that is found is right: the dump would have failed there."""
    steps = list(zip(path[1:], path[2:]))
    shown = [*map(_show_step, steps if len(steps) <= 24 else steps[:12] + steps[-12:])]
    if len(steps) > 24:
        shown.insert(12, "...")
    return " at " + "".join(shown) if steps else ""


def _show_step(step):
    container, item = step
    if isinstance(container, (set, frozenset)):
        return "<member>"
    for key, value in container.items() if isinstance(container, dict) else enumerate(container):
        if key is item and isinstance(container, dict):
            return "<key>"
        if value is item:
            return f"[{_show_key(key, type(key))}]"
    return "[?]"


def _show_key(key, kind):
    if kind in (str, bytes):
        return repr(key) if len(key) <= 40 else repr(key[:40]) + "..."
    try:
        if key is None or kind in (bool, float, int):
            return repr(key)
    except ValueError:
        pass  # an int of too many digits
    return f"<{kind.__name__}>"


def _dump_plain(item):
    """The encoding of None, a short str or an int of 32 bits, without STOP. Raises any exception for all else."""
    kind = type(item)
    if kind is str and len(item) < 4096:
        data = item.encode()
        return b"N" + len(data).to_bytes(4, "big") + data
    if kind is int and -0x80000000 <= item <= I4_MAX:
        return b"F" + (item & 0xFFFFFFFF).to_bytes(4, "big")
    return {None: b"L"}[item]


def dump_item(item, channels):
    """The encoding of an item for a message, in parts; large bytes objects and texts are parts of their own. A channel,
    an instance of `channels`, is written as its id, whatever its gateway."""
    kind = type(item)
    try:  # the items that a worker sends first: most far ends never need _dump(), and so do not compile it
        if kind is str or kind is int:
            return [_dump_plain(item) + b"Q"]
        if kind is dict and len(item) < 16:
            pairs = [_dump_plain(key) + _dump_plain(value) + b"P" for key, value in item.items()]
            return [b"J%bQ" % b"".join(pairs)]
    except Exception:
        pass
    return _dump_parts(item, channels)


def _dump_parts(item, channels):
    pieces, large = _dump(item, channels)
    parts, begin = [], 0
    for place in large:
        parts += b"".join(pieces[begin:place]), pieces[place]
        begin = place + 1
    return [*parts, b"".join(pieces[begin:])]


def dumps(obj, *, strict=True):
    """The bytes that encode obj; loads() makes an equal object of them.

    obj is None, a bool, int, float, complex, str, bytes, Channel, or a list, tuple, dict, set or frozenset of these, of
    exactly these types and at most 2000 deep. All else raises a DumpError that says what it was and where it sat.
    """
    if not strict:
        from ..common.plain import plain

        obj = plain(obj)
    return b"".join(_dump(obj, channel_type, b"\2")[0])


def dump(byteio, obj, *, strict=True):
    """Passes dumps(obj, strict=strict) to byteio.write(), in one call."""
    byteio.write(dumps(obj, strict=strict))


# --- load -----------------------------------------------------------------------------------------------------------

_CONSTANTS = {76: None, 82: True, 67: False}


def load_plain(data):
    """Load a simple item, as hellos and tasks are: fewer than LARGE bytes of None, int, str, tuple, and dict with str
    keys. Raises any exception for other items, and for those that are not well formed."""
    stack, p = [], 0
    while True:
        op = data[p]
        p += 1
        if op in b"NF@":  # STR, INT, TUPLE
            n = int.from_bytes(data[p : p + 4], "big")
            p += 4
            if op == 78:
                stack.append(data[p : p + n].decode())
                p += n
            elif op == 70:
                stack.append(n if n <= I4_MAX else n - 0x100000000)
            else:
                place = range(len(stack) + 1)[-1 - n]
                stack[place:] = [tuple(stack[place:])]
        elif op == 80:  # SETITEM
            value, key = stack.pop(), stack.pop()
            stack[-1][key + ""] = value
        elif op == 81:  # STOP
            (value,) = stack
            return value
        else:  # NEWDICT, NONE
            stack.append({} if op == 74 else _CONSTANTS[op])


WIDTHS = {**dict.fromkeys(b"BEFGKO@", 5), **dict.fromkeys(b"CJLPR", 1), 68: 9, 84: 17}  # of opcode and operand


def channel_ids(data, most):
    """The channel ids in data, without building objects: a list, of `most` at most. Empty if data is not well formed: _load()
    refuses it then."""
    ids, p = [], -1 if data[:6] == b"@\0\0\0\0W" else data.find(b"B")  # a pickle without channels has none
    while p >= 0 and data[p + 5 : p + 6] not in b"@ABCDEFGHIJKLMNOPQRSTUV":  # opcodes: one follows the id
        p = data.find(b"B", p + 1)
    if p < 0:
        return ids  # as usual
    p = 0
    try:
        while data[p] not in b"QW" and len(ids) < most:  # STOP, PICKLE
            op = data[p]
            if op in b"NASHIMUV":
                q = p + (5 if op < 85 else 9)
                p = q + int.from_bytes(data[p + 1 : q], "big")
                continue
            if op == 66:
                ids.append(int.from_bytes(data[p + 1 : p + 5], "big"))
            p += WIDTHS[op]
    except (IndexError, KeyError):
        return []
    return ids


def _load(data, p, coerce, make_channel=None, load_pickle=None):
    """The object that is encoded in data[p:]. marks: the indexes of containers on the stack, ascending; levels: how deeply
    each of them is nested inside."""
    begin, end = p, len(data)
    stack, marks, levels, claimed = [], [-1], [0], 0
    push, pop, from_bytes = stack.append, stack.pop, int.from_bytes
    try:
        while p < end:
            at = p
            op = data[p]
            p += 1
            if op in b"FN@KASHEOGIMB":  # these have an operand of 4 bytes
                n = from_bytes(data[p : p + 4], "big")
                p += 4
                if p > end:
                    raise _ends(end)
                if op == 70 or op == 71:  # INT, LONG
                    push(n if n <= I4_MAX else n - 0x100000000)
                    continue
                if op == 66:  # CHANNEL
                    if make_channel is None:
                        raise LoadError("a channel, where none can be")
                    push(make_channel(n))
                    continue
                if n > I4_MAX:
                    raise LoadError("negative length")
                if op in b"NASHIM":  # STR, BYTES, UNICODE, LONGINT, LONGLONG, PY2STR
                    value = data[p : p + n]
                    p += n
                    if p > end:
                        raise _ends(end)
                    if op == 78 and not coerce & 2 or op == 83:
                        value = value.decode()
                    elif op == 72 or op == 73:
                        value = _to_int(value)
                    elif op == 77 and coerce & 1:
                        value = value.decode("latin-1")
                    push(value)
                    continue
                level = 1
                if op == 75:  # NEWLIST; 7 bytes fill one slot
                    claimed += n
                    if n > (end - p) // 7 or claimed > (end - begin) // 7:
                        raise _ends(end, "too early to fill the list that begins")
                    value = [None] * n
                else:  # TUPLE, SET, FROZENSET
                    place = len(stack) - n
                    if place < 0:
                        raise LoadError("too few objects on the stack")
                    value, deep = stack[place:], n
                    while marks[-1] >= place:
                        if levels[-1] > HASH_DEPTH:
                            deep = marks[-1] - place
                        marks.pop()
                        level = max(level, levels.pop() + 1)
                    if op == 64:
                        value = tuple(value)
                        if level > LOAD_DEPTH:
                            raise LoadError("nested too deeply")
                    else:
                        value = (set if op == 79 else frozenset)(value[:deep])
                        if deep < n:
                            raise LoadError("set member nested too deeply")
                    del stack[place:]
            elif op == 80:  # SETITEM
                place = len(stack) - 3
                if place < 0:
                    raise LoadError("not enough items for setitem")
                value, key, target = pop(), pop(), stack[-1]
                deep = level = 0
                if marks[-1] > place:
                    if marks[-1] == place + 2:
                        marks.pop()
                        level = levels.pop()
                    if marks[-1] == place + 1:
                        marks.pop()
                        deep = levels.pop()
                kind = type(target)
                if kind is list:
                    if type(key) is not int or not 0 <= key < len(target):
                        _check_index(key, len(target))
                    target[key] = value
                elif kind is dict:
                    if deep > HASH_DEPTH:
                        raise LoadError("dict key nested too deeply")
                    target[key] = value
                    level = max(level, deep)
                else:
                    raise LoadError("setitem on what is neither a list nor a dict")
                if level >= levels[-1]:
                    levels[-1] = level + 1
                    if level >= LOAD_DEPTH:
                        raise LoadError("nested too deeply")
                continue
            elif op in _CONSTANTS:
                push(_CONSTANTS[op])
                continue
            elif op == 74:  # NEWDICT
                value, level = {}, 1
            elif op == 68 or op == 84:  # FLOAT, COMPLEX
                q, p = p, p + (8 if op == 68 else 16)
                if p > end:
                    raise _ends(end)
                value = _unmarshal(b"g" + data[q + 7 : q - 1 : -1])
                push(value if op == 68 else complex(value, _unmarshal(b"g" + data[q + 15 : q + 7 : -1])))
                continue
            elif op in b"UV" and make_channel:  # HUGE_BYTES, HUGE_STR: only messages have them
                n = from_bytes(data[p : p + 8], "big")
                p += 8 + n
                if p > end:
                    raise _ends(end)
                value = data[p - n : p]
                push(value.decode() if op == 86 and not coerce & 2 else value)
                continue
            elif op == 87 and load_pickle:  # PICKLE: only messages have it
                return load_pickle(data, p, *stack)
            elif op == 81:  # STOP
                if len(stack) != 1:
                    raise LoadError("STOP without exactly one object")
                return pop()
            else:
                raise LoadError(f"unknown opcode {bytes((op,))!r}")
            marks.append(len(stack))
            levels.append(level)
            push(value)
        at = op = end
        raise _ends(end, "without STOP")
    except Exception as exc:
        raise _explain_load(exc, op, at)
    finally:
        stack.clear()  # so that the exception's traceback does not hold what was loaded of the item
        value = key = target = None


def _explain_load(exc, op, at):
    if isinstance(exc, LoadError):
        if exc.__cause__ is not None:
            return exc  # from what a pickle calls
        more = " - wire protocol corruption?" if str(exc).startswith("unknown") else ""
        error = type(exc)(f"{exc} at offset {at}{more}")
        error.__cause__ = None
        return error
    if op == 66 or isinstance(exc, MemoryError):
        return exc
    what = {72: "int", 73: "int", 78: "UTF-8", 83: "UTF-8", 86: "UTF-8", 80: "dict key", 87: "pickle"}.get(op, "set member")
    if isinstance(exc, OverflowError):
        what = "list index"
    error = LoadError(f"bad {what} at offset {at}: {exc}")
    error.__cause__ = exc
    return error


def _ends(end, how="within what begins"):
    return TruncatedError(f"input ends at offset {end}, {how}")


def _check_index(key, length):
    """Raise the error for an index into a list. It gets only the list's length: the traceback holds what this frame has."""
    if not isinstance(key, int):
        raise LoadError("list index is not an int")
    if not -length <= key < length:
        if -maxsize - 1 <= key <= maxsize:
            raise LoadError("list index out of range")
        raise OverflowError("Python int too large to convert to C ssize_t")


def _to_int(digits):
    """int(digits), with the error texts of the C core."""
    head, nul, _ = digits.partition(b"\0")
    try:
        value = int(head)
    except ValueError as exc:
        if "invalid literal" not in str(exc):
            raise  # too many digits
        raise ValueError("invalid literal for int() with base 10: %.200r" % head[:200].decode()) from None
    if nul:
        raise ValueError("invalid literal for int() with base 10")
    return value


def load_item(data, coerce, make_channel, load_pickle=None):
    """The object that a message holds. coerce: 1 for py2str_as_py3str, 2 for py3str_as_py2str, 3 for both.
    load_pickle(data, p, *stack) loads what stands behind PICKLE. make_channel(id) gives the channel of that id."""
    n = len(data) - 6
    if n >= LARGE and data[0] == 65 and data[-1] == 81 and int.from_bytes(data[1:5], "big") == n:
        return bytes(data[5:-1])  # _load() would copy it twice
    return _load(data if hasattr(data, "getbuffer") else bytes(data), 0, coerce, make_channel, load_pickle)


def _load_versioned(data, py2str_as_py3str, py3str_as_py2str):
    if data[:1] != b"\2":
        raise (LoadError if data else TruncatedError)(f"wrong dumpformat version {data[:1]!r}")
    return _load(data, 1, bool(py2str_as_py3str) | bool(py3str_as_py2str) << 1)


def loads(bytestring, py2str_as_py3str=False, py3str_as_py2str=False):
    """The object that dumps() encoded in bytestring, any contiguous bytes-like object; bytes behind it are ignored.
    py2str_as_py3str: what was a str of Python 2 becomes a str (by latin-1), not bytes.
    py3str_as_py2str: what was a str of Python 3 becomes bytes (UTF-8).

    Raises LoadError, with the offset, if the bytes are not well formed; TruncatedError, which is an EOFError too, if
    they end too early. A Channel cannot be loaded here: LoadError.
    """
    if type(bytestring) is not bytes:
        with memoryview(bytestring) as view:
            if not view.c_contiguous:
                raise BufferError("memoryview: underlying buffer is not C-contiguous")
            bytestring = view.tobytes()
    return _load_versioned(bytestring, py2str_as_py3str, py3str_as_py2str)


def load(io, py2str_as_py3str=False, py3str_as_py2str=False):
    """Reads one object from io, which needs no more than read(n), and leaves io right behind it.
    A read() that returns fewer bytes than it was asked for is the end of the input.

    Otherwise as loads(); what read() raises passes through.
    """
    # How many bytes must follow each opcode: the fixed part of its operand and, except for strings, the next opcode.
    follow = dict.fromkeys(b"@BEFGKO", 5)
    follow.update({**dict.fromkeys(b"AHIMNS", 4), **dict.fromkeys(b"CJLPR", 1), 68: 9, 84: 17})
    data = bytearray()

    def read(n):
        """Read n bytes; false if there are fewer. A piece is not much larger than all that came before, so a false length
        in the input does not cost much memory."""
        while n > 0:
            piece = min(n, max(len(data), LARGE), 1 << 26)
            got = io.read(piece)
            if not isinstance(got, bytes):
                raise TypeError(f"read() should return bytes, not {type(got).__name__}")
            if len(got) > piece:
                raise ValueError(f"read({piece}) returned {len(got)} bytes")
            data.extend(got)
            if len(got) < piece:
                return False
            n -= piece
        return True

    more = read(1) and data[0] == 2 and read(1)
    while more:
        n = follow.get(data[-1], 0)
        more = n > 0 and read(n)
        if more and n == 4:
            n = int.from_bytes(data[-4:], "big")
            more = n <= I4_MAX and read(n + 1)
    return _load_versioned(bytes(data), py2str_as_py3str, py3str_as_py2str)
