"""Sphinx: Markdown by MyST, the library's docstrings by autodoc, notebooks as they were executed.

Nothing is fetched while it builds, and the pages ask for nothing but themselves: formulas are
MathML, which browsers draw by themselves.
"""

from __future__ import annotations

import inspect
import os
import re
import sys
from pathlib import Path

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from pydantic import BaseModel

DOCS = Path(__file__).resolve().parent
sys.path[:0] = [str(DOCS), str(DOCS.parent)]
os.environ.setdefault("DWLT_OUTPUTS", str(DOCS / "_build" / "study"))
os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")  # of no concern to the reader

import reference_pages  # noqa: E402

import dwlt_lib  # noqa: E402

reference_pages.write(DOCS / "_generated")

project = "Double-Win Lottery Tickets"
author = "the authors of double-win-lottery-tickets"
release = version = dwlt_lib.__version__
language = "en"

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "_generated/parameters.md", "_generated/commands.md"]
exclude_patterns += ["_generated/modules.md", "**.ipynb_checkpoints"]  # pages include these three
suppress_warnings = ["ref.python"]  # two folders may export one name, as Mask

html_theme = "furo"
html_title = project
html_static_path = ["_static"]
html_css_files = ["style.css"]
html_math_renderer = "mathml"
html_copy_source = False
html_extra_path = [str(reference_pages.STUDY / "report.html")]  # the gallery has a link to it
html_show_copyright = False

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"
nb_ipywidgets_js = {}  # would come from elsewhere, and no notebook of the gallery has widgets
nb_output_stderr = "remove"

autodoc_default_options = {
    "members": True,
    "undoc-members": True,
    "member-order": "bysource",
    "exclude-members": "model_config, __init__, __new__",
}
autodoc_typehints_format = "short"
autodoc_type_aliases = {name: name for name in ("Mask", "Weights")}
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # autodoc describes attributes already; no second index entry


# ------------------------------------------------------------------------------------------
# docstrings are plain text

BUILT_IN = {inspect.getdoc(kind) for kind in (dict, frozenset, int, float, list, str, tuple)}
SECTION = re.compile(r"(Args|Returns|Yields|Raises|Attributes|Examples?|Notes?):")


def plain_text(app, what, name, obj, options, lines: list[str]) -> None:
    """Make reST of a docstring that knows none: what is indented after an empty line is code, a
    line that starts with a dash begins an item, and stars, bars and the like stand for
    themselves."""
    if what == "data" and "\n".join(lines).strip() in BUILT_IN:
        lines.clear()  # what Python says of any dict says nothing of this one
    found: list[str] = []
    section = code = listed = False
    for number, line in enumerate(lines):
        indented, after_gap = line.startswith("    "), number > 0 and not lines[number - 1].strip()
        if not indented and line.strip():
            section, code = bool(SECTION.fullmatch(line.strip())), False
        if indented and after_gap and not section and not code:
            found += ["::", ""]
            code = True
        if listed != (line.startswith("- ") or (listed and line.startswith("  "))):
            found.append("")
            listed = not listed
        found.append(line if code else _escaped(line))
        if line.strip() in ("Returns:", "Yields:"):
            found += ["    ..", ""]  # as for attributes below; types come from annotations
    # napoleon would take what stands before a colon in an attribute's first line for its type; the
    # first line is an empty comment, therefore
    lines[:] = ["..", "", *found] if what in ("attribute", "data") else found


def _escaped(line: str) -> str:
    """Names in `back quotes` become literals; nothing else has a meaning of its own."""
    parts = re.split(r"`([^`]+)`", line)
    text = [re.sub(r"([\\*|`]|(?<=\w)_(?!\w))", r"\\\1", part) for part in parts[::2]]
    literals = [f"``{part}``" for part in parts[1::2]]
    return "".join(part for pair in zip(text, [*literals, ""], strict=True) for part in pair)


def of_fields(app, what, name, obj, options, signature, returned) -> tuple[str, None] | None:
    """No signature for a description: its fields follow, a line each."""
    return ("", None) if what == "class" and issubclass(obj, BaseModel) else None


# ------------------------------------------------------------------------------------------
# formulas


def mathml(translator, node: nodes.Element) -> None:
    """A formula as MathML."""
    block = isinstance(node, nodes.math_block)
    translator.body.append(tex2mathml(node.astext(), as_block=block))
    raise nodes.SkipNode


def setup(app) -> None:
    """What Sphinx calls first."""
    app.connect("autodoc-process-docstring", plain_text, priority=100)  # before napoleon
    app.connect("autodoc-process-signature", of_fields)
    app.add_html_math_renderer("mathml", (mathml, None), (mathml, None))
