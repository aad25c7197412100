"""What `remote_exec` sends for a task."""

import functools
import importlib
import linecache
import os
import subprocess
import sys
import textwrap
import traceback
import types

import pytest

from execnet_c.near.source import source_of
from sources import function_of_fixture, load_fixture, run  # noqa: F401 (fixtures)

pytestmark = pytest.mark.any_core

HERE = os.path.abspath(__file__)


# ---- strings


def test_a_string_is_sent_as_it_is():
    assert source_of("channel.send(1)") == ("channel.send(1)", None, None)
    assert source_of("") == ("", None, None)


@pytest.mark.parametrize(
    "text",
    [
        "\n    a = 1\n    if a:\n        b = 2\n    ",
        "    a\n\n  \t\n      b\n",
        "\ta\n\t\tb\n",
        "  a\n\tb\n",
        "\t a\n\t  b\n",
        "a\n   \n  b\n\t\n",
        "  a\n",
        "  ",
        "\n\n",
        "  a\r\n  b\r\n",
        "  a\x0c\n  b\x0b c\n  \u2028d\n",
        "    é\n    ü",
        " \xa0 a\n  b",
    ],
)
def test_a_string_is_dedented_as_textwrap_does(text):
    assert source_of(text) == (textwrap.dedent(text), None, None)


@pytest.mark.parametrize(
    "text, dedented",
    [(" \r\n  a\r\n  b\r\n", "\na\r\nb\r\n"), (" \x0c\n  a\n", "\na\n"), ("\t\x1f\n  a\n   b", "\na\n b")],
)
def test_a_line_of_other_blanks_has_no_indentation_either(text, dedented):
    # As textwrap does from Python 3.14 on.
    assert source_of(text) == (dedented, None, None)
    if sys.version_info >= (3, 14):
        assert textwrap.dedent(text) == dedented


def test_a_subclass_of_str_is_a_string():
    class Source(str):
        pass

    text, _, _ = source_of(Source("  x = 1"))
    assert text == "x = 1"
    assert type(text) is str


def test_strings_import_nothing():
    code = (
        "import sys; before = set(sys.modules)\n"
        "from execnet_c.near.source import source_of\n"
        "source_of('  if 1:\\n    x = 1')\n"
        "new = set(sys.modules) - before - {'execnet_c.near.source'}\n"
        "print(sorted(new & {'inspect', 'ast', 'symtable', 'textwrap', 're', 'linecache', 'types'}))"
    )
    path = importlib.import_module("execnet_c.near.source").__file__
    code = code.replace("from execnet_c.near.source import source_of", f"exec(open({path!r}).read())")
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, timeout=30)
    assert (done.stdout, done.stderr) == ("[]\n", "")


# ---- other things


class Callable:
    def __call__(self, channel):
        pass

    def method(self, channel):
        pass


def plain(channel):
    channel.append("plain")


@pytest.mark.parametrize(
    "task, says",
    [
        (b"channel.send(1)", "decode this bytes"),
        (bytearray(b"x"), "decode this bytearray"),
        (memoryview(b"x"), "decode this memoryview"),
        (functools.partial(plain, x=1), "keyword arguments of remote_exec"),
        (Callable().method, "this is a method"),
        (Callable(), "callable Callable object"),
        (Callable, "this is a class"),
        (functools.lru_cache(plain), "callable _lru_cache_wrapper object"),
        (len, "this is a builtin"),
        (str.upper, "this is a builtin"),
        (None, "of type NoneType"),
        (5, "of type int"),
        (["x"], "of type list"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_anything_else_is_refused_with_advice(task, says):
    with pytest.raises(TypeError) as caught:
        source_of(task)
    text = str(caught.value)
    assert text.startswith("remote_exec() takes a string of source code, a module, or a plain function")
    assert says in text
    assert repr(task) in text


@pytest.mark.parametrize(
    "text, kind",
    [
        ("def task(channel):\n    yield channel\n", "a generator function"),
        ("async def task(channel):\n    pass\n", "an async function"),
        ("async def task(channel):\n    yield 1\n", "an async generator function"),
        (
            "import types\n@types.coroutine\ndef task(channel):\n    yield\n",
            "an async function",
        ),
    ],
)
def test_functions_whose_call_would_do_nothing_are_refused(function_of, text, kind):
    with pytest.raises(TypeError, match=f"is {kind}: a call of it at the far end would run none"):
        source_of(function_of(text))


# ---- modules


def test_a_module_is_the_text_of_its_file(load):
    text = "# coding: utf-8\nvalue = 'ä'\n\n\ndef f():\n    return value\n"
    module = load("sent_module", text)
    assert source_of(module) == (text, module.__file__, None)


def test_a_module_is_sent_as_its_file_is_now(load, tmp_path):
    module = load("sent_edited", "value = 1\n")
    linecache.getlines(module.__file__)
    (tmp_path / "sent_edited.py").write_text("value = 22\n")
    assert source_of(module)[0] == "value = 22\n"


def test_a_module_in_another_encoding_is_decoded(load, tmp_path):
    (tmp_path / "sent_latin.py").write_bytes("# -*- coding: latin-1 -*-\nvalue = 'é'\n".encode("latin-1"))
    module = importlib.import_module("sent_latin")
    assert module.value == "é"
    assert run(source_of(module))["value"] == "é"


def test_an_empty_module_is_an_empty_text(load):
    module = load("sent_empty", "")
    text, file_name, call_name = source_of(module)
    assert text.strip() == ""
    assert (file_name, call_name) == (module.__file__, None)


def test_a_module_in_a_zip_archive_is_found(tmp_path, monkeypatch):
    import zipfile

    archive = tmp_path / "modules.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("sent_zipped.py", "value = 3\n")
    monkeypatch.syspath_prepend(str(archive))
    module = importlib.import_module("sent_zipped")
    try:
        assert source_of(module)[0] == "value = 3\n"
    finally:
        del sys.modules["sent_zipped"]


def test_modules_without_source_are_refused(load, tmp_path):
    gone = load("sent_gone", "value = 1\n")
    os.unlink(gone.__file__)
    linecache.clearcache()
    for module in [sys, types.ModuleType("made_up"), gone]:
        with pytest.raises(ValueError, match="^can't find source file for <module"):
            source_of(module)


# ---- functions: what is sent


def test_a_function_keeps_the_lines_it_has_in_its_file():
    text, file_name, call_name = source_of(plain)
    assert call_name == "plain"
    assert os.path.samefile(file_name, HERE)
    above, _, rest = text.partition("def plain(channel):")
    assert above == "\n" * (plain.__code__.co_firstlineno - 1)
    assert rest == '\n    channel.append("plain")\n'


def test_a_sent_function_runs_and_its_traceback_shows_its_line():
    def task(channel, fail):
        channel.append(fail)
        if fail:
            raise ValueError("here")

    seen = []
    run(source_of(task), seen, fail=False)
    assert seen == [False]
    with pytest.raises(ValueError) as caught:
        run(source_of(task), seen, fail=True)
    frame = traceback.extract_tb(caught.value.__traceback__)[-1]
    assert (frame.name, frame.lineno) == ("task", task.__code__.co_firstlineno + 3)
    assert frame.line == 'raise ValueError("here")'


def test_a_nested_function_may_hold_text_and_comments_left_of_its_margin():
    def task(channel):
        # a comment in its place
# a comment out of its place
        text = """first
second
        third
"""
        channel.append(text)

    seen = []
    namespace = run(source_of(task), seen)
    assert seen == ["first\nsecond\n        third\n"]
    assert namespace["task"].__code__.co_firstlineno == task.__code__.co_firstlineno


def test_strings_in_a_nested_function_that_can_be_dedented_are_dedented_with_it():
    # As in execnet: programs see these strings.
    def task(channel):
        channel.append(
            """
            deep
        """
        )

    seen = []
    run(source_of(task), seen)
    assert seen == ["\n        deep\n    "]


def test_a_renamed_function_is_called_by_the_name_in_its_source():
    def task(channel):
        channel.append(1)

    task.__name__ = "other"
    assert source_of(task)[2] == "task"


def test_decorators_are_sent_along(function_of):
    task = function_of(
        """
        @(lambda f: f)
        @(lambda f: [f][0])
        def task(channel):
            channel.append("ran")
        """
    )
    text, _, _ = source_of(task)
    assert text.startswith("\n@(lambda f: f)\n")
    seen = []
    run(source_of(task), seen)
    assert seen == ["ran"]


def test_a_function_in_a_class_body_can_be_sent():
    class Tasks:
        def task(channel):  # noqa: N805
            channel.append(2)

    seen = []
    run(source_of(Tasks.task), seen)
    assert seen == [2]


def test_text_that_is_only_in_the_cache_is_found():
    text = "def task(channel):\n    channel.append(3)\n"
    name = "<made up for this test>"
    linecache.cache[name] = (len(text), None, text.splitlines(True), name)
    namespace = {}
    exec(compile(text, name, "exec"), namespace)
    try:
        seen = []
        run(source_of(namespace["task"]), seen)
        assert seen == [3]
    finally:
        del linecache.cache[name]


# ---- functions: a file that changed

BEFORE = """\
def first(channel):
    channel.append("first")


def second(channel):
    channel.append("second, line 1")
    channel.append("second, line 2")
    channel.append("second, line 3")


def third(channel):
    channel.append("third")
"""


@pytest.mark.parametrize(
    "after",
    [
        "# one line\n" + BEFORE,
        "# five lines\n" * 5 + BEFORE,
        BEFORE.partition("\n")[2],
        BEFORE.replace("second", "renamed"),
        BEFORE.replace("def second(channel)", "def second(channel, more)"),
        BEFORE.replace("def first(channel):\n    channel", "channel"),
        "text = '''\n" + BEFORE,
        "x = (\n" + BEFORE,
        "first = 1\n",
        "",
    ],
    ids=["shifted by 1", "shifted by 5", "a line less", "renamed", "other arguments", "shorter", "in a string", "broken", "short", "empty"],
)
def test_a_function_that_is_no_longer_in_its_place_is_refused(load, tmp_path, after):
    module = load("sent_changed", BEFORE)
    assert source_of(module.second)[2] == "second"
    path = tmp_path / "sent_changed.py"
    path.write_text(after)
    os.utime(path, (1, 1))
    with pytest.raises(ValueError, match="^can't find source file for <function second at 0x"):
        source_of(module.second)


def test_a_function_whose_text_changed_in_place_is_sent_as_it_is_now(load, tmp_path):
    module = load("sent_edited_in_place", BEFORE)
    path = tmp_path / "sent_edited_in_place.py"
    path.write_text(BEFORE.replace("second, line 2", "another text"))
    os.utime(path, (1, 1))
    seen = []
    run(source_of(module.second), seen)
    assert seen == ["second, line 1", "another text", "second, line 3"]


def test_the_error_for_a_changed_file_says_where_it_looked(load, tmp_path):
    module = load("sent_changed_too", BEFORE)
    (tmp_path / "sent_changed_too.py").write_text(BEFORE.replace("second", "renamed"))
    with pytest.raises(ValueError, match=r"sent_changed_too\.py does not hold it at line 5 \(has the file changed"):
        source_of(module.second)


# ---- through a gateway


def test_functions_and_modules_travel(gw, load):
    def task(channel, number):
        channel.send(number + 1)

    module = load("sent_through", "if __name__ == '__channelexec__':\n    channel.send((__name__, 2))\n")
    assert gw.remote_exec(task, number=1).receive(30) == 2
    assert gw.remote_exec(module).receive(30) == ("__channelexec__", 2)


@pytest.mark.ours
def test_what_cannot_be_sent_is_refused_before_a_channel_is_made(gw):
    free = [lambda channel: None, len, None, b"x", Callable().method]
    for task in free:
        with pytest.raises((TypeError, ValueError)):
            gw.remote_exec(task)
    assert gw.newchannel().id == 1
