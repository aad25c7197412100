"""python -m execnet_c run: a program runs as Python itself would run it, but for what `import execnet` means."""

import os
import re
import signal
import subprocess
import sys
import zipfile

import pytest

from conftest import TIMEOUT

pytestmark = pytest.mark.any_core

# Says what a program can find out about how it was started; then does what its first argument asks for.
PROGRAM = """\
import __main__, atexit, sys, threading

print(sys.argv, sys.path[0], __name__, __file__, __spec__, __package__, __doc__, type(__loader__).__name__)
print(sorted(globals()), __main__.__dict__ is globals(), __builtins__)
value = "still there"
atexit.register(lambda: print("at exit", value))
thread = threading.Timer(0.2, lambda: print("thread", value))
thread.start()


def fail():
    raise ValueError("no")


what = sys.argv[1]
if what == "raise":
    fail()
elif what == "chain":
    try:
        fail()
    except ValueError:
        raise KeyError("k")
elif what == "status":
    sys.exit(5)
elif what == "words":
    sys.exit("words for stderr")
elif what == "interrupt":
    raise KeyboardInterrupt
elif what == "hook":
    import traceback

    sys.excepthook = lambda kind, value, tb: print("hook", kind, traceback.extract_tb(tb)[-1].lineno, value.__traceback__ is tb)
    1 / 0
elif what == "import":
    import no_such_module
elif what == "read":
    print(sys.stdin.read(), file=sys.stderr)
"""

STARTS = ["program.py", "elsewhere/link.py", "-m package", "-m program", "directory", "archive.zip"]
WAYS = ["raise", "chain", "status", "words", "interrupt", "hook", "import", "read", "nothing"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("programs")
    (folder / "program.py").write_text(PROGRAM)
    for name in ("package", "directory"):
        (folder / name).mkdir()
        (folder / name / "__main__.py").write_text(PROGRAM)
    (folder / "package" / "__init__.py").write_text("")
    (folder / "empty").mkdir()
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "link.py").symlink_to(folder / "program.py")
    with zipfile.ZipFile(folder / "archive.zip", "w") as archive:
        archive.write(folder / "program.py", "__main__.py")
    (folder / "bad.py").write_text("def f(:\n")
    (folder / "importer.py").write_text("import no_such_module\n")
    (folder / "latin.py").write_bytes(b"# coding: latin-1\nprint(ascii('\xe4'))\n")
    return folder


def outcome(folder, *words, options=()):
    done = subprocess.run(
        [sys.executable, *options, *words],
        cwd=folder,
        input="from stdin",
        capture_output=True,
        encoding="utf-8",
        timeout=TIMEOUT,
    )
    errors = re.sub(r'  File "(<frozen |.*/runpy\.py").*\n(    .*\n)*', "", done.stderr)  # where Python itself runs a module
    return done.returncode, re.sub("0x[0-9a-f]+", "0x", done.stdout), errors


@pytest.mark.parametrize(
    "start, way",
    [
        # Each start, and each way; all of them together are deep.
        pytest.param(start, way, marks=[pytest.mark.deep] * (start != STARTS[0] and way not in ("raise", "status")))
        for start in STARTS
        for way in WAYS
    ],
)
def test_it_runs_as_by_python(folder, start, way):
    words = [*start.split(), way, "--option", "-m", "run"]
    expected = outcome(folder, *words)
    assert outcome(folder, "-m", "execnet_c", "run", *words) == expected
    assert "--option" in expected[1]
    assert expected[0] == {"status": 5, "interrupt": -signal.SIGINT, "read": 0, "nothing": 0}.get(way, 1)


@pytest.mark.parametrize("start", ["bad.py", "importer.py", "latin.py", "-m importer", "-m json.tool --no-such"])
def test_programs_that_are_none_fail_as_by_python(folder, start):
    assert outcome(folder, "-m", "execnet_c", "run", *start.split()) == outcome(folder, *start.split())


def test_isolated(folder):
    words = ["program.py", "raise"]
    assert outcome(folder, "-m", "execnet_c", "run", *words, options=["-I"]) == outcome(folder, *words, options=["-I"])


@pytest.mark.parametrize(
    "words, status, text",
    [
        (["no_such.py"], 2, "can't open 'no_such.py': No such file or directory"),
        (["empty"], 1, "there is no __main__.py in 'empty'"),
        (["-m", "no_such"], 1, "no module named 'no_such'"),
        (["-m", "package.no_such"], 1, "no module named 'package.no_such'"),
        (["-m", "no_such.inside"], 1, "no module named 'no_such.inside'"),
        (["-m", "math"], 1, "module 'math' has no Python code"),
    ],
)
def test_what_is_not_there(folder, words, status, text):
    expected = f"python -m execnet_c run: {text}\n"
    assert outcome(folder, "-m", "execnet_c", "run", *words) == (status, "", expected)
    assert outcome(folder, *words)[0] == status, "as Python"


@pytest.mark.parametrize("words, status", [([], 2), (["-m"], 2), (["--unknown"], 2), (["--help"], 0)])
def test_usage(folder, words, status):
    found, out, err = outcome(folder, "-m", "execnet_c", "run", *words)
    assert found == status
    assert "run SCRIPT [ARG...]" in (err if status else out)


def test_a_program_of_execnet_s(folder):
    """Untouched; its workers have execnet_c, too."""
    (folder / "uses.py").write_text(
        "import execnet, execnet.gateway_base\n"
        "from execnet import Group\n"
        "if __name__ == '__main__':\n"
        "    group = Group(['popen'] * 2)\n"
        "    for channel in group.remote_exec('import execnet; channel.send(execnet.__name__)'):\n"
        "        print(channel.receive(60), execnet.__name__, execnet.gateway_base.Channel.__name__)\n"
    )
    assert outcome(folder, "-m", "execnet_c", "run", "uses.py") == (0, "execnet_c execnet_c Channel\n" * 2, "")


def test_help_names_both_commands(folder):
    status, out, err = outcome(folder, "-m", "execnet_c", "--help")
    assert (status, err) == (0, "")
    assert re.search(r"^ +check ", out, re.MULTILINE) and re.search(r"^ +run ", out, re.MULTILINE)
    assert os.linesep in out
