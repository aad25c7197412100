"""Prints what the tests need beside the package, a line each, as pip is to be told: for `make test-needs` on a free-threaded
Python, for which much cannot be had. Then each is to be installed by itself."""

import pathlib
import re

EXTRA = re.compile(r"^test = \[(.*?)^\]", re.DOTALL | re.MULTILINE)

text = (pathlib.Path(__file__).parent.parent / "pyproject.toml").read_text()
for need in re.findall(r'"(.*?)"', EXTRA.search(text).group(1)):
    print(need)
