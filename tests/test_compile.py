"""The text of a task becomes code as the built-in compile() makes it, which a far end with the C core does without."""

import sys

import pairing
import pytest
from conftest import TIMEOUT

TYPES_OF_AST = "channel.send([cls.__name__ for cls in object.__subclasses__() if cls.__module__ == 'ast'])"
PLAIN = [
    "x = 1\n",
    "",
    "# nothing\n",
    "# -*- coding: latin-1 -*-\ntext = 'é'\n",
    "text = '\U0001f40d'\n",
    "def f(a, *, b=2):\n    return [a for _ in range(b)]\n",
    "from __future__ import annotations\ndef f(x: unknown): pass\n",
    "assert not __debug__\n",
]
BAD = [
    ("x = \n", "name"),
    ("  indented\n", "name"),
    ("'\ud800'\n", "name"),
    ("x = 1\0\n", "name"),
    ("x = 1\n", "na\0me"),
    ("\ufeff\ufeffx = 1\n", "name"),
]

needs_c = pytest.mark.c_interface("near")


def outcome(function, *args):
    try:
        return function(*args)
    except Exception as exc:
        return type(exc), str(exc), getattr(exc, "lineno", None), getattr(exc, "filename", None)


@needs_c
@pytest.mark.parametrize("source", PLAIN)
def test_code_is_what_the_built_in_one_makes(source):
    code = pairing.module._compile(source, "a file", "exec")
    assert code == compile(source, "a file", "exec", dont_inherit=True)
    assert code.co_filename == "a file"


@needs_c
@pytest.mark.parametrize("source, file_name", BAD)
def test_errors_are_those_of_the_built_in_one(source, file_name):
    found = outcome(pairing.module._compile, source, file_name, "exec")
    assert isinstance(found, tuple)
    assert found == outcome(compile, source, file_name, "exec")


@needs_c
@pytest.mark.parametrize("args", [(b"1", "f", "exec"), ("1", b"f", "exec"), ("1", "f", "eval"), ("1", "f", "exec", 0)])
def test_what_is_no_plain_text_is_left_to_the_built_in_one(args):
    assert pairing.module._compile(*args) == compile(*args)


@needs_c
@pytest.mark.parametrize("args", [(), ("1", "f"), (1, "f", "exec"), ("1", 1, "exec"), ("1", "f", "nothing")])
def test_wrong_arguments_fail_as_with_the_built_in_one(args):
    found = outcome(pairing.module._compile, *args)
    assert isinstance(found, tuple)
    assert found == outcome(compile, *args)


@needs_c
def test_hooks_hear_of_it():
    heard, listens = [], True

    def hook(event, args):
        if listens and event == "compile":
            heard.append(args)

    sys.addaudithook(hook)
    try:
        pairing.module._compile("x = 1", "a file", "exec")
        compile("x = 1", "a file", "exec")
    finally:
        listens = False
    half = len(heard) // 2
    assert half > 0 and heard[:half] == heard[half:]


@pytest.mark.ours
@pytest.mark.c_interface("far")
def test_a_first_task_makes_no_types_of_ast(gw):
    assert gw.remote_exec(TYPES_OF_AST).receive(TIMEOUT) == []
    assert "AST" in gw.remote_exec(f"compile('1', '', 'eval')\n{TYPES_OF_AST}").receive(TIMEOUT)
