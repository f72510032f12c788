"""Figures of strong attacks: accuracy under each of them, and RA over the attack's strength."""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle
from typing import Any, cast

import pandas as pd
from matplotlib.figure import Figure

from dwlt_lib.analysis import tables
from dwlt_lib.plotting.figures import ladder_ticks, share_scale
from dwlt_lib.plotting.style import (
    COLUMN,
    PAGE,
    PRETRAININGS,
    curve_style,
    dataset_name,
    figure,
    percent,
    theta,
)

LOOKS = (
    ("#6B6B6B", "v", ":"),
    ("#EBA000", "o", "-"),
    ("#12B083", "s", "--"),
    ("#DB90BE", "D", "-."),
    ("#56B4E9", "P", (0, (5, 1, 1, 1, 1, 1))),
)
"""Colour, marker and line of RA, and of the attacks in their order."""
WORST = ("#0B4F94", "^", "-")
DENSE: dict[str, Any] = dict(color="black", marker="o")
LEVEL_LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))


@figure
def by_attack(table: pd.DataFrame) -> Figure | None:
    """Accuracy under each attack against sparsity, RA and the worst case over all among them.

    Args:
        table: robustness records.

    Returns:
        A panel per curve (pre-training, method and task), means over seeds in percent.
    """
    curves = [
        (f"{task}, {method}", rows[rows["method"].isin(["dense", method])])
        for task, rows in _tasks(table)
        for method in _methods(rows)
    ]
    if not curves:
        return None
    columns = min(3, len(curves))
    rows = -(-len(curves) // columns)
    width = PAGE if columns > 1 else COLUMN
    fig = Figure((width, 1.5 * rows + 0.7), layout="constrained")
    axes = list(fig.subplots(rows, columns, squeeze=False).flat)
    names = ["RA", *tables.attack_names(table)]
    looks = dict(zip(names, LOOKS, strict=False)) | {"worst": WORST}
    for ax in axes[len(curves) :]:
        ax.set_axis_off()
    for ax, (title, own) in zip(axes, curves, strict=False):
        means = 100 * own.groupby("rounds")[list(looks)].mean()
        for name, (color, marker, line) in looks.items():
            label = "worst case" if name == "worst" else name
            ax.plot(means[name], color=color, marker=marker, linestyle=line, label=label)
        ladder_ticks(ax, tables.sparsities(own), most=6)
        ax.set(title=title, xlabel="sparsity (%)", ylabel="accuracy (%)")
    handles = axes[0].get_lines()
    share_scale(axes[: len(curves)])
    fig.legend(handles=handles, loc="outside lower center", ncols=6 if width == PAGE else 3)
    return fig


@figure
def security_curves(table: pd.DataFrame, read: Callable[[str], Any]) -> Figure | None:
    """RA over the radius of the attack, and over its steps.

    Args:
        table: robustness records.
        read: gives the record of an id (`records.read`).

    Returns:
        A row per pre-training and task; a line per network, its mean over seeds in percent.
    """
    tasks = _tasks(table)
    if not tasks:
        return None
    fig = Figure((PAGE, 1.5 * len(tasks) + 0.8), layout="constrained")
    axes = fig.subplots(len(tasks), 2, squeeze=False)
    by_label = {}
    for (by_eps, by_steps), (task, rows) in zip(axes, tasks, strict=True):
        sparsities = tables.sparsities(rows)
        lines = dict(zip(sorted(sparsities), cycle(LEVEL_LINES)))
        steps = pd.Series()
        for keys, level in rows.groupby(["method", "rounds"]):
            method, rounds = cast(tuple[str, int], keys)
            arrays = [read(id).arrays() for id in level["id"]]
            look = DENSE if rounds == 0 else curve_style("AT", method)
            look = {**look, "linestyle": lines[rounds]}
            label = method if rounds == 0 else f"{method} {percent(sparsities[rounds], ' %')}"
            by_eps.plot(_mean(arrays, "eps_factors", "eps_RA"), **look)
            steps = _mean(arrays, "steps", "steps_RA")
            (by_label[label],) = by_steps.plot(steps, **look, label=label)
        by_eps.set(title=task, xlabel="radius of the attack, in the evaluation's eps")
        by_eps.set_ylabel("RA (%)")
        by_steps.set(title=task, xlabel="steps of PGD", xscale="log")
        by_steps.set_xticks(steps.index, [str(count) for count in steps.index])
        by_steps.set_xticks([], minor=True)
    share_scale(axes[:, 0])
    share_scale(axes[:, 1])
    fig.legend(handles=list(by_label.values()), loc="outside lower center", ncols=4)
    return fig


def _tasks(table: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The rows of each theta_p on each task and regime, with a title."""
    found = []
    same = ["pretraining", "dataset", "fraction", "regime"]
    studies = tables.by_study(table)
    groups = sorted(table.groupby(same), key=lambda group: PRETRAININGS.index(group[0][0]))
    for keys, task in groups:
        pretraining, dataset, fraction, regime = cast(tuple[str, str, float, str], keys)
        title = f"{theta(pretraining)}, {dataset_name(dataset)} {100 * fraction:g} %"
        title += "" if regime == "AT" else f", {regime}"
        for study, rows in tables.by_study(task).items():
            if len(rows):
                found.append((f"{title}, {study}" if len(studies) > 1 else title, rows))
    return found


def _methods(rows: pd.DataFrame) -> list[str]:
    """The pruning methods of these rows; dense where there is none."""
    return sorted(set(rows["method"]) - {"dense"}) or ["dense"]


def _mean(arrays: list[dict[str, Any]], x: str, y: str) -> pd.Series:
    """The mean curve over seeds, in percent."""
    curves = pd.concat([pd.Series(one[y], index=one[x]) for one in arrays])
    return 100 * curves.groupby(level=0).mean()
