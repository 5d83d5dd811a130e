"""How `make docs` builds this folder into a site.

Sphinx with furo and MyST, not mkdocs-material: looked up in November 2026, mkdocs 1.6.1 has had no release for two
years, mkdocs-material calls itself inactive and ends in May 2027, and its successor Zensical is a beta that could not
be installed. Sphinx is kept well, fails on broken links and anchors, reads
docstrings by itself, and its search works from a folder, without a server. The pages stay plain Markdown.
"""

from __future__ import annotations

from importlib import metadata

project = "Framelane"
author = "the Framelane authors"
version = release = metadata.version("framelane")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["site"]
# Every heading down to the third level can be linked to, as on code hosts.
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
# As it is written in the code, not as an object looks when it is printed.
autodoc_preserve_defaults = True
autodoc_class_signature = "mixed"
# One line a parameter where a signature is long.
maximum_signature_line_length = 90
python_use_unqualified_type_names = True
add_module_names = False
# Docstrings put code into single backticks.
default_role = "code"
napoleon_numpy_docstring = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = f"Framelane {release}"
html_static_path = ["site/static"]
html_css_files = ["framelane.css"]
html_show_sphinx = False
html_show_copyright = False
html_copy_source = False
# The page footer's link to a host; the site makes no request to any.
html_theme_options = {"footer_icons": [], "top_of_page_buttons": []}
pygments_style, pygments_dark_style = "friendly", "github-dark"
