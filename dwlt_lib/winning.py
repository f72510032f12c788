"""Matching, winning, double-win and extreme sparsity, from a table of transfers (paper, sections 3 and 4.1).

A level (a sparsity: `rounds` > 0) is judged against dense, the network with the same theta_p, data set, fraction and
regime, by three criteria: SA after ST, SA after AT and RA after AT. It is a double-win ticket if it wins all three; the
extreme sparsity of (theta_p, m^P) on a data set is that of its sparsest double-win ticket.

The paper says "within one standard deviation of the unpruned dense network" (section 4.1: rule "one_std") and, in
equation 3, "no lower than" (rule "eq3"); it states neither ddof nor whether "extreme" is the largest winning level
("max") or the last before the first that does not win ("prefix"). `alternatives` lays all readings side by side.
"""

from typing import Literal

import numpy as np
import pandas as pd
from scipy.special import stdtrit

GROUP = ["pretraining", "method", "dataset", "fraction"]  # whose extreme sparsity is asked
CRITERIA = {"ST_SA": ("ST", "SA"), "AT_SA": ("AT", "SA"), "AT_RA": ("AT", "RA")}  # paper, Table 1
RULES, DDOFS, EXTREMES = ("one_std", "eq3"), (0, 1), ("max", "prefix")
DUST = 1e-9  # an equality may differ by rounding, never by an image: one in a million is 1e-6
CONFIDENCE = 0.90

# The paper's extreme double-win sparsities at full data (sections 4.1, 4.2), by (pretraining, method, dataset).
# Section 4.1 contradicts itself on FAT, SVHN: 79.03 % in its first observation, 20.00 % in the range of its second.
PAPER_EXTREMES = {
    ("STD", "IMP-ST", "cifar10"): 0.8926,
    ("FAT", "IMP-ST", "cifar10"): 0.8926,
    ("AT", "IMP-ST", "cifar10"): 0.9141,
    ("STD", "IMP-ST", "cifar100"): 0.7379,
    ("FAT", "IMP-ST", "cifar100"): 0.7903,
    ("AT", "IMP-ST", "cifar100"): 0.8322,
    ("STD", "IMP-ST", "svhn"): 0.0,
    ("FAT", "IMP-ST", "svhn"): 0.7903,
    ("AT", "IMP-ST", "svhn"): 0.9648,
    ("AT", "IMP-AT", "cifar10"): 0.9141,
    ("AT", "IMP-AT", "cifar100"): 0.8322,
    ("AT", "OMP", "cifar10"): 0.8926,
    ("AT", "OMP", "cifar100"): 0.7903,
    ("AT", "RP", "cifar10"): 0.2,
    ("AT", "RP", "cifar100"): 0.0,
}
# Table A2 (section A2), CIFAR-10, (theta_AT, IMP-ST): sparsity -> (transfer-attack accuracy, robust accuracy).
PAPER_TABLE_A2 = {0.0: (0.5554, 0.4711), 0.8926: (0.6279, 0.5600), 0.9313: (0.6009, 0.6005), 0.9560: (0.5649, 0.5085)}


def ladder(rounds):
    """Sparsity after `rounds` rounds that each prune 20 % of what remains (section 3): 1 - 0.8^rounds, elementwise."""
    return 1 - 0.8**rounds


def _mixed(table: pd.DataFrame, keys: list[str]) -> str | None:
    """The first setting that several records hold, if `table` has ids at all."""
    keys = [*keys, *(name for name in ("mask_seed", "subset_seed") if name in table.columns)]
    if "id" not in table.columns or not (many := table.groupby(keys, observed=True)["id"].nunique() > 1).any():
        return None
    found = many.index[many][0]
    return ", ".join(f"{name} {value}" for name, value in zip(keys, found, strict=True))


def replicates(table: pd.DataFrame) -> pd.DataFrame:
    """One row a (group, regime, rounds, seed): rows that share a seed (copies of dense, several masks) are averaged.

    table: columns pretraining, method, dataset, fraction, regime, rounds, seed, SA, RA (fractions). Rows with rounds 0
    become method "dense", whatever their method. A NaN among the averaged stays NaN. Two records for one setting, told
    apart by a column `id`, are an error: the table mixes studies.
    """
    wanted = [*GROUP, "regime", "rounds", "seed", "SA", "RA"]
    if absent := [name for name in wanted if name not in table.columns]:
        raise ValueError(f"columns {absent} are missing: want {wanted}; pass records.table('transfer', study=...)")
    table = table.astype({"rounds": int, "seed": int, "fraction": float, "SA": float, "RA": float})
    table["method"] = table["method"].astype(object).mask(table["rounds"] == 0, "dense")
    keys = wanted[:-2]
    if (mixed := _mixed(table, keys)) is not None:
        raise ValueError(f"{mixed}: two records for one setting; want one study: records.table('transfer', study=...)")
    by = table.groupby(keys, observed=True)[["SA", "RA"]]
    return by.mean().where(by.count().eq(by.size(), axis=0)).reset_index()


def spread(table: pd.DataFrame, ddof: int = 1) -> pd.DataFrame:
    """Mean and deviation over seeds, one row a (group, regime, rounds): SA, RA, SA_std, RA_std, seeds (how many)."""
    by = replicates(table).groupby([*GROUP, "regime", "rounds"], observed=True)
    out = by[["SA", "RA"]].mean()
    std = by[["SA", "RA"]].std(ddof=ddof)
    return out.assign(SA_std=std["SA"], RA_std=std["RA"], seeds=by.size()).reset_index()


def _welch(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """The 90 % Welch interval of mean(a) - mean(b); NaN with fewer than two values on a side."""
    if min(len(a), len(b)) < 2:
        return np.nan, np.nan
    gap, va, vb = a.mean() - b.mean(), a.var(ddof=1) / len(a), b.var(ddof=1) / len(b)
    if va + vb < DUST**2:
        return gap, gap
    df = (va + vb) ** 2 / (va**2 / (len(a) - 1) + vb**2 / (len(b) - 1))
    half = stdtrit(df, (1 + CONFIDENCE) / 2) * np.sqrt(va + vb)  # Student's t quantile
    return gap - half, gap + half


def _judge(level: dict, dense: dict, metric: str, seeds: list, rule: str, ddof: int) -> dict:
    """One criterion of one level. level, dense: {(seed, metric): accuracy}; seeds: all that both ought to have."""
    a, b = (np.array([accuracies.get((seed, metric), np.nan) for seed in seeds]) for accuracies in (level, dense))
    whole, usable = not np.isnan(a).any(), not np.isnan(b).any() and (rule == "eq3" or len(b) > ddof)
    a, b = a[~np.isnan(a)], b[~np.isnan(b)]
    mean, base = (v.mean() if len(v) else np.nan for v in (a, b))
    threshold = (base - (b.std(ddof=ddof) if rule == "one_std" else 0.0)) if usable else np.nan
    low, high = _welch(a, b)
    status = "unknown" if not (whole and usable) else "win" if mean >= threshold - DUST else "miss"
    return dict(mean=mean, dense=base, threshold=threshold, difference=mean - base, low=low, high=high, status=status)


def criteria(table: pd.DataFrame, rule: Literal["one_std", "eq3"] = "one_std", ddof: int = 1) -> pd.DataFrame:
    """Judge every level: one row a (pretraining, method, dataset, fraction, rounds > 0), with `sparsity` and, for each
    criterion c of ST_SA, AT_SA, AT_RA: c_mean, c_dense, c_threshold, c_difference with its 90 % Welch interval c_low,
    c_high, and c_status ("win", "miss", "unknown"); `double_win` is unknown if any criterion is, else win if all win.

    A level is unknown where it or dense lacks a seed that either has anywhere (in the regimes ST and AT), a regime or a
    metric, and under "one_std" where the standard deviation is undefined (one seed, ddof 1). c_threshold is NaN where
    the baseline itself is missing or incomplete.
    """
    if rule not in RULES:
        raise ValueError(f"rule={rule!r}: want one of {RULES}; 'one_std' is section 4.1's, 'eq3' equation 3's")
    if ddof not in DDOFS:
        raise ValueError(f"ddof={ddof!r}: want one of {DDOFS}; 1 is the sample's deviation, 0 the population's")
    parts = ("mean", "dense", "threshold", "difference", "low", "high", "status")
    columns = [*GROUP, "rounds", "sparsity", *(f"{c}_{p}" for c in CRITERIA for p in parts), "double_win"]
    each = replicates(table)
    each = each[each["regime"].isin(["ST", "AT"])]
    cells: dict[tuple, dict] = {}  # accuracies of (group, rounds, regime)
    seeds: dict[tuple, set] = {}  # of a group
    for *key, regime, rounds, seed, sa, ra in each.itertuples(index=False, name=None):
        cells.setdefault((*key, rounds, regime), {}).update({(seed, "SA"): sa, (seed, "RA"): ra})
        seeds.setdefault(tuple(key), set()).add(seed)
    sparse = each.loc[(each["rounds"] > 0) & (each["method"] != "dense"), [*GROUP, "rounds"]].drop_duplicates()
    rows = []
    for *key, rounds in sparse.sort_values([*GROUP, "rounds"]).itertuples(index=False, name=None):
        base = (key[0], "dense", *key[2:])
        wanted = sorted(seeds[tuple(key)] | seeds.get(base, set()))
        row = dict(zip(GROUP, key, strict=True), rounds=rounds, sparsity=ladder(rounds))
        for name, (regime, metric) in CRITERIA.items():
            level, dense = (cells.get(cell, {}) for cell in ((*key, rounds, regime), (*base, 0, regime)))
            judged = _judge(level, dense, metric, wanted, rule, ddof)
            row |= {f"{name}_{part}": value for part, value in judged.items()}
        found = {row[f"{name}_status"] for name in CRITERIA}
        row["double_win"] = "unknown" if "unknown" in found else "win" if found == {"win"} else "miss"
        rows.append(row)
    return pd.DataFrame(rows, columns=columns)


def _extreme(levels: pd.DataFrame, status: str, names: list[str], extreme: str) -> int | None:
    """Rounds of the extreme level by column `status`; 0 if only dense matches; None without a baseline.

    levels: of one group, by rounds.
    """
    if any(pd.isna(levels[f"{name}_threshold"].to_numpy()).any() for name in names):
        return None
    wins = levels[status].to_numpy() == "win"
    if extreme == "prefix":
        wins = np.minimum.accumulate(wins)
    return int(levels["rounds"].to_numpy()[wins].max(initial=0))


def verdict(
    table: pd.DataFrame,
    rule: Literal["one_std", "eq3"] = "one_std",
    ddof: int = 1,
    extreme: Literal["max", "prefix"] = "max",
) -> pd.DataFrame:
    """The extreme double-win sparsity, one row a (pretraining, method, dataset, fraction) (section 4.1).

    Columns: those four; extreme_rounds (Int64; 0: no sparse level wins; <NA>: no complete baseline); extreme_sparsity
    (1 - 0.8^rounds); ST_SA, AT_SA, AT_RA (the extreme sparsity by that criterion alone); levels, unknown (counts).
    """
    if extreme not in EXTREMES:
        raise ValueError(f"extreme={extreme!r}: want one of {EXTREMES}; 'max' is the largest winning level")
    rows = []
    for key, levels in criteria(table, rule, ddof).sort_values("rounds").groupby(GROUP, observed=True):
        by = {name: _extreme(levels, f"{name}_status", [name], extreme) for name in CRITERIA}
        rounds = _extreme(levels, "double_win", list(CRITERIA), extreme)
        sparsities = [np.nan if r is None else ladder(r) for r in (rounds, *by.values())]
        rows.append([*key, rounds, *sparsities, len(levels), int((levels["double_win"] == "unknown").sum())])
    out = pd.DataFrame(rows, columns=[*GROUP, "extreme_rounds", "extreme_sparsity", *CRITERIA, "levels", "unknown"])
    floats = dict.fromkeys(["fraction", "extreme_sparsity", *CRITERIA], float)
    return out.astype({"extreme_rounds": "Int64", "levels": int, "unknown": int, **floats})


def alternatives(table: pd.DataFrame) -> pd.DataFrame:
    """Extreme sparsity under every reading of the paper's rule: index the group, columns "rule, ddof, extreme"."""
    readings = [("one_std", 1), ("one_std", 0), ("eq3", 1)]
    found = {
        f"{rule}, ddof {ddof}, {extreme}" if rule == "one_std" else f"{rule}, {extreme}":
            verdict(table, rule, ddof, extreme).set_index(GROUP)["extreme_sparsity"]
        for extreme in EXTREMES for rule, ddof in readings
    }
    return pd.DataFrame(found)
