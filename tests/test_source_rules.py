"""The sources keep the rules that no compiler checks.

Each rule is a function that takes a text, or a dict of texts by file name, and returns what is wrong with it; each is
first shown a sample that breaks it.
"""

import ast
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.any_core

ROOT = Path(__file__).resolve().parent.parent

# The floors of the core, lowest first: folders of src/core. What stands on one includes nothing of those above it.
FLOORS = ["system", "wire", "link", "start"]

# The rooms on them, left to right: each includes only what stands to its left, and itself.
ORDER = [
    {"base", "bytes", "opcodes", "pool"},
    {"fd", "pickle"},
    {"sync", "buf", "frame", "scan", "stderr", "program"},
    {"pages", "queue", "cut", "spin", "child", "forkfd", "pump", "preamble", "trace", "ring", "lend"},
    {"chan", "exit_policy", "stream", "region"},
    {"writer"},
    {"link"},
    {"launch"},
    {"relay"},
]

# The same of the tagger without Python, which stands on two rooms of the core.
TAGGER_ORDER = [{"text"}, {"model"}, {"build", "word"}, {"decide"}, {"batch"}, {"team"}]
TAGGER_STANDS_ON = {"xc_base.h", "xc_pool.h", "xc_sync.h"}

# Files that belong to another room than the one of their name.
LINK = (
    *("link_impl", "wait", "link_pump", "move", "reader", "arrival", "inbox", "free", "dispatch", "channels", "tasks", "answer"),
    *("forward", "keepalive", "task_timeout", "credit"),
)
ROOM_OF = {**{name: "link" for name in LINK}, "writer_impl": "writer", "writer_long": "writer", "writer_post": "writer", "poller": "pump", "poller_epoll": "pump", "poller_poll": "pump"}

# The package, lowest first: its folders, and the modules at its top. Each imports only from what stands before it, and
# from its own folder.
PACKAGES = [
    {"__version__", "_core", "_tagger", "xspec"},
    {"common"},
    {"models"},
    {"twin"},
    {"cores"},
    {"far", "worker"},
    {"near"},
    {"gateway", "gateway_base", "gateway_bootstrap", "gateway_io", "rsync_remote", "tagging"},
    {"multi", "rsync", "pytest_plugin"},
    {"pool"},
    {"anyio", "joblib"},
    {"tools"},
    {"__main__"},
]

MAX_LINES = 600

PYTHON_HEADERS = {"Python.h", "structmember.h", "pyconfig.h", "pythread.h", "frameobject.h", "datetime.h"}


def texts(*patterns):
    found = {str(path.relative_to(ROOT)): path.read_text() for pattern in patterns for path in ROOT.glob(pattern)}
    assert found, f"no files {patterns}"
    return found


def core():
    return texts("src/core/*/*.[ch]")


def tagger():
    return texts("src/tagger/xt_*.[ch]")


def glue():
    return texts("src/py/*.[ch]", "src/tagger/xtpy_*.[ch]")


def everything():
    return texts(
        *("src/*/*.[ch]", "src/core/*/*.[ch]", "execnet_c/*.py*", "execnet_c/*/*.py", "tests/*.py", "tests/*/*.py", "tests/c/*.[ch]", "tests/sim/*.[ch]"), "examples/*.py", "benchmarks/*.py"
    )


def code_of(text):
    """C without its comments, and with empty strings; lines stay where they are."""

    def blank(match):
        kept = '""' if match[0].startswith('"') else " "
        return kept + "\n" * match[0].count("\n")

    return re.sub(r'"(?:\\.|[^"\\\n])*"|/\*.*?\*/|//[^\n]*', blank, text, flags=re.DOTALL)


def line_of(text, position):
    return text.count("\n", 0, position) + 1


def included(text, quotes='"'):
    """What it includes: its own kind by "", the system's by <>."""
    pattern = rf'^\s*#\s*include\s+{quotes[0]}([^">]+){quotes[-1]}'
    return re.findall(pattern, re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL), re.MULTILINE)


# --- the rules ------------------------------------------------------------------------------------------------------


def python_in_reach(files, stands_on=()):
    """Core files that include something else than each other and the system's headers, Python's being none of them."""
    names = {name.rpartition("/")[2] for name in files} | set(stands_on)
    wrong = []
    for name, text in files.items():
        wrong += [f"{name} includes {other}" for other in included(text) if other not in names]
        wrong += [f"{name} includes {other}" for other in included(text, "<>") if other in PYTHON_HEADERS]
    return wrong


def out_of_order(files, order, prefix="xc_"):
    """Includes between rooms that do not point to the left; rooms that have no place."""
    place = {room: number for number, rooms in enumerate(order) for room in rooms}
    wrong = []

    def room_of(name):
        stem = re.fullmatch(prefix + r"(\w+)\.[ch]", name.rpartition("/")[2])[1]
        return ROOM_OF.get(stem, stem)

    for name, text in files.items():
        room = room_of(name)
        if room not in place:
            wrong.append(f"{name}: room {room} has no place in the order")
            continue
        for target in included(text):
            if not target.startswith(prefix):
                continue
            other = room_of(target)
            if other != room and place.get(other, len(order)) >= place[room]:
                wrong.append(f"{name} includes {target}, which does not stand to its left")
    return wrong


def imported(name, text):
    """(folder or module at the top, module) of this package for each import of a Python file in it, also those that are
    made when they are needed. What is only for type checkers does not count."""
    here = name.split("/")[1:-1]
    found = []
    nodes = [ast.parse(text)]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            nodes += node.orelse
            continue
        nodes += ast.iter_child_nodes(node)
        if isinstance(node, ast.ImportFrom) and node.level:
            base = [*here[: len(here) - node.level + 1], *filter(None, (node.module or "").split("."))]
            names = [alias.name for alias in node.names]
            found += [(base[0], base[1])] if len(base) > 1 else [((base or [one])[0], one) for one in names]
    return found


def upward(files, packages):
    """Imports of the package from what does not stand lower; modules that have no place."""
    place = {one: number for number, ones in enumerate(packages) for one in ones}
    wrong = []
    for name, text in files.items():
        own = name.split("/")[1].removesuffix(".py")
        if own not in place:
            wrong.append(f"{name} has no place in the order")
            continue
        for other, _ in imported(name, text):
            if other != own and place.get(other, len(packages)) >= place[own]:
                wrong.append(f"{name} imports from {other}")
    return wrong


def circles(files):
    """Modules that import each other, by whatever way round."""
    there = {name[len("execnet_c/") : -len(".py")].replace("/__init__", "") for name in files}
    arrows = {}
    for name, text in files.items():
        own = name[len("execnet_c/") : -len(".py")].replace("/__init__", "")
        targets = {one for pair in imported(name, text) for one in ("/".join(pair), pair[0])}
        arrows[own] = targets & there - {own, own.partition("/")[0]}
    while arrows:
        ends = [one for one, targets in arrows.items() if not targets & set(arrows)]
        if not ends:
            return sorted(arrows)
        for one in ends:
            del arrows[one]
    return []


def between_floors(files, floors):
    """Includes of the core that point to a higher floor; files that lie on none."""
    floor_of = {name.rpartition("/")[2]: name.split("/")[-2] for name in files}
    wrong = [f"{name} lies on no floor" for name in files if name.split("/")[-2] not in floors]
    for name, text in files.items():
        for target in included(text):
            if not wrong and floors.index(floor_of[target]) > floors.index(floor_of[name.rpartition("/")[2]]):
                wrong.append(f"{name} includes {target}, of a higher floor")
    return wrong


def released_blocks(text):
    """Blocks without the GIL that are not exactly one plain statement."""
    code = code_of(text)
    wrong = []
    if len(re.findall(r"\bPy_BEGIN_ALLOW_THREADS\b", code)) != len(re.findall(r"\bPy_END_ALLOW_THREADS\b", code)):
        wrong.append("a released block has no begin or no end")
    for match in re.finditer(r"\bPy_BEGIN_ALLOW_THREADS\b(.*?)\bPy_END_ALLOW_THREADS\b", code, re.DOTALL):
        block = match[1].strip()
        plain = not re.search(r"[{}]|\b(if|for|while|do|switch|goto|return|Py_BEGIN_ALLOW_THREADS)\b", block)
        if not plain or block.count(";") != 1 or not block.endswith(";"):
            wrong.append(f"line {line_of(code, match.start())}: not one statement: {block!r}")
    if re.search(r"\bPy_(UN)?BLOCK_THREADS\b|\bPyEval_SaveThread\b", code):
        wrong.append("the GIL is released otherwise than in a block")
    return wrong


def static_objects(text):
    """Variables outside of module state that hold Python objects, and types that are no heap types."""
    code = code_of(text)
    objects = r"(?:const\s+)?(?:PyObject|PyTypeObject|PyFrameObject|PyThreadState|\w+Object)"
    patterns = [
        rf"\bstatic\s+{objects}\s*\*+\s*(?:const\s+)?\w+\s*(?:=|;|,|\[)",
        rf"^(?:extern\s+)?{objects}\s*\*+\s*(?:const\s+)?\w+\s*(?:=|;|,|\[)",
        r"\bstatic\s+PyTypeObject\s+\w+",
    ]
    return [f"line {line_of(code, m.start())}: {m[0]!r}" for p in patterns for m in re.finditer(p, code, re.MULTILINE)]


def foreign_attach(text):
    """Ways for a thread that is none of Python's to attach itself."""
    return re.findall(r"\bPyGILState_Ensure\b|\bPyThreadState_New\b|\bPyEval_AcquireThread\b", code_of(text))


def python_late(text):
    """Python.h chooses among what the system's headers have: it comes first, by itself or in a header of the same room."""
    first = re.search(r"^#\s*include\s+(\S+)", text, re.MULTILINE)
    return [first[1]] if first and re.match(r'<(?!Python\.h>)|"x[ct]_', first[1]) else []


def without_head(text):
    """A file starts with a comment that says what it is."""
    head = re.match(r"/\*\s*(.*?)\*/", text, re.DOTALL)
    return [] if head and len(re.findall(r"\w+", head[1])) >= 4 else ["no comment at its head"]


def too_long(text):
    lines = len(text.splitlines())
    return [f"{lines} lines"] if lines > MAX_LINES else []


def notes_to_self(text):
    words = ["TO" + "DO", "FIX" + "ME", "X" * 3, "HA" + "CK"]
    return [f"line {line_of(text, m.start())}: {m[0]}" for m in re.finditer(rf"\b({'|'.join(words)})\b", text)]


def broken_in(files, rule):
    return [f"{name}: {wrong}" for name, text in files.items() for wrong in rule(text)]


# --- the rules can fail ---------------------------------------------------------------------------------------------

BLOCK = "Py_BEGIN_ALLOW_THREADS\n{}\nPy_END_ALLOW_THREADS\n"

SAMPLES = [
    (released_blocks, BLOCK.format("rc = f(a, b);"), BLOCK.format("rc = f(a); n = g(a);")),
    (released_blocks, BLOCK.format("rc = f(a); /* why; not */"), BLOCK.format("if (a) f(a);")),
    (released_blocks, BLOCK.format('rc = f("a;b");'), BLOCK.format("")),
    (released_blocks, "", "Py_BEGIN_ALLOW_THREADS f();"),
    (released_blocks, "", "save = PyEval_SaveThread();"),
    (static_objects, "static PyObject *\nf(PyObject *self)\n{\n}", "static PyObject *cache;"),
    (static_objects, "static PyObject *f(PyObject *self);", "static PyObject *names[4];"),
    (static_objects, "    PyObject *local = NULL;", "PyObject *everywhere = NULL;"),
    (static_objects, "static PyType_Spec spec = {0};", "static PyTypeObject Thing = {0};"),
    (static_objects, "/* static PyObject *x; */", "void f(void)\n{\n    static GatewayObject *last = NULL;\n}"),
    (foreign_attach, "/* no PyGILState_Ensure here */ PyGILState_Check();", "PyGILState_Ensure();"),
    (python_late, '#include "xtpy_state.h"\n\n#include <stdio.h>', "#include <stdio.h>\n#include <Python.h>"),
    (python_late, "#include <Python.h>", '#include "xc_base.h"\n#include "state.h"'),
    (without_head, "/*\n * What this room is for.\n */\n#include <a.h>", "#include <a.h>\n/* late, and of no use here */"),
    (without_head, "/* One line that says it. */", "/* a */"),
    (too_long, "x\n" * MAX_LINES, "x\n" * (MAX_LINES + 1)),
    (notes_to_self, "XXXL, hackney", "a\n/* " + "TO" + "DO: later */"),
    (notes_to_self, "", "# " + "X" * 3),
]


@pytest.mark.parametrize("rule, good, bad", SAMPLES)
def test_the_rule_tells_good_from_bad(rule, good, bad):
    assert rule(good) == []
    assert rule(bad) != []


GOOD_CORE = {"src/core/xc_base.h": "#include <stdio.h>", "src/core/xc_sync.h": '#include "xc_base.h"'}


@pytest.mark.parametrize(
    "bad",
    [
        {"src/core/xc_base.h": "#include <Python.h>"},
        {"src/core/xc_base.c": '#include "../py/state.h"'},
        {"src/core/xc_base.c": '#  include "state.h"'},
    ],
)
def test_reaching_python_is_seen(bad):
    assert python_in_reach(GOOD_CORE) == []
    assert len(python_in_reach(bad)) == len(bad)


@pytest.mark.parametrize(
    "bad",
    [
        {"src/core/xc_base.h": '#include "xc_sync.h"'},
        {"src/core/xc_base.c": '#include "xc_sync.h"'},
        {"src/core/xc_sync.h": '#include "xc_buf.h"'},
        {"src/core/xc_new.h": ""},
    ],
)
def test_an_include_to_the_right_is_seen(bad):
    order = [{"base"}, {"sync", "buf"}]
    assert out_of_order(GOOD_CORE, order) == []
    assert len(out_of_order({**GOOD_CORE, **bad}, order)) == 1


def test_an_include_of_a_higher_floor_is_seen():
    floors = ["system", "wire"]
    good = {"src/core/system/xc_base.h": "", "src/core/wire/xc_buf.h": '#include "xc_base.h"'}
    assert between_floors(good, floors) == []
    assert len(between_floors({**good, "src/core/system/xc_base.h": '#include "xc_buf.h"'}, floors)) == 1
    assert len(between_floors({**good, "src/core/xc_new.h": ""}, floors)) == 1


@pytest.mark.parametrize(
    "bad",
    [
        {"execnet_c/low/one.py": "from .. import top"},
        {"execnet_c/low/one.py": "def f():\n    from ..high.two import g"},
        {"execnet_c/low/one.py": "from ..high import two"},
        {"execnet_c/new.py": ""},
    ],
)
def test_an_import_that_points_upwards_is_seen(bad):
    good = {"execnet_c/low/one.py": "import os\nfrom .other import f", "execnet_c/high/two.py": "from ..low import one"}
    good["execnet_c/top.py"] = "from .high.two import g\nTYPE_CHECKING = False\nif TYPE_CHECKING:\n    from .new import x"
    packages = [{"low"}, {"high"}, {"top"}]
    assert upward(good, packages) == []
    assert len(upward({**good, **bad}, packages)) == 1


def test_modules_that_import_each_other_are_seen():
    good = {"execnet_c/low/one.py": "from . import two", "execnet_c/low/two.py": "from .three import f", "execnet_c/low/three.py": ""}
    assert circles(good) == []
    bad = {**good, "execnet_c/low/three.py": "def f():\n    from .one import g"}
    assert circles(bad) == ["low/one", "low/three", "low/two"]


# --- the sources keep them ------------------------------------------------------------------------------------------


def test_there_is_something_to_read():
    assert len(core()) > 30 and len(glue()) > 20 and len(everything()) > 100
    assert any("Py_BEGIN_ALLOW_THREADS" in text for text in glue().values())
    assert any(included(text) and included(text, "<>") for text in core().values())


def test_the_core_cannot_see_python():
    assert python_in_reach(core()) == []
    assert python_in_reach(tagger(), TAGGER_STANDS_ON) == []
    assert python_in_reach(tagger()) != []


def test_the_core_names_nothing_of_python():
    pattern = r"\bPy[A-Z_]\w+|\bx[ct]py_\w+"
    files = {**core(), **tagger()}
    assert [f"{name}: {word}" for name, text in files.items() for word in re.findall(pattern, code_of(text))] == []


def test_rooms_include_only_what_stands_to_their_left():
    assert out_of_order(core(), ORDER) == []
    assert out_of_order(tagger(), TAGGER_ORDER, "xt_") == []


def test_floors_include_only_what_is_below():
    assert between_floors(core(), FLOORS) == []


def package():
    files = texts("execnet_c/*.py", "execnet_c/*/*.py")
    return {name: text for name, text in files.items() if "__pyinstaller" not in name and name != "execnet_c/__init__.py"}


def test_packages_import_only_what_is_below():
    assert upward(package(), PACKAGES) == []


def test_no_modules_import_each_other():
    assert circles(package()) == []


def test_the_order_names_no_room_that_is_not_there():
    rooms = {name.rpartition("xc_")[2].split(".")[0] for name in core()}
    assert set().union(*ORDER) - rooms == set()
    assert set().union(*TAGGER_ORDER) - {name.rpartition("xt_")[2].split(".")[0] for name in tagger()} == set()
    assert set(ROOM_OF) - rooms == set()


@pytest.mark.parametrize("rule", [released_blocks, static_objects, foreign_attach, python_late])
def test_what_holds_objects(rule):
    assert broken_in(glue(), rule) == []


def test_every_room_says_what_it_is():
    """At the head of its header; a file without one says it itself."""
    files = {**core(), **tagger(), **glue()}
    paired = {name for name in files if name.endswith(".c") and name[:-1] + "h" in files}
    assert broken_in({name: text for name, text in files.items() if name not in paired}, without_head) == []


def test_no_file_is_too_long():
    python = texts("execnet_c/*.py", "execnet_c/*/*.py", "tests/*.py", "tests/*/*.py", "examples/*.py", "benchmarks/*.py")
    assert broken_in({**python, **core(), **glue(), **texts("src/tagger/*.[ch]", "tests/c/*.[ch]", "tests/sim/*.[ch]")}, too_long) == []


def test_no_notes_to_self():
    assert broken_in({**everything(), **texts("Makefile", "tests/c/Makefile", "tests/sim/Makefile", "*.rst", "*.toml")}, notes_to_self) == []
