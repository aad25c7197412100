"""What ARCHITECTURE, GLOSSARY and CONTRIBUTING say is there: files, names of the sources, targets of make, codes."""

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.any_core

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = ["ARCHITECTURE.rst", "CONTRIBUTING.rst", "GLOSSARY.rst"]
FOLDERS = ["execnet_c", "src", "tests", "benchmarks", "examples"]
PYTHONS_OWN = {"Python.h"}
ENDINGS = "c|h|py|pyi|rst|sh|toml|txt|yaml"


def files():
    """All there are, as they are called from the top."""
    found = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file()]
    return {path.relative_to(ROOT).as_posix() for path in [*found, *ROOT.glob("*.*")]}


def sources():
    return "\n".join((ROOT / name).read_text() for name in sorted(files()) if re.search(r"\.(c|h|py|pyi|sh)$", name))


def named_files(text):
    return set(re.findall(rf"(?<![\w./*-])(?:[\w.-]+/)*[\w-]+\.(?:{ENDINGS})\b", text)) - PYTHONS_OWN


def missing_files(text, there):
    """Those that a text names and nobody has. A name may leave out the folders in front of it."""
    return sorted(name for name in named_files(text) if not any(f"/{path}".endswith(f"/{name}") for path in there))


def missing_names(text, source):
    """Names of the C sources, and functions, that a text has in its code and the sources have not."""
    code = "\n".join(re.findall(r"``(.+?)``", text, re.DOTALL))
    names = re.findall(r"\b(?:xc|XC|xcpy|XCPY)_\w+\b", code) + re.findall(r"\b(\w+)\(", code)
    return sorted({name for name in names if not re.search(rf"\b{name}\b", source)})


def missing_targets(text, makefile):
    targets = re.findall(r"``make ([a-z][a-z-]*)", text)
    return sorted({target for target in targets if not re.search(rf"^{target}:", makefile, re.MULTILINE)})


def test_what_is_missing_is_seen():
    there = {"src/core/wire/xc_frame.h", "README.rst"}
    assert missing_files("``wire/xc_frame.h`` and ``README.rst``, see xc_frame.h", there) == []
    assert missing_files("``ire/xc_frame.h``, ``src/xc_frame.h``, README.txt", there) == [
        "README.txt",
        "ire/xc_frame.h",
        "src/xc_frame.h",
    ]
    source = "xc_frame_pack(void)\ndef finish():"
    assert missing_names("``xc_frame_pack`` and ``finish()``; xc_none()", source) == []
    assert missing_names("``xc_frame`` and ``start(now)``", source) == ["start", "xc_frame"]
    assert missing_targets("``make lint`` and ``make nothing-of-it``", "lint: all\n") == ["nothing-of-it"]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_what_a_document_names_is_there(name):
    text = (ROOT / name).read_text()
    assert len(named_files(text)) > 15
    assert missing_files(text, files()) == []
    assert missing_names(text, sources()) == []
    assert missing_targets(text, (ROOT / "Makefile").read_text()) == []


def test_the_readme_leads_to_them():
    text = (ROOT / "README.rst").read_text()
    assert [name for name in DOCUMENTS if f"<{name}>`_" not in text] == []


def test_the_table_of_codes_is_the_one_of_both_cores():
    from execnet_c.twin import pywire

    text = (ROOT / "ARCHITECTURE.rst").read_text()
    told = {int(number): name for number, name in re.findall(r"^(\d+) +([A-Z_]+)  ", text, re.MULTILINE)}
    enum = re.search(r"typedef enum \{(.*?)\} xc_code;", (ROOT / "src/core/wire/xc_frame.h").read_text(), re.DOTALL)[1]
    assert told == {int(number): name for name, number in re.findall(r"^ +XC_(\w+) = (\d+),", enum, re.MULTILINE)}
    assert told == dict(enumerate(pywire.NAMES))


def test_the_opcodes_are_those_of_the_serializer():
    text = (ROOT / "ARCHITECTURE.rst").read_text()
    block = re.search(r"pyserializer.py``\)::\n\n(.*?)\n\n", text, re.DOTALL)[1]
    header = (ROOT / "src/core/wire/xc_opcodes.h").read_text()
    assert dict(re.findall(r"(\S) ([A-Z0-9_]+)", block)) == {
        opcode: name for name, opcode in re.findall(r"XC_OP_(\w+) = '(.)'", header)
    }


def test_the_hooks_of_pre_commit_are_local():
    """They run what `make lint` runs, and fetch nothing."""
    text = (ROOT / ".pre-commit-config.yaml").read_text()
    assert re.findall(r"- repo: (\S+)", text) == ["local"] and "://" not in text
    entry = re.search(r"entry: make (.*)", text)[1]
    assert missing_targets(f"``make {entry}``", (ROOT / "Makefile").read_text()) == []
    lint = re.search(r"^lint: (.*)", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    assert set(entry.split()) <= set(lint.split())
