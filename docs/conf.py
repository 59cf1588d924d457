"""Sphinx's settings. `build.py` gathers the sources; every page has all that it needs beside it."""

import re

from docutils.nodes import SkipNode
from docutils.utils.math import MathError, latex2mathml
from sphinx.util.logging import getLogger

import fieldmarks

project = "Fieldmarks"
author = copyright = "the authors of Fieldmarks"
release = fieldmarks.__version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["readme.md"]  # index.md has a part of it

html_theme = "furo"
html_title = project
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_use_index = html_domain_indices = False  # there is a search

nb_execution_mode = "off"  # build.py has executed them
nb_ipywidgets_js = {}  # it would be fetched from elsewhere; build.py leaves no widgets
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3

add_module_names = False
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


def mathml(text: str, block: bool) -> str:
    """TeX as MathML, which browsers draw without a script. Raises MathError for what docutils does
    not know."""
    text, *number = re.split(r"\\tag\{(.*?)\}", text)[:2]
    drawn = latex2mathml.tex2mathml(text, as_block=block)
    numbered = f'{drawn}<span class="eqno">({number[0]})</span>' if number else drawn
    return f'<div class="math">{numbered}</div>' if block else drawn


def visit_math(translator, node):
    try:
        translator.body.append(mathml(node.astext(), block=node.tagname == "math_block"))
    except MathError as error:
        getLogger(__name__).warning("%s: %s", error, node.astext(), location=node)
    raise SkipNode


def setup(app):
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math, None))
    app.connect("autodoc-process-docstring", plain_prose, priority=400)  # before napoleon


html_math_renderer = "mathml"
