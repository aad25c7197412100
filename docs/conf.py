"""Sphinx builds the pages by this: `make docs`."""

import execnet_c

project = "execnet_c"
author = "the execnet_c developers"
release = version = execnet_c.__version__
extensions = ["sphinx.ext.autodoc", "sphinx.ext.viewcode"]
html_theme = "furo"
html_title = "execnet_c"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
autodoc_member_order = "bysource"
autodoc_typehints = "none"
nitpicky = True
default_role = "literal"  # docstrings name things in single back quotes
exclude_patterns = ["_build"]
