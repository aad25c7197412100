"""Why an extension is missing: its build leaves a note in the package (see setup.py) for who looks for it later."""

import os

HOW_TO_SEE = "pip install -v --force-reinstall --no-cache-dir"


def note(directory, name, why):
    """Leave the cause in `directory`, where the extension was to be."""
    with open(os.path.join(directory, name + ".not-built"), "w", encoding="utf-8") as file:
        file.write(why)


def reason(name, error):
    """What is to be said of an extension of this package, and the ImportError that came instead."""
    try:
        with open(os.path.join(os.path.dirname(os.path.dirname(__file__)), name + ".not-built"), encoding="utf-8") as file:
            return f"was not built: {file.read()} (`{HOW_TO_SEE}` shows all that the compiler says)"
    except OSError:
        return f"cannot be loaded: {error}"
