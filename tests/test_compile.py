"""The text of a task becomes code as the built-in compile() makes it, which far ends do without for a first task."""

import subprocess
import sys
import warnings

import execnet_c
import pairing
import pytest
from conftest import TIMEOUT
from execnet_c.twin import pytasks
from far_ends import PLAIN as BARE

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


def by_twin(*args):
    pytasks._first.append(None)  # as at its first call
    return pytasks.compiled(*args)


COMPILERS = [pytest.param(getattr(pairing.module, "_compile", None), marks=pytest.mark.c_interface("near"), id="C")]
COMPILERS += [pytest.param(by_twin, id="twin")]
each_one = pytest.mark.parametrize("compiler", COMPILERS)


def outcome(function, *args):
    try:
        return function(*args)
    except Exception as exc:
        return type(exc), str(exc), getattr(exc, "lineno", None), getattr(exc, "filename", None)


@each_one
@pytest.mark.parametrize("source", PLAIN)
def test_code_is_what_the_built_in_one_makes(compiler, source):
    code = compiler(source, "a file", "exec")
    assert code == compile(source, "a file", "exec", dont_inherit=True)
    assert code.co_filename == "a file"


@each_one
@pytest.mark.parametrize("source, file_name", BAD)
def test_errors_are_those_of_the_built_in_one(compiler, source, file_name):
    found = outcome(compiler, source, file_name, "exec")
    assert isinstance(found, tuple)
    assert found == outcome(compile, source, file_name, "exec")


@each_one
@pytest.mark.parametrize("args", [(b"1", "f", "exec"), ("1", b"f", "exec"), ("1", "f", "eval"), ("1", "f", "exec", 0)])
def test_what_is_no_plain_text_is_left_to_the_built_in_one(compiler, args):
    assert compiler(*args) == compile(*args)


@each_one
@pytest.mark.parametrize("args", [(), ("1", "f"), (1, "f", "exec"), ("1", 1, "exec"), ("1", "f", "nothing")])
def test_wrong_arguments_fail_as_with_the_built_in_one(compiler, args):
    found = outcome(compiler, *args)
    assert isinstance(found, tuple)
    assert found == outcome(compile, *args)


@pytest.mark.c_interface("near")
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


@pytest.mark.parametrize("source", ["x = 1 is 1\n", "def f():\n    return () is ()\n"])
def test_warnings_name_the_file(source):
    with pytest.warns(SyntaxWarning) as warned:
        assert by_twin(source, "a file", "exec").co_filename == "a file"
    assert [warning.filename for warning in warned] == ["a file"]
    assert sys.getprofile() is None


def test_each_function_in_it_names_the_file():
    code = by_twin("class A:\n    def f(self):\n        return [lambda: 1 for _ in self]\n", "a file", "exec")
    codes = [code]
    for inner in codes:
        assert inner.co_filename == "a file"
        codes += [const for const in inner.co_consts if isinstance(const, type(code))]
    assert len(codes) > 3


def test_a_profile_function_of_the_program_stays():
    seen = []

    def profile(frame, event, arg):
        seen.append(event)

    sys.setprofile(profile)
    try:
        by_twin("x = 1\n", "a file", "exec")
        assert sys.getprofile() is profile
    finally:
        sys.setprofile(None)


def test_an_interrupt_at_any_step_leaves_nothing_behind():
    at, results = 0, []
    before = warnings.filters[:]

    def trace(frame, event, arg):
        nonlocal left
        if frame.f_globals is vars(pytasks):
            frame.f_trace_opcodes = True
            left -= event == "opcode"
            if left == 0 and event == "opcode":
                raise KeyboardInterrupt
            return trace

    while "no interrupt" not in results:
        at += 1
        left = at
        sys.settrace(trace)
        try:
            by_twin("x = 1\n", "a file", "exec")
            results.append("no interrupt")
        except KeyboardInterrupt:
            results.append("interrupt")
        finally:
            sys.settrace(None)
        assert warnings.filters == before and sys.getprofile() is None, f"interrupted at step {at}"
    assert at > 50


@pytest.mark.ours
def test_a_first_task_makes_no_types_of_ast(gw):
    assert gw.remote_exec(TYPES_OF_AST).receive(TIMEOUT) == []
    assert "AST" in gw.remote_exec(f"compile('1', '', 'eval')\n{TYPES_OF_AST}").receive(TIMEOUT)


@pytest.mark.ours
@pytest.mark.parametrize("end", BARE, ids=lambda end: end.name)
def test_nor_does_that_of_a_python_that_has_nothing_installed(end):
    spec = end.spec()
    before = subprocess.run(
        [*end.command, "-c", TYPES_OF_AST.replace("channel.send", "print")], capture_output=True, encoding="utf-8", check=True
    ).stdout
    group = execnet_c.Group()
    try:
        found = group.makegateway(spec).remote_exec(TYPES_OF_AST).receive(TIMEOUT)
    finally:
        group.terminate(timeout=TIMEOUT)
    assert str(found) == before.strip()
