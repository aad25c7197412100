"""The text that a foreign Python is sent: its size, that every Python here can compile it, what is compiled at once."""

import ast
import marshal
import subprocess
import sys
import zlib

import pairing
import pytest

if pairing.name in ("C-Python", "Python-C"):
    pytest.skip("foreign far ends have a core of their own: C-C and Python-Python do", allow_module_level=True)

import execnet_c
from conftest import TIMEOUT
from execnet_c.far import pack, sent, text
from far_ends import OURS, PLAIN

# Takes the text apart as a far end would, and compiles what it would: prints how many pieces there are.
COMPILE = """
import marshal, sys, zlib
data = sys.stdin.buffer.read()
first = zlib.decompressobj()
modules, loader = marshal.loads(first.decompress(data[%d:]))
cold = zlib.decompress(first.unused_data).decode().split("\\0")
def check(code, name):
    if isinstance(code, str):
        return compile(code, name, "exec", 0, True)
    assert code.co_code
    return code
pieces = [check(loader, "loader")]
for name, code, imports, given in modules:
    if not given:  # a module that is loaded when it is used
        pieces.append(check(cold.pop(0), name))
        continue
    pieces.append(check(code, name))
    for owner, called, constants in given:
        for function in called.split():
            source = cold.pop(0)
            assert source.startswith("def " + function + "(")
            assert function in check(source, name + " " + function).co_names
            pieces += [source] * (name != "mainthread")  # which 3.13 needs no functions of
assert not cold
print(len(pieces))
""" % text.HEAD_SIZE


def announcement(version=sys.version_info, tag=sys.implementation.cache_tag):
    return f"{version[0] << 24 | version[1] << 16 | version[2] << 8 | 0xF0:x} {tag}"


VARIANTS = {
    "code objects": announcement(),
    "source": announcement((3, 8, 0), "cpython-38"),
}


def unpacked(kind):
    """What the first task needs, and the functions that are looked at when they are called."""
    first = zlib.decompressobj()
    return marshal.loads(first.decompress(kind)), zlib.decompress(first.unused_data)


@pytest.fixture
def bare():
    """The spec of a Python that has nothing installed."""
    here = [end for end in PLAIN if not end.missing]
    if not here:
        pytest.skip("no Python without execnet_c here")
    return here[0].spec()


@pytest.fixture
def group():
    group = execnet_c.Group()
    yield group
    group.terminate(timeout=TIMEOUT)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_text_is_small(variant):
    whole = text.text_for(VARIANTS[variant])
    first = zlib.decompressobj()
    first.decompress(whole[text.HEAD_SIZE :])
    later = len(first.unused_data)
    print(f"{variant}: {len(whole) - later} bytes, and {later} bytes of what is looked at later")
    assert len(whole) - later <= 24 * 1024
    assert later <= 21 * 1024


@pytest.mark.parametrize("end", PLAIN, ids=lambda end: end.name)
def test_the_text_compiles_everywhere(end):
    end.spec()
    hexversion, tag = subprocess.run(
        [*end.command, "-c", "import sys; print('%x' % sys.hexversion, sys.implementation.cache_tag)"],
        capture_output=True,
        encoding="utf-8",
        check=True,
    ).stdout.split()
    counts = set()
    for variant in {f"{hexversion} {tag}", VARIANTS["source"]}:
        done = subprocess.run(
            [*end.command, "-c", COMPILE], input=text.text_for(variant), capture_output=True, timeout=TIMEOUT
        )
        assert (done.returncode, done.stderr) == (0, b""), done.stderr.decode()
        counts.add(int(done.stdout))
    assert len(counts) == 1 and counts.pop() > 100


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_text_is_the_same_when_it_is_not_packed(variant):
    packed, plain = (text.text_for(VARIANTS[variant], how)[text.HEAD_SIZE :] for how in (True, False))
    first = zlib.decompressobj()
    same = plain == first.decompress(packed) + zlib.decompress(first.unused_data)
    assert same


def test_code_objects_travel_only_where_they_are_understood():
    mine, other = text.text_for(VARIANTS["code objects"]), text.text_for(VARIANTS["source"])
    assert mine != other
    major, minor = sys.version_info[:2]
    for tag in (f"cpython-{major}{minor + 1}", "pypy39", "None"):
        assert text.text_for(announcement(tag=tag)) == other
    # A release candidate's code objects are no release's.
    candidate = f"{major << 24 | minor << 16 | 0xC1:x} {sys.implementation.cache_tag}"
    assert text.text_for(candidate) == other
    assert text.text_for(announcement((major, minor, 99))) == mine


def test_an_installed_package_has_the_text_ready(monkeypatch):
    def pack_now(as_code):
        raise AssertionError("a program that makes a gateway would have to wait for this")

    ready = [text.text_for(variant)[text.HEAD_SIZE :] for variant in VARIANTS.values()]
    # Not byte for byte: what marshal writes depends on what else holds an object. No comparison for people to read, either.
    same = [unpacked(kind) for kind in ready] == [unpacked(pack.pack(True)), unpacked(pack.pack(False))]
    assert same
    if "site-packages" not in pack.__file__:
        pytest.skip("the package was not installed")
    monkeypatch.setattr(text, "_texts", {})
    monkeypatch.setattr(pack, "pack", pack_now)
    same = ready == [text.text_for(variant)[text.HEAD_SIZE :] for variant in VARIANTS.values()]
    assert same


@pytest.mark.parametrize("version", [(2, 7, 18), (3, 7, 17), (3, 0, 0)])
def test_the_text_is_not_for_old_pythons(version):
    with pytest.raises(ValueError, match=f"Python {'.'.join(map(str, version))}, and 3.8 is the oldest"):
        text.text_for(announcement(version, "None"))


def without_docstrings(source):
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node):
            node.body[0].value = ast.Constant(0)
            if len(node.body) > 1:
                del node.body[0]
    return ast.dump(tree)


@pytest.mark.parametrize("name", [*sent.FIRST, *sent.LATE])
def test_shortening_leaves_the_statements_as_they_are(name):
    source = sent.MADE_UP.get(name) or sent.module_source(name)
    assert without_docstrings(pack._without_words(source)) == without_docstrings(source)


def test_the_loader_makes_the_imports_and_constants_of_a_module_itself():
    source = """
from errno import EBADF, EINTR
from marshal import dumps as _dumps
from . import pywire
from .pywire import (
    frame,
    tally,
)

SIZE, LIMIT = 1 << 20, None
KNOWN = "a b".split()
WIDTH = len(KNOWN)
if SIZE:
    WIDTH = 2


class Held:
    __module__ = "execnet_c"
    taken = (0,)
    pause = WIDTH

    def take(self):
        half = 2
        return half


class Empty:
    left = 0
"""
    rest, imports, given, cold = pack._split("pywire", pack._without_words(source))
    assert rest == (
        'from marshal import dumps as _dumps\nWIDTH=len(KNOWN)\nif SIZE:WIDTH=2\n'
        'class Held:\n __module__="execnet_c"\n pause=WIDTH\nclass Empty:\n 0\n'
    )
    own = ["_execnet_c pywire", "_execnet_c.pywire frame tally"]
    assert imports == ["errno EBADF EINTR", *own]
    constants = {"SIZE": 1 << 20, "LIMIT": None, "KNOWN": ["a", "b"]}
    assert given == [("", "", constants), ("Held", "take", {"taken": (0,)}), ("Empty", "", {"left": 0})]
    assert cold == ["def take(self):half=2;return half"]


# Which functions of ours are no longer what stands for those that were not called yet.
COMPILED = """
channel.send(1)
import sys, types
found = []
for name, module in sorted(sys.modules.items()):
    if not name.startswith("_execnet_c."):
        continue
    for owner in [module, *(c for c in vars(module).values() if isinstance(c, type) and c.__module__ == name)]:
        prefix = name[11:] + (":" if owner is module else ":" + owner.__name__ + ".")
        for key, value in vars(owner).items():
            value = getattr(value, "__func__", value)
            if isinstance(value, types.FunctionType) and value.__code__.co_name == key:
                if value.__globals__ is vars(module):
                    found.append(prefix + key)
channel.send(found)
"""


def test_what_a_first_word_needs_is_compiled_at_once_and_nothing_else(bare, group, monkeypatch):
    def inits(named):
        return {name for name in named if name.endswith((":__init__", ".__init__", ".__new__", ".__del__"))}

    named = {f"{module}:{function}" for module, functions in pack.HOT.items() for function in functions.split()}
    kept = {}
    for name in inits(named):  # a module may call them while it is loaded
        module, function = name.split(":")
        kept[module] = kept.get(module, "") + " " + function
    monkeypatch.setattr(pack, "HOT", kept)
    source = pack.pack(False)
    monkeypatch.setattr(text, "_body", lambda as_code: source)
    monkeypatch.setattr(text, "_texts", {})
    monkeypatch.setattr(text, "_learnt", {})
    channel = group.makegateway(bare).remote_exec(COMPILED)
    assert channel.receive(TIMEOUT) == 1
    called = set(channel.receive(TIMEOUT))
    beside = {"worker:_end_a_thread"}  # on 3.8 alone
    elsewhere = {"pypump:_after_fork"}  # in the watcher
    assert called - inits(called) - beside == named - inits(named) - elsewhere


def test_a_function_that_was_compiled_when_called_fails_with_a_traceback(bare, group):
    """receive() is one of them: it says where in our modules, and in the task, it was."""
    gw = group.makegateway(bare)
    with pytest.raises(execnet_c.RemoteError) as error:
        gw.remote_exec("def ask():\n    channel.receive(timeout=0)\n\nask()").receive(TIMEOUT)
    lines = str(error.value).strip().splitlines()
    assert any("line 2, in ask" in line and "remote exec" in line for line in lines)
    assert any("in receive" in line and "execnet_c pychannel" in line for line in lines), lines
    assert "TimeoutError" in lines[-1] and "no item after 0 seconds" in lines[-1]
    # And it is the method from then on.
    task = "name = type(channel).receive.__name__; channel.send([name, channel.receive()])"
    channel = gw.remote_exec(task)
    channel.send(5)
    assert channel.receive(TIMEOUT) == ["receive", 5]


@pytest.mark.parametrize("end", PLAIN, ids=lambda end: end.name)
@pytest.mark.parametrize("function", ["settrace", "setprofile"])
def test_a_task_can_trace_what_is_called(end, group, function):
    """The functions that were sent as code objects have no line numbers."""
    task = "import sys; seen = []; sys.%s(lambda frame, *_: seen.append(frame.f_lineno)); channel.send(1); channel.send(len(seen))"
    channel = group.makegateway(end.spec()).remote_exec(task % function)
    assert channel.receive(TIMEOUT) == 1
    assert channel.receive(TIMEOUT) > 1
    channel.waitclose(TIMEOUT)


@pytest.fixture
def texts(monkeypatch):
    """The texts that were sent to far ends on this machine, and whether each should teach us."""
    sent = []

    def text_here(*args, here=text.text_here):
        sent.append(here(*args))
        return sent[-1]

    monkeypatch.setattr(text, "text_here", text_here)
    monkeypatch.setattr(text, "_learnt", {})
    return sent


@pytest.mark.parametrize("end", PLAIN, ids=lambda end: end.name)
def test_a_python_is_sent_the_code_objects_of_the_one_before_it(end, group, texts):
    spec, found = end.spec(), []
    for _ in range(3):
        gw = group.makegateway(spec)
        channel = gw.remote_exec(COMPILED)
        assert channel.receive(TIMEOUT) == 1
        found.append(channel.receive(TIMEOUT))
        with pytest.raises(execnet_c.RemoteError, match="no item after 0 seconds"):
            gw.remote_exec("channel.receive(timeout=0)").waitclose(TIMEOUT)
    assert found[0] == found[1] == found[2]
    if " " in spec.partition("python=")[2]:
        assert texts == []  # it may lead to another machine
    elif not end.name.startswith("cpython") or end.name.startswith(OURS):
        assert texts[0] == texts[1] == texts[2] and not texts[0][1]
    else:
        assert [teaches for _, teaches in texts] == [False, True, False]
        assert [b"def _wait(self" in whole for whole, _ in texts] == [True, True, False]


def test_only_what_calls_itself_the_same_is_sent_code_objects_of_another_one(monkeypatch):
    monkeypatch.setattr(text, "_learnt", {})
    other, source = announcement((3, 8, 1), "cpython-38"), text.text_for(VARIANTS["source"], False)
    assert text.text_here(VARIANTS["source"], "a") == (source, False)
    assert text.text_here(VARIANTS["source"], "a")[1]
    text.learn(VARIANTS["source"], "a", b"code")
    taught, teaches = text.text_here(VARIANTS["source"], "a")
    assert taught[text.HEAD_SIZE :].startswith(b"code") and not teaches
    for same, command in ((other, "a"), (VARIANTS["source"], "b")):
        assert text.text_here(same, command) == (source, False)
    assert text.text_for(VARIANTS["source"], False) == source


def test_who_teaches_too_much_is_not_listened_to(monkeypatch):
    monkeypatch.setattr(text, "_learnt", {})
    text.text_here(VARIANTS["source"], "a")
    text.learn(VARIANTS["source"], "a", bytes(text.MAX_TAUGHT + 1))
    assert text.text_here(VARIANTS["source"], "a")[1]


def test_pythons_whose_code_objects_may_differ_are_not_asked_for_them(monkeypatch):
    monkeypatch.setattr(text, "_learnt", {})
    for alike in (announcement((3, 9, 0), "pypy39"), f"{0x030F00A1:x} cpython-315"):
        for _ in range(3):
            assert not text.text_here(alike, "a")[1]
