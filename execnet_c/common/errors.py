"""What is told of an exception in another process, and what is made of it there.

A channel that ends with an exception is closed with three words: its text, its type and its message (see told()). Far ends
that are none of ours, and who closes a channel with a text of his own, send the text alone.

This text also travels to far ends that have no package.
"""

_OURS = __package__.partition(".")[0]
said_by = None  # far ends that were sent this text are always told the type and the message


def told(exc):
    """(text, type, message) of an exception, to close a channel with; what is no Unicode in them is escaped, as in
    caf\\udce9. Always succeeds.

    text: as Python prints it, without the frames of ours that only ran the code. type: its name with its module's, as in
    that text. message: str(exc), or None where that fails.
    """
    words = []
    for word in (_text, _name, str):
        try:
            words.append(word(exc).encode("utf-8", "backslashreplace").decode())
        except BaseException:  # the exception's own code; or an interrupt, too late: what failed is over
            words.append(None)
    text, name, message = words
    name = name or type(exc).__name__
    return text or f"{name}: {message}\n", name, message


def _text(exc):
    from traceback import format_exception

    shown = exc.__traceback__
    while shown and shown.tb_frame.f_code.co_name in ("run", "_run", "_dispatch"):
        if str(shown.tb_frame.f_globals.get("__package__")).partition(".")[0] != _OURS:
            break
        shown = shown.tb_next
    text = "".join(format_exception(type(exc), exc, shown))
    return text if shown or exc.__context__ else "Traceback (most recent call last):\n" + text


def _name(exc):
    kind = type(exc)
    return kind.__qualname__ if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}.{kind.__qualname__}"


def remote_error(kind, item):
    """An exception of class `kind`, the RemoteError, for what a channel was closed with."""
    text, *words = item if isinstance(item, tuple) and len(item) == 3 else (item,)
    error = kind(text if isinstance(text, str) else "the far end closed the channel with an error text that cannot be read")
    if words or said_by is None:
        error.remote_type, error.remote_message = [word if isinstance(word, str) else None for word in words or [None] * 2]
    return error


def said_by(text):  # noqa: F811
    """(type, message) of the exception whose traceback `text` is, None for what it does not say for certain.

    A message may have several lines, or be a traceback itself. So the text is read from its beginning: each exception
    stands there with its frames, which are indented, and its message; the one that was raised last stands last.
    """
    import re

    head = "Traceback (most recent call last):\n"
    *before, last = re.split(
        r"\n\n(?:The above exception was the direct cause of the following exception|"
        r"During handling of the above exception, another exception occurred):\n\n",
        text if isinstance(text, str) else "",
    )
    if last[:4] == "  + ":  # a group: what it consists of stands behind it
        last = re.split(r"(?m)^  \+-\+-", last)[0]
        last = re.sub(r"(?m)^  \| ", "", last[last.find("Traceback") :])
    frames = r"(?:%s|(?=  File ))(?: [^\n]*\n)*" % re.escape(head)  # without the first line, of a syntax error
    found = re.fullmatch(frames + r"([^\W\d][\w.<>]*)(?:: (.*?))?\n?", last, re.DOTALL)
    within_another = before and any(head in part[len(head) :] for part in (*before, last))
    return (None, None) if found is None or within_another else (found[1], found[2] or "")
