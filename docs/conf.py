"""How Sphinx makes the site of these pages and chapters: `python -m sphinx -W docs site`, with the extra `book`.

A chapter is a Python file, docs/book/NN_name.py, whose cells are executed in every build. Everything that a page needs
lies beside it, so that the site opens from a folder, without a server and without the web.
"""

import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
# The chapters run with the library of this checkout, whose lines they quote, and not with one installed earlier.
PACKAGES = [str(HERE.parent), str(HERE.parent / "kernels")]
sys.path[:0] = [str(HERE), *PACKAGES]
os.environ["PYTHONPATH"] = os.pathsep.join([*PACKAGES, os.environ.get("PYTHONPATH", "")])
os.environ.pop("MPLBACKEND", None)  # a backend chosen for the shell would keep pictures from the cells

import tinyvae

project = "tinyvae"
author = "the authors of tinyvae"
release = tinyvae.__version__
language = "en"

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.mathjax", "numpydoc", "extension"]
exclude_patterns = ["conf.py", "extension", "book/WRITING.md"]

# ---- Markdown and chapters -------------------------------------------------------------------------------------------

myst_enable_extensions = ["amsmath", "dollarmath"]
myst_heading_anchors = 3
myst_url_schemes = ["http", "https", "source"]  # source:tinyvae/engine/tape.py is a page made by extension/sources.py
nb_custom_formats = {".py": "extension.notebooks.read"}
nb_execution_mode = "force"  # a cache does not see that the library has changed
nb_execution_raise_on_error = True
nb_execution_in_temp = True
nb_execution_timeout = 120  # seconds, for a chapter
nb_merge_streams = True
mathjax_path = "mathjax/tex-svg.js"

# ---- the reference ---------------------------------------------------------------------------------------------------

numpydoc_show_class_members = False  # autodoc shows them
autodoc_default_options = {"members": True}
autodoc_typehints = "none"  # the signature would be longer than what it says; the docstrings give shapes and units
autodoc_preserve_defaults = True  # as the source writes them, not as this machine shows them

# ---- the look --------------------------------------------------------------------------------------------------------

html_theme = "furo"
html_title = "tinyvae"
html_static_path = ["_static"]
html_css_files = ["book.css"]
html_copy_source = html_show_sourcelink = False
html_show_sphinx = html_show_copyright = False
pygments_style, pygments_dark_style = "a11y-high-contrast-light", "a11y-high-contrast-dark"
