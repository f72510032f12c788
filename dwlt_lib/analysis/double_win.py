"""The paper's rule: winning and double-win tickets, extreme sparsities (sections 3 and 4.1).

It compares means of few seeds with a bar set by the spread of as few, so its extremes are unsure:
`extreme_probabilities` says how much. The verdict to rely on is that of `noninferiority`.

A level (a sparsity, `rounds` > 0) is compared with the dense network that has the same theta_p,
data set, fraction and regime, by three criteria: SA after ST, SA after AT and RA after AT. A ticket
that wins all three is a double-win ticket. The extreme sparsity of (theta_p, m^P) on a data set is
that of its sparsest double-win ticket.

Section 4.1 of the paper says "within one standard deviation of the unpruned dense network" (rule
"one_std"), its equation 3 "no lower than" (rule "eq3"). It states neither ddof nor whether
"extreme" is the largest winning level ("max") or the last one before the first that does not win
("prefix"). `alternatives` compares all readings.

A level that lacks a seed or a metric neither wins nor misses: it is unknown. A dense network whose
accuracy is that of chance (its training collapsed) is no baseline.
"""

import warnings
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import pandas as pd

from dwlt_lib.analysis.statistics import CRITERIA, runs_by_cell
from dwlt_lib.analysis.tables import GROUP, TASK, TOLERANCE, replicates, sparsities

Rule = Literal["one_std", "eq3"]
Extreme = Literal["max", "prefix"]

EXTREMES = get_args(Extreme)
READINGS = {"rule": get_args(Rule), "ddof": (0, 1), "extreme": EXTREMES}
"""What the paper leaves open, and how it can be read."""

MEASURES = ("mean", "dense", "threshold", "difference", "status", "at_chance")
"""What `criteria` tells of each criterion."""

DRAWS = 1000
"""How often a study is repeated by `extreme_probabilities`."""

CHANCE_STDS = 3
"""Within so many binomial standard deviations above chance, an accuracy is not told from chance."""


def _refuse_unknown_readings(**chosen: str | int) -> None:
    for name, value in chosen.items():
        if value not in READINGS[name]:
            raise ValueError(f"{name}={value!r}: want one of {READINGS[name]}, see section 4.1")


def _threshold(dense: np.ndarray | pd.Series, rule: Rule, ddof: int) -> np.ndarray | float:
    """The least mean accuracy that wins: mean(dense) - std(dense), or mean(dense) for "eq3".

    dense: (..., seeds) accuracies. NaN where one is, or the standard deviation is undefined.
    """
    values = np.asarray(dense)
    if rule == "eq3":
        return values.mean(axis=-1)
    if values.shape[-1] <= ddof:
        return np.nan
    return values.mean(axis=-1) - values.std(axis=-1, ddof=ddof)


def criteria(table: pd.DataFrame, rule: Rule = "one_std", ddof: int = 1) -> pd.DataFrame:
    """Compare every level with its dense network by the three criteria (Table 1, section 4.1).

    A criterion of a level is unknown if

    - the level lacks a seed, or the metric of one, that its curve (the levels of one pretraining,
      method, dataset and fraction) has anywhere in the regimes ST and AT: what a table holds tells
      what was asked for;
    - dense lacks one of these seeds in the criterion's regime. Dense may have more: all its seeds
      make its mean and standard deviation, and none of them may lack the metric;
    - the standard deviation is undefined (rule "one_std", one seed, ddof 1);
    - dense is at chance: one of its seeds is no more than CHANCE_STDS binomial standard deviations
      (of `test_images` images; without that column, not at all) above `chance`. One collapsed seed
      of three would make a deviation so large that every level wins. A table without a column
      `chance` cannot tell.

    Args:
        table: transfers, as `tables.replicates` takes them.
        rule: "one_std": a ticket wins if its mean over seeds is at least mean(dense) - std(dense)
            (section 4.1); "eq3": if it is at least mean(dense) (equation 3).
        ddof: 1 for the sample's standard deviation, 0 for the population's.

    Returns:
        One row per (pretraining, method, dataset, fraction, rounds > 0): its sparsity in [0, 1];
        for each criterion c of ST_SA, AT_SA, AT_RA: c_mean, c_dense, c_threshold (NaN where the
        baseline is missing, incomplete or at chance), c_difference, c_status ("win", "miss",
        "unknown") and c_at_chance (how many seeds of dense are at chance); and double_win: unknown
        if any criterion is, "win" if all win, else "miss".

    Raises:
        ValueError: one line, for another rule or ddof, and as `tables.replicates`.
    """
    _refuse_unknown_readings(rule=rule, ddof=ddof)
    transfers = replicates(table)
    transfers = transfers[transfers["regime"].isin(["ST", "AT"])]
    chance = transfers["chance"]
    chance_std = np.sqrt(chance * (1 - chance) / transfers["test_images"]).fillna(0.0)
    transfers = transfers.assign(chance_bound=chance + CHANCE_STDS * chance_std)
    pruned, dense = transfers[transfers["rounds"] > 0], transfers[transfers["rounds"] == 0]
    levels = pruned.groupby([*GROUP, "rounds"])[["sparsity"]].first()
    seeds = pruned[[*GROUP, "seed"]].drop_duplicates()
    keys = levels.reset_index()
    curves, tasks = (pd.MultiIndex.from_frame(keys[names]) for names in (GROUP, TASK))
    wanted = seeds.groupby(GROUP).size().reindex(curves).to_numpy()
    statuses = []
    for name, (regime, metric) in CRITERIA.items():
        own = dense[dense["regime"] == regime]
        own = own.assign(at_chance=(own[metric] <= own["chance_bound"]).astype(int))
        baseline = own.groupby(TASK).agg(
            dense=(metric, "mean"),
            threshold=(metric, lambda accuracies: _threshold(accuracies, rule, ddof)),
            at_chance=("at_chance", "sum"),
        )
        baseline = baseline.reindex(tasks).set_axis(levels.index)
        at_chance = baseline["at_chance"].fillna(0).astype(int)
        shared = seeds.merge(own[[*TASK, "seed"]]).groupby(GROUP).size().reindex(curves)
        threshold = baseline["threshold"].where((shared.to_numpy() == wanted) & (at_chance == 0))
        of_level = pruned[pruned["regime"] == regime].groupby([*GROUP, "rounds"])[metric]
        mean = of_level.mean().reindex(levels.index)
        is_known = (of_level.count().reindex(levels.index) == wanted) & threshold.notna()
        status = np.where(mean >= threshold - TOLERANCE, "win", "miss")
        status = np.where(is_known, status, "unknown")
        statuses.append(status)
        dense_mean = baseline["dense"]
        measured = (mean, dense_mean, threshold, mean - dense_mean, status, at_chance)
        columns = (f"{name}_{measure}" for measure in MEASURES)
        levels = levels.assign(**dict(zip(columns, measured, strict=True)))
    double_win = np.where((np.array(statuses) == "win").all(axis=0), "win", "miss")
    double_win = np.where((np.array(statuses) == "unknown").any(axis=0), "unknown", double_win)
    return levels.assign(double_win=double_win).reset_index()


def chance_warnings(levels: pd.DataFrame) -> list[str]:
    """One line per dense network at chance, with which no ticket can be compared.

    Args:
        levels: the result of `criteria`. Robust accuracy after standard training is no criterion,
            and may be 0.

    Returns:
        The lines, each once.
    """
    lines = []
    for row in levels.to_dict("records"):
        for name, (regime, metric) in CRITERIA.items():
            count = row[f"{name}_at_chance"]
            if count:
                lines.append(
                    f"theta_{row['pretraining']}, {row['dataset']} {100 * row['fraction']:g} %:"
                    f" dense is at chance in {metric} after {regime} ({count} of its seeds, mean"
                    f" {100 * row[f'{name}_dense']:.1f} %), so no ticket can match it and its"
                    " verdicts are unknown; look at its learning rate and attack"
                )
    return list(dict.fromkeys(lines))


def verdict(
    table: pd.DataFrame, rule: Rule = "one_std", ddof: int = 1, extreme: Extreme = "max"
) -> pd.DataFrame:
    """The extreme double-win sparsity of every (theta_p, m^P) on every data set (section 4.1).

    With "max" it is the sparsest level that is known to win; with "prefix" the last level of the
    ladder before the first that is not known to win. An unknown level can only raise it: where a
    level wins, the extreme is at least that, and `unknown` counts the levels that are not known;
    where none is known to win and one that might is unknown ("prefix": before the first miss), the
    extreme is unknown, too. It is 0 only where every such level is a miss.

    Args:
        table: transfers, as `tables.replicates` takes them.
        rule: "one_std" or "eq3", as in `criteria`, which says when a level is unknown.
        ddof: 0 or 1, as in `criteria`.
        extreme: "max" or "prefix".

    Returns:
        One row per (pretraining, method, dataset, fraction): extreme_rounds (Int64; 0: no sparse
        level wins; <NA>: unknown); extreme_sparsity (in [0, 1], the level's; 0.0 and NaN likewise);
        ST_SA, AT_SA, AT_RA (the extreme sparsity by that criterion alone); levels and unknown
        (counts of levels).

    Raises:
        ValueError: one line, for another rule, ddof or extreme, and as `tables.replicates`.

    Warns:
        UserWarning: a line of `chance_warnings` for each dense network at chance.

    Example:
        >>> verdict(records.table("transfer", study="tour_full"), rule="eq3", extreme="prefix")
    """
    _refuse_unknown_readings(extreme=extreme)
    levels = criteria(table, rule, ddof)
    for line in chance_warnings(levels):
        warnings.warn(line, stacklevel=2)
    return _extremes(levels, extreme)


def _extremes(levels: pd.DataFrame, extreme: Extreme) -> pd.DataFrame:
    """The rows of `verdict` from those of `criteria`."""
    rows = []
    for curve, own in levels.sort_values("rounds").groupby(GROUP):
        sparsity = dict(zip(own["rounds"], own["sparsity"], strict=True)) | {0: 0.0, None: np.nan}
        rounds = _extreme_rounds(own, "double_win", extreme)
        alone = [sparsity[_extreme_rounds(own, f"{c}_status", extreme)] for c in CRITERIA]
        unknown = (own["double_win"] == "unknown").sum()
        rows.append([*curve, rounds, sparsity[rounds], *alone, len(own), unknown])
    numbers = ["extreme_rounds", "extreme_sparsity", *CRITERIA, "levels", "unknown"]
    types = dict.fromkeys(["fraction", "extreme_sparsity", *CRITERIA], "float")
    types |= {"extreme_rounds": "Int64", "levels": "int", "unknown": "int"}
    return pd.DataFrame(rows, columns=[*GROUP, *numbers]).astype(types)


def _extreme_rounds(levels: pd.DataFrame, column: str, extreme: Extreme) -> int | None:
    """Rounds of a curve's extreme level; 0 if only dense matches; None if unknown.

    levels: one curve's, in order of rounds; column: "double_win" or a criterion's status.
    """
    if extreme == "prefix":
        levels = levels.iloc[: leading(levels[column] == "win") + 1]
    wins = levels.loc[levels[column] == "win", "rounds"]
    if len(wins):
        return int(wins.iloc[-1])
    return None if (levels[column] == "unknown").any() else 0


def leading(flags: Sequence[bool] | np.ndarray | pd.Series) -> int:
    """How many entries are true before the first that is not.

    Args:
        flags: in order.

    Returns:
        Their number; all of them where none is false.
    """
    return int(np.cumprod(np.asarray(flags, dtype=int)).sum())


def alternatives(table: pd.DataFrame) -> pd.DataFrame:
    """The extreme double-win sparsity under every reading of the paper's rule, side by side.

    Args:
        table: transfers, as `tables.replicates` takes them.

    Returns:
        Indexed by (pretraining, method, dataset, fraction); one column "rule, ddof, extreme" per
        reading, in [0, 1]; NaN: unknown.

    Raises:
        ValueError: one line, as `tables.replicates`.

    Warns:
        UserWarning: as `verdict`.
    """
    levels = {
        "one_std, ddof 1": criteria(table, "one_std", ddof=1),
        "one_std, ddof 0": criteria(table, "one_std", ddof=0),
        "eq3": criteria(table, "eq3"),
    }
    for line in chance_warnings(levels["eq3"]):
        warnings.warn(line, stacklevel=2)
    return pd.DataFrame(
        {
            f"{name}, {extreme}": _extremes(own, extreme).set_index(GROUP)["extreme_sparsity"]
            for extreme in EXTREMES
            for name, own in levels.items()
        }
    )


def extreme_probabilities(
    table: pd.DataFrame, rule: Rule = "one_std", ddof: int = 1, extreme: Extreme = "max"
) -> pd.DataFrame:
    """How sure an extreme is: where it would lie if all networks were trained again.

    A bootstrap of residuals (Efron and Tibshirani 1993, section 9.4): every accuracy is drawn anew
    as its cell's mean and a residual of any cell of the same theta_p, data set, fraction and
    criterion; residuals are scaled by sqrt(n / (n - 1)) of their cell. The draws are always the
    same.

    Args:
        table: transfers, as `tables.replicates` takes them.
        rule: as in `criteria`.
        ddof: as in `criteria`.
        extreme: as in `verdict`.

    Returns:
        One row per (pretraining, method, dataset, fraction, rounds) that is the extreme in any
        draw, 0 for none: probability. Curves with a criterion of which a level, or dense, has no
        runs, or whose dense has but one, are left out.

    Raises:
        ValueError: one line, as `verdict`.
    """
    _refuse_unknown_readings(rule=rule, ddof=ddof, extreme=extreme)
    rng = np.random.default_rng(0)
    passes: dict[tuple, dict[int, list[np.ndarray]]] = {}  # by curve and rounds, each criterion's
    for (pretraining, dataset, fraction), criterion, cells in runs_by_cell(table):
        values = {cell: np.array(list(runs.values.values())) for cell, runs in cells.items()}
        if criterion not in CRITERIA or len(values.get(("dense", 0), ())) < 2:
            continue
        residuals = np.concatenate(
            [
                (own - own.mean()) * np.sqrt(len(own) / (len(own) - 1))
                for own in values.values()
                if len(own) > 1
            ]
        )
        again = {
            cell: own.mean() + rng.choice(residuals, size=(DRAWS, len(own)))
            for cell, own in values.items()
        }
        threshold = _threshold(again.pop(("dense", 0)), rule, ddof)
        for (method, rounds), own in again.items():
            curve = passes.setdefault((pretraining, method, dataset, fraction), {})
            curve.setdefault(rounds, []).append(own.mean(axis=1) >= threshold - TOLERANCE)
    rows = []
    for curve, levels in passes.items():
        if any(len(by_criterion) < len(CRITERIA) for by_criterion in levels.values()):
            continue
        ladder = sorted(levels)
        won = np.array([np.all(levels[rounds], axis=0) for rounds in ladder])
        if extreme == "prefix":
            won = np.logical_and.accumulate(won, axis=0)
        reached = np.where(won, np.array(ladder)[:, None], 0).max(axis=0)
        for rounds, count in zip(*np.unique(reached, return_counts=True), strict=True):
            rows.append([*curve, int(rounds), count / DRAWS])
    return pd.DataFrame(rows, columns=[*GROUP, "rounds", "probability"])


def chances_in_words(
    curves: pd.DataFrame, probabilities: pd.DataFrame, table: pd.DataFrame
) -> list[str]:
    """Where the extreme of each curve may lie: "83.2: 41 %, 73.8: 32 %, none: 27 %".

    Args:
        curves: has the columns pretraining, method, dataset, fraction.
        probabilities: of `extreme_probabilities`.
        table: transfers, for the sparsities of their levels.

    Returns:
        A text per curve, the likeliest first, those below 5 % left out; "" where nothing is known.
    """
    sparsity = sparsities(table)
    words: dict[tuple, list[str]] = {}
    for row in probabilities.sort_values("probability", ascending=False).to_dict("records"):
        if row["probability"] < 0.05:
            continue
        level = f"{100 * sparsity[row['rounds']]:.1f}" if row["rounds"] else "none"
        curve = tuple(row[column] for column in GROUP)
        words.setdefault(curve, []).append(f"{level}: {100 * row['probability']:.0f} %")
    keys = curves[GROUP].itertuples(index=False, name=None)
    return [", ".join(words.get(key, [])) for key in keys]
