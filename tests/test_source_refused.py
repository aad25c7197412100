"""What `remote_exec` refuses to send for a task, and how it says so."""

import builtins
import subprocess
import sys
import textwrap
import types

import pytest

from execnet_c.near.source import source_of
from sources import function_of_fixture, load_fixture, run  # noqa: F401 (fixtures)

pytestmark = pytest.mark.any_core


def test_lambdas_are_refused():
    for task in [lambda channel: None, types.FunctionType((lambda channel: 1).__code__, {}, "task")]:
        with pytest.raises(ValueError, match="^can't evaluate lambda functions: write `def task"):
            source_of(task)


@pytest.mark.parametrize(
    "arguments, fine",
    [
        ("", False),
        ("x", False),
        ("x, channel", False),
        ("*channel", False),
        ("*, channel", False),
        ("**channel", False),
        ("*args, channel=1", False),
        ("channel", True),
        ("channel, /", True),
        ("channel, x, *y, z, **w", True),
        ("channel=None", True),
    ],
)
def test_the_first_argument_is_the_channel(function_of, arguments, fine):
    task = function_of(f"def task({arguments}):\n    pass\n")
    if fine:
        assert source_of(task)[2] == "task"
    else:
        with pytest.raises(ValueError, match="^expected first function argument to be `channel`$"):
            source_of(task)


def test_closures_are_refused():
    captured = 1

    def task(channel):
        return captured

    with pytest.raises(ValueError, match="^functions with closures can't be passed: have captured as keyword argument"):
        source_of(task)


def test_functions_without_source_are_refused():
    namespace = {}
    exec("def task(channel): pass", namespace)
    with pytest.raises(ValueError, match="^can't find source file for <function task at 0x") as caught:
        source_of(namespace["task"])
    why = "it was typed or made of a text (<string>); pass a string with its text instead"
    assert str(caught.value).endswith(why)


@pytest.mark.parametrize("typed", ["at a prompt", "after -c"])
def test_a_function_that_was_typed_is_sent_or_refused_with_advice(tmp_path, typed):
    program = "import execnet_c.near.source\ndef task(channel): pass\n\nexecnet_c.near.source.source_of(task)\n"
    python = [sys.executable, *(["-i", "-q"] if typed == "at a prompt" else ["-c", program])]
    done = subprocess.run(python, input=program, capture_output=True, encoding="utf-8", timeout=60)
    last = [line for line in done.stderr.splitlines() if line.strip(" >.")][-1:]
    # Newer Pythons keep what was typed.
    kept = sys.version_info >= (3, 13)
    assert kept and not last or "pass a string with its text instead" in last[0], done.stderr


FINE = {
    "builtins": "print(len(ValueError.__name__), __name__, __debug__, __import__)",
    "far end's names": "print(__name__, __builtins__)",
    "itself": "if 0: task(channel)",
    "list comprehension": "return [i + j for i in range(3) for j in range(i)]",
    "dict comprehension": "return {k: v for k, v in {}.items() if k}",
    "generator expression": "return sum(i for i in range(3))",
    "nested comprehensions": "return [[x for x in y] for y in [[1]]]",
    "lambda": "return (lambda a, *b, c=1, **d: (a, b, c, d))(1)",
    "nested function": "def inner(a, b=2, *c, d, **e):\n    f = a\n    return inner, b, c, d, e, f",
    "closure inside": "x = 1\ndef inner():\n    nonlocal x\n    x = channel",
    "class": "class A:\n    x = 1\n    y = x\n    def m(self):\n        return super().m, __class__, A",
    "except as": "try:\n    pass\nexcept OSError as e:\n    print(e)",
    "with as": "with open('x') as f, open('y') as (g, h):\n    print(f, g, h)",
    "for targets": "for a, (b, *c) in []:\n    print(a, b, c)",
    "walrus": "if (n := 1):\n    print(n, [m := i for i in 'x'], m)",
    "import": "import os.path\nfrom sys import argv as a\nprint(os.path.join, a)",
    "import in a nested function": "def inner():\n    import os\n    return os.getpid()",
    "global assigned here": "global counter\ncounter = 1\nprint(counter)",
    "global assigned elsewhere": "def a():\n    global made\n    made = 1\ndef b():\n    return made\n",
    "global imported": "global os\nimport os\ndef inner():\n    return os.getpid()",
    "global function": "global helper\ndef helper():\n    return helper",
    "delete": "x = 1\ndel x",
    "attributes": "return channel.gateway.whatever.it_is",
    "keyword names": "return dict(anything=1)",
    "f-string": "x = 1\nreturn f'{x!r:>{x}} {channel}'",
    "match": "match channel:\n    case {'k': v, **rest}:\n        print(v, rest)\n    case [a, *b] | (a, b):\n        print(a, b)",
    "local annotation": "x: NotEvaluated = 1\nchannel.y: NotEvaluated = 2\nz: List[\n    NotEvaluated]\nif x:\n    w: NotEvaluated = x",
    "local annotation beside wide text": "t = 'äöü'; x: NotEvaluated = 'ä'; y: Not.Evaluated = t",
    "quoted annotation": "def inner(a: 'NotEvaluated') -> 'NotEvaluated':\n    return a",
}


@pytest.mark.parametrize("body", FINE.values(), ids=FINE.keys())
def test_bodies_that_need_nothing_from_outside_are_sent(function_of, body):
    task = function_of("def task(channel):\n" + textwrap.indent(body, "    ") + "\n")
    text, _, call_name = source_of(task)
    assert text.endswith(textwrap.indent(body, "    ").rstrip("\n") + "\n")
    assert call_name == "task"


FREE = {
    "module": ("return os.getpid()", ["os"]),
    "several": ("return b, a, b, a", ["a", "b"]),
    "in a comprehension": ("return [i + outside for i in inside]", ["inside", "outside"]),
    "in a nested function": ("def inner(a):\n    return a, outside", ["outside"]),
    "in a lambda": ("return lambda a: a + outside", ["outside"]),
    "in a class body": ("class A(Base, metaclass=Meta):\n    x = outside", ["Base", "Meta", "outside"]),
    "class variables are no variables of its methods": ("class A:\n    x = 1\n    def m(self):\n        return x", ["x"]),
    "nested decorator": ("@decorator\ndef inner():\n    pass", ["decorator"]),
    "nested default": ("def inner(a=default):\n    pass", ["default"]),
    "nested annotation": ("def inner(a: Note) -> Note2:\n    pass", ["Note", "Note2"]),
    "annotation in a class body": ("class A:\n    x: Note = 1", ["Note"]),
    "global never assigned": ("global nowhere\nprint(nowhere)", ["nowhere"]),
    "except": ("try:\n    pass\nexcept OwnError:\n    pass", ["OwnError"]),
    "f-string": ("return f'{outside:{width}}'", ["outside", "width"]),
    "match": ("match channel:\n    case Shape(): pass", ["Shape"]),
    "same name as a local annotation": ("x: Note = 1\nreturn Note", ["Note"]),
    "local elsewhere": ("def inner():\n    os = 1\nreturn os", ["os"]),
    "__file__": ("return __file__", ["__file__"]),
}


@pytest.mark.parametrize("body, names", FREE.values(), ids=FREE.keys())
def test_free_globals_are_refused_by_name(function_of, body, names):
    task = function_of("def task(channel):\n" + textwrap.indent(body, "    ") + "\n")
    with pytest.raises(ValueError) as caught:
        source_of(task)
    it = "it" if len(names) == 1 else "them"
    make = " or make" if "__file__" in names else ""
    advice = f"{', '.join(names)} (import{make} {it} inside the function"
    assert str(caught.value).startswith(f"the use of non-builtin globals isn't supported: {advice}")


def test_the_advice_for_globals_that_are_no_modules(function_of):
    task = function_of("import os\nHERE = os.name\ndef task(channel):\n    channel.send(HERE)\n")
    with pytest.raises(ValueError, match=r": HERE \(import or make it inside .*, or pass it to remote_exec\(\) by keyword"):
        source_of(task)


def test_what_is_evaluated_with_the_definition_counts(function_of):
    task = function_of(
        """
        Note = Value = int
        def mark(f):
            return f

        @mark
        def task(channel: Note, x=Value, *, y=[i for i in ()]) -> Note:
            pass
        """
    )
    with pytest.raises(ValueError) as caught:
        source_of(task)
    assert ": Note, Value, mark (import or make them inside the function, or pass them to" in str(caught.value)


def test_annotations_are_as_lazy_over_there_as_here(function_of):
    task = function_of(
        '''
        """A module."""
        from __future__ import annotations

        def task(channel: Channel, x: Note = 1) -> None:
            def inner(a: Other) -> Other:
                return a
            channel.append(inner(x))
            channel.append(task.__annotations__)
        '''
    )
    text, _, _ = source_of(task)
    assert text.startswith("from __future__ import annotations\n\n")
    seen = []
    namespace = run(source_of(task), seen)
    assert seen == [1, {"channel": "Channel", "x": "Note", "return": "None"}]
    assert namespace["task"].__code__.co_firstlineno == task.__code__.co_firstlineno


def test_lazy_annotations_and_text_left_of_the_margin(function_of):
    outer = function_of(
        '''
        from __future__ import annotations
        def task():
            def inner(channel: Channel):
                channel.append("""
        left""")
            return inner
        '''
    )
    seen = []
    namespace = run(source_of(outer()), seen)
    assert seen == ["\nleft"]
    assert namespace["inner"].__code__.co_firstlineno == outer().__code__.co_firstlineno


def test_own_builtins_of_this_process_are_builtins(function_of, monkeypatch):
    monkeypatch.setattr(builtins, "put_there_by_a_tool", 1, raising=False)
    task = function_of("def task(channel):\n    return put_there_by_a_tool\n")
    assert source_of(task)[2] == "task"
