"""How the pages are built:  make docs.  They need no other host: mathematics is MathML, all else is local."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "pellucid"
copyright = "the pellucid authors, Apache-2.0"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode", "mathml", "plain", "parts", "rooms", "places"]
exclude_patterns = ["_build"]
source_suffix = {".md": "markdown"}
highlight_language = "none"

myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
autodoc_inherit_docstrings = False
autodoc_typehints = "signature"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 140
add_module_names = False
toc_object_entries = False
viewcode_line_numbers = True

html_math_renderer = "mathml"
html_theme = "furo"
html_title = "pellucid"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_copy_source = False
html_show_sourcelink = False
