"""A table in, a Figure out: the paper's figures of accuracies, of masks and of Table A2.

Tables hold fractions in [0, 1], figures percent. Figures of landscapes are in `landscapes`, those
drawn from a study's parameters in `study_overview`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dwlt_lib.analysis import double_win, paper_results, tables
from dwlt_lib.config.specs import CONTROLS, OTHER_METHODS, PAPER_METHODS
from dwlt_lib.plotting.style import (
    COLUMN,
    CRITERION_NAMES,
    METHODS,
    PAGE,
    PRETRAININGS,
    ROLES,
    Role,
    curve_style,
    dataset_name,
    figure,
    percent,
    study_handles,
    study_style,
    theta,
)

DENSE: dict[str, Any] = dict(linestyle=(0, (2, 2)), linewidth=0.6, alpha=0.8)
STAR: dict[str, Any] = dict(marker="*", markersize=8, linestyle="", markeredgewidth=0.6)
CHANCE: dict[str, Any] = dict(linestyle=(0, (3, 2)), linewidth=0.8)
BREAK: dict[str, Any] = dict(
    marker=[(-1, -0.5), (1, 0.5)], color="black", linestyle="", markeredgewidth=0.6, markersize=5
)
EXTREME = "extreme sparsity (hollow: dense)"
BY_CHANCE = "random, same layer densities"

PAIRS = {
    "STD and FAT": Role("#000000", "o", "-"),
    "STD and AT": Role("#56B4E9", "D", "--"),
    "FAT and AT": Role("#882255", "P", "-."),
}
"""How the curves of pairs of pre-trainings look; none has the colour of a role."""

Curve = tuple[str, str]
"""(pretraining, method)."""


def ladder_ticks(ax: Axes, sparsities: Mapping[int, float], most: int = 7) -> None:
    """Ticks at rounds, labelled in percent of sparsity: all, or so many that labels do not touch.

    Args:
        ax: the axes; their x axis counts rounds.
        sparsities: {rounds: sparsity in [0, 1]} (`tables.sparsities`).
        most: how many labels have room, about.
    """
    rounds = np.unique(np.asarray(list(sparsities), int))
    least_gap = max(1.0, (rounds.max() - rounds.min()) / most)
    labelled = []
    for r in rounds:
        if not labelled or r - labelled[-1] >= least_gap:
            labelled.append(r)
    ax.set_xticks(labelled, [percent(sparsities[r]) for r in labelled])
    ax.set_xticks(rounds, minor=True)


def mean_line(
    ax: Axes, rows: pd.DataFrame, column: str, look: Mapping[str, Any], label: str = ""
) -> pd.Series:
    """A line of means over seeds against rounds, and one standard deviation about it as a shade.

    Args:
        ax: the axes to draw on.
        rows: one per seed and level, with a column rounds; of several studies a line each.
        column: what is drawn, fractions; rows without it are left out.
        look: color, marker and linestyle, as of `curve_style`.
        label: of the line; empty: it has no place in the legend.

    Returns:
        The means in percent, by rounds; of several studies those of the last.
    """
    mean, studies = pd.Series(dtype=float), tables.by_study(rows.dropna(subset=column))
    for rank, own in enumerate(studies.values()):
        if own.empty and len(studies) > 1:
            continue
        levels = 100 * own.astype({column: float}).set_index("rounds")[column]
        mean, std = levels.groupby(level=0).mean(), levels.groupby(level=0).std().fillna(0)
        # its thin edge tells overlapping bands apart
        inside, edge = (to_rgba(look["color"], alpha) for alpha in (0.1, 0.5))
        ax.fill_between(
            mean.index, mean - std, mean + std, facecolor=inside, edgecolor=edge, linewidth=0.4
        )
        ax.plot(mean, **study_style(look, rank, len(studies)), label=label or "_")
    return mean


def share_scale(panels: Iterable[Axes]) -> None:
    """One scale for the y axes of panels of percent, so that no panel exaggerates.

    Args:
        panels: their axes become as long as the longest, four points at least, each about its own
            curves; where one does not begin at 0, a mark says that it is broken.
    """
    limits = {ax: ax.get_ylim() for ax in panels}
    length = max(4.0, *(high - low for low, high in limits.values()))
    for ax, (low, high) in limits.items():
        start = max(min((low + high - length) / 2, 101 - length), -1.0)
        ax.set_ylim(start, start + length)
        if start > 0:
            at_the_axis: dict[str, Any] = dict(transform=ax.transAxes, clip_on=False)
            ax.plot([0, 0], [0.03, 0.06], **BREAK, **at_the_axis)


def _draw_curves(
    ax: Axes, runs: pd.DataFrame, verdicts: pd.DataFrame, curves: list[Curve], criterion: str
) -> None:
    """Mean, one-std shade, dashed dense level and star at the extreme sparsity of each curve."""
    regime, metric = double_win.CRITERIA[criterion]
    with_dense_line = set()
    for pretraining, method in curves:
        own = (runs["pretraining"] == pretraining) & (runs["regime"] == regime)
        own = runs[own & runs["method"].isin(["dense", method])].dropna(subset=metric)
        if own.empty or (method != "IMP-ST" and (own["method"] == "dense").all()):
            continue
        look = curve_style(pretraining, method)
        mean = mean_line(ax, own, metric, look, f"{theta(pretraining)}, {method}")
        if 0 in mean.index and pretraining not in with_dense_line:
            ax.axhline(mean[0], color=look["color"], **DENSE, zorder=1)
        with_dense_line.add(pretraining)
        verdict_rows = (verdicts["pretraining"] == pretraining) & (verdicts["method"] == method)
        extremes = verdicts.loc[verdict_rows, "extreme_rounds"]
        for r in set(extremes.dropna()) & set(mean.index):
            face, edge = (look["color"], "black") if r else ("white", look["color"])
            ax.plot(r, mean[r], **STAR, markerfacecolor=face, markeredgecolor=edge, zorder=5)


@dataclass(frozen=True)
class _Layout:
    """Rows and columns of a figure of curves."""

    cells: list[list[tuple[str, float, str]]]
    """(dataset, fraction, criterion) of each cell, by row and column."""
    titles: list[str]
    """One per column."""
    labels: list[str]
    """One per row."""


def _curves_figure(table: pd.DataFrame, layout: _Layout, curves: list[Curve]) -> Figure:
    """Curves of accuracy against sparsity, one cell per data set, fraction and criterion."""
    runs = tables.each_study(tables.replicates, table)
    verdicts = tables.each_study(double_win.verdict, table)
    sparsities = tables.sparsities(runs)
    rows, columns = len(layout.cells), len(layout.cells[0])
    width = PAGE if columns > 1 else COLUMN
    fig = Figure((width, 1.35 * rows + 0.65), layout="constrained")
    axes = fig.subplots(rows, columns, sharex=True, squeeze=False)
    for i, cells in enumerate(layout.cells):
        for ax, title, (dataset, fraction, criterion) in zip(
            axes[i], layout.titles, cells, strict=True
        ):
            own_runs, own_verdicts = (
                tables.by_study(
                    frame[(frame["dataset"] == dataset) & (frame["fraction"] == fraction)]
                )
                for frame in (runs, verdicts)
            )
            for study, rows_of in own_runs.items():
                _draw_curves(ax, rows_of, own_verdicts[study], curves, criterion)
            ladder_ticks(ax, sparsities, most=6 if width == COLUMN or columns == 3 else 9)
            ax.set(
                title=title if i == 0 else None,
                xlabel="sparsity (%)" if i == rows - 1 else None,
            )
        axes[i, 0].set_ylabel(layout.labels[i])
    panels = dict(zip(axes.flat, (cell for row in layout.cells for cell in row), strict=True))
    for data in {cell[:2] for cell in panels.values()}:
        share_scale(ax for ax, cell in panels.items() if cell[:2] == data)
    dense = Line2D([], [], color="#666666", **DENSE, label="dense")
    star = Line2D([], [], color="#999999", **STAR, markeredgecolor="black", label=EXTREME)
    fig.align_ylabels(axes[:, 0])
    ncols = 2
    if width == PAGE:
        ncols = 6 if {method for _, method in curves} <= {*PAPER_METHODS} else 3
    if len(tables.by_study(table)) > 1:
        ncols = min(ncols, 4)
    _legend(fig, table, dense, star, ncols=ncols)
    return fig


def _legend(fig: Figure, table: pd.DataFrame, *more: Line2D, ncols: int) -> None:
    """One legend below all axes: each label once, what else is to be explained, the studies."""
    by_label: dict[Any, Any] = {}
    for line in (line for ax in fig.axes for line in ax.get_lines()):
        by_label.setdefault(line.get_label(), line)
    named = [line for label, line in by_label.items() if not str(label).startswith("_")]
    handles = [*named, *more, *study_handles(tables.by_study(table))]
    fig.legend(handles=handles, loc="outside lower center", ncols=ncols)


@figure
def existence(table: pd.DataFrame, curves: list[Curve] | None = None) -> Figure | None:
    """Figure 3: do double-win tickets exist? Accuracy against sparsity, by data set and criterion.

    Args:
        table: transfers; of them those with the largest fraction of the data are drawn.
        curves: (pretraining, method) each; None: IMP-ST on every theta_p, and RP on theta_AT.

    Returns:
        Columns are data sets; rows SA after ST, SA and RA after AT.
    """
    if table.empty:
        return None
    table = tables.each_study(_with_most_data, table)
    data = sorted(set(zip(table["dataset"], table["fraction"], strict=True)))
    curves = curves or [*((p, "IMP-ST") for p in PRETRAININGS), ("AT", "RP")]
    cells = [[(*column, criterion) for column in data] for criterion in CRITERION_NAMES]
    titles = []
    for dataset, fraction in data:
        share = f", {100 * fraction:g} %" if table["fraction"].min() < 1 else ""
        studies = tables.by_study(table[table["dataset"] == dataset]).values()
        seeds = ", one seed" if max(map(tables.count_seeds, studies)) == 1 else ""
        titles.append(f"{dataset_name(dataset)}{share}{seeds}")
    labels = [f"{text} (%)" for text in CRITERION_NAMES.values()]
    return _curves_figure(table, _Layout(cells, titles, labels), curves)


def _with_most_data(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["fraction"] == table["fraction"].max()]


def methods(table: pd.DataFrame, pretraining: str = "AT") -> Figure:
    """Figure 4: as Figure 3, for the paper's four pruning methods on one theta_p.

    Args:
        table: transfers.
        pretraining: STD, FAT or AT.

    Returns:
        Columns are data sets; rows SA after ST, SA and RA after AT.
    """
    return _beside_imp_st(table, pretraining, [m for m in PAPER_METHODS if m != "IMP-ST"])


def controls(table: pd.DataFrame, pretraining: str = "AT") -> Figure:
    """As Figure 4, for IMP-ST and its controls: what of the ticket makes its accuracy?

    Args:
        table: transfers.
        pretraining: STD, FAT or AT.

    Returns:
        Columns are data sets; rows SA after ST, SA and RA after AT.
    """
    return _beside_imp_st(table, pretraining, CONTROLS)


def other_methods(table: pd.DataFrame, pretraining: str = "AT") -> Figure:
    """As Figure 4, for IMP-ST and masks of the field that the paper does not have.

    Args:
        table: transfers.
        pretraining: STD, FAT or AT.

    Returns:
        Columns are data sets; rows SA after ST, SA and RA after AT.
    """
    return _beside_imp_st(table, pretraining, OTHER_METHODS)


def _beside_imp_st(table: pd.DataFrame, pretraining: str, others: Sequence[str]) -> Figure:
    """IMP-ST and others, on the data sets that have any of these."""
    table = table[table["pretraining"] == pretraining]
    with_others = table.loc[table["method"].isin(others), "dataset"]
    table = table[table["dataset"].isin(with_others)]
    return existence(table, [(pretraining, method) for method in ("IMP-ST", *others)])


@figure
def data_limited(table: pd.DataFrame) -> Figure | None:
    """Figure 5: IMP-ST on every theta_p with fractions of the data.

    Args:
        table: transfers.

    Returns:
        Rows are data sets and fractions, columns the three criteria.
    """
    if table.empty:
        return None
    rows = sorted(
        set(zip(table["dataset"], table["fraction"], strict=True)),
        key=lambda row: (row[0], -row[1]),
    )
    layout = _Layout(
        cells=[[(*row, criterion) for criterion in CRITERION_NAMES] for row in rows],
        titles=list(CRITERION_NAMES.values()),
        labels=[f"{dataset_name(name)}, {100 * f:g} %\naccuracy (%)" for name, f in rows],
    )
    return _curves_figure(table, layout, [(p, "IMP-ST") for p in PRETRAININGS])


@figure
def overfitting(table: pd.DataFrame) -> Figure | None:
    """Robust overfitting by sparsity: RA of the best epoch less the last, IMP-ST and dense.

    Args:
        table: of `robust_overfitting.overfitting_table`.

    Returns:
        Points of RA against sparsity, a line per theta_p; rows are data sets and fractions, columns
        validation and, where recipes select an epoch, test images.
    """
    table = table[table["method"].isin(["dense", "IMP-ST"])]
    if table.empty:
        return None
    measures = [name for name in ("validation", "test") if table[name].notna().any()]
    tasks = [rows for _, rows in table.groupby(["dataset", "fraction"])]
    width = PAGE if len(measures) > 1 else COLUMN
    fig = Figure((width, 1.35 * len(tasks) + 0.65), layout="constrained")
    axes = fig.subplots(len(tasks), len(measures), sharex=True, squeeze=False)
    for i, rows in enumerate(tasks):
        task = f"{dataset_name(rows['dataset'].iloc[0])}, {100 * rows['fraction'].iloc[0]:g} %"
        for ax, measure in zip(axes[i], measures, strict=True):
            for p in PRETRAININGS:
                own = rows[rows["pretraining"] == p]
                if own[measure].notna().any():
                    mean_line(ax, own, measure, curve_style(p), theta(p))
            ax.axhline(0, color="#666666", **CHANCE, zorder=1)
            ladder_ticks(ax, tables.sparsities(table))
            ax.set_title(f"{task}: {measure} images")
        axes[i, 0].set_ylabel("RA, best less last\nepoch (points)")
    for ax in axes[-1]:
        ax.set_xlabel("sparsity (%)")
    _legend(fig, table, ncols=3)
    return fig


def further_tasks(table: pd.DataFrame) -> pd.DataFrame:
    """The transfers of Figure A10: to tasks other than Figure 3's, with the most data, by IMP-ST.

    Args:
        table: transfers.

    Returns:
        Those of its rows, dense ones included.
    """
    main = paper_results.main_datasets(table)
    by_imp = table["method"].isin(["dense", "IMP-ST"])
    return _with_most_data(table[~table["dataset"].isin(main) & by_imp])


def more_tasks(table: pd.DataFrame) -> Figure:
    """Figure A10: as Figure 5, its rows the tasks beyond the paper's first three.

    Args:
        table: transfers.

    Returns:
        Rows are tasks, columns the three criteria.
    """
    return data_limited(tables.each_study(further_tasks, table))


def _beside_chance(
    ax: Axes, table: pd.DataFrame, value: str, group: str, looks: Mapping[str, Mapping]
) -> None:
    """Shares of masks against sparsity, a line per group, and their chance levels, dashed."""
    for name, look in looks.items():
        own = table[table[group] == name]
        if len(own):
            mean_line(ax, own, value, look, name)
            for rows in tables.by_study(own).values():
                chance = 100 * rows.groupby("rounds")["chance"].mean().astype(float)
                ax.plot(chance, color=look["color"], **CHANCE)


@figure
def similarity(table: pd.DataFrame) -> Figure | None:
    """Figure A8, top: relative similarity of masks between pre-trainings, or between methods.

    Args:
        table: of `mask_patterns.similarity_table`. Of pairs of methods those with IMP-ST are drawn.

    Returns:
        Similarity in percent against sparsity, a line per pair, its chance level dashed.
    """
    looks = {pair: role._asdict() for pair, role in PAIRS.items()}
    looks |= {f"IMP-ST and {m}": curve_style("AT", m) for m in METHODS if m != "IMP-ST"}
    table = table[table["pair"].isin(looks)]
    if table.empty:
        return None
    fig = Figure((COLUMN, 2.3), layout="constrained")
    ax = fig.subplots()
    _beside_chance(ax, table, "similarity", "pair", looks)
    ladder_ticks(ax, tables.sparsities(table), most=8)
    ax.set(xlabel="sparsity (%)", ylabel="relative similarity (%)", ylim=(0, None))
    _legend(fig, table, Line2D([], [], label=BY_CHANCE, color="#666666", **CHANCE), ncols=2)
    return fig


def _zero_shares(table: pd.DataFrame) -> pd.DataFrame:
    counts = table.groupby(["pretraining", "rounds", "seed"])[["kernels", "zero", "chance"]].sum()
    counts = counts.astype(float)
    return counts[["zero", "chance"]].div(counts["kernels"], axis=0).reset_index()


@figure
def zero_kernels(table: pd.DataFrame) -> Figure | None:
    """Figure A8, bottom: completely pruned kernels, of those larger than 1x1.

    Args:
        table: of `mask_patterns.zero_kernel_table`.

    Returns:
        Above, the share of zero kernels in percent against sparsity, its chance level dashed;
        below, the one less the other, in points.
    """
    table = table[table["kernel"] > 1]
    if table.empty:
        return None
    shares = tables.each_study(_zero_shares, table)
    looks = {p: curve_style(p) for p in PRETRAININGS}
    fig = Figure((COLUMN, 3.3), layout="constrained")
    upper, lower = fig.subplots(2, sharex=True, height_ratios=(2, 1))
    _beside_chance(upper, shares, "zero", "pretraining", looks)
    above = shares.assign(above=shares["zero"] - shares["chance"])
    for p, look in looks.items():
        mean_line(lower, above[above["pretraining"] == p], "above", look)
    lower.axhline(0, color="#666666", **CHANCE, zorder=1)
    ladder_ticks(upper, tables.sparsities(table), most=8)
    upper.set(ylabel="zero kernels (%)", ylim=(0, None))
    lower.set(xlabel="sparsity (%)", ylabel="above chance\n(points)")
    fig.align_ylabels([upper, lower])
    _legend(fig, table, Line2D([], [], label=BY_CHANCE, color="#666666", **CHANCE), ncols=2)
    return fig


@figure
def kernel_maps(maps: Mapping[str, Mapping[str, np.ma.MaskedArray]]) -> Figure | None:
    """Figure 7: one dot per kernel, bright where no weight is left, by block.

    Args:
        maps: {pretraining: `mask_patterns.kernel_map` of its mask}; where two studies are
            compared, {"pretraining, study": ...}.

    Returns:
        Rows are pre-trainings, columns blocks in the network's order; more than six of these go on
        in a further row.
    """
    rank = {p: i for i, p in enumerate(PRETRAININGS)}
    rows = sorted(maps, key=lambda name: rank.get(name.partition(",")[0], len(rank)))
    blocks = [*dict.fromkeys(block for p in rows for block in maps[p] if block != "stem")]
    if not blocks:
        return None
    lines, columns = -(-len(blocks) // 6), min(len(blocks), 6)
    fig = Figure((PAGE, 1.15 * lines * len(rows) + 0.4), layout="constrained")
    axes = fig.subplots(lines * len(rows), columns, squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    colors = LinearSegmentedColormap.from_list("zero", ["#2B2B4F", "#F5C710"])
    colors = colors.with_extremes(bad="white")
    for row, p in zip(axes.reshape(len(rows), -1), rows, strict=True):
        for ax, block in zip(row, blocks, strict=False):
            if block in maps[p]:
                image = maps[p][block]
                # a depthwise layer has one column, which interpolation would blur
                shown = image.astype(float).repeat(1 + 100 // image.shape[1], axis=1)
                ax.imshow(shown, cmap=colors, vmin=0, vmax=1, aspect="auto")
                where = f"{theta(p)}, {block}:" + (" " if columns < 5 else "\n")
                ax.set_title(f"{where}{percent(image.mean())} % zero")
    note = (
        "one dot per kernel, bright where completely pruned; one tile per layer, its rows the"
        " output channels"
    )
    fig.supxlabel(note, fontsize=6.5)
    return fig


@figure
def training_curve(history: list[dict[str, Any]]) -> Figure | None:
    """Training loss, and validation SA and RA, of one run against epochs.

    Args:
        history: one dictionary per epoch: epoch, loss, and perhaps SA and RA in [0, 1].

    Returns:
        The loss on the left, accuracies in percent on the right.
    """
    if not history:
        return None
    frame = pd.DataFrame(history).reindex(columns=["epoch", "loss", "SA", "RA"]).astype(float)
    fig = Figure((COLUMN, 1.6), layout="constrained")
    left, right = fig.subplots(1, 2)
    left.plot(frame["epoch"], frame["loss"], color=ROLES["OMP"].color, marker=".")
    for metric, look in (("SA", PAIRS["STD and FAT"]), ("RA", PAIRS["STD and AT"])):
        known = frame.dropna(subset=metric)  # RA is not validated after every epoch
        if len(known):
            right.plot(known["epoch"], 100 * known[metric], **look._asdict(), label=metric)
    left.set(xlabel="epoch", ylabel="training loss")
    right.set(xlabel="epoch", ylabel="validation accuracy (%)")
    if right.lines:
        right.legend()
    return fig


@figure
def transfer_attack_curve(table: pd.DataFrame) -> Figure | None:
    """Table A2 as curves: accuracy on the unseen robust model's images, and RA, against sparsity.

    Args:
        table: transfer-attack records.

    Returns:
        Two lines per pre-training, means over seeds with one standard deviation, in percent.
    """
    if table.empty:
        return None
    fig = Figure((COLUMN, 2.2), layout="constrained")
    ax = fig.subplots()
    looks = {
        "transfer_accuracy": ("o", "-", "unseen model's images"),
        "RA": ("s", "--", "own PGD images (RA)"),
    }
    for p in sorted(table["pretraining"].unique()):
        own = table[table["pretraining"] == p]
        for metric, (marker, line, text) in looks.items():
            look = dict(color=ROLES[p].color, marker=marker, linestyle=line)
            mean_line(ax, own, metric, look, f"{theta(p)}, {text}")
    ladder_ticks(ax, tables.sparsities(table))
    share_scale([ax])
    ax.set(xlabel="sparsity (%)", ylabel="accuracy (%)")
    _legend(fig, table, ncols=1)
    return fig
