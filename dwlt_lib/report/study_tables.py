"""The report's tables: what a study found and what it cost, as they are read.

Records hold fractions; these tables hold percent.
"""

import re
from typing import Any

import pandas as pd
import yaml

from dwlt_lib.analysis import (
    double_win,
    masked_gradients,
    noninferiority,
    paper_results,
    tables,
)
from dwlt_lib.analysis.claims import OPEN
from dwlt_lib.config.studies import Margins
from dwlt_lib.plotting.style import (
    CRITERION_NAMES,
    dataset_name,
    percent,
)
from dwlt_lib.plotting.verdicts import in_paper_order

ORIGIN = ["code", "torch", "python", "device", "threads"]


def verdict(
    transfers: pd.DataFrame,
    by_level: pd.DataFrame,
    margins: Margins,
    networks: pd.DataFrame | None = None,
) -> dict[str, Any]:
    """What is certified of double-win sparsities, what the paper's rule says, and the paper's own.

    Args:
        transfers: of `records.table("transfer")`.
        by_level: of `noninferiority.noninferiority`.
        margins: of the study.
        networks: of `masked_gradients.of_networks`; None: nothing is said of them.

    Returns:
        paper (a table) and extremes: a table, or None where there is nothing to judge. Where there
        is, also certified and levels (tables), margins (in words), warnings
        (lines), seeds and unknown (counts).
    """
    paper = pd.Series(paper_results.PAPER_EXTREMES).map("{:.2%}".format).unstack(sort=False)
    paper = paper.rename(columns=dataset_name).rename_axis(["theta_p", "method"]).reset_index()
    paper.insert(0, "method", paper.pop("method"))
    shown = {"paper": paper, "extremes": None}
    extremes = double_win.verdict(transfers)
    if extremes.empty:
        return shown
    levels, readings = double_win.criteria(transfers), double_win.alternatives(transfers)
    unit = "% of what dense reaches above chance" if margins.relative else "points"
    return shown | {
        "certified": _certified(noninferiority.certified(by_level), networks),
        "margins": f"{100 * margins.SA:g} (SA) and {100 * margins.RA:g} (RA) {unit}",
        "extremes": _extremes(extremes, readings),
        "levels": _levels(by_level),
        "warnings": double_win.chance_warnings(levels),
        "seeds": tables.count_seeds(transfers),
        "unknown": extremes["unknown"].sum(),
    }


def _extremes(extremes: pd.DataFrame, readings: pd.DataFrame) -> pd.DataFrame:
    """A row per (data, method, theta_p): its extreme by each reading of the paper's rule."""
    rows = in_paper_order(extremes.merge(readings.reset_index(), on=double_win.GROUP))
    found = {str(name).replace("_", " "): _percent(rows[name]) for name in readings}
    return pd.DataFrame({**_ticket_columns(rows), **found, "levels": rows["levels"]})


def _certified(certified: pd.DataFrame, networks: pd.DataFrame | None) -> pd.DataFrame:
    """A row per (data, method, theta_p): between which sparsities its extreme lies."""
    rows = in_paper_order(certified)
    shown = {**_ticket_columns(rows), "double win": rows["text"]}
    shown |= {name: rows[name.replace(" ", "_")] for name in noninferiority.STATUSES}
    if networks is not None:
        shown["masked gradients"] = masked_gradients.by_curve(rows, networks)
    return pd.DataFrame(shown)


def _levels(levels: pd.DataFrame) -> pd.DataFrame:
    """A row per level: its difference to dense in points, with its bounds, by criterion."""
    levels = in_paper_order(levels)
    shown = {**_ticket_columns(levels), "sparsity": _percent(levels["sparsity"])}
    for c in double_win.CRITERIA:
        points = 100 * levels[[f"{c}_difference", f"{c}_low", f"{c}_high"]]
        texts = points.apply(lambda row: "{:+.1f} [{:+.1f}, {:+.1f}]".format(*row), axis="columns")
        texts = texts.str.replace("+nan", "–").str.replace("nan", "–")
        shown[CRITERION_NAMES[c]] = texts + " " + levels[f"{c}_status"]
    return pd.DataFrame({**shown, "verdict": levels["status"]})


def claims(found: pd.DataFrame | None, is_decided: bool) -> pd.DataFrame | None:
    """What the records say of the paper's claims, a row per claim and task.

    Args:
        found: of `analysis.claims.claims`; None: they are not judged.
        is_decided: whether those that hold or do not hold, or those that cannot be told.

    Returns:
        claim, what the paper says, where, the verdict or what it would take, and the effect; None
        where there are no rows.
    """
    if found is None:
        return None
    rows = found[(found["verdict"] != OPEN) == is_decided]
    shown = {"claim": rows["number"], "the paper says": rows["claim"], "on": rows["where"]}
    if is_decided:
        shown["here it"] = rows["verdict"]
    shown["effect [interval]"] = rows["measured"].replace("", "no records")
    return pd.DataFrame(shown) if len(rows) else None


def _ticket_columns(table: pd.DataFrame) -> dict[str, Any]:
    """The columns that name a row's ticket."""
    pairs = zip(table["dataset"], table["fraction"], strict=True)
    data = [f"{dataset_name(dataset)}, {100 * fraction:g} %" for dataset, fraction in pairs]
    return {"data": data, "method": table["method"], "theta_p": table["pretraining"]}


def _percent(values: pd.Series) -> list[str]:
    return ["–" if pd.isna(value) else percent(value) for value in values]


def as_yaml(params: dict[str, Any]) -> str:
    """All of a study's parameters.

    Args:
        params: its resolved parameters.

    Returns:
        YAML, without those that are null.
    """
    text = yaml.safe_dump(params, sort_keys=False, allow_unicode=True)
    return re.sub(r"(?m)^.*: null\n", "", text)


def cost(records: pd.DataFrame, made: pd.DataFrame) -> pd.DataFrame | None:
    """Core time and arithmetic of a study's records, by kind and in all.

    Args:
        records: its table, of `records.table`.
        made: when, where and with what each of them was made (`Record.made`), a row each.

    Returns:
        kind, records, core time and GMAC; None where there are no records.
    """
    if records.empty:
        return None
    spent = made.reindex(columns=["seconds", "threads", "gmac"]).astype(float)
    core = spent["seconds"] * spent["threads"].fillna(1)
    each = {"kind": records["kind"], "records": 1, "core time": core, "GMAC": spent["gmac"]}
    kinds = pd.DataFrame(each).groupby("kind", sort=False).sum()
    kinds.loc["in all"] = kinds.sum()
    shown = {"records": "{:.0f}", "core time": duration, "GMAC": "{:,.0f}"}
    for column, form in shown.items():
        kinds[column] = kinds[column].map(form if callable(form) else form.format)
    return kinds.reset_index()


def duration(seconds: float) -> str:
    """A time as it is read at a glance.

    Args:
        seconds: 0 or more.

    Returns:
        For example "0.4 s", "1 min 01 s" or "1 h 02 min".
    """
    minutes, rest = divmod(round(float(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    if minutes:
        return f"{minutes} min {rest:02d} s"
    return f"{seconds:.1f} s"


def versions(made: pd.DataFrame) -> pd.DataFrame | None:
    """With what and where records were made.

    Args:
        made: as of `cost`.

    Returns:
        A row per origin (code, torch, python, device, threads) with its number of records; None
        where there are no records.
    """
    if made.empty:
        return None
    origin = made.reindex(columns=ORIGIN).fillna("–").astype(str)
    return origin.value_counts().rename("records").reset_index()
