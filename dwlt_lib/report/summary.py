"""The top of the report: what was run, and the study's answer in a few sentences."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from dwlt_lib.analysis import claims, contrasts, noninferiority
from dwlt_lib.analysis.contrasts import Evidence
from dwlt_lib.analysis.tables import GROUP, RUN, base_seeds
from dwlt_lib.config.datasets import CATALOGUE
from dwlt_lib.config.studies import Margins
from dwlt_lib.plotting.style import METHODS, PRETRAININGS, curve_style, dataset_name
from dwlt_lib.plotting.verdicts import in_paper_order
from dwlt_lib.report import study_tables

CONFIDENCE = 0.95
"""That no interval of the comparison of pre-trainings is wrong."""
DASHES = {"-": "none", "--": "7 3", "-.": "7 3 2 3", ":": "2 3"}
"""Matplotlib's lines in SVG's words."""
MAIN = "IMP-ST"
"""The method whose tickets are compared: the paper's own after section 4.2."""


class Comparison(NamedTuple):
    """One pre-training less another by RA after adversarial training."""

    data: str
    """On which data, in words."""
    high: str
    """The one whose mean is higher."""
    low: str
    """The other."""
    difference: float
    """Of the means over levels, in [0, 1]."""
    bounds: tuple[float, float]
    """Simultaneous bounds of the difference; NaN where its noise is not known."""

    @property
    def is_decided(self) -> bool:
        """Whether the bounds exclude 0."""
        return self.bounds[0] > 0


def facts(
    params: dict[str, Any], records: pd.DataFrame, made: pd.DataFrame
) -> list[tuple[str, str]]:
    """What was run, a term and its value each.

    Args:
        params: its resolved parameters.
        records: its table, of `records.table`.
        made: when and with what each record was made (`Record.made`), a row each.

    Returns:
        Network, source, tasks, tickets, attack, seeds and effort, as far as they are known.
    """
    found = [("Network", params["arch"]), ("Source", dataset_name(params["source"]))]
    transfers = records[records["kind"] == "transfer"] if len(records) else records
    if transfers.empty:
        return found
    tasks = []
    for dataset, own in transfers.groupby("dataset"):
        shares = sorted(own["fraction"].unique(), reverse=True)
        tasks.append(f"{dataset_name(str(dataset))} ({_listed(f'{100 * s:g}' for s in shares)} %)")
    sparse = base_seeds(transfers)
    levels = sparse[sparse["rounds"] > 0]
    dense = sparse[(sparse["rounds"] == 0)]
    pretrainings = [name for name in PRETRAININGS if name in set(transfers["pretraining"])]
    methods = [name for name in METHODS if name in set(levels["method"])]
    found += [
        ("Tasks", "; ".join(tasks)),
        ("Pre-trainings", _listed(pretrainings)),
        ("Masks", f"{_listed(methods)}; {_range(100 * levels['sparsity'], '.1f')} % sparsity"),
        ("Attack", f"PGD-{params['evaluation_steps']}, l-infinity, eps {_eps(params, transfers)}"),
        ("Seeds", f"{_seeds(levels)} of a sparse level, {_seeds(dense)} of a dense network"),
    ]
    made = made.reindex(columns=["seconds", "threads", "made"])
    if made["seconds"].notna().any():
        hours = float((made["seconds"] * made["threads"].astype(float).fillna(1)).sum())
        dates = sorted(made["made"].dropna().astype(str).str[:10])
        when = _listed(dict.fromkeys((dates[0], dates[-1])), " to ") if dates else "not known"
        effort = f"{len(records)} records, {study_tables.duration(hours)} of one core, {when}"
        found.append(("Effort", effort))
    return found


def compare(evidence: Evidence) -> list[Comparison]:
    """Every pre-training against every other, by RA after AT, averaged over the levels they share.

    The intervals are Bonferroni's over all comparisons of the list.

    Args:
        evidence: what a study's records say.

    Returns:
        A comparison for each pair and share of the main data sets, the most data first.
    """
    found = []
    pairs = list(combinations([name for name in PRETRAININGS][::-1], 2))
    for data in ("all", "limited"):
        for a, b in pairs:
            estimates = contrasts.between(evidence, (a, MAIN), (b, MAIN), "AT_RA", data=data)
            found += [(a, b, estimate) for estimate in estimates]
    alpha = (1 - CONFIDENCE) / 2 / max(len(found), 1)
    rows = []
    for a, b, estimate in found:
        low, high, effect = estimate.low(alpha), estimate.high(alpha), estimate.effect
        if effect < 0:
            a, b, effect, low, high = b, a, -effect, -high, -low
        rows.append(Comparison(estimate.where, a, b, effect, (low, high)))
    return rows


class Answer(NamedTuple):
    """What a study says of one share of a data set."""

    data: str
    """Which share, in words."""
    how_far: str
    """A sentence: the certified double-win sparsities."""
    which: str
    """A sentence: which pre-trainings differ; empty where there are not two."""


def answers(levels: pd.DataFrame, comparisons: Iterable[Comparison]) -> list[Answer]:
    """A study's answer for each share of each data set, the most data first.

    Args:
        levels: of `noninferiority.noninferiority`.
        comparisons: of `compare`.

    Returns:
        How far tickets of IMP-ST can be pruned, and which pre-training is the better one.
    """
    said = []
    certified = in_paper_order(noninferiority.certified(levels[levels["method"] == MAIN]))
    for (dataset, fraction), own in certified.groupby(["dataset", "fraction"], sort=False):
        text = "; ".join(f"{row['pretraining']} {row['text']}" for row in own.to_dict("records"))
        where = contrasts.where(dataset, fraction)
        here = [each for each in comparisons if each.data == where]
        which = _ranking(here) if here else ""
        said.append(Answer(_data(dataset, fraction), f"{text}.", which))
    return said


def certainty(levels: pd.DataFrame, found: pd.DataFrame | None, margins: Margins) -> str:
    """How sure the answer is.

    Args:
        levels: of `noninferiority.noninferiority`.
        found: of `claims.claims`; None: they are not judged.
        margins: of the verdict.

    Returns:
        A sentence on levels, and one on the paper's claims.
    """
    statuses = levels["status"].value_counts()
    counts = [f"{statuses[s]} {_plural(s)}" for s in noninferiority.STATUSES if s in statuses]
    unit = "% of dense above chance" if margins.relative else "points"
    sure = (
        f"A double win is no worse than dense by {100 * margins.SA:g} (SA) and"
        f" {100 * margins.RA:g} (RA) {unit}, at 95 %: of {len(levels)} levels {_listed(counts)}."
    )
    if found is not None:
        verdicts = found["verdict"].value_counts()
        told = [f"{verdicts[v]} {_plural(v)}" for v in claims.VERDICTS if v in verdicts]
        sure += f" Of the paper's claims, each on the data that it is about, {_listed(told)}."
    return sure


def _plural(status: str) -> str:
    """What several levels or claims do, of what one does."""
    return {
        noninferiority.MATCHES: "match",
        noninferiority.FALLS_SHORT: "fall short",
        noninferiority.UNDECIDED: "are undecided",
        noninferiority.UNKNOWN: "are unknown",
        claims.HOLDS: "hold",
        claims.FAILS: "do not hold",
    }.get(status, status)


def _ranking(comparisons: list[Comparison]) -> str:
    """Which pre-trainings differ on some data, first what is decided."""
    decided = [each for each in comparisons if each.is_decided]
    parts = [f"{each.high} before {each.low} by {_interval(each)}" for each in decided]
    parts += [
        f"{each.high} and {each.low} cannot be told apart ({_interval(each)})"
        for each in comparisons
        if not each.is_decided
    ]
    return f"{'; '.join(parts)} points of RA after adversarial training."


def _interval(comparison: Comparison) -> str:
    low, high = comparison.bounds
    if np.isnan(low):
        return f"{100 * comparison.difference:.1f}, its noise not known"
    return f"{100 * comparison.difference:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def _data(dataset: Any, fraction: Any) -> str:
    name = dataset_name(str(dataset))
    return f"all of {name}" if fraction == 1 else f"{100 * fraction:g} % of {name}"


def _eps(params: dict[str, Any], transfers: pd.DataFrame) -> str:
    """The radius of the attack on each data set, in pixels of [0, 1]."""
    found = {}
    for name in transfers["dataset"].unique():
        row = params["data"].get(name)
        eps = row["eps"] if row else CATALOGUE[name].eps
        whole = 255 * eps
        shown = f"{whole:.0f}/255" if abs(whole - round(whole)) < 0.01 else f"{eps:g}"
        found[dataset_name(str(name))] = shown
    if len(set(found.values())) == 1:
        return next(iter(found.values()))
    return _listed(f"{shown} on {name}" for name, shown in found.items())


def _seeds(transfers: pd.DataFrame) -> str:
    """How many training seeds the cells of a table have: "3", or "3 to 8"."""
    if transfers.empty:
        return "none"
    keys = [name for name in RUN if name != "seed"]
    return _range(transfers.groupby(keys, observed=True)["seed"].nunique(), "d")


def _range(values: pd.Series, form: str) -> str:
    low, high = values.min(), values.max()
    return _listed(dict.fromkeys((format(low, form), format(high, form))), " to ")


def _listed(words: Iterable[str], separator: str = ", ") -> str:
    return separator.join(words)


def explorer(levels: pd.DataFrame, transfers: pd.DataFrame) -> list[dict[str, Any]]:
    """What the page's explorer shows: a block per share of a data set.

    Args:
        levels: of `noninferiority.noninferiority`.
        transfers: of `records.table("transfer")`.

    Returns:
        For each share its name and curves; for each curve its look and points, dense first: the
        sparsity in percent, the verdict and, by criterion, mean and standard deviation in percent,
        the difference to dense with its bounds in points, the number of seeds and the records' ids.
    """
    found: list[dict[str, Any]] = []
    rows = base_seeds(transfers)
    verdicts = levels.set_index([*GROUP, "rounds"]).to_dict("index")
    shares = in_paper_order(levels).groupby(["dataset", "fraction"], sort=False)
    for (dataset, fraction), own in shares:
        share = rows[(rows["dataset"] == dataset) & (rows["fraction"] == fraction)]
        curves = []
        for (method, pretraining), ladder in own.groupby(["method", "pretraining"], sort=False):
            points = []
            for rounds in (0, *ladder["rounds"]):
                here = share[(share["pretraining"] == pretraining) & (share["rounds"] == rounds)]
                if rounds:
                    here = here[here["method"] == method]
                key = (pretraining, method, dataset, fraction, rounds)
                verdict = verdicts[key] if rounds else None
                points.append(_point(here, verdict))
            look = curve_style(str(pretraining), str(method))
            names = {"pretraining": pretraining, "method": method}
            dash = DASHES.get(look["linestyle"], "6 2 2 2")
            curves.append({**names, "color": look["color"], "dash": dash, "points": points})
        found.append({"name": _data(dataset, fraction), "curves": curves})
    return found


def _point(here: pd.DataFrame, verdict: dict[Hashable, Any] | None) -> dict[str, Any]:
    """One level of a curve."""
    sparsity = here["sparsity"].median() if len(here) else np.nan
    point: dict[str, Any] = {
        "sparsity": _number(100 * sparsity),
        "verdict": "dense" if verdict is None else verdict["status"],
    }
    for criterion, (regime, metric) in contrasts.CRITERIA.items():
        own = here[here["regime"] == regime]
        values = 100 * own[metric].dropna()
        point[criterion] = {
            "mean": _number(values.mean()),
            "sd": _number(values.std(ddof=1)),
            "seeds": len(values),
            "ids": list(own["id"]),
        }
        if verdict is not None:
            bounds = [verdict[f"{criterion}_{name}"] for name in ("difference", "low", "high")]
            point[criterion]["difference"] = [_number(100 * value) for value in bounds]
    return point


def _number(value: float) -> float | None:
    return None if not np.isfinite(value) else round(float(value), 2)
