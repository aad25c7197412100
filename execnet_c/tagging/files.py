"""The files of a tagger, three of JSON as NLTK has them."""

import json
import os


def component(text):
    """`text` as a str. Raises ValueError if a file name with it could lead into another directory."""
    text = str(text)
    if not text.strip() or text in (".", "..") or any(c in text for c in ("\0", "/", "\\")):
        raise ValueError(f"{text!r} can not be part of a file's name")
    return text


def read(loc, name):
    """The object in the JSON file `name`; `loc` is a path, or one of NLTK's pointers into a folder or an archive."""
    if isinstance(loc, (str, os.PathLike)):
        with open(os.path.join(loc, name), "rb") as file:
            data = file.read()
    else:
        with loc.join(name).open() as file:
            data = file.read()
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} is no file of a tagger, or not all of it: {error}") from error


def write(path, text):
    """Write `text` to a new file that only this user can read, and rename it to `path`: a link there is replaced, not
    followed."""
    import random

    new = f"{path}.{os.getpid()}.{random.SystemRandom().getrandbits(64):x}"
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with open(fd, "w") as file:
            file.write(text)
        os.replace(new, path)
    except BaseException:
        os.unlink(new)
        raise
