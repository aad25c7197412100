"""Why an extension is missing: a build that fails leaves a note in the package (see setup.py), for a later error text."""

import os

HOW_TO_SEE = "pip install -v --force-reinstall --no-cache-dir"


def note(directory, name, why):
    """Leave the cause in `directory`, where the extension would be."""
    with open(os.path.join(directory, name + ".not-built"), "w", encoding="utf-8") as file:
        file.write(why)


def reason(name, error):
    """For an error text: why an extension of this package is missing. error: the ImportError that it raised."""
    try:
        with open(os.path.join(os.path.dirname(os.path.dirname(__file__)), name + ".not-built"), encoding="utf-8") as file:
            return f"was not built: {file.read()} (`{HOW_TO_SEE}` shows all that the compiler says)"
    except OSError:
        return f"cannot be loaded: {error}"
