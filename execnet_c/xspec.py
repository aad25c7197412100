"""The text of a spec, and the values in it.

An XSpec only reads its text; what the values mean is decided where they are used. Its text never
changes, and two specs with the same text are equal. This file imports nothing.
"""


class XSpec:
    """An execution specification: ``key1=value1//key2=value2//...``

    - A key without ``=value`` is True.
    - Each key may be given once, ``env:NAME=value`` as often as needed; the last one for a NAME counts.
    - Keys do not start with an underscore; neither keys nor values contain ``//``.
    - Other keys than those below are a program's own. makegateway() warns of a key that looks like one of those below,
      unless it begins with ``x-``.

    Each key is an attribute, and an attribute for a key that was not given is None. Attributes may be set: that is how
    a value gets ``//`` into it, as in ``spec.env["URL"] = "http://host"``.
    """

    chdir: str | None = None
    dont_write_bytecode: bool | None = None
    execmodel: str | None = None
    id: str | None = None
    installvia: str | None = None
    keepalive: str | None = None
    maxqueue: str | None = None
    nice: str | None = None
    payload: str | None = None
    popen: bool | None = None
    python: str | None = None
    socket: str | None = None
    ssh: str | None = None
    ssh_config: str | None = None
    stderr: str | None = None
    transport: str | None = None
    vagrant_ssh: str | None = None
    via: str | None = None

    env: dict[str, str | bool]

    def __init__(self, string: str) -> None:
        if not isinstance(string, str):
            raise TypeError(
                f"a spec is a string such as 'popen//id=gw1', not {type(string).__name__}: {string!r}"
            )
        self._spec = string
        self.env = {}
        for item in string.split("//"):
            key, equals, text = item.partition("=")
            value: str | bool = text if equals else True
            if not key:
                raise ValueError(
                    f"empty key in {string!r}: write keys as key=value, separated by single // marks"
                )
            if key.startswith("_"):
                raise AttributeError(f"{key!r} not a valid XSpec key")
            if key.startswith("env:"):
                self.env[key[4:]] = value
            elif key in self.__dict__:
                instead = ": write env:NAME=value" if key == "env" else ""
                raise ValueError(f"duplicate key: {key!r} in {string!r}{instead}")
            else:
                setattr(self, key, value)

    def __getattr__(self, name: str) -> str | bool | None:
        # Called only for attributes that are not set. Names that Python itself looks for (in copy,
        # pickle and inspect) must stay missing.
        if name.startswith("_"):
            raise AttributeError(name)
        return None

    def __repr__(self) -> str:
        return f"<XSpec {self._spec!r}>"

    def __str__(self) -> str:
        return self._spec

    def __hash__(self) -> int:
        return hash(self._spec)

    def __eq__(self, other: object) -> bool:
        # The type does not matter: a spec of execnet with the same text is equal.
        return self._spec == getattr(other, "_spec", None)

    def _is_odd(self) -> bool:
        """Whether it may have unknown keys, or wrong values; unmeant.py looks closer."""
        if self.id is True or not {self.popen, self.dont_write_bytecode} <= {None, True}:
            return True
        # A value with a key in it: perhaps a `/` where `//` was meant.
        if any("/" in value and "=" in value for key, value in self.__dict__.items() if key != "_spec" and type(value) is str):
            return True
        known = XSpec.__dict__
        return any(key not in known for key in self.__dict__ if key not in ("_spec", "env"))

    def _samefilesystem(self) -> bool:
        return self.popen is not None and self.chdir is None
