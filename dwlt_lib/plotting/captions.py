"""One caption per figure, from the same table: what this study shows.

A caption answers the figure's question: which pre-training or method reaches furthest or leads, by
how much, and how large the noise is. It says where the records cannot tell; without records it is
"No records yet.". What the paper found is written in the notebooks.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from dwlt_lib.analysis import contrasts, double_win, statistics, tables
from dwlt_lib.analysis import masked_gradients as masking
from dwlt_lib.analysis.contrasts import Curve, Estimate, Evidence
from dwlt_lib.analysis.statistics import Outcomes
from dwlt_lib.config.specs import CONTROLS
from dwlt_lib.plotting import figures
from dwlt_lib.plotting.study_overview import (
    Parameters,
    requested_sparsities,
    requested_values,
    sparsity_range,
)
from dwlt_lib.plotting.style import (
    CRITERION_NAMES,
    METHODS,
    PRETRAININGS,
    dataset_name,
    percent,
)

NOTHING = "No records yet."
ROBUST = ["FAT", "AT"]


# ------------------------------------------------------------------------------------------
# words


def _and(names: Sequence[str]) -> str:
    """Names as a list in words: "STD, FAT and AT"."""
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _count(number: int, noun: str) -> str:
    """A number of things: "1 seed", "2 seeds"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _points(difference: float) -> str:
    """A difference of fractions in percent points; + 0.0 makes a rounded -0.0 a 0.0."""
    return f"{round(100 * difference, 1) + 0.0:+.1f} points"


def _bounded(found: Estimate) -> str:
    """An effect in points with its bounds, by itself: the claims' are Holm-adjusted and wider."""
    if pd.isna(found.error):
        return f"{_points(found.effect)} (one seed: noise not known)"
    low, high = (_points(bound(0.05)).split()[0] for bound in (found.low, found.high))
    return f"{_points(found.effect)} (95 % bounds {low}, {high})"


def _compare(evidence: Evidence, high: Curve, low: Curve, criterion: str) -> Estimate | None:
    """One curve less another over the levels that both have; evidence is on one data set."""
    return next(contrasts.between(evidence, high, low, criterion), None)


def _difference(evidence: Evidence, high: Curve, low: Curve) -> str:
    """How two curves differ in RA after AT, in words; empty where they share no level."""
    found = _compare(evidence, high, low, "AT_RA")
    return f"{found.what}: {_bounded(found)}" if found else ""


def _share_of(fraction: float, dataset: str) -> str:
    """A part of a data set: "10 % of CIFAR-10"."""
    return f"{100 * fraction:g} % of {dataset_name(dataset)}"


def _range(low: str, high: str) -> str:
    """Two numbers as a range, or the one that they are."""
    return low if low == high else f"{low} to {high}"


def _count_seeds(table: pd.DataFrame, dataset: str) -> str:
    """How many seeds a table has of a data set."""
    return _count(tables.count_seeds(table[table["dataset"] == dataset]), "seed")


def _no_sparse_ticket(table: pd.DataFrame) -> str:
    """What to say of a table without a sparse ticket."""
    return "No sparse ticket has been transferred yet." if len(table) else NOTHING


def _at_most_data(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the largest fraction of the data, which Figures 3 and 4 take."""
    return table[table["fraction"] == table["fraction"].max()]


# ------------------------------------------------------------------------------------------
# Figures 3, 4, 5 and A10: accuracies


def _verdicts_by_dataset(
    table: pd.DataFrame, by: str, order: Sequence[str], reading: Mapping[str, Any]
) -> dict[str, pd.DataFrame]:
    """{data set: rows of the verdict, indexed by pre-training or method in the paper's order}."""
    verdicts = {}
    for dataset, rows in double_win.verdict(table, **reading).groupby("dataset"):
        rows = rows.set_index(by)
        verdicts[str(dataset)] = rows.loc[[key for key in order if key in rows.index]]
    return verdicts


def _furthest(verdicts: pd.DataFrame) -> str:
    """Which rows of a verdict reach the highest extreme sparsity, or that none wins.

    verdicts: of one data set, indexed by pre-training or method. The number of levels is told
    where it is not the same for all.
    """
    extremes = verdicts["extreme_sparsity"]
    best = extremes.max()
    if pd.isna(best):
        return f"it is not known whether tickets of {_and(list(extremes.index))} are double wins"
    if verdicts["levels"].nunique() > 1:
        counts = verdicts["levels"]
        extremes = extremes.rename(
            {key: f"{key} ({_count(counts[key], 'level')})" for key in extremes.index}
        )
    leaders = [str(key) for key in extremes.index if extremes[key] == best]
    others = extremes.drop(leaders).sort_values(ascending=False, kind="stable")
    listed = ", ".join(f"{key} {percent(value, ' %')}" for key, value in others.items())
    unknown = int(verdicts["unknown"].sum())
    if best == 0:
        wins = "is known to be a double win" if unknown else "is a double win"
        text = f"no sparse ticket of {_and(leaders)} {wins}"
    else:
        verb = "reaches" if len(leaders) == 1 else "reach"
        furthest = " furthest," if listed else ""
        text = f"{_and(leaders)} {verb}{furthest} {percent(best)} %"
    if listed:
        text += f" ({listed})"
    if unknown:
        text += f" so far, {_count(unknown, 'level')} not known yet"
    return text


def existence(table: pd.DataFrame, outcomes: Outcomes | None = None, **reading: Any) -> str:
    """Figure 3's caption: which theta_p reaches furthest, beside random masks, and leads in RA.

    Args:
        table: transfers.
        outcomes: their correctness per image (`records.outcomes_of`), which narrows bounds.
        **reading: rule, ddof and extreme of `double_win.verdict`.

    Returns:
        One sentence per data set.
    """
    table = _at_most_data(table)
    chosen = table[table["method"].isin(["dense", "IMP-ST"])]
    random = table[table["method"].isin(["dense", "RP"]) & (table["pretraining"] == "AT")]
    random_extremes = double_win.verdict(random, **reading).set_index("dataset")["extreme_sparsity"]
    sentences = []
    by_dataset = _verdicts_by_dataset(chosen, "pretraining", PRETRAININGS, reading)
    for dataset, verdicts in by_dataset.items():
        seeds = _count_seeds(chosen, dataset)
        text = f"On {dataset_name(dataset)} ({seeds}) {_furthest(verdicts)}"
        if dataset in random_extremes.index:
            extreme = random_extremes[dataset]
            text += f"; random masks of AT: {percent(extreme, ' %') if extreme else 'none'}"
        evidence = Evidence(table[table["dataset"] == dataset], outcomes or {})
        leads = [_difference(evidence, (p, "IMP-ST"), ("STD", "IMP-ST")) for p in ROBUST]
        sentences.append("; ".join(filter(None, [text, *leads])))
    return f"{'. '.join(sentences)}." if sentences else _no_sparse_ticket(chosen)


def methods(
    table: pd.DataFrame,
    pretraining: str = "AT",
    outcomes: Outcomes | None = None,
    **reading: Any,
) -> str:
    """Figure 4's caption: which pruning method reaches furthest, and who differs from IMP-ST in RA.

    Args:
        table: transfers.
        pretraining: STD, FAT or AT.
        outcomes: their correctness per image (`records.outcomes_of`), which narrows bounds.
        **reading: rule, ddof and extreme of `double_win.verdict`.

    Returns:
        One sentence per data set.
    """
    names = [method for method in METHODS if method not in CONTROLS]
    return _by_method(table, pretraining, names, ["IMP-AT", "RP"], outcomes, reading)


def controls(
    table: pd.DataFrame,
    pretraining: str = "AT",
    outcomes: Outcomes | None = None,
    **reading: Any,
) -> str:
    """The caption of the controls: how far each reaches, and how it differs from IMP-ST in RA.

    Args:
        table: transfers.
        pretraining: STD, FAT or AT.
        outcomes: their correctness per image (`records.outcomes_of`), which narrows bounds.
        **reading: rule, ddof and extreme of `double_win.verdict`.

    Returns:
        One sentence per data set that has a control.
    """
    is_control = table["method"].isin(CONTROLS) & (table["pretraining"] == pretraining)
    table = table[table["dataset"].isin(table.loc[is_control, "dataset"])]
    return _by_method(table, pretraining, ["IMP-ST", *CONTROLS], CONTROLS, outcomes, reading)


def _by_method(  # noqa: PLR0913 - a sentence has these parts
    table: pd.DataFrame,
    pretraining: str,
    names: Sequence[str],
    compared: Sequence[str],
    outcomes: Outcomes | None,
    reading: Mapping[str, Any],
) -> str:
    """A sentence per data set: which of these methods reach furthest, and how some differ."""
    table = _at_most_data(table)
    own = table[(table["pretraining"] == pretraining) & table["method"].isin(["dense", *names])]
    sentences = []
    for dataset, verdicts in _verdicts_by_dataset(own, "method", names, reading).items():
        start = f"From theta_{pretraining} on {dataset_name(dataset)}"
        parts = [f"{start} ({_count_seeds(own, dataset)}) {_furthest(verdicts)}"]
        evidence, imp_st = Evidence(table[table["dataset"] == dataset], outcomes or {}), "IMP-ST"
        parts += [
            _difference(evidence, (pretraining, method), (pretraining, imp_st))
            for method in compared
        ]
        sentences.append("; ".join(filter(None, parts)))
    return f"{'. '.join(sentences)}." if sentences else _no_sparse_ticket(own)


def data_limited(table: pd.DataFrame, outcomes: Outcomes | None = None) -> str:
    """Figure 5's caption: the best RA after AT by theta_p, and the ticket furthest above its dense.

    Args:
        table: transfers.
        outcomes: their correctness per image (`records.outcomes_of`), which narrows bounds.

    Returns:
        One sentence on the best RA, and one on the ticket furthest above its dense network.
    """
    chosen = table[table["method"].isin(["dense", "IMP-ST"])]
    levels = statistics.spread(chosen[chosen["regime"] == "AT"]).dropna(subset="RA")
    levels = levels.sort_values(["dataset", "fraction"], ascending=[True, False])
    parts = []
    for _, rows in levels.groupby(["dataset", "fraction"], sort=False):
        best = rows.loc[rows.groupby("pretraining")["RA"].idxmax()].set_index("pretraining")
        listed = ", ".join(
            f"{p} {percent(best['RA'][p])} % at {percent(best['sparsity'][p])} %"
            for p in PRETRAININGS
            if p in best.index
        )
        data = _share_of(rows["fraction"].iloc[0], rows["dataset"].iloc[0])
        parts.append(f"with {data} {listed}")
    if not parts:
        return NOTHING
    above = _furthest_above_dense(chosen, outcomes)
    text = f"The best mean RA after AT, at its sparsity: {'; '.join(parts)}."
    return f"{text} {above}" if above else text


def _furthest_above_dense(chosen: pd.DataFrame, outcomes: Outcomes | None) -> str:
    """The sparse ticket whose RA after AT is furthest above its own dense network's, and noise."""
    found = statistics.differences(chosen, outcomes)
    found = found[found["criterion"] == "AT_RA"]
    if found.empty:
        return ""
    top = found.sort_values("difference", ascending=False, kind="stable").iloc[0]
    if top["difference"] <= 0:
        return "No sparse ticket has a higher mean RA than its own dense network."
    data = _share_of(top["fraction"], top["dataset"])
    sparsity = tables.sparsities(chosen)[top["rounds"]]
    ticket = f"{top['pretraining']}, {data}, {percent(sparsity)} % sparse"
    text = f"Furthest above its own dense network: {ticket}, by {_points(top['difference'])}"
    if pd.isna(top["low"]):
        return f"{text}; noise not known."
    relation = "above zero" if top["low"] > 0 else "which spans zero"
    return (
        f"{text}, 90 % interval [{100 * top['low']:+.1f}, {100 * top['high']:+.1f}], {relation}; it"
        f" is the best of {len(found)}."
    )


def overfitting(table: pd.DataFrame) -> str:
    """The caption of `figures.overfitting`: does training overfit, and sparse tickets less?

    Args:
        table: of `robust_overfitting.overfitting_table`.

    Returns:
        The mean fall of validation RA at the densest and at the sparsest level, beside its noise;
        and the mean difference on test images where there is one.
    """
    table = table[table["method"].isin(["dense", "IMP-ST"])]
    if table.empty:
        return "No training has validated RA in two epochs, so none tells of robust overfitting."
    parts = []
    for _, rows in table.groupby(["dataset", "fraction"]):
        data = _share_of(rows["fraction"].iloc[0], rows["dataset"].iloc[0])
        falls, sparsities = rows.groupby("rounds")["validation"].mean(), tables.sparsities(rows)
        listed = [
            f"{100 * falls[rounds]:.1f} points at {percent(sparsities[rounds])} % sparsity"
            for rounds in sorted({falls.index[0], falls.index[-1]})
        ]
        parts.append(
            f"on {data} by {_and(listed)} (one standard error of one such RA:"
            f" {100 * rows['error'].mean():.1f})"
        )
    test = table["test"].dropna()
    on_test = "Every recipe counts its last epoch, so test images tell nothing of it"
    if len(test):
        on_test = (
            "On test images the selected epoch's RA is, less the last one's,"
            f" {_points(test.mean())} on average over {_count(len(test), 'transfer')}"
        )
    return f"Validation RA falls from its best epoch to its last {'; '.join(parts)}. {on_test}."


def more_tasks(table: pd.DataFrame, outcomes: Outcomes | None = None) -> str:
    """Figure A10's caption: is robust pre-training ahead of STD on each further task?

    Args:
        table: transfers.
        outcomes: their correctness per image (`records.outcomes_of`), which narrows bounds.

    Returns:
        In how many comparisons robust pre-training is ahead, then each of them with its bounds.
    """
    table = figures.further_tasks(table)
    sparse = table[table["rounds"] > 0]
    parts, effects = [], []
    for dataset, own in sparse.groupby("dataset"):
        evidence = Evidence(table[table["dataset"] == dataset], outcomes or {})
        texts = []
        for criterion in double_win.CRITERIA:
            found = {
                p: _compare(evidence, (p, "IMP-ST"), ("STD", "IMP-ST"), criterion) for p in ROBUST
            }
            listed = [f"{p} {_bounded(each)}" for p, each in found.items() if each]
            effects += [each.effect for each in found.values() if each]
            if listed:
                texts.append(f"{CRITERION_NAMES[criterion]} {', '.join(listed)}")
        if texts:
            name = str(dataset)
            counts = f"{_count_seeds(table, name)}, {_count(own['rounds'].nunique(), 'level')}"
            parts.append(f"on {dataset_name(name)} ({counts}) {'; '.join(texts)}")
    if not parts:
        if sparse.empty:
            return _no_sparse_ticket(table)
        return "STD and robust pre-training share no level yet."
    ahead = sum(effect > 0 for effect in effects)
    return (
        f"Robust pre-training is ahead in {ahead} of {_count(len(effects), 'mean')} over shared"
        f" sparse levels. Less STD, {'. And '.join(parts)}."
    )


# ------------------------------------------------------------------------------------------
# Figures 2, 6 and A9: landscapes


def basins(areas: pd.DataFrame) -> str:
    """Figure 2's caption: in how many planes FAT's basin is the widest, at each level.

    Args:
        areas: of `landscapes.basin_area`.

    Returns:
        The counts, one per level of loss.
    """
    counts = []
    for level, rows in areas.groupby("level"):
        shares = rows.pivot_table(index="where", columns="pretraining", values="area")
        if "FAT" in shares and shares.shape[1] > 1:
            shares = shares.dropna(subset="FAT")
            others = shares.drop(columns="FAT").max(axis=1)
            widest = int((shares["FAT"] > others).sum())
            counts.append(f"{widest} of {len(shares)} at + {level:g}")
    if areas.empty:
        return NOTHING
    if not counts:
        return "No plane of FAT lies beside another pre-training's."
    return (
        "Planes in which FAT's basin, the part below the plane's minimum + a level of loss, is the"
        f" widest: {', '.join(counts)}. One draw of directions a network."
    )


def paths(table: pd.DataFrame) -> str:
    """The caption of Figures 6 and A9: the loss where each path ends, on clean and attacked images.

    Args:
        table: trajectory records.

    Returns:
        The mean losses, and the least share of variance that a plane holds.
    """
    if table.empty:
        return NOTHING
    parts = []
    for images in ("clean", "attacked"):
        rows = table[table["images"] == images].dropna(subset="loss_centre")
        if len(rows):
            parts.append(f"on {images} images {'; '.join(_losses_at_the_end(rows))}")
    held = (table["explained_1"] + table["explained_2"]).min()
    return (
        f"The loss at the end of the path is, {'. And '.join(parts)}. Each plane holds at least"
        f" {percent(held)} % of its path's variance."
    )


def _losses_at_the_end(table: pd.DataFrame) -> list[str]:
    """The mean loss at the end of the paths by pre-training, one text per data set and fraction."""
    losses = table.groupby(["dataset", "fraction", "pretraining"])["loss_centre"].mean()
    losses = losses.unstack("pretraining").sort_index(ascending=[True, False]).reset_index()
    texts = []
    for row in losses.to_dict("records"):
        listed = [f"{p} {row[p]:.2f}" for p in PRETRAININGS if pd.notna(row.get(p))]
        data = f"{100 * row['fraction']:g} % {dataset_name(row['dataset'])}"
        texts.append(f"{data} {', '.join(listed)}")
    return texts


# ------------------------------------------------------------------------------------------
# Figures 7 and A8: masks


def _highest_sparsity(table: pd.DataFrame) -> str:
    """The sparsity of a table's sparsest level, in percent."""
    sparsities = tables.sparsities(table)
    return percent(sparsities[max(sparsities)])


def masks(pairs: pd.DataFrame, kernels: pd.DataFrame) -> str:
    """The caption of Figures 7 and A8 together, at the sparsest level.

    Args:
        pairs: of `mask_patterns.similarity_table`.
        kernels: of `mask_patterns.zero_kernel_table`.

    Returns:
        The sentences of `overlap` and `zeros`.
    """
    if pairs.empty or kernels.empty:
        return NOTHING
    return f"{overlap(pairs)} {zeros(kernels)}"


def _similarities(pairs: pd.DataFrame) -> str:
    """Each pair's mean similarity and chance. pairs: rows of means, indexed by pair."""
    return ", ".join(
        f"{row['pair']} {percent(row['similarity'])} % (chance {percent(row['chance'])} %)"
        for row in pairs.reset_index().to_dict("records")
    )


def overlap(pairs: pd.DataFrame) -> str:
    """Figure A8's caption, top: how far beyond chance the sparsest masks overlap.

    Args:
        pairs: of `mask_patterns.similarity_table`.

    Returns:
        One sentence, which names every pair's similarity beside chance.
    """
    if pairs.empty:
        return NOTHING
    means = tables.sparsest(pairs).groupby("pair")[["similarity", "chance"]].mean()
    ratios = means["similarity"] / means["chance"]
    times = _range(f"{ratios.min():.1f}", f"{ratios.max():.1f}")
    listed = _similarities(means.sort_values("similarity", ascending=False))
    return (
        f"At {_highest_sparsity(pairs)} % sparsity masks overlap {times} times as much as by"
        f" chance: {listed}."
    )


def alike(pairs: pd.DataFrame) -> str:
    """How far the masks of other methods are IMP-ST's.

    It is told at the middle and at the last of the levels: where masks hardly differ, no difference
    between the methods can be told.

    Args:
        pairs: of `mask_patterns.similarity_table` between methods.

    Returns:
        One sentence.
    """
    pairs = pairs[pairs["pair"].str.startswith("IMP-ST and ")]
    if pairs.empty:
        return "Masks of IMP-ST and of another method are not there to be compared."
    rounds = sorted(pairs["rounds"].unique())
    parts = []
    for chosen in dict.fromkeys([rounds[len(rounds) // 2], rounds[-1]]):
        rows = pairs[pairs["rounds"] == chosen]
        means = rows.groupby("pair", sort=False)[["similarity", "chance"]].mean()
        parts.append(f"at {percent(rows['sparsity'].iloc[0])} % {_similarities(means)}")
    return f"Masks overlap, {'; '.join(parts)}."


def zeros(kernels: pd.DataFrame) -> str:
    """Figure A8's caption, bottom: the zero kernels of the sparsest masks, beside chance.

    Args:
        kernels: of `mask_patterns.zero_kernel_table`.

    Returns:
        One sentence, with every pre-training's share and its difference to chance in points.
    """
    shares = figures.zero_shares(kernels)
    if shares.empty:
        return NOTHING
    means = tables.sparsest(shares).groupby("pretraining")[["zero", "chance"]].mean()
    means = means.sort_values("zero", ascending=False, kind="stable").reset_index()
    listed = ", ".join(
        f"{row['pretraining']} {percent(row['zero'])} %"
        f" ({_points(row['zero'] - row['chance'])} to chance)"
        for row in means.to_dict("records")
    )
    text = f"At {_highest_sparsity(shares)} % sparsity kernels above 1x1 are zero in {listed}"
    if len(means) > 1:
        spread = 100 * (means["zero"].max() - means["zero"].min())
        text += f"; the most and the fewest differ by {spread:.1f} points"
    return f"{text}."


def blocks(kernels: pd.DataFrame) -> str:
    """Figure 7's caption: where in the network the zero kernels of the sparsest masks are.

    Args:
        kernels: of `mask_patterns.zero_kernel_table`.

    Returns:
        One sentence, with every block's share beside chance.
    """
    kernels = kernels[kernels["kernel"] > 1]
    if kernels.empty:
        return NOTHING
    last = tables.sparsest(kernels)
    last = last[last["block"] != "stem"]
    counts = last.groupby(["block", "pretraining"])[["kernels", "zero", "chance"]].sum()
    counts = counts.astype(float)
    shares = counts[["zero", "chance"]].div(counts["kernels"], axis=0)
    parts = []
    for block, rows in shares.groupby(level="block"):
        zero = _range(percent(rows["zero"].min()), percent(rows["zero"].max()))
        parts.append(f"{block} {zero} % (chance {percent(rows['chance'].mean())} %)")
    return (
        f"At {_highest_sparsity(kernels)} % sparsity the kernels of a block that are zero, over the"
        f" pre-trainings: {', '.join(parts)}."
    )


# ------------------------------------------------------------------------------------------
# Table A2, Figure 1 and the study as a whole


def transfer_attack(table: pd.DataFrame) -> str:
    """Table A2's caption: is there a sign of masked gradients, and do sparse networks exceed dense?

    A network that withstands another model's images worse than its own PGD's points to gradients
    that do not lead its own attack.

    Args:
        table: transfer-attack records.

    Returns:
        One sentence.
    """
    if table.empty:
        return NOTHING
    means = table.groupby([*double_win.GROUP, "rounds"])[["transfer_accuracy", "RA"]].mean()
    margin = means["transfer_accuracy"] - means["RA"]
    below = int((margin < 0).sum())
    networks = _count(len(margin), "network")
    if below:
        text = (
            f"{below} of {networks} withstand the unseen model's images worse than their own PGD's,"
            " which points to masked gradients"
        )
    else:
        all_withstand, their = f"all {networks} withstand", "their"
        if len(margin) == 1:
            all_withstand, their = "the one network withstands", "its"
        text = (
            f"No sign of masked gradients: {all_withstand} the unseen model's images at least as"
            f" well as {their} own PGD's"
        )
    text += f"; the margin over RA is {_points(margin.min())} at least"
    same_dense = ["pretraining", "dataset", "fraction"]
    accuracies = means["transfer_accuracy"].reset_index()
    dense = accuracies[accuracies["rounds"] == 0].set_index(same_dense)["transfer_accuracy"]
    sparse = accuracies[accuracies["rounds"] > 0].join(dense.rename("dense"), on=same_dense)
    sparse = sparse.dropna(subset="dense")
    if len(sparse):
        above = int((sparse["transfer_accuracy"] > sparse["dense"]).sum())
        tickets = _count(len(sparse), "sparse ticket")
        text += f"; {above} of {tickets} exceed their dense network there"
    return f"{text}."


def strong_attacks(table: pd.DataFrame) -> str:
    """What strong attacks leave of RA, and whether it changes how tickets compare with dense.

    Args:
        table: robustness records.

    Returns:
        Two sentences.
    """
    if table.empty:
        return NOTHING
    names = tables.attack_names(table)
    attacks = _and(["RA's attack", *names])
    means = table.groupby([*double_win.GROUP, "regime", "rounds"])[["RA", *names, "worst"]].mean()
    loss = means["RA"] - means["worst"]
    images = _range(*(f"{n:,}" for n in table["images_used"].agg(["min", "max"])))
    text = (
        f"On {images} test images the worst case over {attacks} lies"
        f" {_range(percent(loss.min()), percent(loss.max()))} points below RA, over"
        f" {_count(len(means), 'network')}"
    )
    if len(names) > 1:
        text += f"; the strongest single attack is {means[names].mean().idxmin()}"
    flat = means.reset_index()
    same = ["pretraining", "dataset", "fraction", "regime"]
    dense = flat[flat["rounds"] == 0].set_index(same)[["RA", "worst"]]
    sparse = flat[flat["rounds"] > 0].join(dense, on=same, rsuffix="_dense").dropna()
    if sparse.empty:
        return f"{text}."
    moved = (sparse["worst"] - sparse["worst_dense"]) - (sparse["RA"] - sparse["RA_dense"])
    return (
        f"{text}. By it the difference to the dense network moves by {_points(moved.min())} to"
        f" {_points(moved.max())} over {_count(len(moved), 'sparse ticket')}."
    )


def security_curves(table: pd.DataFrame, read: Callable[[str], Any]) -> str:
    """How far RA falls where the attack is given more radius and more steps.

    Args:
        table: robustness records.
        read: gives the record of an id (`records.read`).

    Returns:
        One sentence.
    """
    if table.empty:
        return NOTHING
    arrays = [read(id).arrays() for id in table["id"]]
    factor = max(one["eps_factors"].max() for one in arrays)
    left = max(one["eps_RA"][one["eps_factors"].argmax()] for one in arrays)
    falls = []
    for one in arrays:
        order = one["steps"].argsort()[-2:]
        falls.append((one["steps_RA"][order[0]] - one["steps_RA"][order[-1]], one["steps"][order]))
    fall, steps = max(falls, key=lambda pair: pair[0])
    return (
        f"At {factor:g} times the radius RA is {percent(left)} % at most (a constant answer:"
        f" {percent(table['chance'].max())} %); from {steps[0]} to {steps[-1]} steps it falls by"
        f" {percent(fall)} points at most."
    )


def masked_gradients(
    table: pd.DataFrame,
    attacks: pd.DataFrame,
    read: Callable[[str], Any],
    outcomes: Callable[[str], Any],
) -> str:
    """The signs of masked gradients that strong attacks and transfer attacks give.

    Args:
        table: robustness records.
        attacks: transfer attacks, of which those on the same networks count.
        read: gives the record of an id (`records.read`).
        outcomes: gives which images are right by the id of a record (`records.outcomes`).

    Returns:
        One sentence, and one for each network with a sign.
    """
    networks = masking.of_networks(table, attacks, read, outcomes)
    if networks.empty:
        return NOTHING
    found = []
    for row in networks.to_dict("records"):
        if row["signs"]:
            network = f"{row['pretraining']}, {row['method']}, {dataset_name(row['dataset'])}"
            sparsity = percent(tables.sparsity_of(row), " %")
            found.append(f"{network}, {sparsity}, seed {row['seed']}: {_and(row['signs'])}.")
    tests = "Square, one step against many, radius 0.5 and the loss along gradients"
    if borrowed := int(networks["through_unseen"].sum()):
        tests += f"; {_count(borrowed, 'transfer attack')} on them"
    count = f"{len(found)} of" if found else "None of"
    nouns = _count(len(networks), "network")
    text = f"{count} {nouns} shows signs of masked gradients (by {tests})."
    return " ".join([text, *found])


def paradigm(params: Parameters) -> str:
    """The caption of Figure 1 and Table 1: what the study asks for.

    Args:
        params: the study's parameters.

    Returns:
        One sentence.
    """
    datasets = _and([dataset_name(dataset) for dataset in requested_values(params, "dataset")])
    sparsities = {r: value for r, value in requested_sparsities(params).items() if r}
    levels = f"{_count(len(sparsities), 'level')} of sparsity"
    if sparsities:
        levels += f" ({sparsity_range(sparsities)})"
    count = {
        key: len(set(requested_values(params, key)) - set(CONTROLS))
        for key in ("pretraining", "method", "fraction", "seeds")
    }
    num_controls = len(set(requested_values(params, "method")) & set(CONTROLS))
    parts = [
        _count(count["pretraining"], "pre-training") if count["pretraining"] else "",
        _count(count["method"], "pruning method") if count["method"] else "",
        _count(num_controls, "control") if num_controls else "",
        levels,
        f"{_count(count['fraction'], 'fraction')} of the data" if count["fraction"] else "",
        _count(count["seeds"], "seed") if count["seeds"] else "",
    ]
    start = f"This study takes {params.get('arch')} from {dataset_name(params.get('source', ''))}"
    if datasets:
        start += f" to {datasets}"
    return f"{start}: {', '.join(filter(None, parts))}."
