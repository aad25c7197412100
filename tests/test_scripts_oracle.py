"""Whole scripts, each run with execnet and with execnet_c in its place: their output is the same.

A script is a file in `scripts`; those with a leading underscore are what scripts import. What is
printed may differ between two runs only where `normalized` takes it out; and an error of ours may go on where execnet's
ends, with what to do.
"""

import importlib.util
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

SCRIPTS = pathlib.Path(__file__).parent / "scripts"
NAMES = sorted(path.stem for path in SCRIPTS.glob("*.py") if not path.name.startswith("_"))

FRAME = re.compile(r'  File "(?P<file>[^"]*)", line \d+')


def normalized(text, directory):
    """Take out addresses, the directory, what execnet does not say (how frames travel, that nothing was sent), and those
    frames of tracebacks that belong to a library."""
    text = re.sub(r"0x[0-9a-f]+", "0x0", text.replace(os.path.realpath(directory), "DIR").replace(str(directory), "DIR"))
    text = re.sub(r"( active channels), (ring|pipe)>", r"\1>", text)
    text = re.sub(r"EOFError:? ?channel \d+ has ended, nothing had been sent .*", "EOFError ", text)
    text = re.sub(r"""\("(the use of non-builtin globals isn't supported)", \['(\w+)'\]\)""", r"\1: \2", text)
    text = text.replace("can't evaluate lambda functions'", "can't evaluate lambda functions")
    lines, skipping = [], False
    for line in text.splitlines():
        frame = FRAME.match(line)
        if frame:
            skipping = not frame["file"].startswith(("DIR", "<remote"))
        elif not line.startswith("    "):
            skipping = False
        if not skipping:
            lines.append(line)
    return lines


def start(library, name, directory):
    """Start a script with a library in a directory of its own."""
    directory.mkdir()
    for path in SCRIPTS.glob("_*.py"):
        shutil.copy(path, directory)
    text = (SCRIPTS / f"{name}.py").read_text(encoding="utf-8")
    head = "pairing, " if library == "execnet_c" else ""
    text, count = re.subn(r"(?m)^import execnet$", f"import {head}{library} as execnet", text)
    assert count == 1
    script = directory / f"{name}.py"
    script.write_text(text, encoding="utf-8")
    env = {
        **os.environ,
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONIOENCODING": "utf-8",
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    return subprocess.Popen(
        [sys.executable, str(script)],
        cwd=directory,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )


def finish(process, directory):
    """Return what a script printed as lines, its exit status, and what it wrote to stderr."""
    with process:
        try:
            out, err = process.communicate(timeout=60)
        except BaseException:
            process.kill()
            raise
    return normalized(out, directory), process.returncode, err


def agrees(ours, theirs):
    return ours == theirs or (re.match(r"\w+Error\b", theirs) and ours.startswith(theirs))


@pytest.mark.parametrize("name", NAMES)
def test_a_script_prints_the_same(name, tmp_path):
    if importlib.util.find_spec("execnet") is None:
        pytest.skip("execnet is not installed")
    libraries = ["execnet", "execnet_c"]
    running = [start(library, name, tmp_path / library) for library in libraries]
    results = [finish(process, tmp_path / library) for process, library in zip(running, libraries)]
    (expected, status, theirs), (printed, our_status, ours) = results
    assert expected, theirs
    assert len(printed) == len(expected) and all(map(agrees, printed, expected)), (printed, expected, ours)
    assert our_status == status, ours


def test_a_traceback_keeps_the_frames_of_the_script_alone(tmp_path):
    text = "\n".join(
        [
            "RemoteError Traceback (most recent call last):",
            '  File "/usr/lib/python3/library.py", line 5, in run',
            "    function(channel)",
            "    ^^^^^^^^",
            f'  File "{tmp_path}/script.py", line 7, in task',
            "    raise KeyError(1)",
            '  File "<remote exec>", line 1, in <module>',
            "KeyError: 1 at 0x7f00",
        ]
    )
    assert normalized(text, tmp_path) == [
        "RemoteError Traceback (most recent call last):",
        '  File "DIR/script.py", line 7, in task',
        "    raise KeyError(1)",
        '  File "<remote exec>", line 1, in <module>',
        "KeyError: 1 at 0x0",
    ]
