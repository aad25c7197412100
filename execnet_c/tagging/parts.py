"""A tagger's weights, tagdict and classes as Python objects, which programs may change.

The dicts and the set note a change; then the tagger builds its C model anew from them.
"""


class _Note:
    """Whether a program has changed one of the objects that share this note."""

    __slots__ = ("changed",)

    def __init__(self):
        self.changed = False


def _watched(base, *mutators):
    """A subclass of dict or set whose changes are noted. Copies and pickles of it are plain."""

    def noting(name):
        method = getattr(base, name)

        def change(self, *args, **kwargs):
            self._note.changed = True
            return method(self, *args, **kwargs)

        change.__name__ = name
        return change

    def __init__(self, items, note):
        base.__init__(self, items)
        self._note = note

    body = {name: noting(name) for name in mutators}
    body.update(
        __slots__=("_note",),
        __init__=__init__,
        __reduce_ex__=lambda self, protocol: (base, (base(self),)),
        copy=lambda self: base(self),
    )
    return type(f"Watched{base.__name__.title()}", (base,), body)


_Dict = _watched(dict, "__delitem__", "__ior__", "__setitem__", "clear", "pop", "popitem", "setdefault", "update")
_Set = _watched(
    set,
    *("__iand__", "__ior__", "__isub__", "__ixor__", "add", "clear", "difference_update", "discard"),
    *("intersection_update", "pop", "remove", "symmetric_difference_update", "update"),
)


class Parts:
    """A tagger's weights, tagdict and classes as Python objects, and a note whether they differ from the model by now."""

    def __init__(self, weights, tagdict, classes, changed):
        self.weights, self.tagdict, self.classes = weights, tagdict, classes
        self.note = _Note()
        self.note.changed = changed

    @classmethod
    def of(cls, model):
        parts = cls(model.weights(), model.tagdict(), model.classes, False)
        parts.watch()
        return parts

    def watch(self):
        """Note changes from now on. Objects that note changes already stay the same: programs may hold them."""
        note = self.note
        if type(self.weights) is not _Dict:
            self.weights = _Dict(self.weights, note)
        for feature, row in self.weights.items():
            if type(row) is not _Dict:
                dict.__setitem__(self.weights, feature, _Dict(row, note))
        if type(self.tagdict) is not _Dict:
            self.tagdict = _Dict(self.tagdict, note)
        if type(self.classes) is not _Set:
            self.classes = _Set(self.classes, note)
        note.changed = False
