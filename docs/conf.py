"""How Sphinx builds these pages: `make docs`. The reference is written from the code before each build."""

import sys
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from reference_pages import write_reference  # noqa: E402

project = "unijudge"
author = "the unijudge authors"
copyright = f"2026, {author}"  # noqa: A001  Sphinx's name
version = release = metadata.version("unijudge")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"unijudge {release}"
html_show_sourcelink = False
html_static_path = ["static"]
html_css_files = ["pages.css"]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_google_docstring = True

write_reference(HERE / "reference")
