"""Sphinx's settings. `build.py` gathers the sources; every page has all that it needs beside it."""

import re
from importlib.resources import files

from docutils.nodes import SkipNode
from math_core import LatexError, LatexToMathML
from sphinx.util.logging import getLogger

import fieldmarks

TEX = LatexToMathML(fancy_error=False)

project = "Fieldmarks"
author = copyright = "the authors of Fieldmarks"
release = fieldmarks.__version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["readme.md"]  # index.md has a part of it

html_theme = "furo"
html_title = project
html_static_path = ["_static", str(files("ziamath") / "fonts" / "STIXTwoMath-Regular.ttf")]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_use_index = html_domain_indices = False  # there is a search

nb_execution_mode = "off"  # build.py has executed them
nb_ipywidgets_js = {}  # it would be fetched from elsewhere; build.py leaves no widgets
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3

add_module_names = False
autodoc_inherit_docstrings = False  # torch's, of methods that are overridden
autodoc_member_order = "bysource"
napoleon_use_ivar = True  # attributes as a list: they are documented one by one, too
autodoc_default_options = {"exclude-members": "set"}  # matplotlib adds one to its subclasses
default_role = "code"  # of `words` in docstrings
maximum_signature_line_length = 60
suppress_warnings = ["ref.python"]  # of types that are written by their last name
python_use_unqualified_type_names = True
toc_object_entries_show_parents = "hide"


def plain_prose(app, what, name, obj, options, lines: list[str]) -> None:
    """Docstrings are plain text. What is indented below a paragraph is code, and |x| and x_ mean
    what they say; to Sphinx they would be markup."""
    if lines and lines[0].startswith("Alias for field number"):
        lines.clear()  # what Python says of a named tuple's
    told, code = [], False
    for line in lines:
        if line.startswith("    ") and told[-1:] == [""] and told[-2:][0][:1] not in ("", " "):
            told += ["::", ""]
            code = True
        code = code and (line == "" or line.startswith("    "))
        told.append(line if code else re.sub(r"\||(?<=\w)_(?=\W|$)", r"\\\g<0>", line))
    lines[:] = told


def visit_math(translator, node):
    """TeX as MathML, which browsers draw without a script."""
    text, block = node.astext(), node.tagname == "math_block"
    if r"\tag{" in text and r"\begin{" not in text:  # which MathJax takes anywhere
        text = rf"\begin{{equation}}{text}\end{{equation}}"
    try:
        drawn = TEX.convert_with_local_state(text, displaystyle=block)
        translator.body.append(f'<div class="math">{drawn}</div>' if block else drawn)
    except LatexError as error:
        getLogger(__name__).warning("%s: %s", error, text, location=node)
    raise SkipNode


def setup(app):
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math, None))
    app.connect("autodoc-process-docstring", plain_prose, priority=400)  # before napoleon


html_math_renderer = "mathml"
