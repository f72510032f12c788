"""The report's chapters: what executed notebooks show, sanitised, without their code."""

import base64
import re
from pathlib import Path
from typing import Any

import nbformat
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from markupsafe import Markup
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbconvert.preprocessors.sanitize import SanitizeHTML

SHOWN = "report"  # the tag of the cells to show; of a notebook without it, all
PAPER = r"(?ms)^\*\*What the paper found\*\*.*?(?:\n\n|\Z)"
MAX_SVG = 400_000  # bytes: a drawing that takes more comes as PNG
COLUMN_WIDTH = 300  # points: a figure that is narrower is shown as wide as a column of text
TALL = 600  # points: a figure that is higher takes most of a printed page
TAGS = (
    "h1 h2 h3 h4 h5 h6 table caption thead tbody tr th td p br b i em strong code pre blockquote ul"
    " ol li sub sup"
)
MATHML = (
    "math mrow mi mn mo mtext mspace msub msup msubsup mfrac msqrt mroot munder mover munderover"
    " mpadded mphantom menclose mstyle mtable mtr mtd"
)
ATTRIBUTES = {
    "*": ["colspan", "rowspan"],
    "math": ["display"],
    "mi": ["mathvariant"],
    "mo": ["stretchy", "accent"],
}
CLEAN = SanitizeHTML(tags=f"{TAGS} {MATHML}".split(), attributes=ATTRIBUTES, strip=True)
GLOSSARY = {
    "dense": "the network before pruning, with the same pre-training, task and training",
    "ticket": "pre-trained weights θ under a mask m",
    "SA": "standard accuracy: of clean test images",
    "RA": "robust accuracy: of test images that PGD has perturbed within eps",
    "ST": "standard training on the task",
    "AT": "adversarial training on the task; as the name of a pre-training, on the source",
    "STD": "standard pre-training",
    "FAT": "fast adversarial pre-training, with one-step attacks",
    "PGD": "projected gradient descent: the attack, in several steps",
    "IMP-ST": "iterative magnitude pruning, which retrains on the source task in the standard way"
    " after each round",
    "IMP-AT": "iterative magnitude pruning, which retrains adversarially after each round",
    "OMP": "one-shot magnitude pruning, without retraining",
    "RP": "random pruning",
}
"""Terms and what they mean, shown where a term is first used."""
TERM = re.compile(rf"(?<![-\w])({'|'.join(sorted(GLOSSARY, key=len, reverse=True))})(?![-\w])")
ChapterPart = tuple[str, Any]  # kind (as the template tells them apart) and content
Picture = tuple[str, bytes]  # media type and content
NOTHING = ("", b"")  # of a figure without records, which is not saved


def chapter(path: Path, figures: Path) -> dict[str, Any] | None:
    """An executed notebook's title, and its prose and outputs.

    A picture, the lines that are printed next and the paper's finding above it belong together and
    become one figure.

    Args:
        path: the notebook.
        figures: the folder in which its figures are saved.

    Returns:
        title, parts, (kind, content) each, and is_shown: whether it has a figure or a table of
        records, or is the tour; None if nothing is to be shown.
    """
    try:
        cells = nbformat.read(path, as_version=4).cells
    except Exception:  # cut short or damaged: named under failures
        return None
    headings = [re.match(r"# +(.+)", c.source) for c in cells if c.cell_type == "markdown"]
    title = next((heading[1] for heading in headings if heading), path.stem)
    tagged = [c for c in cells if SHOWN in c.metadata.get("tags", [])]
    parts: list[ChapterPart] = []
    picture, paper, was_empty, said = None, Markup(), False, set()
    for cell in tagged or cells:
        is_prose = cell.cell_type == "markdown"
        outputs = cell.outputs if cell.cell_type == "code" else []
        if was_empty:  # what is said of a figure without records
            outputs = [out for out in outputs if out.output_type != "stream"]
        if picture and (outputs or is_prose):
            parts.append(_figure(picture, title, _printed(outputs), paper))
            outputs = [out for out in outputs if out.output_type != "stream"]
            picture, paper = None, Markup()
        if is_prose:
            parts.append(("paper", paper))
            text, paper = (_explained(part, said) for part in _prose(cell.source))
            parts.append(("prose", text))
        was_empty = False
        for output in outputs:
            found = _picture(output, cell.source, figures)
            if found == NOTHING:
                paper, was_empty = Markup(), True
                continue
            if found and picture:
                parts.append(_figure(picture, title))
            if found:
                picture = found
            else:
                parts.append(_output(output))
    if picture:
        parts.append(_figure(picture, title, paper=paper))
    else:
        parts.append(("paper", paper))
    if not any(content for _, content in parts):
        return None
    has_results = any(kind in ("figure", "table") and content for kind, content in parts)
    is_shown = has_results or not path.name.startswith("1")
    return {"title": title, "parts": parts, "is_shown": is_shown}


def failures(folder: Path, missing: bool) -> list[str]:
    """A line for each error in which an executed notebook ended.

    Args:
        folder: of the executed notebooks.
        missing: whether records are missing; else notebooks that make records do not count.

    Returns:
        The lines, in the order of the notebooks' names.
    """
    lines = []
    for path in sorted(folder.glob("[01]*.ipynb")):
        if re.match("0[1-9]", path.name) and not missing:
            continue
        try:
            cells = nbformat.read(path, as_version=4).cells
            outputs = [out for cell in cells for out in cell.get("outputs", [])]
            errors = [out for out in outputs if out.output_type == "error"]
            lines += [f"{path.name}: {error.ename}: {error.evalue}" for error in errors]
        except Exception as error:  # nbformat's errors have no common root
            reason = type(error).__name__
            lines.append(f"{path.name}: cannot be read ({reason}); run the study again")
    return lines


def _clean(html: str) -> Markup:
    """HTML with the tags of text and tables only: no script, style, picture or empty head."""
    html = re.sub(r"(?is)<(style|script)\b.*?</\1\s*>", "", html)
    return Markup(re.sub(r"<th>\s*</th>", "<td></td>", CLEAN.sanitize_html_tags(html)))


class _Renderer(IPythonRenderer):
    """Markdown as HTML, its mathematics as MathML, which browsers draw without a script."""

    def inline_math(self, body: str) -> str:
        return self._math(body, is_block=False)

    def block_math(self, body: str) -> str:
        return self._math(body, is_block=True)

    def _math(self, body: str, is_block: bool) -> str:
        try:
            return tex2mathml(body, as_block=is_block)
        except MathError:  # what the converter does not know stays as it was written
            return f"<code>{self.escape_html(body)}</code>"


def _markdown(text: str) -> Markup:
    renderer = _Renderer(escape=True, exclude_anchor_links=True)
    return _clean(MarkdownWithMath(renderer).render(text))


def _prose(source: str) -> tuple[Markup, Markup]:
    """A markdown cell, one level deeper and without its title; and what the paper found, apart."""
    text = re.sub(r"(?m)^(?=##)", "#", re.sub(r"\A# .*", "", source))
    paper = re.search(PAPER, text)
    return _markdown(re.sub(PAPER, "", text)), _markdown(paper[0]) if paper else Markup()


def _explained(text: Markup, said: set[str]) -> Markup:
    """Prose with the meaning of each term where it is first used; `said` are those that were."""

    def explained(match: re.Match[str]) -> str:
        term = match[0]
        if term in said:
            return term
        said.add(term)
        return f'<abbr title="{GLOSSARY[term]}" tabindex="0">{term}</abbr>'

    # not in tags, code, formulas and headings
    pieces = re.split(r"(?s)(<(?:code|math|h\d).*?</(?:code|math|h\d)>|<[^>]*>)", text)
    pieces[::2] = [TERM.sub(explained, piece) for piece in pieces[::2]]
    return Markup("".join(pieces))


def _printed(outputs: list[Any]) -> str:
    """What a cell has printed."""
    streams = [out for out in outputs if out.output_type == "stream" and out.name == "stdout"]
    return "".join(out.text for out in streams).strip()


def _picture(output: Any, source: str, figures: Path) -> Picture | None:
    """An output's picture, if it is one: sharp, as its cell saved it, or as shown."""
    data = output.get("data", {})
    if not {"image/png", "image/svg+xml"} & set(data):
        return None
    saved = re.search(r'style\.save\(.*"([\w.-]+)"\)', source)
    if saved:
        file = figures / f"{saved[1]}.svg"
        if not file.exists():
            return NOTHING
        drawing = re.sub(rb"(?s)<!--.*?-->|<metadata>.*?</metadata>", b"", file.read_bytes())
        if len(drawing) < MAX_SVG:
            return "image/svg+xml", drawing
        return "image/png", file.with_suffix(".png").read_bytes()
    if "image/png" in data:
        return "image/png", base64.b64decode(data["image/png"])
    return "image/svg+xml", data["image/svg+xml"].encode()


def _figure(picture: Picture, title: str, found: str = "", paper: str = "") -> ChapterPart:
    """A picture with its finding and the paper's; the chapter's title describes it."""
    media_type, content = picture
    size = re.search(rb'<svg[^>]*? width="([\d.]+)pt" height="([\d.]+)pt"', content)
    width = "page"
    if size and float(size[1]) < COLUMN_WIDTH:
        width = "column"
    elif size and float(size[2]) > TALL:
        width = "tall"
    return "figure", {
        "type": media_type,
        "data": base64.b64encode(content).decode(),
        "width": width,
        "alt": title,
        "found": found,
        "paper": paper,
    }


def _output(output: Any) -> ChapterPart:
    """A table with rows or printed text; what only a live page can show is left out."""
    if output.output_type == "stream":
        return "printed", output.text if output.name == "stdout" else ""
    data = output.get("data", {})
    if any("widget" in media_type for media_type in data):
        return "text", ""
    if "text/html" in data:
        table = _clean(data["text/html"])
        return "table", Markup() if re.search(r"<tbody>\s*</tbody>", table) else table
    return "text", data.get("text/plain", "")
