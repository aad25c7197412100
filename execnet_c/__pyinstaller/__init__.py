"""Where PyInstaller finds its hook for this package: by the entry point `hook-dirs` of the group `pyinstaller40`."""

import os


def hook_dirs():
    """The directories of hooks, a list of paths."""
    return [os.path.dirname(__file__)]
