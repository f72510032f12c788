"""One sentence a figure, from the same table: what this study shows. The paper's findings stand in
the notebooks.

A sentence answers the figure's question: who reaches furthest or leads, by how much, and against
which noise. What the records cannot tell is said to be not known; without records it is "No records
yet.".
"""

from itertools import product

import pandas as pd

from dwlt_lib.analysis import double_win, statistics, tables
from dwlt_lib.plotting import figures
from dwlt_lib.plotting.style import METHODS, PRETRAININGS, name, percent

NOTHING = "No records yet."
ROBUST = ("FAT", "AT")


def _and(names: list) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def _times(count: int, what: str) -> str:
    return f"{count} {what}{'s' * int(count != 1)}"


def _points(gap: float) -> str:
    return f"{round(100 * gap, 1) + 0.0:+.1f} points"  # + 0.0: no -0.0


def _against(gap: float, std: float) -> str:
    """A difference in points beside the noise: one standard deviation over seeds."""
    if pd.isna(std):
        return f"{_points(gap)} (one seed: noise not known)"
    if abs(gap) <= std:
        return f"{_points(gap)}, within one std ({100 * std:.1f})"
    return f"{_points(gap)}, beyond one std ({100 * std:.1f})"


def _none(table: pd.DataFrame) -> str:
    return "No sparse ticket has been transferred yet." if len(table) else NOTHING


def _data(table: pd.DataFrame) -> pd.DataFrame:
    """The largest fraction of the data, as Figures 3 and 4 take it."""
    return table[table["fraction"] == table["fraction"].max()]


def _extremes(
    table: pd.DataFrame, by: str, order: tuple, how: dict
) -> dict[str, tuple[pd.Series, pd.DataFrame]]:
    """By data set.

    The extreme sparsities by pre-training or method, in the paper's order, and the verdict's rows.
    """
    found = {}
    for dataset, part in double_win.verdict(table, **how).groupby("dataset"):
        part = part.set_index(by)
        part = part.loc[[key for key in order if key in part.index]]
        found[dataset] = part["extreme_sparsity"], part
    return found


def _reached(values: pd.Series, rows: pd.DataFrame) -> str:
    """The extremes in words: who reaches furthest, or that none wins.

    How many levels where they are not the same.
    """
    everyone, known = _and(list(values.index)), values.dropna()
    if known.empty:
        return f"it is not known whether tickets of {everyone} are double wins"
    if rows["levels"].nunique() > 1:
        values = values.rename(
            {key: f"{key} ({_times(rows['levels'][key], 'level')})" for key in values.index}
        )
    top = [key for key in values.index if values[key] == known.max()]
    rest = values.drop(top).sort_values(ascending=False, kind="stable")
    others = ", ".join(f"{key} {percent(value, ' %')}" for key, value in rest.items())
    unknown = int(rows["unknown"].sum())
    if known.max() == 0:
        text = f"no sparse ticket of {_and(top)} is {'known to be ' * bool(unknown)}a double win"
        text += f" ({others})" * bool(others)
    else:
        verb = ("reaches" if len(top) == 1 else "reach") + " furthest," * bool(others)
        text = f"{_and(top)} {verb} {percent(known.max())} %" + f" ({others})" * bool(others)
    return text + f" so far, {_times(unknown, 'level')} not known yet" * bool(unknown)


def _seeds(table: pd.DataFrame, dataset: str) -> str:
    return _times(table.loc[table["dataset"] == dataset, "seed"].nunique(), "seed")


def existence(table: pd.DataFrame, **how) -> str:
    """Figure 3 in a sentence.

    Who reaches furthest, random pruning beside it, and the lead in dense RA over STD.
    """
    table = _data(table)
    chosen, parts = table[table["method"].isin(["dense", "IMP-ST"])], []
    control = double_win.verdict(
        table[(table["method"].isin(["dense", "RP"])) & (table["pretraining"] == "AT")], **how
    )
    control = control.set_index("dataset")["extreme_sparsity"]
    for dataset, (values, rows) in _extremes(chosen, "pretraining", PRETRAININGS, how).items():
        text = f"On {name(dataset)} ({_seeds(chosen, dataset)}) {_reached(values, rows)}"
        if dataset in control.index:
            text += (
                "; random masks of AT:"
                f" {percent(control[dataset], ' %') if control[dataset] else 'none'}"
            )
        parts.append(text + _lead(chosen[chosen["dataset"] == dataset]))
    return ". ".join(parts) + "." if parts else _none(chosen)


def _lead(table: pd.DataFrame) -> str:
    """By how much the better robust pre-training leads STD in dense RA after AT, beside one
    standard deviation.
    """
    dense = statistics.spread(table[(table["rounds"] == 0) & (table["regime"] == "AT")]).set_index(
        "pretraining"
    )
    robust = [p for p in ROBUST if p in dense.index]
    if "STD" not in dense.index or not robust or dense.loc[["STD", *robust], "RA"].isna().any():
        return ""
    best = dense.loc[robust, "RA"].idxmax()
    gap, std = (
        dense["RA"][best] - dense["RA"]["STD"],
        dense.loc[["STD", best], "RA_std"].max(skipna=False),
    )
    return f"; dense RA after AT, {best} less STD: {_against(gap, std)}"


def methods(table: pd.DataFrame, pretraining: str = "AT", **how) -> str:
    """Figure 4 in a sentence.

    Who reaches furthest, and whether IMP-AT and RP part from IMP-ST in RA after AT.
    """
    table, parts = _data(table), []
    table = table[table["pretraining"] == pretraining]
    for dataset, (values, rows) in _extremes(table, "method", METHODS, how).items():
        here = table[table["dataset"] == dataset]
        start = f"From theta_{pretraining} on {name(dataset)} ({_seeds(table, dataset)})"
        gaps = filter(None, (_gap(here, method) for method in ("IMP-AT", "RP")))
        parts.append("; ".join([f"{start} {_reached(values, rows)}", *gaps]))
    return ". ".join(parts) + "." if parts else _none(table)


def _gap(table: pd.DataFrame, method: str) -> str:
    """Mean difference to IMP-ST in RA after AT over the levels that both have, beside their mean
    std over seeds.
    """
    levels = statistics.spread(table[table["regime"] == "AT"]).set_index(["method", "rounds"])
    if not {method, "IMP-ST"} <= set(levels.index.get_level_values(0)):
        return ""
    pair = (
        levels.loc[method]
        .join(levels.loc["IMP-ST"], how="inner", rsuffix="_ST")
        .dropna(subset=["RA", "RA_ST"])
    )
    if pair.empty:
        return ""
    gap, std = (pair["RA"] - pair["RA_ST"]).mean(), pair[["RA_std", "RA_std_ST"]].to_numpy().mean()
    over = f"mean over {len(pair)} shared levels" if len(pair) > 1 else "at the one shared level"
    return f"RA after AT, {method} less IMP-ST ({over}): {_against(gap, std)}"


def data_limited(table: pd.DataFrame) -> str:
    """Figure 5 in a sentence.

    The best mean RA after AT by theta_p, and the sparse ticket furthest above its dense.
    """
    chosen = table[table["method"].isin(["dense", "IMP-ST"])]
    levels = statistics.spread(chosen[chosen["regime"] == "AT"]).dropna(subset="RA")
    levels, found = levels.sort_values(["dataset", "fraction"], ascending=[True, False]), []
    for (d, f), part in levels.groupby(["dataset", "fraction"], sort=False):
        best = part.loc[part.groupby("pretraining")["RA"].idxmax()].set_index("pretraining")
        each = [
            f"{p} {percent(best['RA'][p])} % at {percent(best['sparsity'][p])} %"
            for p in PRETRAININGS
            if p in best.index
        ]
        found.append(f"with {100 * f:g} % of {name(d)} {', '.join(each)}{_ahead(best['RA'])}")
    if not found:
        return NOTHING
    best = "; ".join(found)
    return f"The best mean RA after AT, at its sparsity: {best}. {_above_dense(chosen)}".strip()


def _ahead(best: pd.Series) -> str:
    robust = [p for p in ROBUST if p in best.index]
    if "STD" not in best.index or not robust:
        return ""
    leader = best[robust].idxmax()
    return f" ({leader} less STD: {_points(best[leader] - best['STD'])})"


def _above_dense(chosen: pd.DataFrame) -> str:
    """The sparse ticket whose RA after AT is furthest above its own dense network's, and whether
    noise explains it.
    """
    levels = double_win.criteria(chosen).dropna(subset="AT_RA_difference")
    if levels.empty:
        return ""
    top = levels.loc[levels["AT_RA_difference"].idxmax()]
    where = (
        f"{top.pretraining}, {100 * top.fraction:g} % of {name(top.dataset)},"
        f" {percent(top.sparsity)} % sparse"
    )
    if top.AT_RA_difference <= 0:
        return "No sparse ticket has a higher mean RA than its own dense network."
    if pd.isna(top.AT_RA_low):
        return (
            f"Furthest above its own dense network: {where}, by {_points(top.AT_RA_difference)};"
            " noise not known."
        )
    sure = "above zero" if top.AT_RA_low > 0 else "which spans zero"
    span = f"[{100 * top.AT_RA_low:+.1f}, {100 * top.AT_RA_high:+.1f}]"
    return (
        f"Furthest above its own dense network: {where}, by {_points(top.AT_RA_difference)}, 90 %"
        f" interval {span}, {sure}; it is the best of {len(levels)}."
    )


def more_tasks(table: pd.DataFrame) -> str:
    """Figure A10 in a sentence.

    Does robust pre-training help on each task? Over the sparse levels that both have.
    """
    table, found, signs = figures.more(table), [], []
    levels = statistics.spread(table[table["rounds"] > 0])
    for dataset, part in levels.groupby("dataset"):
        gaps: dict[str, list[str]] = {}
        for (criterion, (regime, metric)), p in product(double_win.CRITERIA.items(), ROBUST):
            by = (
                part[part["regime"] == regime]
                .dropna(subset=metric)
                .set_index(["pretraining", "rounds"])
            )
            if {"STD", p} <= set(by.index.get_level_values(0)):
                pair = by.loc[p].join(by.loc["STD"], how="inner", rsuffix="_STD")
                gap, std = (
                    (pair[metric] - pair[f"{metric}_STD"]).mean(),
                    pair.filter(like=f"{metric}_std").to_numpy(),
                )
                if len(pair):
                    signs.append(gap > 0)
                    gaps.setdefault(figures.CRITERIA[criterion], []).append(
                        f"{p} {_against(gap, std.mean())}"
                    )
        if gaps:
            each = "; ".join(f"{criterion} {', '.join(said)}" for criterion, said in gaps.items())
            levels_of = _times(part["rounds"].nunique(), "level")
            found.append(f"on {name(dataset)} ({_seeds(table, dataset)}, {levels_of}) {each}")
    if not found:
        return (
            _none(table)
            if table.empty or levels.empty
            else "STD and robust pre-training share no level yet."
        )
    return (
        f"Robust pre-training is ahead in {sum(signs)} of {_times(len(signs), 'mean')} over shared"
        f" sparse levels. Less STD, {'. And '.join(found)}."
    )


def basins(areas: pd.DataFrame) -> str:
    """Figure 2 in a sentence, from basin_area.

    In how many planes FAT's basin is the widest, at each level.
    """
    counts = []
    for level, at in areas.groupby("level"):
        shares = at.pivot_table(index="where", columns="pretraining", values="area")
        if "FAT" in shares and shares.shape[1] > 1:
            shares = shares.dropna(subset="FAT")
            others = shares.drop(columns="FAT").max(axis=1)
            counts.append(f"{int((shares['FAT'] > others).sum())} of {len(shares)} at + {level:g}")
    if not counts:
        return NOTHING if areas.empty else "No plane of FAT lies beside another pre-training's."
    return (
        "Planes in which FAT's basin, the part below the plane's minimum + a level of loss, is the"
        f" widest: {', '.join(counts)}. One draw of directions a network."
    )


def paths(table: pd.DataFrame) -> str:
    """Figures 6 and A9 in a sentence, from trajectory records.

    The loss where each path ends, and what attacks add.
    """
    if table.empty:
        return NOTHING
    held = table["explained_1"] + table["explained_2"]
    losses = table.pivot_table(
        index=["dataset", "fraction"], columns=["images", "pretraining"], values="loss_centre"
    )
    found = []
    for images in [kind for kind in ("clean", "attacked") if kind in losses]:
        parts = []
        for (d, f), row in losses[images].sort_index(ascending=[True, False]).iterrows():
            each = ", ".join(f"{p} {row[p]:.2f}" for p in PRETRAININGS if pd.notna(row.get(p)))
            parts += [f"{100 * f:g} % {name(d)} {each}"] * bool(each)
        found.append(f"on {images} images {'; '.join(parts)}")
    planes = f"Each plane holds at least {percent(held.min())} % of its path's variance."
    return f"The loss at the end of the path is, {'. And '.join(found)}. {planes}"


def _sparsest(table: pd.DataFrame) -> str:
    """The sparsity of a table's sparsest level, in percent."""
    at = tables.sparsities(table)
    return percent(at[max(at)])


def masks(pairs: pd.DataFrame, kernels: pd.DataFrame) -> str:
    """Figures 7 and A8 in a sentence, at the sparsest level."""
    return NOTHING if pairs.empty or kernels.empty else f"{overlap(pairs)} {zeros(kernels)}"


def overlap(pairs: pd.DataFrame) -> str:
    """Figure A8, top, in a sentence, at the sparsest level: how far beyond chance masks overlap."""
    if pairs.empty:
        return NOTHING
    means = (
        pairs[pairs["rounds"] == pairs["rounds"].max()]
        .groupby("pair")[["similarity", "chance"]]
        .mean()
    )
    each = [
        f"{r.Index} {percent(r.similarity)} % (chance {percent(r.chance)} %)"
        for r in means.sort_values("similarity", ascending=False).itertuples()
    ]
    times = means["similarity"] / means["chance"]
    span = " to ".join(dict.fromkeys([f"{times.min():.1f}", f"{times.max():.1f}"]))
    at = _sparsest(pairs)
    return f"At {at} % sparsity masks overlap {span} times as much as by chance: {', '.join(each)}."


def alike(pairs: pd.DataFrame) -> str:
    """Beside Figure 4 in a sentence: how far the masks of two methods differ, in the middle of the
    ladder and at its end. Where they hardly do, no difference between the methods can be told."""
    if pairs.empty:
        return "Masks of two methods are not there to be compared."
    rounds, found = sorted(pairs["rounds"].unique()), []
    for r in dict.fromkeys([rounds[len(rounds) // 2], rounds[-1]]):
        here = pairs[pairs["rounds"] == r]
        means = here.groupby("pair", sort=False)[["similarity", "chance"]].mean()
        each = [
            f"{row.Index} {percent(row.similarity)} % (chance {percent(row.chance)} %)"
            for row in means.itertuples()
        ]
        found.append(f"at {percent(here['sparsity'].iloc[0])} % {', '.join(each)}")
    return f"Masks overlap, {'; '.join(found)}."


def zeros(kernels: pd.DataFrame) -> str:
    """Figure A8, bottom, in a sentence, at the sparsest level.

    Who has the most zero kernels, and more than chance?
    """
    shares = figures.zero_shares(kernels)
    if shares.empty:
        return NOTHING
    last = (
        shares[shares["rounds"] == shares["rounds"].max()]
        .groupby("pretraining")[["zero", "chance"]]
        .mean()
    )
    last = last.sort_values("zero", ascending=False, kind="stable")
    each = [
        f"{p} {percent(r.zero)} % ({_points(r.zero - r.chance)} to chance)"
        for p, r in last.iterrows()
    ]
    spread = (
        f"; the most and the fewest differ by {100 * (last['zero'].max() - last['zero'].min()):.1f}"
        " points"
    )
    at = _sparsest(shares)
    return (
        f"At {at} % sparsity kernels above 1x1 are zero in"
        f" {', '.join(each)}{spread * (len(last) > 1)}."
    )


def blocks(kernels: pd.DataFrame) -> str:
    """Figure 7 in a sentence: where in the network the zero kernels of the sparsest masks are."""
    kernels = kernels[kernels["kernel"] > 1]
    if kernels.empty:
        return NOTHING
    last = kernels[(kernels["rounds"] == kernels["rounds"].max()) & (kernels["block"] != "stem")]
    total = (
        last.groupby(["block", "pretraining"])[["kernels", "zero", "chance"]].sum().astype(float)
    )
    share, parts = total[["zero", "chance"]].div(total["kernels"], axis=0), []
    for block, part in share.groupby(level="block"):
        span = " to ".join(dict.fromkeys(percent(part["zero"].agg(end)) for end in ("min", "max")))
        parts.append(f"{block} {span} % (chance {percent(part['chance'].mean())} %)")
    at = _sparsest(kernels)
    return (
        f"At {at} % sparsity the kernels of a block that are zero, over the pre-trainings:"
        f" {', '.join(parts)}."
    )


def transfer_attack(table: pd.DataFrame) -> str:
    """Table A2 in a sentence: below RA would point to masked gradients.

    And whether sparse networks exceed dense.
    """
    if table.empty:
        return NOTHING
    means = table.groupby([*double_win.GROUP, "rounds"])[["transfer_accuracy", "RA"]].mean()
    margin, below = (
        means["transfer_accuracy"] - means["RA"],
        (means["transfer_accuracy"] < means["RA"]).sum(),
    )
    networks, span = (
        _times(len(margin), "network"),
        f"the margin over RA is {_points(margin.min())} at least",
    )
    text = f"{below} of {networks} withstand the unseen model's images worse than their own PGD's, "
    text += "which points to masked gradients"
    if not below:
        alone = len(margin) == 1
        text = (
            "No sign of masked gradients:"
            f" {'the one network withstands' if alone else f'all {networks} withstand'} "
        )
        text += (
            f"the unseen model's images at least as well as {'its' if alone else 'their'} own PGD's"
        )
    text = f"{text}; {span}"
    rows = means["transfer_accuracy"].reset_index()
    dense = rows[rows["rounds"] == 0].set_index(["pretraining", "dataset", "fraction"])[
        "transfer_accuracy"
    ]
    sparse = rows[rows["rounds"] > 0].join(
        dense.rename("dense"), on=["pretraining", "dataset", "fraction"]
    )
    sparse = sparse.dropna(subset="dense")
    above = int((sparse["transfer_accuracy"] > sparse["dense"]).sum())
    return (
        text
        + (
            f"; {above} of {_times(len(sparse), 'sparse ticket')} exceed their dense network there"
            if len(sparse)
            else ""
        )
        + "."
    )


def paradigm(params: dict) -> str:
    """Figure 1 and Table 1 in a sentence.

    What the study asks for (records.study(NAME)["params"]).
    """
    sets = _and([name(d) for d in figures.asked(params, "dataset")])
    at = {r: sparsity for r, sparsity in figures.asked_sparsities(params).items() if r}
    what = dict(
        pretraining="pre-training", method="pruning method", fraction="fraction", seeds="seed"
    )
    starts, methods, fractions, seeds = (
        [_times(count, word)] if (count := len(figures.asked(params, key))) else []
        for key, word in what.items()
    )
    levels = f"{_times(len(at), 'level')} of sparsity"
    levels += f" ({figures.span(at)})" if at else ""
    fractions = [f"{fraction} of the data" for fraction in fractions]
    return (
        f"This study takes {params.get('arch')} from"
        f" {name(params.get('source', ''))}{f' to {sets}' * bool(sets)}:"
        f" {', '.join([*starts, *methods, levels, *fractions, *seeds])}."
    )


def headline(table: pd.DataFrame) -> str:
    """The study's answer in a line.

    Are there double-win tickets, how sparse, and over all readings of the rule.
    """
    chosen = _data(table)
    chosen = chosen[chosen["method"].isin(["dense", "IMP-ST"])]
    extremes, parts = _extremes(chosen, "pretraining", PRETRAININGS, {}), []
    readings = double_win.alternatives(chosen).groupby("dataset").max() if extremes else None
    for dataset, (values, rows) in extremes.items():
        top, others = values.max(), readings.loc[dataset].dropna()
        if pd.isna(top):
            parts.append(f"on {name(dataset)} not known")
            continue
        who = _and([p for p in values.index if values[p] == top])
        found = f"up to {percent(top)} % sparsity ({who})" if top else "none"
        if others.min() < others.max():
            found += (
                f", {percent(others.min())} to {percent(others.max())} % over all readings of the"
                " rule"
            )
        if unknown := int(rows["unknown"].sum()):
            found += f" so far, {_times(unknown, 'level')} not known yet"
        parts.append(f"on {name(dataset)} {found}")
    if not parts:
        return _none(chosen)
    tops = pd.Series([values.max() for values, _ in extremes.values()])
    start = (
        "Double-win tickets were found" if (tops > 0).any() else "No double-win ticket was found"
    )
    return f"{start if tops.notna().any() else 'The verdict is open'}: {'; '.join(parts)}."
