"""Figures of verdicts: which tickets match dense, which claims hold, how often verdicts err."""

from __future__ import annotations

from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dwlt_lib.analysis import claims, noninferiority, tables
from dwlt_lib.analysis.statistics import CRITERIA
from dwlt_lib.config.studies import Margins
from dwlt_lib.plotting.style import (
    COLUMN,
    CRITERION_NAMES,
    METHODS,
    PAGE,
    PRETRAININGS,
    dataset_name,
    figure,
    percent,
    study_handles,
)

NOTHING = "No sparse ticket has been transferred yet."
COLORS = {
    noninferiority.MATCHES: "#2a7f4f",
    noninferiority.UNDECIDED: "#b8b8b8",
    noninferiority.FALLS_SHORT: "#b5402f",
    noninferiority.UNKNOWN: "#e8e8e8",
}
"""A colour for each status: green matches, red falls short, grey is not decided."""


CLAIM_COLORS = {
    claims.HOLDS: COLORS[noninferiority.MATCHES],
    claims.FAILS: COLORS[noninferiority.FALLS_SHORT],
    claims.OPEN: COLORS[noninferiority.UNDECIDED],
}


@figure
def levels(verdicts: pd.DataFrame) -> Figure | None:
    """Every level's difference to dense with its bounds, by criterion; the margin as a line.

    Args:
        verdicts: of `noninferiority.noninferiority`; of several studies, those of the first lie
            on the left of a level, filled, of the others on its right, hollow.

    Returns:
        A row of panels per curve (theta_p, method, data), a panel per criterion; points are
        coloured by the status of their criterion.
    """
    verdicts = verdicts[verdicts["status"] != noninferiority.UNKNOWN]
    if verdicts.empty:
        return None
    curves = list(in_paper_order(verdicts).groupby(tables.GROUP, sort=False))
    fig = Figure((2 * COLUMN, 0.35 + 0.62 * len(curves)), layout="constrained")
    axes = fig.subplots(len(curves), len(CRITERIA), sharex=True, sharey="row", squeeze=False)
    rounds = sorted(verdicts["rounds"].unique())
    for row, (curve, own) in zip(axes, curves, strict=True):
        for ax, criterion in zip(row, CRITERIA, strict=True):
            d, low, high = (
                100 * own[f"{criterion}_{name}"] for name in ("difference", "low", "high")
            )
            colors = np.array([COLORS[status] for status in own[f"{criterion}_status"]])
            at = own["rounds"].map(rounds.index) + _offset(own)
            ax.vlines(at, low, high, colors=colors, linewidth=2)
            faces = np.where(_offset(own) > 0, "white", colors)
            ax.scatter(at, d, c=faces, s=12, zorder=3, edgecolors=colors, linewidths=1)
            ax.axhline(0, color="0.8", linewidth=0.6, zorder=0)
            margin = 100 * own[f"{criterion}_margin"].iloc[0]
            ax.axhline(-margin, color="0.3", linestyle=":", linewidth=1)
        pretraining, method, dataset, _ = curve
        data = f"{dataset_name(str(dataset))} {100 * own['fraction'].iloc[0]:g} %"
        name = f"$\\theta_{{\\mathrm{{{pretraining}}}}}$, {method}\n{data}"
        row[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=7)
    for data in {curve[2:] for curve, _ in curves}:  # one scale for tickets on the same data
        rows = [row[0] for row, (curve, _) in zip(axes, curves, strict=True) if curve[2:] == data]
        limits = [ax.get_ylim() for ax in rows]
        for ax in rows:
            ax.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))
    for ax, criterion in zip(axes[0], CRITERIA, strict=True):
        ax.set_title(f"{CRITERION_NAMES[criterion]}, less dense (points)", fontsize=8)
    shown = tables.sparsities(verdicts)
    for ax in axes[-1]:
        ax.set_xticks(range(len(rounds)), [percent(shown[r]) for r in rounds], rotation=45)
        ax.set_xlabel("sparsity (%)")
    if handles := study_handles(tables.by_study(verdicts)):
        fig.legend(handles=handles, loc="outside lower center", ncols=2)
    return fig


def _offset(table: pd.DataFrame) -> pd.Series:
    """How far from its place a row is drawn: the first study's before, the others' behind it."""
    several = len(tables.by_study(table)) > 1
    place = table["study"].cat.codes if several else 0.5
    return pd.Series(0.3 * (place - 0.5), table.index)


def in_paper_order(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of curves or levels by data set, the most data first, then as the paper names tickets.

    Args:
        table: has the columns dataset, fraction, method and pretraining; rounds, where it has them,
            come last.

    Returns:
        The rows, ordered.
    """
    rank = {name: i for i, name in enumerate((*METHODS, *PRETRAININGS))}

    def key(values: pd.Series) -> pd.Series:
        if values.name not in ("method", "pretraining"):
            return values
        return values.map(lambda name: rank.get(str(name), len(rank)))

    by = ["dataset", "fraction", "method", "pretraining", *({"rounds"} & set(table))]
    return table.sort_values(by, ascending=[name != "fraction" for name in by], key=key)


def in_words(verdicts: pd.DataFrame, margins: Margins) -> str:
    """How sparse double-win tickets are and how sure that is: a study's answer, in words.

    Args:
        verdicts: of `noninferiority.noninferiority`, or a part of it.
        margins: of the verdicts.

    Returns:
        How many levels match, fall short or are undecided; then a line per data set and fraction
        with each curve's certified sparsity.
    """
    if verdicts.empty:
        return NOTHING
    unit = "% of what it reaches above chance in" if margins.relative else "points of"
    within = f"{100 * margins.SA:g} {unit} SA and {100 * margins.RA:g} of RA"
    statuses = verdicts["status"].value_counts()
    counted = ", ".join(
        f"{statuses[status]} {status}" for status in noninferiority.STATUSES if status in statuses
    )
    lines = [f"Double-win sparsity within {within} of dense (levels: {counted})."]
    curves = in_paper_order(noninferiority.certified(verdicts))
    for _, own in curves.groupby(["dataset", "fraction"], sort=False):
        dataset, fraction = own["dataset"].iloc[0], own["fraction"].iloc[0]
        listed = "; ".join(own["pretraining"] + " by " + own["method"] + " " + own["text"])
        lines.append(f"On {100 * fraction:g} % of {dataset_name(dataset)}: {listed}.")
    return "\n".join(lines)


@figure
def forest(found: pd.DataFrame) -> Figure | None:
    """Every claim's effect with its interval, first what is decided; what it is held against.

    Args:
        found: of `claims.claims`; of several studies, the first one's effects are filled and above.

    Returns:
        A line per claim and task whose interval is known, but for the order of extreme sparsities,
        which would dwarf those of accuracies. To the right lies what the paper claims:
        beyond the tick or, where it says alike, within the band.
    """
    found = found[(found["low"] < found["high"]) & (found["unit"] != "points of sparsity")]
    if found.empty:
        return None
    names = found["number"] + " " + found["claim"]
    names += [f", on {_where(data)}" if data else "" for data in found["where"]]
    names = names.str.replace(" %", "\xa0%")  # no line begins with a unit
    listed = names.unique()[::-1]
    fig = Figure((PAGE, 0.7 + 0.27 * len(listed)), layout="constrained")
    ax = fig.subplots()
    at = names.map(listed.tolist().index)
    for y, dy, row in zip(at, -_offset(found), found.to_dict("records"), strict=True):
        sign = -100 if row["side"] == "below" else 100
        effect, threshold = sign * row["effect"], sign * row["threshold"]
        if row["side"] == "alike":
            ax.barh(y, 2 * threshold, 0.8, -threshold, color="0.92", zorder=0)
        else:
            ax.plot([threshold] * 2, [y - 0.4, y + 0.4], color="black", linewidth=0.8)
        color = CLAIM_COLORS[row["verdict"]]
        ax.hlines(y + dy, sign * row["low"], sign * row["high"], color=color, linewidth=2)
        face = "white" if dy < 0 else color
        ax.scatter(effect, y + dy, c=face, edgecolors=color, linewidths=1, s=12, zorder=3)
    decided = found.loc[found["verdict"] != claims.OPEN, ["low", "high"]]
    widest = max(1.5 * found["effect"].abs().max(), decided.abs().max(axis=None), 0.05)
    ax.set_yticks(range(len(listed)), [fill(name, 68) for name in listed], fontsize=6)
    ax.set(xlim=(-102 * widest, 102 * widest), ylim=(-0.7, len(listed) - 0.3))
    ax.set_xlabel("effect in the direction of the claim (points)")
    handles = [
        Line2D([], [], color=color, marker="o", markersize=3, linewidth=2, label=verdict)
        for verdict, color in CLAIM_COLORS.items()
    ]
    handles += study_handles(tables.by_study(found))
    fig.legend(handles=handles, loc="outside upper center", ncols=5)
    return fig


def _where(data: str) -> str:
    """The data of a claim, such as "1 % of cifar10", with the data set's printed name."""
    share, of, dataset = data.rpartition("of ")
    return f"{share}{of}{dataset_name(dataset)}"


def count_claims(found: pd.DataFrame) -> str:
    """The caption of `forest`: how many of the paper's claims are decided, and which.

    Args:
        found: of `claims.claims`.

    Returns:
        One sentence.
    """
    parts = []
    for verdict in claims.VERDICTS:
        own = found.loc[found["verdict"] == verdict, "number"]
        names = f" ({', '.join(own.unique())})" if verdict != claims.OPEN and len(own) else ""
        parts.append(f"{verdict} {len(own)}{names}")
    return f"Of the paper's claims, each on the data that it is about: {'; '.join(parts)}."


@figure
def simulated(rates: pd.DataFrame) -> Figure:
    """What the verdict says of simulated studies whose truth is known.

    Args:
        rates: of `simulation.simulate`.

    Returns:
        A bar per truth: the shares of studies in which the ticket matches, is undecided or falls
        short.
    """
    fig = Figure((1.6 * COLUMN, 0.5 + 0.32 * len(rates)), layout="constrained")
    ax = fig.subplots()
    at, left = np.arange(len(rates))[::-1], np.zeros(len(rates))
    for status in (
        noninferiority.MATCHES,
        noninferiority.UNDECIDED,
        noninferiority.FALLS_SHORT,
    ):
        share = 100 * rates[status.replace(" ", "_")].to_numpy()
        ax.barh(at, share, left=left, color=COLORS[status], label=status)
        for y, x, width in zip(at, left, share, strict=True):
            if width >= 4:
                ax.text(x + width / 2, y, f"{width:.0f}", ha="center", va="center", fontsize=7)
        left += share
    names = [f"{row.truth}\n{row.n} seeds, {row.n_dense} of dense" for row in rates.itertuples()]
    ax.set_yticks(at, names, fontsize=7)
    ax.set(xlim=(0, 100), xlabel="simulated studies (%)")
    fig.legend(loc="outside upper center", ncols=3)
    return fig


def searched(curves: pd.DataFrame) -> Figure:
    """What simulated searches cost, and how wide the bounds are that they find.

    Args:
        curves: of `simulated_searches.simulate`.

    Returns:
        For each truth, left the cost of every curve, in order, as a share of the grid's; right the
        levels between the bounds of the search and of the grid.
    """
    fig = Figure((2 * COLUMN, 0.75 * COLUMN), layout="constrained")
    left, right = fig.subplots(1, 2)
    for truth, own in curves.groupby("truth", sort=False):
        costs = np.sort(100 * own["cost"])
        (line,) = left.plot(100 * np.arange(1, len(own) + 1) / len(own), costs, label=truth)
        for kind, dash in (("search", "-"), ("grid", ":")):
            widths = np.sort(own[f"{kind}_high"] - own[f"{kind}_low"])
            x = 100 * np.arange(1, len(own) + 1) / len(own)
            right.plot(x, widths, dash, color=line.get_color())
    left.set(xlabel="simulated curves (%)", ylabel="cost (% of the grid's)", ylim=(0, 100))
    right.set(xlabel="simulated curves (%)", ylabel="levels between the bounds")
    right.plot([], [], "k-", label="search")
    right.plot([], [], "k:", label="grid")
    left.legend(fontsize=6)
    right.legend(fontsize=7)
    return fig
