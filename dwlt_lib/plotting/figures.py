"""A table in, a Figure out: the paper's figures and tables. Tables hold fractions, figures percent.

No file is read.
"""

from textwrap import wrap

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch, Rectangle

from dwlt_lib.analysis import double_win, paper_results, statistics, tables
from dwlt_lib.config.specs import PRUNE_FRACTION, ladder
from dwlt_lib.plotting.landscapes import basin_area, contours, panels, side_by_side, surfaces_3d
from dwlt_lib.plotting.style import (
    COLUMN,
    METHODS,
    PAGE,
    PRETRAININGS,
    ROLES,
    figure,
    name,
    percent,
    role,
    save,
    style,
    theta,
)

__all__ = [
    "basin_area",
    "contours",
    "panels",
    "save",
    "side_by_side",
    "style",
    "surfaces_3d",
]  # and those below
DENSE = dict(linestyle=(0, (2, 2)), linewidth=0.6, alpha=0.8)
STAR = dict(marker="*", markersize=8, linestyle="", markeredgewidth=0.6)
# colours of what is none of the roles
PAIRS = {
    "STD and FAT": ("#000000", "o"),
    "STD and AT": ("#56B4E9", "D"),
    "FAT and AT": ("#882255", "P"),
}
CRITERIA = {"ST_SA": "SA after ST", "AT_SA": "SA after AT", "AT_RA": "RA after AT"}


def ladder_ticks(ax, at: dict[int, float], most: int = 7) -> None:
    """Ticks at rounds, labels in percent of sparsity: all, or so many that labels do not touch.

    at: the sparsity of each of the rounds (winning.sparsities).
    """
    rounds = np.unique(np.asarray(list(at), int))
    gap, shown = max(1.0, (rounds.max() - rounds.min()) / most), []
    for r in rounds:
        if not shown or r - shown[-1] >= gap:
            shown.append(r)
    ax.set_xticks(shown, [percent(at[r]) for r in shown])
    ax.set_xticks(rounds, minor=True)


def _shade(ax, mean: pd.Series, std: pd.Series, color: str) -> None:
    """One standard deviation about the mean.

    Its thin edge tells bands apart where several lie on one another.
    """
    inside, edge = (mpl.colors.to_rgba(color, alpha) for alpha in (0.1, 0.5))
    ax.fill_between(
        mean.index, mean - std, mean + std, facecolor=inside, edgecolor=edge, linewidth=0.4
    )


def _room(ax, least: float = 4.0) -> None:
    """At least so many percent points of accuracy on the axis.

    Noise is not to look like a finding.
    """
    low, high = ax.get_ylim()
    if (more := least - (high - low)) > 0:
        ax.set_ylim(max(low - more / 2, -1.0), min(high + more / 2, 101.0))


def _curves(ax, levels: pd.DataFrame, verdicts: pd.DataFrame, curves: list, criterion: str) -> None:
    """Mean line, one-std shade, dashed dense level and starred extreme sparsity of each
    (pretraining, method).
    """
    regime, metric = double_win.CRITERIA[criterion]
    bases = set()
    for pretraining, method in curves:
        own = (levels["pretraining"] == pretraining) & (levels["regime"] == regime)
        line = levels[own & levels["method"].isin(["dense", method])].dropna(subset=metric)
        line = line.set_index("rounds").sort_index()
        if line.empty or (method != "IMP-ST" and (line["method"] == "dense").all()):
            continue
        look, mean, std = (
            role(pretraining, method),
            100 * line[metric],
            100 * line[f"{metric}_std"].fillna(0),
        )
        _shade(ax, mean, std, look["color"])
        ax.plot(line.index, mean, **look, label=f"{theta(pretraining)}, {method}")
        if 0 in line.index and pretraining not in bases:
            ax.axhline(mean[0], color=look["color"], **DENSE, zorder=1)
        star = verdicts[(verdicts["pretraining"] == pretraining) & (verdicts["method"] == method)][
            "extreme_rounds"
        ]
        bases.add(pretraining)
        for r in set(star.dropna()) & set(line.index):
            face, edge = (look["color"], "black") if r else ("white", look["color"])
            ax.plot(r, mean[r], **STAR, markerfacecolor=face, markeredgecolor=edge, zorder=5)


def _grid(
    table: pd.DataFrame, cells: list, titles: list, labels: list, curves: list, how: dict
) -> Figure:
    """Rows and columns of curves; cells[i][j] is (dataset, fraction, criterion)."""
    levels, verdicts = statistics.spread(table), double_win.verdict(table, **how)
    at = tables.sparsities(levels)
    shape = len(cells), len(cells[0])
    width = PAGE if shape[1] > 1 else COLUMN
    fig = Figure((width, 1.35 * shape[0] + 0.65), layout="constrained")
    axes = fig.subplots(*shape, sharex=True, squeeze=False)
    for i, row in enumerate(cells):
        for ax, title, (data, fraction, criterion) in zip(axes[i], titles, row, strict=True):
            here, judged = (
                f[(f["dataset"] == data) & (f["fraction"] == fraction)] for f in (levels, verdicts)
            )
            _curves(ax, here, judged, curves, criterion)
            ladder_ticks(ax, at, most=6 if width == COLUMN or shape[1] == 3 else 9)
            _room(ax)
            ax.set(
                title=title if i == 0 else None,
                xlabel="sparsity (%)" if i == shape[0] - 1 else None,
            )
        axes[i, 0].set_ylabel(labels[i])
    found = {
        line.get_label(): line
        for ax in axes.flat
        for line in ax.get_lines()
        if line.get_label()[0] != "_"
    }
    dense = Line2D([], [], color="#666666", **DENSE, label="dense")
    star = Line2D(
        [],
        [],
        color="#999999",
        **STAR,
        markeredgecolor="black",
        label="extreme sparsity (hollow: dense)",
    )
    fig.align_ylabels(axes[:, 0])
    fig.legend(
        handles=[*found.values(), dense, star],
        loc="outside lower center",
        ncols=6 if width == PAGE else 2,
    )
    return fig


def _sets(table: pd.DataFrame) -> list:
    return sorted(table["dataset"].unique())


@figure
def existence(table: pd.DataFrame, curves: list | None = None, **how) -> Figure | None:
    """Figure 3: columns data sets; rows SA after ST, SA and RA after AT; IMP-ST on every theta_p,
    RP on theta_AT.

    table: transfers; of them the largest fraction of the data is drawn. how: rule, ddof, extreme of
    winning.verdict.
    """
    if table.empty:
        return None
    table = table[table["fraction"] == table["fraction"].max()]
    sets, curves = _sets(table), curves or [*((p, "IMP-ST") for p in PRETRAININGS), ("AT", "RP")]
    cells = [[(d, table["fraction"].max(), c) for d in sets] for c in CRITERIA]
    alone = {d: table.loc[table["dataset"] == d, "seed"].nunique() == 1 for d in sets}
    titles = [name(d) + ", one seed" * alone[d] for d in sets]
    return _grid(table, cells, titles, [f"{text} (%)" for text in CRITERIA.values()], curves, how)


def methods(table: pd.DataFrame, pretraining: str = "AT", **how) -> Figure:
    """Figure 4: as Figure 3, for the four pruning methods on one theta_p."""
    return existence(
        table[table["pretraining"] == pretraining], [(pretraining, m) for m in METHODS], **how
    )


@figure
def data_limited(table: pd.DataFrame, dataset: str | None = None, **how) -> Figure | None:
    """Figure 5: rows data sets and fractions, columns the three criteria.

    IMP-ST on every theta_p.
    """
    table = table if dataset is None else table[table["dataset"] == dataset]
    if table.empty:
        return None
    pairs = sorted(
        set(zip(table["dataset"], table["fraction"], strict=True)),
        key=lambda pair: (pair[0], -pair[1]),
    )
    cells = [[(*pair, c) for c in CRITERIA] for pair in pairs]
    labels = [f"{name(d)}, {100 * f:g} %\naccuracy (%)" for d, f in pairs]
    return _grid(
        table, cells, [*CRITERIA.values()], labels, [(p, "IMP-ST") for p in PRETRAININGS], how
    )


def more(table: pd.DataFrame) -> pd.DataFrame:
    """The transfers that Figure A10 is about.

    To tasks that are none of Figure 3's, with the most data, by IMP-ST.
    """
    figure_3 = {dataset for _, _, dataset in paper_results.PAPER_EXTREMES}
    table = table[~table["dataset"].isin(figure_3) & table["method"].isin(["dense", "IMP-ST"])]
    return table[table["fraction"] == table["fraction"].max()]


def more_tasks(table: pd.DataFrame, **how) -> Figure:
    """Figure A10.

    As Figure 5, rows the tasks beyond the paper's first three, columns the three criteria.
    """
    return data_limited(more(table), **how)


def asked(params: dict, key: str) -> list:
    """What a study asks for under `key`, over all blocks of its grid, each once, in the order of
    its file; of a study without a grid, over its other blocks."""
    others = [
        block
        for name in ("masks", "landscapes", "transfer_attacks")
        for block in params.get(name, [])
    ]
    values = [
        value for block in params.get("grid", [params]) or others for value in block.get(key, [])
    ]
    return sorted(set(values), key=values.index)


def asked_sparsities(params: dict) -> dict[int, float]:
    """The rounds that a study asks for, and the sparsity that its own prune_fraction gives each."""
    share = params.get("prune_fraction", PRUNE_FRACTION)
    return {r: ladder(r, share) for r in asked(params, "rounds")}


def span(at: dict[int, float]) -> str:
    """The least and the largest sparsity of the sparse levels, in percent, or "none"."""
    sparse = [at[r] for r in sorted(at) if r]
    return f"{percent(sparse[0])} to {percent(sparse[-1])} %" if sparse else "none"


@figure
def paradigm(params: dict) -> Figure:
    """Figure 1.

    The work paradigm, drawn from a study's own parameters (records.study(NAME)["params"]).
    """
    at, seeds = asked_sparsities(params), len(asked(params, "seeds"))
    share = params.get("prune_fraction", PRUNE_FRACTION)
    fractions = " / ".join(
        f"{100 * f:g} %" for f in sorted(asked(params, "fraction"), reverse=True)
    )
    sets = "\n".join(wrap(", ".join(map(name, asked(params, "dataset"))), 30)[:3])
    fig = Figure((PAGE, 2.2))
    ax = fig.add_axes((0, 0, 1, 1), xlim=(0, 10), ylim=(0.15, 3.3))
    ax.set_axis_off()

    def write(x, y, text, **how):
        ax.text(x, y, text, **dict(ha="center", va="center", linespacing=1.4) | how)

    def box(x, y, w, h, text, color="#666666"):
        face = mpl.colors.to_rgba(color, 0.12)
        ax.add_patch(
            FancyBboxPatch((x, y), w, h, "round,pad=0.04", facecolor=face, edgecolor=color)
        )
        write(x + w / 2, y + h / 2, text)

    def arrow(x, y, to):
        ax.annotate(
            "",
            to,
            (x, y),
            arrowprops=dict(arrowstyle="-|>", color="#666666", linewidth=0.8, shrinkB=1),
        )

    texts = {"STD": "standard", "FAT": "fast adversarial", "AT": "adversarial"}
    for p, y in zip(PRETRAININGS, (2.1, 1.3, 0.5), strict=True):
        box(0.15, y, 1.75, 0.6, f"{theta(p)}\n{texts[p]}", ROLES[p][0])
        arrow(1.95, y + 0.3, (2.5, 1.6))
    for k, r in enumerate(np.linspace(0, max(at, default=6), 6)):
        kept = 1.5 * (1 - ladder(r, share))
        ax.add_patch(Rectangle((2.75 + 0.3 * k, 0.95), 0.2, kept, color="#56B4E9"))
        ax.add_patch(
            Rectangle(
                (2.75 + 0.3 * k, 0.95), 0.2, 1.5, fill=False, edgecolor="#999999", linewidth=0.5
            )
        )
    write(3.6, 0.55, f"sparsity {span(at)}\n{', '.join(asked(params, 'method'))}")
    for y, text in ((2.15, "standard training (ST)"), (0.5, "adversarial training (AT)")):
        box(5.2, y, 1.95, 0.6, text)
        arrow(4.6, 1.6, (5.15, y + 0.3))
    write(6.17, 1.63, f"{sets}\n{fractions} of the images")
    for y, text in zip((2.26, 0.94, 0.28), CRITERIA.values(), strict=True):
        box(7.6, y, 0.95, 0.38, text)
        arrow(7.2, 2.45 if y > 2 else 0.8, (7.55, y + 0.19))
        arrow(8.6, y + 0.19, (8.85, 1.6))
    box(
        8.95,
        1.1,
        0.9,
        1.0,
        f"double win:\nall match\ndense,\n{seeds} seed{'s' * (seeds != 1)}",
        "#222222",
    )
    start = f"1  pre-train {params.get('arch', '')}\non {name(params.get('source', ''))}"
    heads = start, "2  prune, rewind, retrain\non the source", "3  transfer", "4  judge"
    for x, head in zip((1.02, 3.6, 6.17, 8.7), heads, strict=True):
        write(x, 3.2, head, va="top", fontweight="bold")
    return fig


def criteria_table(params: dict) -> pd.DataFrame:
    """Table 1: the setups of a study, from its parameters."""
    sets, starts = (
        ", ".join(map(name, asked(params, "dataset"))),
        ", ".join(asked(params, "pretraining")),
    )
    source = (
        f"{params.get('arch')} on {name(params.get('source', ''))}: masks by"
        f" {', '.join(asked(params, 'method'))}"
    )
    rows = {
        "source domain": [f"{source}; theta_p for p in {starts}"] * 3,
        "target domains": [sets] * 3,
        "training scheme": ["standard (ST)", "adversarial (AT)", "adversarial (AT)"],
        "evaluation metric": ["SA", "SA", "RA"],
        "double-win ticket if and only if": ["winning"] * 3,
    }
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(CRITERIA.values()))


def _ladder_lines(
    table: pd.DataFrame, value: str, by: str, roles: dict, label: str, excess: bool = False
) -> Figure:
    """Mean and one-std shade of a fraction against the ladder, its chance level dashed beside it.

    excess: a second panel below draws it less its chance level, where the two nearly coincide.
    """
    import seaborn as sns  # here, because it takes a second that most notebooks need not spend

    fig = Figure((COLUMN, 3.3 if excess else 2.3), layout="constrained")
    ax, *below = fig.subplots(
        1 + excess, sharex=True, squeeze=False, height_ratios=(2, 1)[: 1 + excess]
    )[:, 0]
    table = table.assign(**{key: 100 * table[key] for key in (value, "chance")})
    order, dashed = (
        [key for key in roles if key in set(table[by])],
        dict(linestyle=(0, (3, 2)), linewidth=0.8),
    )
    how = dict(
        x="rounds", hue=by, hue_order=order, palette={key: roles[key][0] for key in order}, ax=ax
    )
    markers = {key: roles[key][1] for key in order}
    drawn = dict(
        style=by,
        style_order=order,
        markers=markers,
        dashes=False,
        errorbar="sd",
        markeredgewidth=0.3,
    )
    sns.lineplot(table, y=value, **drawn, **how)
    sns.lineplot(table, y="chance", legend=False, errorbar=None, **dashed, **how)
    for lower in below:
        gap = table.assign(excess=table[value] - table["chance"])
        sns.lineplot(gap, y="excess", legend=False, **drawn, **{**how, "ax": lower})
        lower.axhline(0, color="#666666", **dashed, zorder=1)
        lower.set(ylabel="above chance\n(points)")
        fig.align_ylabels([ax, lower])
    ladder_ticks(ax, tables.sparsities(table), most=8)
    ax.set(ylabel=label)
    (below or [ax])[-1].set_xlabel("sparsity (%)")
    handles = [*ax.get_legend_handles_labels()[0], Line2D([], [], color="#666666", **dashed)]
    ax.get_legend().remove()
    fig.legend(
        handles, [*order, "random, same layer densities"], loc="outside lower center", ncols=2
    )
    return fig


@figure
def similarity(table: pd.DataFrame) -> Figure | None:
    """Figure A8, top.

    Relative similarity of masks between pre-trainings (structure.similarity_table).
    """
    return (
        None
        if table.empty
        else _ladder_lines(table, "similarity", "pair", PAIRS, "relative similarity (%)")
    )


def zero_shares(table: pd.DataFrame, larger: bool = True) -> pd.DataFrame:
    """Share of zero kernels, its chance level and the sparsity, a (pretraining, rounds, seed): of
    those larger than 1x1, or of the 1x1."""
    table = table[(table["kernel"] > 1) == larger]
    total = (
        table.groupby(["pretraining", "rounds", "seed"])[["kernels", "zero", "chance"]]
        .sum()
        .astype(float)
    )
    shares = total[["zero", "chance"]].div(total["kernels"], axis=0).reset_index()
    return shares.assign(sparsity=shares["rounds"].map(tables.sparsities(table)).astype(float))


@figure
def zero_kernels(table: pd.DataFrame, larger: bool = True) -> Figure | None:
    """Figure A8, bottom.

    Completely pruned kernels (structure.zero_kernel_table), those larger than 1x1 or the 1x1.
    """
    found, roles = zero_shares(table, larger), {p: ROLES[p] for p in PRETRAININGS}
    label = f"zero kernels{'' if larger else ', 1x1'} (%)"
    return (
        None
        if found.empty
        else _ladder_lines(found, "zero", "pretraining", roles, label, excess=True)
    )


@figure
def kernel_maps(maps: dict[str, dict]) -> Figure | None:
    """Figure 7: {pretraining: structure.kernel_map(m)}.

    One dot a kernel, bright where no weight is left, by block.
    """
    maps = {
        p: maps[p]
        for p in sorted(maps, key=lambda p: PRETRAININGS.index(p) if p in PRETRAININGS else 9)
    }
    blocks = sorted({block for found in maps.values() for block in found if block != "stem"})
    if not blocks:
        return None
    fig = Figure((PAGE, 1.15 * len(maps) + 0.4), layout="constrained")
    axes = fig.subplots(len(maps), len(blocks), squeeze=False)
    colors = LinearSegmentedColormap.from_list("zero", ["#2B2B4F", "#F5C710"]).with_extremes(
        bad="white"
    )
    for row, (title, found) in zip(axes, maps.items(), strict=True):
        for ax, block in zip(row, blocks, strict=True):
            ax.set_axis_off()
            if block in found:
                ax.imshow(found[block].astype(float), cmap=colors, vmin=0, vmax=1, aspect="auto")
                ax.set_title(f"{theta(title)}, {block}: {percent(found[block].mean())} % zero")
    note = (
        "a dot a kernel, bright where completely pruned; a tile a layer, its rows the output"
        " channels"
    )
    fig.supxlabel(note, fontsize=6.5)
    return fig


@figure
def training_curve(history: list[dict]) -> Figure | None:
    """One run's history (a dictionary an epoch): loss, and validation SA and RA, by epoch."""
    if not history:
        return None
    frame = pd.DataFrame(history).reindex(columns=["epoch", "loss", "SA", "RA"]).astype(float)
    fig = Figure((COLUMN, 1.6), layout="constrained")
    left, right = fig.subplots(1, 2)
    left.plot(frame["epoch"], frame["loss"], color=ROLES["OMP"][0], marker=".")
    for metric, (color, marker) in (("SA", PAIRS["STD and FAT"]), ("RA", PAIRS["STD and AT"])):
        known = frame.dropna(subset=metric)  # RA is not validated after every epoch
        if len(known):
            right.plot(
                known["epoch"], 100 * known[metric], color=color, marker=marker, label=metric
            )
    left.set(xlabel="epoch", ylabel="training loss")
    right.set(xlabel="epoch", ylabel="validation accuracy (%)")
    if right.lines:
        right.legend()
    return fig


def transfer_attack(table: pd.DataFrame) -> "pd.io.formats.style.Styler":
    """Table A2.

    Accuracy on images attacked through an unseen robust model, beside RA, mean over seeds, in
    percent.
    """
    numbers = ["sparsity", "transfer-attack accuracy", "RA", "SA"]
    keys = ["dataset", "pretraining", "rounds", "method"]
    table = table.reindex(columns=[*keys, "sparsity", "transfer_accuracy", "RA", "SA"])
    at = tables.sparsities(table)
    means = (
        table.rename(columns={"transfer_accuracy": numbers[1]})
        .groupby(keys)[numbers[1:]]
        .mean()
        .reset_index()
    )
    means.insert(4, "sparsity", means.pop("rounds").astype(int).map(at).astype(float))
    shown = means.style.set_uuid("attack").format(dict.fromkeys(numbers, percent))
    return shown.hide(axis="index").set_caption("accuracies and sparsity in percent")


def verdict_table(verdict: pd.DataFrame) -> "pd.io.formats.style.Styler":
    """The verdicts of `winning.verdict` to be read: sparsities and fractions in percent."""
    shares = dict.fromkeys(["extreme_sparsity", *double_win.CRITERIA], "{:.1%}")
    return verdict.style.format({**shares, "fraction": "{:.0%}"}).hide(axis="index")


@figure
def transfer_attack_curve(table: pd.DataFrame) -> Figure | None:
    """Table A2 drawn.

    Accuracy on the unseen robust model's images and RA against the ladder, one network a colour.
    """
    if table.empty:
        return None
    fig = Figure((COLUMN, 2.2), layout="constrained")
    ax = fig.subplots()
    kinds = {
        "transfer_accuracy": ("o", "-", "unseen model's images"),
        "RA": ("s", "--", "own PGD images (RA)"),
    }
    for p, part in table.groupby("pretraining"):
        by, color = part.groupby("rounds")[[*kinds]], ROLES[p][0]
        means, stds = 100 * by.mean(), 100 * by.std().fillna(0)
        for metric, (marker, line, text) in kinds.items():
            _shade(ax, means[metric], stds[metric], color)
            ax.plot(
                means[metric],
                color=color,
                marker=marker,
                linestyle=line,
                label=f"{theta(p)}, {text}",
            )
    ladder_ticks(ax, tables.sparsities(table))
    _room(ax)
    ax.set(xlabel="sparsity (%)", ylabel="accuracy (%)")
    fig.legend(loc="outside lower center", ncols=1)
    return fig
