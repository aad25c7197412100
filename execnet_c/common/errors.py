"""How an exception is described to another process, and how that process makes a RemoteError of the description.

A channel that ends with an exception is closed with (text, type, message) of the exception (see told()). Far ends of
execnet itself, and a program that calls close(text), send the text alone.

This module is also sent to far ends without the package.
"""

_OURS = __package__.partition(".")[0]
said_by = None  # near ends define it below. Far ends are sent this module without it: they always get type and message


def told(exc):
    """(text, type, message) of an exception, to close a channel with. Surrogates in them are escaped, as in caf\\udce9.
    Always succeeds.

    text: the traceback as Python prints it, without our own frames that only called the program's code. type: the name
    of the class, with its module as in the text. message: str(exc), or None if that fails.
    """
    words = []
    for word in (_text, _name, str):
        try:
            words.append(word(exc).encode("utf-8", "backslashreplace").decode())
        except BaseException:  # from the exception's own code; or an interrupt, too late: the code has failed already
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
    """The exception of class `kind`, the core's RemoteError, for `item`, with which a channel was closed."""
    text, *words = item if isinstance(item, tuple) and len(item) == 3 else (item,)
    error = kind(text if isinstance(text, str) else "the far end closed the channel with an error text that cannot be read")
    if words or said_by is None:
        error.remote_type, error.remote_message = [word if isinstance(word, str) else None for word in words or [None] * 2]
    return error


def said_by(text):  # noqa: F811
    """(type, message) of the exception whose traceback is `text`; (None, None) if the text does not say it for certain.

    A message may have several lines, or contain a traceback. So the text is read from its beginning. It shows each
    exception with its frames, which are indented, and its message; the exception that was raised last stands last.
    """
    import re

    head = "Traceback (most recent call last):\n"
    *before, last = re.split(
        r"\n\n(?:The above exception was the direct cause of the following exception|"
        r"During handling of the above exception, another exception occurred):\n\n",
        text if isinstance(text, str) else "",
    )
    if last[:4] == "  + ":  # an exception group: its members follow
        last = re.split(r"(?m)^  \+-\+-", last)[0]
        last = re.sub(r"(?m)^  \| ", "", last[last.find("Traceback") :])
    frames = r"(?:%s|(?=  File ))(?: [^\n]*\n)*" % re.escape(head)  # a syntax error may come without the line `head`
    found = re.fullmatch(frames + r"([^\W\d][\w.<>]*)(?:: (.*?))?\n?", last, re.DOTALL)
    within_another = before and any(head in part[len(head) :] for part in (*before, last))
    return (None, None) if found is None or within_another else (found[1], found[2] or "")
