"""The one-page report of a study: the verdict, then what its executed figure notebooks show; one file, no network.

Whatever comes from records or notebooks is escaped or sanitised: names and texts are data, never markup.
"""

import base64
import os
import re
from html import escape
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
import yaml
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbconvert.preprocessors.sanitize import SanitizeHTML

from dwlt_lib import plots, records, winning

SHOWN = "report"  # the tag of the cells to show; of a notebook without it, all
TAGS = "h1 h2 h3 h4 h5 h6 table caption thead tbody tr th td p br b i em strong code pre blockquote ul ol li sub sup"
CLEAN = SanitizeHTML(tags=TAGS.split(), attributes={"*": ["colspan", "rowspan"]}, strip=True)
CSS = """
body { max-width: 900px; margin: 0 auto; padding: 1rem; color: #222; background: #fff; font: 16px/1.5 sans-serif; }
h1 { line-height: 1.2; } h2 { margin-top: 2.5rem; border-bottom: 1px solid #ccc; } a { color: #0072b2; }
h1, h2, h3, h4, p, li, pre { overflow-wrap: anywhere; } nav, .note { color: #555; font-size: .9rem; }
nav a { display: inline-block; margin-right: 1em; } .problem { color: #a40000; }
code, pre { font: .85rem/1.4 monospace; } pre.said { font: inherit; }
pre { white-space: pre-wrap; background: #f6f6f6; padding: .5rem .75rem; }
img { display: block; max-width: 100%; height: auto; margin: 1rem auto; } .scroll { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .82rem; line-height: 1.3; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .5rem; text-align: right; border-bottom: 1px solid #ddd; } thead th { vertical-align: bottom; }
.left th, .left td, .kinds :first-child, .who tr > :nth-child(-n+3) { text-align: left; }
.who td:first-child { white-space: nowrap; } .verdict thead tr:first-child th { text-align: center; }
.verdict td:nth-child(5) { font-weight: bold; background: #eef5fa; }
@media print { body { max-width: none; padding: 0; font-size: 10pt; } nav { display: none; } table { font-size: 7pt; }
.scroll { overflow: visible; } img, tr { break-inside: avoid; } h2, h3 { break-after: avoid; } }
"""
RULE = """<p>Extreme sparsity (%) of double-win tickets: the sparsest level of (theta_p, mask) that matches its dense
network by SA after standard training and by both SA and RA after adversarial training. <em>Matches</em>: its mean over
seeds is no lower than the dense mean less one standard deviation of dense (section 4.1; ddof 1; the largest such
level). 0.0: only dense does; –: not known.</p>"""
DOUBT = """The paper leaves the rule open: <em>ddof 0</em> takes the population's deviation, <em>eq3</em> is equation 3
(no lower than the dense mean), <em>prefix</em> stops before the first level that does not match. With three seeds a
ticket truly equal to dense passes all three criteria only about half of the time."""


def build(study: str) -> Path:
    """Write outputs/studies/NAME/report.html from the records and executed notebooks there are; returns its path."""
    noted, missing = records.study(study), records.missing(study)
    found, folder = records.table(study=study), records.study_dir(study) / "notebooks"
    chapters = {"Verdict": _verdict(records.table("transfer", study=study)), "The study": _parameters(noted["params"])}
    for path in sorted([*folder.glob("00_tour.ipynb"), *folder.glob("1[0-9]_*.ipynb")]):
        if chapter := _chapter(path):
            chapters[chapter[0]] = chapter[1]
    chapters["Cost and origin"] = _cost(found) + _failures(folder, missing)
    title, state = noted["params"].get("title") or f"Study {study}", f"{len(found)} of {len(noted['ids'])} records"
    state += f' are there; <strong class="problem">{missing} are missing</strong>' if missing else ", none missing"
    parts = [f'<h2 id="part-{i}">{escape(name)}</h2>\n{text}' for i, (name, text) in enumerate(chapters.items())]
    links = " ".join(f'<a href="#part-{i}">{escape(name)}</a>' for i, name in enumerate(chapters))
    page = ['<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title><style>{CSS}</style></head><body><h1>{escape(title)}</h1>",
            f"<p>Study <code>{escape(study)}</code>: {state}.</p><nav>{links}</nav>", *parts, "</body></html>"]
    target = records.study_dir(study) / "report.html"
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = target.with_name(f".report-{os.getpid()}")
    scratch.write_text("\n".join(page), encoding="utf-8")
    os.replace(scratch, target)
    return target


def _html(frame: pd.DataFrame, look: str = "") -> str:
    """A table, everything in it escaped, that scrolls by itself where the page is narrow."""
    with pd.option_context("display.max_colwidth", None):
        return f'<div class="scroll">{frame.to_html(index=False, border=0, na_rep="–", classes=look)}</div>\n'


def _percent(values: pd.Series) -> list[str]:
    return ["–" if pd.isna(value) else plots.percent(value) for value in values]


def _ordered(frame: pd.DataFrame, *more: str) -> pd.DataFrame:
    """Data sets, the most data first; then methods and pre-trainings in the paper's order."""
    rank = {name: i for i, name in enumerate((*plots.METHODS, *plots.PRETRAININGS))}
    by = ["dataset", "fraction", "method", "pretraining", *more]
    return frame.sort_values(by, ascending=[name != "fraction" for name in by], key=lambda values: values.map(
        lambda value: rank.get(value, len(rank))) if values.name in ("method", "pretraining") else values)


def _who(frame: pd.DataFrame) -> dict[str, Any]:
    data = [f"{plots.name(d)}, {100 * f:g} %" for d, f in zip(frame["dataset"], frame["fraction"], strict=True)]
    return {"data": data, "method": frame["method"], "theta_p": frame["pretraining"]}


def _verdict(table: pd.DataFrame) -> str:
    """The extreme double-win sparsities, every reading of the rule beside them, and the paper's own."""
    own = pd.Series(winning.PAPER_EXTREMES).map("{:.2%}".format).unstack(sort=False).rename(columns=plots.name)
    own = own.rename_axis(["theta_p", "method"]).reset_index().iloc[:, [1, 0, 2, 3, 4]]
    paper = "<h3>The paper's own</h3><p>ResNet-50 from ImageNet, all data (sections 4.1, 4.2).</p>" + _html(own, "left")
    judged = winning.verdict(table) if len(table) else table
    if judged.empty:
        return f"<p>No ticket has been transferred yet, so there is nothing to judge.</p>\n{paper}"
    found = _ordered(judged.merge(winning.alternatives(table).reset_index(), on=winning.GROUP))
    first, *others = winning.alternatives(table).columns
    shown = {("", name): values for name, values in _who(found).items()} | {("", "levels"): found["levels"]}
    shown[("double win", "one std")] = _percent(found[first])
    shown |= {("by one criterion alone", plots.CRITERIA[c]): _percent(found[c]) for c in winning.CRITERIA}
    shown |= {("double win, other readings", name.replace("_", " ")): _percent(found[name]) for name in others}
    note = f"Seeds: {table['seed'].nunique()}; levels not known: {found['unknown'].sum()}. {DOUBT}"
    return (f'{RULE}\n{_html(pd.DataFrame(shown), "who verdict")}<p class="note">{note}</p>\n'
            "<details><summary>Every level: difference to dense in points, with its 90 % interval</summary>\n"
            f"{_levels(winning.criteria(table))}</details>\n{paper}")


def _levels(found: pd.DataFrame) -> str:
    found = _ordered(found, "rounds")
    shown = {**_who(found), "sparsity": _percent(found["sparsity"])}
    for c in winning.CRITERIA:
        parts = [100 * found[f"{c}_{part}"] for part in ("difference", "low", "high")]
        shown[plots.CRITERIA[c]] = [f"{gap:+.1f} [{low:+.1f}, {high:+.1f}] {status}".replace("nan", "–")
                                    for gap, low, high, status in zip(*parts, found[f"{c}_status"], strict=True)]
    return _html(pd.DataFrame({**shown, "double win": found["double_win"]}), "who")


def _parameters(params: dict[str, Any]) -> str:
    """What the study varies, and all its parameters folded away."""
    asked = {"preset": params.get("preset"), "network": params.get("arch"), "source": params.get("source")}
    for key in ("pretraining", "method", "dataset", "fraction", "regime", "rounds", "seeds"):
        values = {value: None for block in params.get("grid", []) for value in block.get(key, [])}
        asked[key] = ", ".join(map(str, values))
    full = re.sub(r"(?m)^.*: null\n", "", yaml.safe_dump(params, sort_keys=False, allow_unicode=True))
    return (f"{_html(pd.DataFrame({'parameter': asked.keys(), 'value': asked.values()}), 'left')}<details><summary>All "
            f"parameters, with presets and defaults</summary>\n<pre>{escape(full)}</pre></details>\n")


def _cost(found: pd.DataFrame) -> str:
    """Records and seconds by kind, and where and with what they were made."""
    kinds = found.groupby("kind")["seconds"].agg(["size", "sum"]).astype(float)
    kinds.loc["in all"] = kinds.sum()
    cost = {"kind": kinds.index, "records": kinds["size"].astype(int), "seconds": kinds["sum"].map("{:,.1f}".format)}
    keys = ["code", "torch", "python", "device", "threads"]
    made = pd.DataFrame([records.read(id).made for id in found["id"]]).reindex(columns=keys).fillna("–").astype(str)
    return _html(pd.DataFrame(cost), "kinds") + _html(made.value_counts().rename("records").reset_index(), "left")


def _clean(markup: str) -> str:
    """HTML with the tags of text and tables only: no script, no style, no picture from elsewhere."""
    return CLEAN.sanitize_html_tags(re.sub(r"(?is)<(style|script)\b.*?</\1\s*>", "", markup))


def _chapter(path: Path) -> tuple[str, str] | None:
    """An executed notebook's title, and its prose and outputs without its code; None if nothing is to be shown."""
    try:
        cells = nbformat.read(path, as_version=4).cells
    except Exception:  # cut short or damaged: named under failures
        return None
    headings = [re.match(r"# +(.+)", cell.source) for cell in cells if cell.cell_type == "markdown"]
    title, parts = next((found[1] for found in headings if found), path.stem), []
    tagged = [cell for cell in cells if SHOWN in cell.metadata.get("tags", [])]
    for cell in tagged or cells:
        if cell.cell_type == "code":
            parts += [_output(output, title) for output in cell.outputs]
        elif cell.cell_type == "markdown":
            text = re.sub(r"(?m)\A# .*|^(?=##)", lambda mark: "" if mark[0] else "#", cell.source)
            parts.append(_clean(MarkdownWithMath(IPythonRenderer(escape=True, exclude_anchor_links=True)).render(text)))
    return (title, "\n".join(parts)) if parts else None


def _output(output: Any, title: str) -> str:
    """One output of a cell: a picture, a table or printed text; what only a live page can show is left out."""
    if output.output_type == "stream":
        return f'<pre class="said">{escape(output.text)}</pre>' if output.name == "stdout" else ""
    data = output.get("data", {})
    if any("widget" in kind for kind in data):
        return ""
    for kind in ("image/png", "image/svg+xml"):
        if kind in data:
            raw = base64.b64decode(data[kind]) if kind == "image/png" else data[kind].encode()
            return f'<img alt="{escape(title)}" src="data:{kind};base64,{base64.b64encode(raw).decode()}">'
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
            outputs = [out for cell in nbformat.read(path, as_version=4).cells for out in cell.get("outputs", [])]
            lines += [f"{path.name}: {out.ename}: {out.evalue}" for out in outputs if out.output_type == "error"]
        except Exception as error:
            lines.append(f"{path.name}: cannot be read ({type(error).__name__}); run the study again")
    listed = "\n".join(f'<p class="problem">{escape(line)}</p>' for line in lines)
    return f"<h3>Failures</h3>\n{listed}" if lines else ""
