"""The one-page report of a study: the verdict, then what its executed figure notebooks show; one
file, no network.

Whatever comes from records or notebooks is escaped or sanitised: names and texts are data, never
markup.
"""

import base64
import re
import warnings
from pathlib import Path
from typing import Any

import jinja2
import nbformat
import pandas as pd
import yaml
from markupsafe import Markup
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbconvert.preprocessors.sanitize import SanitizeHTML

from dwlt_lib import files
from dwlt_lib.analysis import double_win, paper_results
from dwlt_lib.plotting import captions, study_overview, style
from dwlt_lib.records import store

PAPER = r"(?ms)^\*\*What the paper found\*\*.*?(?:\n\n|\Z)"
HEAVY = 400_000  # bytes of SVG: a picture that takes more comes as PNG
SHOWN = "report"  # the tag of the cells to show; of a notebook without it, all
TAGS = (
    "h1 h2 h3 h4 h5 h6 table caption thead tbody tr th td p br b i em strong code pre blockquote ul"
    " ol li sub sup"
)
CLEAN = SanitizeHTML(tags=TAGS.split(), attributes={"*": ["colspan", "rowspan"]}, strip=True)
TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def build(study: str) -> Path:
    """Write outputs/studies/NAME/report.html from the records and executed notebooks there are.

    Returns its path.
    """
    noted, folder = store.study(study), store.study_dir(study)
    damaged: list[str] = []  # they count as missing
    found = store.table(study=study, damaged=damaged)
    missing, params = store.missing(study), noted["params"]
    asked, parameters = _parameters(params)
    with warnings.catch_warnings(action="ignore"):  # the page says it
        verdict = _verdict(store.table("transfer", study=study, damaged=damaged))
    paths = (folder / "notebooks").glob("*.ipynb")
    shown = [path for path in sorted(paths) if re.match("00_tour|1[0-9]_", path.name)]
    page = TEMPLATES.get_template("report.html.j2").render(
        title=params.get("title") or f"Study {study}",
        study=study,
        found=len(found),
        planned=len(noted["ids"]),
        missing=missing,
        where=store.published_source(study),
        verdict=verdict,
        chapters=[chapter for path in shown if (chapter := _chapter(path, folder / "figures"))],
        asked=asked,
        parameters=parameters,
        cost=_cost(found),
        versions=_versions(found),
        failures=_failures(folder / "notebooks", missing),
    )
    target = folder / "report.html"
    target.parent.mkdir(parents=True, exist_ok=True)
    return files.write(target, page)


def _table(frame: pd.DataFrame, look: str) -> Markup:
    """A table of that class; pandas escapes everything in it."""
    with pd.option_context("display.max_colwidth", None):
        return Markup(frame.to_html(index=False, border=0, na_rep="–", classes=look))


TEMPLATES.filters["table"] = _table


def _percent(values: pd.Series) -> list[str]:
    return ["–" if pd.isna(value) else style.percent(value) for value in values]


def _ordered(frame: pd.DataFrame, *more: str) -> pd.DataFrame:
    """Data sets, the most data first; then methods and pre-trainings in the paper's order."""
    rank = {name: i for i, name in enumerate((*style.METHODS, *style.PRETRAININGS))}
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
        f"{style.dataset_name(d)}, {100 * f:g} %"
        for d, f in zip(frame["dataset"], frame["fraction"], strict=True)
    ]
    return {"data": data, "method": frame["method"], "theta_p": frame["pretraining"]}


def _verdict(table: pd.DataFrame) -> dict[str, Any]:
    """The extreme double-win sparsities, every reading of the rule beside them, and the paper's
    own.
    """
    own = (
        pd.Series(paper_results.PAPER_EXTREMES)
        .map("{:.2%}".format)
        .unstack(sort=False)
        .rename(columns=style.dataset_name)
    )
    own = own.rename_axis(["theta_p", "method"]).reset_index().iloc[:, [1, 0, 2, 3, 4]]
    shown = {"headline": captions.headline(table), "paper": own, "extremes": None}
    verdict_rows = double_win.verdict(table) if len(table) else table
    if verdict_rows.empty:
        return shown
    levels = double_win.criteria(table)
    found = _ordered(
        verdict_rows.merge(double_win.alternatives(table).reset_index(), on=double_win.GROUP)
    )
    first, *others = double_win.alternatives(table).columns
    columns = {("", name): values for name, values in _who(found).items()}
    columns["", "levels"] = found["levels"]
    columns["double win", "one std"] = _percent(found[first])
    for c in double_win.CRITERIA:
        columns["by one criterion alone", style.CRITERION_NAMES[c]] = _percent(found[c])
    for name in others:
        columns["double win, other readings", name.replace("_", " ")] = _percent(found[name])
    return shown | {
        "extremes": pd.DataFrame(columns),
        "levels": _levels(levels),
        "at_chance": double_win.chance_warnings(levels),
        "seeds": table["seed"].nunique(),
        "unknown": found["unknown"].sum(),
    }


def _levels(found: pd.DataFrame) -> pd.DataFrame:
    found = _ordered(found, "rounds")
    shown = {**_who(found), "sparsity": _percent(found["sparsity"])}
    for c in double_win.CRITERIA:
        parts = [100 * found[f"{c}_{part}"] for part in ("difference", "low", "high")]
        shown[style.CRITERION_NAMES[c]] = [
            f"{gap:+.1f} [{low:+.1f}, {high:+.1f}] {status}".replace("nan", "–")
            for gap, low, high, status in zip(*parts, found[f"{c}_status"], strict=True)
        ]
    return pd.DataFrame({**shown, "double win": found["double_win"]})


def _parameters(params: dict[str, Any]) -> tuple[pd.DataFrame, str]:
    """What the study varies, and all its parameters as YAML."""
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
        values = study_overview.requested_values(params, key)
        asked[key] = ", ".join(map(str, values))
        if key == "rounds":
            shares = study_overview.requested_sparsities(params).values()
            asked["sparsity (%)"] = ", ".join(map(style.percent, shares))
    full = re.sub(
        r"(?m)^.*: null\n", "", yaml.safe_dump(params, sort_keys=False, allow_unicode=True)
    )
    return pd.DataFrame({"parameter": asked.keys(), "value": asked.values()}), full


def _cost(found: pd.DataFrame) -> dict[str, Any] | None:
    """Records, core time and arithmetic by kind, and when their jobs began; None: no record yet."""
    if found.empty:
        return None
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
    cost = {"kinds": pd.DataFrame(shown), "total": _duration(kinds["core"]["in all"]), "first": ""}
    began = pd.to_datetime(made["made"], errors="coerce", utc=True).dropna()
    if len(began):
        cost["first"], cost["last"] = (f"{t:%Y-%m-%d %H:%M}" for t in (began.min(), began.max()))
        cost["span"] = _duration((began.max() - began.min()).total_seconds())
    return cost


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


def _versions(found: pd.DataFrame) -> pd.DataFrame | None:
    """With what and where the records were made: code, torch, Python, device, threads."""
    if found.empty:
        return None
    keys = ["code", "torch", "python", "device", "threads"]
    made = (
        pd.DataFrame([store.read(id).made for id in found["id"]])
        .reindex(columns=keys)
        .fillna("–")
        .astype(str)
    )
    return made.value_counts().rename("records").reset_index()


def _clean(html: str) -> Markup:
    """HTML with the tags of text and tables only.

    No script, no style, no picture from elsewhere.
    """
    html = re.sub(r"(?is)<(style|script)\b.*?</\1\s*>", "", html)
    return Markup(CLEAN.sanitize_html_tags(html))


def _chapter(path: Path, figures: Path) -> dict[str, Any] | None:
    """An executed notebook's title, and its prose and outputs without its code as (kind, content);
    None if nothing is to be shown.

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
    picture, paper = None, Markup()
    for cell in [*(tagged or cells), None]:
        outputs = cell.outputs if cell is not None and cell.cell_type == "code" else []
        said = "".join(
            out.text for out in outputs if out.output_type == "stream" and out.name == "stdout"
        ).strip()
        if picture and (outputs or cell is None or cell.cell_type == "markdown"):
            parts += [_figure(picture, said or title, bool(said)), ("paper", paper)]
            outputs = [out for out in outputs if out.output_type != "stream"]
            picture, paper = None, Markup()
        if cell is not None and cell.cell_type == "markdown":
            parts.append(("paper", paper))
            text, paper = _prose(cell.source)
            parts.append(("prose", text))
        for output in outputs:
            if found := _picture(output, cell.source, figures):
                parts += [_figure(picture, title, False)] if picture else []
                picture = found
            else:
                parts.append(_output(output))
    return {"title": title, "parts": [*parts, ("paper", paper)]} if parts else None


def _prose(source: str) -> tuple[Markup, Markup]:
    """A markdown cell as HTML, one level deeper and without its title.

    Apart from it, what the paper found, which is kept for the figure.
    """
    text = re.sub(r"(?m)\A# .*|^(?=##)", lambda mark: "" if mark[0] else "#", source)
    text, found = re.subn(PAPER, "", text), re.search(PAPER, text)
    html = MarkdownWithMath(IPythonRenderer(escape=True, exclude_anchor_links=True)).render(text[0])
    paper = MarkdownWithMath(IPythonRenderer(escape=True)).render(found[0]) if found else ""
    return _clean(html), _clean(paper)


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


def _figure(picture: tuple[str, bytes], said: str, captioned: bool) -> tuple[str, dict[str, Any]]:
    """A picture with its sentence; it is as wide as a column of text or as the page."""
    kind, content = picture
    width = re.search(rb'<svg[^>]*? width="([\d.]+)pt"', content)
    return "figure", {
        "type": kind,
        "data": base64.b64encode(content).decode(),
        "look": "column" if width and float(width[1]) < 300 else "page",
        "said": said,
        "captioned": captioned,
    }


def _output(output: Any) -> tuple[str, str]:
    """One output of a cell: a table or printed text; what only a live page can show is left out."""
    if output.output_type == "stream":
        return "said", output.text if output.name == "stdout" else ""
    data = output.get("data", {})
    if any("widget" in kind for kind in data):
        return "text", ""
    if "text/html" in data:
        return "table", _clean(data["text/html"])
    return "text", data.get("text/plain", "")


def _failures(folder: Path, missing: int) -> list[str]:
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
    return lines
