"""The codes, limits and texts of the two cores: those of the C sources beside those of the twin's, in one table.

What the table does not know fails, so that no core gets one alone. What the serializers say is compared to the letter in
test_serializer_twins.py, and of pickles in test_pickled_trust.py.
"""

import ast
import importlib
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.any_core

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 10**9  # the C core counts nanoseconds

# (name in C, name in the twin[, how many of the one make one of the other]), beside the codes, which are called alike.
PAIRS = [
    ("XC_MARKER", "MARKER"),
    ("XC_LONG_MIN", "LONG_MIN"),
    ("XC_PIECE_SIZE", "PIECE_SIZE"),
    ("XC_LONG_COUNT", "LONG_COUNT"),
    ("XC_ITEM_COST", "ITEM_COST"),
    ("XC_MAX_PAYLOAD", "MAX_PAYLOAD"),
    ("XC_WRITER_MUCH", "MUCH"),
    ("XC_NO_LIMIT", "NO_LIMIT"),
    ("XC_MAX_LONG", "MAX_LONG"),
    ("XC_FIN", "FIN"),
    ("XC_UNREAD_HELLOS", "MAX_HELLOS"),
    ("XC_HELLO_MAX", "MAX_HELLO"),
    ("XC_CARRIED_MAX", "MAX_CHANNELS"),
    ("XC_PREAMBLE_MAX", "MAX_PREAMBLE"),
    ("XC_UNTOLD", "UNTOLD_TEXT"),
    ("XC_RELAY_PIECE", "PIECE"),
    ("XC_RELAY_WINDOW", "RELAY_WINDOW"),
    ("XC_STDERR_TAIL", "TAIL"),
    ("XC_STDERR_UNHEARD", "UNHEARD"),
    ("XCPY_DUMP_DEPTH", "DUMP_DEPTH"),
    ("XCPY_LOAD_DEPTH", "LOAD_DEPTH"),
    ("XCPY_HASH_DEPTH", "HASH_DEPTH"),
    ("XCPY_PIN_SIZE", "LARGE"),
    ("XC_PICKLE_ALIGN", "ALIGN"),
    ("MAX_I4", "I4_MAX"),
]

# The same for what stands in .c files, where most are of no interest to anybody else.
PAIRS_OF_FILES = [
    ("INTERRUPT_TEXT", "INTERRUPT_TEXT"),
    ("END_TEXT", "END_TEXT"),
    ("ORPHANS_MAX", "MAX_ORPHANS"),
    ("QUARTERS", "QUARTERS"),
    ("TO_ANSWER", "TO_ANSWER"),
    ("GOODBYE_TIMEOUT", "GOODBYE_TIMEOUT", SECONDS),
    ("LAST_CHANCE", "LAST_CHANCE", SECONDS),
    ("HANGUP_GRACE", "HANGUP_GRACE", SECONDS),
    ("RETRY_NS", "RETRY", SECONDS),
    ("KICK_AGAIN", "KICK_AGAIN", SECONDS),
    ("PIECES", "PIECES"),
]

ONLY_C = {
    "rings, and the move to them": "XC_MOVE XC_RING_SIZE XC_HAS_RING XC_HAS_MEMFD XC_FUTEX XC_SPIN_NS XC_SPIN_RING_NS",
    "the twin has it in its code, where it is the only number that makes sense": "XC_HEADER_SIZE XC_LONG_SIZE XC_CREDIT_SIZE XC_MARKER_SIZE "
    "XC_PICKLE_HEAD XC_PICKLE_SIZE XC_FORMAT_VERSION XC_PY2STR_AS_PY3STR XC_PY3STR_AS_PY2STR XC_COERCE_DEFAULT XC_NOT_STRICT XC_OK",
    "the same as REFUSALS, see below": "XC_NO_TASKS XC_TOO_MANY_TASKS",
    "what clang checks of locks": "XC_NOT_CHECKED XC_HOLDS_NONE XC_INSIDE_FORKFDS XC_INSIDE_LAUNCH XC_INSIDE_LINK XC_INSIDE_PUMP "
    "XC_INSIDE_RELAY XC_INSIDE_WRITER XC_TAKES_BELLS XC_TAKES_FORKFDS XC_TAKES_LAUNCH XC_TAKES_LINK XC_TAKES_PUMP "
    "XC_TAKES_RELAY XC_TAKES_WRITER",
    "how it works, which nobody sees": "XC_BIG XC_ALIGNED_MIN XC_INBUF XC_REARM_NS XC_PAGES_MUCH XC_CHILD_KEEPS XC_LEND_CHUNK "
    "XC_LENT_NOTHING XC_EPOLL XC_POLLER_ARMS_AT_ONCE XC_POLLER_CAN_REPLACE XC_POOL_BITS XC_POOL_PLACES XC_BYTES_HEAD_MAX XCPY_PIN XCPY_HUGE "
    "XCPY_SMALL_FRAME XCPY_STACK_PARTS "
    "XC_FOREVER XC_MS XC_S XCPY_NOT_PARKED XCPY_STRINGS XCPY_STRINGS_BITS XCPY_CACHED_MAX XCPY_MISSED_MAX "
    "XCPY_LOOKUP_EACH FIRST_FRAMES FIRST_ENTRIES FAILED PUSHED WROTE NOT_PLAIN KIND OBJECT NUMBER LIST TRACKED DEPTH_SHIFT "
    "DEPTH_1 SLACK",
}

ONLY_TWIN = {
    "how it works, which nobody sees": "SHORT CHUNK AT_ONCE PAGE POLLIN POLLOUT POLLNVAL LOOK_EVERY MANY NAP PAUSE WORD_GRACE ORPHAN "
    "FRAMED",
    "it counts frames, the C core bytes": "MAX_ANSWERS MUCH_BATCHES",
    "the text is in a function of the C core: see the tests of texts below": "CLOSED ONLY_MAIN",
}

# Names of _core.pyi that the twin has not.
NAMES_ONLY_C = {
    "rings": "Gateway._share Gateway._offer Gateway._attach Gateway._withdraw Gateway._move",
    "the twin's is a function of pyrelay.py": "Gateway._relay",
    "set by the near end alone": "GatewayDied.command GatewayDied.status GatewayDied.signal GatewayDied.stderr",
}

# What the twin says of the same thing in other words, because it learns of it elsewhere or in one place for several.
OTHER_WORDS = {
    "asyncio needs the package, and this far end was sent its core alone": [],
    "{} of {} bytes for long message {} cannot be": [
        "a piece of long message {}, and there is none",
        "a piece of {} bytes, of which long message {} lacks {}",
        "long message {} begins, and there is one",
        "long message {} is dropped, and there is none",
        "more than {} long messages at a time",
        "code {} cannot travel in pieces",
        "wrong payload length",
    ],
    "{} channels are here already": [
        "the item carries channels; with those in items that were not received yet they would be more than {}"
    ],
    "Channel() argument 1 must be a Gateway, not {}": [],  # the C core has it from PyArg_Parse
}

# Errors of the C core that the twin cannot have: of rings, and of what only C code is called with.
SAID_BY_C = [
    "no memory was offered",
    "the far end moved to memory that nobody had offered",
    "a channel in a message that is neither an item nor a task",
    "an execution model is named by a str",
    "facts must be a dict, not {}",
    "text must be a str, not {}",
    "the channels must be this gateway's",
    "a type that is none of execnet_c's",
    "'{}' object has no attribute {}",
    "the item is too large for a message",
    "it cannot be deleted",
    "{} is no error ({})",
]


# --- reading C ------------------------------------------------------------------------------------------------------


def without_comments(text):
    return re.sub(r"/\*.*?\*/", " ", text, flags=re.DOTALL)


def constants_of(text):
    """[(name, expression)] of what a C text gives a value to in an enum, or by #define."""
    text = without_comments(text)
    found = re.findall(r"^[ \t]*#[ \t]*define[ \t]+([A-Z]\w*)[ \t]+(.+)$", text, re.MULTILINE)
    for body in re.findall(r"\benum\s*\w*\s*\{(.*?)\}", text, re.DOTALL):
        found += re.findall(r"\b([A-Z]\w*)\s*=\s*([^,]+)", body)
    return [(name, value.strip()) for name, value in found]


def value_of(expression, known):
    """Of a C expression: a number, or bytes; None for what is neither."""
    if re.fullmatch(r'"(?:\\.|[^"\\])*"', expression):
        return ast.literal_eval("b" + expression)
    expression = re.sub(r"\((?:u?int\d+_t|size_t)\)|\bINT64_C\b", "", expression).replace("UINT64_MAX", str((1 << 64) - 1))
    names = {name: known[name] for name in re.findall(r"\b[A-Z]\w*", expression) if type(known.get(name)) is int}
    try:
        value = eval(expression, {"__builtins__": {}}, names)
    except Exception:
        return None
    return value.encode() if isinstance(value, str) else value


def read_c(*patterns):
    """{name: value}. Where a name has several, by #if, the first counts."""
    known = {}
    for path in [path for pattern in patterns for path in sorted(ROOT.glob(pattern))]:
        for name, expression in constants_of(path.read_text()):
            known.setdefault(name, expression)
    for _ in range(3):  # some are made of others
        for name, expression in known.items():
            if isinstance(expression, str):
                value = value_of(expression, known)
                known[name] = expression if value is None else value
    return known


def texts_of_c(text):
    """What errors of a C text say: in #define, PyErr_SetString, PyErr_Format and xc_failf; {} for what goes in."""
    literal = r'((?:"(?:\\.|[^"\\\n])*"\s*)+)'
    text = without_comments(text)
    found = re.findall(rf"#\s*define\s+\w+\s+{literal}", text)
    found += re.findall(rf"\bPyErr_(?:SetString|Format)\(\s*[\w>.-]+,\s*{literal}", text)
    found += re.findall(rf"\bbad_header\(\s*\w+,\s*{literal}", text)
    found += re.findall(rf"\bxc_failf\(\s*\w+,\s*\w+,\s*[^,]+,\s*{literal}", text)
    joined = ["".join(re.findall(r'"((?:\\.|[^"\\\n])*)"', parts)) for parts in found]
    return {re.sub(r"%[-+ #0]*[\d.]*(?:ll|l|z)?[a-zA-Z]", "{}", one) for one in joined}


# --- reading the twin -----------------------------------------------------------------------------------------------

TWIN = sorted((ROOT / "execnet_c/twin").glob("py*.py"))


def assigned_in(tree):
    """Names in capitals that a module gives a value to."""
    targets = [target for node in tree.body if isinstance(node, ast.Assign) for target in node.targets]
    names = [one.id for target in targets for one in getattr(target, "elts", [target]) if isinstance(one, ast.Name)]
    return {name for name in names if re.fullmatch(r"[A-Z][A-Z0-9_]*", name)}


def read_twin():
    """{name: value}, without the codes."""
    known = {}
    for path in TWIN:
        module = importlib.import_module(f"execnet_c.twin.{path.stem}")
        for name in assigned_in(ast.parse(path.read_text())):
            value = getattr(module, name)
            if isinstance(value, (int, float, str, bytes)) and not (path.stem == "pywire" and f"XC_{name}" in codes()):
                assert known.get(name, value) == value, f"{name} is two things"
                known[name] = value
    return known


def texts_of_python(text):
    """All that a Python text has in quotes but for docstrings; {} for what goes in."""
    tree, found, left_out = ast.parse(text), set(), set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            left_out.add(node.body[0].value)
        elif isinstance(node, ast.JoinedStr):
            left_out |= {*node.values}
            found.add("".join(value.value if isinstance(value, ast.Constant) else "{}" for value in node.values))
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in left_out:
            found.add(re.sub(r"%[srd]", "{}", node.value))
    return found


def is_sentence(text):
    return len(re.findall(r"[A-Za-z]{2,}", text)) > 2


# --- comparing ------------------------------------------------------------------------------------------------------


def differences(in_c, in_twin, pairs):
    """Pairs that are not there, or not the same."""
    wrong = []
    for name, other, *scale in pairs:
        one, two = in_c.get(name), in_twin.get(other)
        two = two.encode() if isinstance(two, str) else two
        if one is None or two is None or one != two * (scale[0] if scale else 1):
            wrong.append(f"{name} is {one!r}, {other} is {two!r}")
    return wrong


def unknown(names, table):
    """What one of both does not have."""
    return sorted(set(names) ^ set(table))


def words(table):
    return [name for names in table.values() for name in names.split()]


def codes():
    [body] = re.findall(r"typedef enum \{(.*?)\} xc_code;", (ROOT / "src/core/wire/xc_frame.h").read_text(), re.DOTALL)
    return {name: int(value) for name, value in constants_of("enum {" + body + "}")}


HEADER_FILES = "src/core/*/*.h", "src/py/*.h"
HEADERS = read_c(*HEADER_FILES)


def test_a_difference_is_seen():
    text = 'enum { /* a = 1 */ XC_A = 2 * 3, XC_B };\n#define XC_T "a\\0b"\n#define XC_N ((uint64_t)1 << XC_A)\ntypedef enum { XC_C = \'@\' } c;'
    found = dict(constants_of(text))
    assert found == {"XC_A": "2 * 3", "XC_T": '"a\\0b"', "XC_N": "((uint64_t)1 << XC_A)", "XC_C": "'@'"}
    assert [value_of(value, {"XC_A": 6}) for value in found.values()] == [b"a\0b", 64, 6, b"@"]
    assert differences({"XC_A": 6}, {"A": 6}, [("XC_A", "A")]) == []
    for in_c, in_twin in [({"XC_A": 6}, {"A": 7}), ({}, {"A": 6}), ({"XC_A": 6}, {})]:
        assert len(differences(in_c, in_twin, [("XC_A", "A")])) == 1
    assert differences({"XC_A": 1500}, {"A": 1.5}, [("XC_A", "A", 1000)]) == []
    assert unknown(["A", "B"], ["B", "C"]) == ["A", "C"]
    said = 'PyErr_Format(PyExc_OSError, "no %zd of "\n "%.200s here", n, s); xc_failf(err, XC_BAD, "read", "bad %u", n);'
    assert texts_of_c(said + "/* PyErr_SetString(e, \"x\") */") == {"no {} of {} here", "bad {}"}
    assert texts_of_python('def f():\n    "doc"\n    raise E(f"no {a!r} of {b} here", "x %d")') == {"no {} of {} here", "x {}"}


def test_limits_and_codes_are_the_same():
    in_c = read_c(*HEADER_FILES, "src/core/*/*.c", "src/py/*.c")
    assert differences(in_c, read_twin(), [*PAIRS, *PAIRS_OF_FILES]) == []


def test_frames_have_the_same_codes_and_names():
    from execnet_c.twin import pywire

    names = re.search(r"names\[\] = \{(.*?)\}", (ROOT / "src/core/wire/xc_frame.c").read_text(), re.DOTALL)[1]
    assert re.findall(r'"(\w+)"', names) == [name[3:] for name in codes()] == pywire.NAMES
    in_c = {name[3:]: value for name, value in codes().items() if name != "XC_MOVE"}
    assert len(in_c) > 10 and in_c == {name: getattr(pywire, name) for name in pywire.NAMES if name != "MOVE"}


def test_no_core_has_a_limit_or_code_alone():
    opcodes = {name for name in HEADERS if name.startswith("XC_OP_")}
    known = {*words(ONLY_C), *codes(), *opcodes, *(pair[0] for pair in PAIRS)}
    assert unknown(HEADERS, known) == [], "in the table, and the headers have it not; or the other way round"
    known = {*words(ONLY_TWIN), *(pair[1] for pair in [*PAIRS, *PAIRS_OF_FILES])}
    assert unknown(read_twin(), known) == []


def test_both_serializers_know_the_same_opcodes():
    from execnet_c import _core
    from execnet_c.twin import pyserializer

    known = {value[0] for name, value in HEADERS.items() if name.startswith("XC_OP_") and "HUGE" not in name and "PICKLE" not in name}
    assert len(known) == 21  # those that messages alone have: test_pieces_huge.py, test_pickled_trust.py
    for load in (_core.loads, pyserializer.loads):
        for opcode in range(256):
            with pytest.raises(_core.DataFormatError if load is _core.loads else pyserializer.DataFormatError) as failed:
                load(bytes([HEADERS["XC_FORMAT_VERSION"], opcode, 0]))
            assert ("unknown opcode " + repr(bytes([opcode])) in str(failed.value)) == (opcode not in known)


def test_refusals_are_the_same():
    from execnet_c.twin import pytasks

    late = f"concurrent remote_exec would cause deadlock for {pytasks.ONLY_MAIN} execmodel"
    assert f'"{late}"' in (ROOT / "src/core/link/xc_task_timeout.c").read_text()
    assert late.replace(pytasks.ONLY_MAIN, "{ONLY_MAIN}") in Path(ROOT / "execnet_c/twin/pytasks.py").read_text()
    assert [*pytasks.REFUSALS.values()] == [HEADERS[name].decode() for name in ("XC_NO_TASKS", "XC_TOO_MANY_TASKS")]


def test_what_ends_a_connection_has_one_name():
    """Which both cores have in _state(), and the near end asks for."""
    enum = re.search(r"typedef enum \{(.*?)\} xc_status;", (ROOT / "src/core/system/xc_base.h").read_text(), re.DOTALL)[1]
    known = set(re.findall(r"\bXC_\w+", without_comments(enum)))
    used = {name for path in [*TWIN, *(ROOT / "execnet_c/near").glob("*.py")] for name in re.findall(r'"(XC_\w+)"', path.read_text())}
    assert len(used) > 4 and used <= known


def test_errors_say_the_same():
    serializer = re.compile(r"(dump|load)\w*\.[ch]$|pyserializer\.py$|pickled\.(c|py)$|region|ring\.c$")
    in_c, in_twin = set(), set()
    for path in [*ROOT.glob("src/core/*/*.[ch]"), *ROOT.glob("src/py/*.[ch]")]:
        if not serializer.search(path.name) and path.name != "args.h":
            in_c |= set(filter(is_sentence, texts_of_c(path.read_text())))
    for path in TWIN:
        if not serializer.search(path.name):
            in_twin |= set(filter(is_sentence, texts_of_python(path.read_text())))
    assert len(in_c & in_twin) > 20
    paired = {text for others in OTHER_WORDS.values() for text in others}
    assert sorted(in_c - in_twin - paired - {*SAID_BY_C}) == [], "the twin does not say it"
    assert sorted((paired | {*SAID_BY_C}) - in_c) == sorted({*OTHER_WORDS} - in_twin) == [], "in the table, and nobody says it"
    raised = {
        text
        for path in TWIN
        if not serializer.search(path.name)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Raise) and node.exc is not None
        for text in texts_of_python(ast.unparse(node.exc))
        if is_sentence(text)
    }
    assert len(raised) > 10
    assert sorted(raised - in_c - {*OTHER_WORDS}) == [], "the C core does not say it"


def keys_of(file, function):
    """Of the dicts that a function of the twin makes."""
    functions = [node for node in ast.walk(ast.parse((ROOT / file).read_text())) if getattr(node, "name", None) == function]
    dicts = [node for node in ast.walk(functions[-1]) if isinstance(node, ast.Dict)]
    return [{key.value for key in node.keys if key is not None} for node in dicts]


def test_both_tell_the_same_of_a_connection():
    in_c = set(re.findall(r'put_\w+\(&dict, "(\w+)"', (ROOT / "src/py/gateway_end.c").read_text()))
    in_twin = set().union(*keys_of("execnet_c/twin/pycore.py", "_state"), *keys_of("execnet_c/twin/pylaunch.py", "said"))
    assert len(in_c) > 10 and unknown(in_c, in_twin) == []


def test_both_answer_the_same_of_themselves():
    [keys] = re.findall(r"keys\[\] = \{(.*?)\};", (ROOT / "src/core/link/xc_answer.c").read_text())
    status = max(keys_of("execnet_c/twin/pycore.py", "_status"), key=len)
    assert len(status) > 2 and unknown(re.findall(r'"(\w+)"', keys), status) == []


def names_of(stub):
    """Of a stub: all that a program may use, methods and attributes as Class.name."""
    found = []
    for node in ast.parse(stub).body:
        name = node.target.id if isinstance(node, ast.AnnAssign) else getattr(node, "name", None)
        if name is None or any(getattr(base, "id", "") == "Protocol" for base in getattr(node, "bases", ())):
            continue
        found.append(name)
        if isinstance(node, ast.ClassDef):
            inside = [one.target.id if isinstance(one, ast.AnnAssign) else getattr(one, "name", None) for one in node.body]
            found += [f"{name}.{one}" for one in inside if one]
    return found


def test_what_the_c_core_has_the_twin_has():
    from execnet_c.twin import pycore

    names = names_of((ROOT / "execnet_c/_core.pyi").read_text())
    assert len(names) > 60 and "Channel.receive" in names and "dumps" in names and "_Readable" not in names

    chan = pycore.Chan(1, 1)
    chan.closed = True  # nobody has to be told of its end
    channel = pycore.Channel._new(pycore.Channel, pycore.Gateway(), chan)
    instances = {"RemoteError": pycore.RemoteError("text"), "Channel": channel}

    def has(name):
        owner, _, attribute = name.rpartition(".")
        return hasattr(instances.get(owner) or (getattr(pycore, owner) if owner else pycore), attribute)

    assert sorted(name for name in names if not has(name)) == sorted(words(NAMES_ONLY_C))
