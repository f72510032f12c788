"""The one-page report of a study: the verdict, then what its executed figure notebooks show; one
file, no network.

Whatever comes from records or notebooks is escaped or sanitised: names and texts are data, never
markup.
"""

import base64
import re
import warnings
from html import escape
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
import yaml
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbconvert.preprocessors.sanitize import SanitizeHTML

from dwlt_lib import files
from dwlt_lib.analysis import double_win
from dwlt_lib.plotting import captions, figures
from dwlt_lib.records import store

PAPER = r"(?ms)^\*\*What the paper found\*\*.*?(?:\n\n|\Z)"
HEAVY = 400_000  # bytes of SVG: a picture that takes more comes as PNG
SHOWN = "report"  # the tag of the cells to show; of a notebook without it, all
TAGS = (
    "h1 h2 h3 h4 h5 h6 table caption thead tbody tr th td p br b i em strong code pre blockquote ul"
    " ol li sub sup"
)
CLEAN = SanitizeHTML(tags=TAGS.split(), attributes={"*": ["colspan", "rowspan"]}, strip=True)
CSS = """
body { max-width: 60rem; margin: 0 auto; padding: 1rem; color: #222; background: #fff; font: 16px/1.5 sans-serif; }
h1 { line-height: 1.2; margin-bottom: .5rem; } h2 { margin-top: 3rem; border-bottom: 1px solid #ccc; }
p, li, figcaption, pre { max-width: 46rem; } a { color: #0b4f94; }
h1, h2, h3, h4, p, li, pre, figcaption { overflow-wrap: anywhere; }
nav, .note, .paper, .hint { color: #555; font-size: .9em; } nav a { display: inline-block; margin: 0 1em .3em 0; }
.headline { font-size: 1.25em; line-height: 1.4; font-weight: 600; } .problem { color: #a40000; }
code, pre { font: .85rem/1.4 monospace; } pre.said { font: inherit; }
pre { white-space: pre-wrap; background: #f6f6f6; padding: .5rem .75rem; } summary { cursor: pointer; }
figure { margin: 1.25rem 0; } figcaption { border-left: 3px solid #0b4f94; padding-left: .75rem; margin-top: .5rem; }
.paper { border-left: 3px solid #ccc; padding-left: .75rem; } .frame { overflow-x: auto; } .hint { display: none; }
.frame img { display: block; width: 100%; height: auto; } .frame img.column { max-width: 30rem; }
.zoom { position: absolute; opacity: 0; } .zoom:focus-visible + img { outline: 2px solid #0b4f94; }
.scroll { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .82rem; line-height: 1.3; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .5rem; text-align: right; border-bottom: 1px solid #ddd; } thead th { vertical-align: bottom; }
.left th, .left td, .kinds :first-child, .who tr > :nth-child(-n+3) { text-align: left; }
.who td:first-child { white-space: nowrap; } .verdict thead tr:first-child th { text-align: center; }
.verdict td:nth-child(5) { font-weight: bold; background: #eef5fa; } .kinds tbody tr:last-child { font-weight: bold; }
@media (max-width: 50rem) { .headline { font-size: 1.1em; } .hint { display: block; }
.zoom:checked + img { width: 56rem; } }
@media print { @page { size: A4; margin: 16mm 14mm; } body { max-width: none; padding: 0; font-size: 9.5pt; }
nav, .hint, details:not([open]) { display: none; } a { color: inherit; } table { font-size: 7pt; }
.scroll, .frame { overflow: visible; } .scroll table { max-width: 100%; } th, td { padding: .15rem .3rem; }
.frame img.column { max-width: 11cm; } thead { display: table-header-group; } h2 { margin-top: 2em; }
figure, tr, .paper { break-inside: avoid; }
h2, h3, h4, h3 + p, h3 + p + p { break-after: avoid; }
.frame img { max-height: 235mm; object-fit: contain; object-position: left; }
p, li, figcaption, pre { max-width: none; orphans: 3; widows: 3; } }
"""
RULE = """<p>Extreme sparsity (%) of double-win tickets: the sparsest level of (theta_p, mask) that matches its dense
network by SA after standard training and by both SA and RA after adversarial training. <em>Matches</em>: its mean over
seeds is no lower than the dense mean less one standard deviation of dense (section 4.1; ddof 1; the largest such
level). 0.0: only dense does; –: not known.</p>"""
DOUBT = """The paper leaves the rule open: <em>ddof 0</em> takes the population's deviation, <em>eq3</em> is equation 3
(no lower than the dense mean), <em>prefix</em> stops before the first level that does not match. With three seeds a
ticket truly equal to dense passes all three criteria only about half of the time."""


def build(study: str) -> Path:
    """Write outputs/studies/NAME/report.html from the records and executed notebooks there are.

    Returns its path.
    """
    noted, missing = store.study(study), store.missing(study)
    damaged: list[str] = []  # they count as missing
    found, folder = (
        store.table(study=study, damaged=damaged),
        store.study_dir(study) / "notebooks",
    )
    with warnings.catch_warnings(action="ignore"):  # the page says it
        chapters = {"Verdict": _verdict(store.table("transfer", study=study, damaged=damaged))}
    for path in sorted([*folder.glob("00_tour.ipynb"), *folder.glob("1[0-9]_*.ipynb")]):
        if chapter := _chapter(path, store.study_dir(study) / "figures"):
            chapters[chapter[0]] = chapter[1]
    chapters["The study's parameters"] = _parameters(noted["params"])
    chapters |= {
        "Cost": _cost(found),
        "Versions": _versions(found),
        "Failures": _failures(folder, missing),
    }
    chapters = {name: text for name, text in chapters.items() if text}
    title, state = (
        noted["params"].get("title") or f"Study {study}",
        f"{len(found)} of {len(noted['ids'])} records",
    )
    state += (
        f' are there; <strong class="problem">{missing} are missing</strong>'
        if missing
        else ", none missing"
    )
    state += f" ({escape(line)})" if (line := store.where(study)) else ""
    parts = [
        f'<h2 id="part-{i}">{escape(name)}</h2>\n{text}'
        for i, (name, text) in enumerate(chapters.items())
    ]
    links = " ".join(f'<a href="#part-{i}">{escape(name)}</a>' for i, name in enumerate(chapters))
    page = [
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title><style>{CSS}</style></head><body><h1>{escape(title)}</h1>",
        f"<p>Study <code>{escape(study)}</code>: {state}.</p>",
        f'<nav aria-label="Contents">{links}</nav>',
        *parts,
        "</body></html>",
    ]
    target = store.study_dir(study) / "report.html"
    target.parent.mkdir(parents=True, exist_ok=True)
    return files.write(target, "\n".join(page))


def _html(frame: pd.DataFrame, look: str = "") -> str:
    """A table, everything in it escaped, that scrolls by itself where the page is narrow."""
    with pd.option_context("display.max_colwidth", None):
        return (
            "<div"
            f' class="scroll">{frame.to_html(index=False, border=0, na_rep="–", classes=look)}</div>\n'
        )


def _percent(values: pd.Series) -> list[str]:
    return ["–" if pd.isna(value) else figures.percent(value) for value in values]


def _ordered(frame: pd.DataFrame, *more: str) -> pd.DataFrame:
    """Data sets, the most data first; then methods and pre-trainings in the paper's order."""
    rank = {name: i for i, name in enumerate((*figures.METHODS, *figures.PRETRAININGS))}
    by = ["dataset", "fraction", "method", "pretraining", *more]
    return frame.sort_values(
        by,
        ascending=[name != "fraction" for name in by],
        key=lambda values: (
            values.map(lambda value: rank.get(value, len(rank)))
            if values.name in ("method", "pretraining")
            else values
        ),
    )


def _who(frame: pd.DataFrame) -> dict[str, Any]:
    data = [
        f"{figures.name(d)}, {100 * f:g} %"
        for d, f in zip(frame["dataset"], frame["fraction"], strict=True)
    ]
    return {"data": data, "method": frame["method"], "theta_p": frame["pretraining"]}


def _verdict(table: pd.DataFrame) -> str:
    """The extreme double-win sparsities, every reading of the rule beside them, and the paper's
    own.
    """
    own = (
        pd.Series(double_win.PAPER_EXTREMES)
        .map("{:.2%}".format)
        .unstack(sort=False)
        .rename(columns=figures.name)
    )
    own = own.rename_axis(["theta_p", "method"]).reset_index().iloc[:, [1, 0, 2, 3, 4]]
    paper = (
        "<h3>The paper's own</h3><p>ResNet-50 from ImageNet, all data (sections 4.1, 4.2).</p>"
        + _html(own, "left")
    )
    judged = double_win.verdict(table) if len(table) else table
    headline = f'<p class="headline">{escape(captions.headline(table))}</p>\n'
    if judged.empty:
        return f"{headline}{paper}"
    found = _ordered(
        judged.merge(double_win.alternatives(table).reset_index(), on=double_win.GROUP)
    )
    first, *others = double_win.alternatives(table).columns
    shown = {("", name): values for name, values in _who(found).items()} | {
        ("", "levels"): found["levels"]
    }
    shown[("double win", "one std")] = _percent(found[first])
    shown |= {
        ("by one criterion alone", figures.CRITERIA[c]): _percent(found[c])
        for c in double_win.CRITERIA
    }
    shown |= {
        ("double win, other readings", name.replace("_", " ")): _percent(found[name])
        for name in others
    }
    lost = "".join(
        f'<p class="problem">{escape(line)}</p>\n'
        for line in double_win.at_chance(double_win.criteria(table))
    )
    note = f"Seeds: {table['seed'].nunique()}; levels not known: {found['unknown'].sum()}. {DOUBT}"
    return (
        f"{headline}{_html(pd.DataFrame(shown), 'who verdict')}{RULE}\n{lost}<p"
        f' class="note">{note}</p>\n<details><summary>Every level: difference to dense in points,'
        " with its 90 %"
        f" interval</summary>\n{_levels(double_win.criteria(table))}</details>\n{paper}"
    )


def _levels(found: pd.DataFrame) -> str:
    found = _ordered(found, "rounds")
    shown = {**_who(found), "sparsity": _percent(found["sparsity"])}
    for c in double_win.CRITERIA:
        parts = [100 * found[f"{c}_{part}"] for part in ("difference", "low", "high")]
        shown[figures.CRITERIA[c]] = [
            f"{gap:+.1f} [{low:+.1f}, {high:+.1f}] {status}".replace("nan", "–")
            for gap, low, high, status in zip(*parts, found[f"{c}_status"], strict=True)
        ]
    return _html(pd.DataFrame({**shown, "double win": found["double_win"]}), "who")


def _parameters(params: dict[str, Any]) -> str:
    """What the study varies, and all its parameters folded away."""
    asked = {
        "preset": params.get("preset"),
        "network": params.get("arch"),
        "source": params.get("source"),
    }
    if weights := params.get("weights"):
        asked["theta_p from files"] = ", ".join(
            f"{p}: {given['file']} ({(given['theta'] or 'not there yet')[:12]})"
            for p, given in weights.items()
        )
    for key in ("pretraining", "method", "dataset", "fraction", "regime", "rounds", "seeds"):
        values = figures.asked(params, key)
        asked[key] = ", ".join(map(str, values))
        if key == "rounds":
            shares = figures.asked_sparsities(params).values()
            asked["sparsity (%)"] = ", ".join(map(figures.percent, shares))
    full = re.sub(
        r"(?m)^.*: null\n", "", yaml.safe_dump(params, sort_keys=False, allow_unicode=True)
    )
    return (
        f"{_html(pd.DataFrame({'parameter': asked.keys(), 'value': asked.values()}), 'left')}<details><summary>All"
        f" parameters, with presets and defaults</summary>\n<pre>{escape(full)}</pre></details>\n"
    )


def _cost(found: pd.DataFrame) -> str:
    """Records, core time and arithmetic by kind, and when their jobs began."""
    if found.empty:
        return "<p>No record has been made yet.</p>"
    made = pd.DataFrame([store.read(id).made for id in found["id"]])
    made = made.reindex(columns=["seconds", "threads", "gmac", "made"])
    core = (made["seconds"] * made["threads"].fillna(1)).rename("core")
    kinds = pd.concat([found["kind"], core, made["gmac"]], axis=1).groupby("kind", sort=False)
    kinds = kinds.agg(records=("core", "size"), core=("core", "sum"), gmac=("gmac", "sum")).astype(
        float
    )
    kinds.loc["in all"] = kinds.sum()
    rate = kinds["gmac"] / kinds["core"].where(kinds["core"] > 0)
    shown = {
        "kind": kinds.index,
        "records": kinds["records"].astype(int),
        "core time": kinds["core"].map(_duration),
        "GMAC": kinds["gmac"].map("{:,.0f}".format),
        "GMAC a core second": ["–" if pd.isna(value) else f"{value:.1f}" for value in rate],
    }
    began = pd.to_datetime(made["made"], errors="coerce", utc=True).dropna()
    span = ""
    if len(began):
        first, last = (f"{time:%Y-%m-%d %H:%M}" for time in (began.min(), began.max()))
        span = f"; the first job began {first} UTC, the last {last} UTC"
        span += f", {_duration((began.max() - began.min()).total_seconds())} later"
    return (
        f"<p>{_duration(kinds['core']['in all'])} of core time{span}. GMAC: thousand millions of "
        f"multiply-accumulates, counted from the plan.</p>\n{_html(pd.DataFrame(shown), 'kinds')}"
    )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(float(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"{hours} h {minutes:02d} min"
        if hours
        else f"{minutes} min {rest:02d} s"
        if minutes
        else f"{seconds:.1f} s"
    )


def _versions(found: pd.DataFrame) -> str:
    """With what and where the records were made: code, torch, Python, device, threads."""
    if found.empty:
        return ""
    keys = ["code", "torch", "python", "device", "threads"]
    made = (
        pd.DataFrame([store.read(id).made for id in found["id"]])
        .reindex(columns=keys)
        .fillna("–")
        .astype(str)
    )
    return _html(made.value_counts().rename("records").reset_index(), "left")


def _clean(markup: str) -> str:
    """HTML with the tags of text and tables only.

    No script, no style, no picture from elsewhere.
    """
    return CLEAN.sanitize_html_tags(re.sub(r"(?is)<(style|script)\b.*?</\1\s*>", "", markup))


def _chapter(path: Path, figures: Path) -> tuple[str, str] | None:
    """An executed notebook's title, and its prose and outputs without its code; None if nothing is
    to be shown.

    A picture, the line printed next and the paper's finding above it belong together and become one
    figure.
    """
    try:
        cells = nbformat.read(path, as_version=4).cells
    except Exception:  # cut short or damaged: named under failures
        return None
    headings = [re.match(r"# +(.+)", cell.source) for cell in cells if cell.cell_type == "markdown"]
    title, parts = next((found[1] for found in headings if found), path.stem), []
    tagged = [cell for cell in cells if SHOWN in cell.metadata.get("tags", [])]
    picture, paper = None, ""
    for cell in [*(tagged or cells), None]:
        outputs = cell.outputs if cell is not None and cell.cell_type == "code" else []
        said = "".join(
            out.text for out in outputs if out.output_type == "stream" and out.name == "stdout"
        ).strip()
        if picture and (outputs or cell is None or cell.cell_type == "markdown"):
            parts += [_figure(picture, said or title, bool(said)), paper]
            outputs = [out for out in outputs if out.output_type != "stream"]
            picture, paper = None, ""
        if cell is not None and cell.cell_type == "markdown":
            text, paper = _prose(cell.source, paper)
            parts.append(text)
        for output in outputs:
            if found := _picture(output, cell.source, figures):
                parts += [_figure(picture, title, False)] if picture else []
                picture = found
            else:
                parts.append(_output(output))
    return (title, "\n".join([*parts, paper])) if parts else None


def _prose(source: str, waiting: str) -> tuple[str, str]:
    """A markdown cell as HTML, one level deeper and without its title.

    What the paper found is kept for the figure.
    """
    text = re.sub(r"(?m)\A# .*|^(?=##)", lambda mark: "" if mark[0] else "#", source)
    text, found = re.subn(PAPER, "", text), re.search(PAPER, text)
    html = _clean(
        MarkdownWithMath(IPythonRenderer(escape=True, exclude_anchor_links=True)).render(text[0])
    )
    paper = _clean(MarkdownWithMath(IPythonRenderer(escape=True)).render(found[0])) if found else ""
    return waiting + html, paper.replace("<p>", '<p class="paper">', 1)


def _picture(output: Any, source: str, figures: Path) -> tuple[str, bytes] | None:
    """(media type, content) of an output's picture.

    Sharp, as its cell saved it (figures/NAME.svg), or as shown.
    """
    data = output.get("data", {})
    if not {"image/png", "image/svg+xml"} & set(data):
        return None
    saved = re.search(r'"figures" / "([\w.-]+)"', source)
    if saved and (file := figures / f"{saved[1]}.svg").exists():
        drawing = re.sub(rb"(?s)<!--.*?-->|<metadata>.*?</metadata>", b"", file.read_bytes())
        if len(drawing) < HEAVY:
            return "image/svg+xml", drawing
        return "image/png", file.with_suffix(".png").read_bytes()
    if "image/png" in data:
        return "image/png", base64.b64decode(data["image/png"])
    return "image/svg+xml", data["image/svg+xml"].encode()


def _figure(picture: tuple[str, bytes], said: str, caption: bool) -> str:
    """A picture with its sentence, which is its alternative text too.

    On a narrow screen a tap enlarges it.
    """
    kind, content = picture
    width = re.search(rb'<svg[^>]*? width="([\d.]+)pt"', content)
    look = "column" if width and float(width[1]) < 300 else "page"
    image = (
        f'<img class="{look}" alt="{escape(said)}"'
        f' src="data:{kind};base64,{base64.b64encode(content).decode()}">'
    )
    zoom = (
        '<input type="checkbox" class="zoom" aria-label="enlarge the figure">'
        if look == "page"
        else ""
    )
    hint = '<p class="hint">Tap the figure to enlarge it, then scroll sideways.</p>' if zoom else ""
    start = "" if said.startswith("This study") else "<strong>This study.</strong> "
    text = f"<figcaption>{start}{escape(said)}</figcaption>" if caption else ""
    return f'<figure><div class="frame"><label>{zoom}{image}</label></div>{hint}{text}</figure>'


def _output(output: Any) -> str:
    """One output of a cell: a table or printed text; what only a live page can show is left out."""
    if output.output_type == "stream":
        return f'<pre class="said">{escape(output.text)}</pre>' if output.name == "stdout" else ""
    data = output.get("data", {})
    if any("widget" in kind for kind in data):
        return ""
    if "text/html" in data:
        return f'<div class="scroll">{_clean(data["text/html"])}</div>'
    return f"<pre>{escape(data['text/plain'])}</pre>" if "text/plain" in data else ""


def _failures(folder: Path, missing: int) -> str:
    """Notebooks that ended in an error; of those that make records only while some are missing."""
    lines = []
    for path in sorted(folder.glob("[01]*.ipynb")):
        if re.match("0[1-9]", path.name) and not missing:
            continue
        try:
            outputs = [
                out
                for cell in nbformat.read(path, as_version=4).cells
                for out in cell.get("outputs", [])
            ]
            lines += [
                f"{path.name}: {out.ename}: {out.evalue}"
                for out in outputs
                if out.output_type == "error"
            ]
        except Exception as error:
            lines.append(
                f"{path.name}: cannot be read ({type(error).__name__}); run the study again"
            )
    listed = "\n".join(f'<p class="problem">{escape(line)}</p>' for line in lines)
    return listed or "<p>None: no notebook ended in an error.</p>"
