"""Tells PyInstaller where its hook for this package is: the entry point `hook-dirs` of the group `pyinstaller40`."""

import os


def hook_dirs():
    """The paths of the directories with hooks."""
    return [os.path.dirname(__file__)]
