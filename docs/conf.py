"""Sphinx's settings: ``make docs`` builds the site into ``build/docs``."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import sb3_rlx2  # noqa: E402  from this checkout

project = "sb3_rlx2"
author = "sb3_rlx2 contributors"
version = release = sb3_rlx2.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.mathjax", "sphinx.ext.viewcode", "links"]
source_suffix = {".md": "markdown"}
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = f"sb3_rlx2 {version}"
html_show_sourcelink = False
html_show_copyright = False

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # docstrings say what arguments are
