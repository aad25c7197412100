"""What the tests of source_of() share, which makes what is sent for a task."""

import importlib
import sys
import textwrap

import pytest


def run(sent, *args, **kwargs):
    """Run what source_of() returned, as the far end does; return the globals that it ran in."""
    text, file_name, call_name = sent
    namespace = {"channel": args[0] if args else None, "__name__": "__channelexec__"}
    # dont_inherit: the future statements of this file are not the far end's.
    exec(compile(text + "\n", file_name or "<remote exec>", "exec", dont_inherit=True), namespace)
    if call_name:
        namespace[call_name](*args, **kwargs)
    return namespace


@pytest.fixture(name="load")
def load_fixture(tmp_path, monkeypatch):
    """A function of (name, text) that writes a module and imports it."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    loaded = []

    def load(name, text):
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(text), encoding="utf-8")
        importlib.invalidate_caches()
        loaded.append(name)
        return importlib.import_module(name)

    yield load
    for name in loaded:
        sys.modules.pop(name, None)


@pytest.fixture(name="function_of")
def function_of_fixture(load, request):
    """A function of (text) that returns the object `task` of a new module with that text."""
    count = iter(range(100))

    def function_of(text):
        return load(f"sent_{request.node.name.partition('[')[0]}_{next(count)}", text).task

    return function_of
