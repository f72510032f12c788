"""Matching, winning, double-win and extreme sparsity, from a table of transfers (paper, sections 3
and 4.1).

A level (a sparsity: `rounds` > 0) is judged against dense, the network with the same theta_p, data
set, fraction and regime, by three criteria: SA after ST, SA after AT and RA after AT. It is a
double-win ticket if it wins all three; the extreme sparsity of (theta_p, m^P) on a data set is that
of its sparsest double-win ticket.

The paper says "within one standard deviation of the unpruned dense network" (section 4.1: rule
"one_std") and, in equation 3, "no lower than" (rule "eq3"); it states neither ddof nor whether
"extreme" is the largest winning level ("max") or the last before the first that does not win
("prefix"). `alternatives` lays all readings side by side.

What is not known stays not known: a level that lacks a seed or a metric is neither win nor miss,
and a dense network that does not see more than chance (a training that collapsed) is no baseline.
See `criteria` and `verdict`.
"""

import warnings
from collections.abc import Mapping
from typing import Literal

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from dwlt_lib.config.specs import PRUNE_FRACTION, ladder

GROUP = ["pretraining", "method", "dataset", "fraction"]  # whose extreme sparsity is asked
CRITERIA = {"ST_SA": ("ST", "SA"), "AT_SA": ("AT", "SA"), "AT_RA": ("AT", "RA")}  # paper, Table 1
RULES, DDOFS, EXTREMES = ("one_std", "eq3"), (0, 1), ("max", "prefix")
DUST = 1e-9  # an equality may differ by rounding, never by an image: one in a million is 1e-6
CONFIDENCE = 0.90
CHANCE_STDS = 3  # within so many binomial deviations of chance, dense is not told apart from it
SAME_SPARSITY = 1e-3  # records of one level differ by the rounding of a count, not by more

__all__ = ["PRUNE_FRACTION", "ladder"]  # and those below

# The paper's extreme double-win sparsities at full data (sections 4.1, 4.2), by (pretraining,
# method, dataset).
# Section 4.1 contradicts itself on FAT, SVHN: 79.03 % in its first observation, 20.00 % in the
# range of its second.
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
# Table A2 (section A2), CIFAR-10, (theta_AT, IMP-ST): sparsity -> (transfer-attack accuracy, robust
# accuracy).
PAPER_TABLE_A2 = {
    0.0: (0.5554, 0.4711),
    0.8926: (0.6279, 0.5600),
    0.9313: (0.6009, 0.6005),
    0.9560: (0.5649, 0.5085),
}


def sparsities(table: pd.DataFrame) -> dict[int, float]:
    """The sparsity of each of a table's `rounds`, in [0,1]: the median of its column `sparsity`.

    Where no record of a level says its sparsity (the column is not there, or empty), all that is
    left is the paper's ladder, 1 - 0.8^rounds.
    """
    whole = table["rounds"].astype(int)
    said = table["sparsity"] if "sparsity" in table.columns else pd.Series(np.nan, whole.index)
    found = pd.to_numeric(said).groupby(whole).median()
    return {int(r): ladder(int(r)) if pd.isna(own) else float(own) for r, own in found.items()}


def sparsest(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of a table of records that are at its sparsest level (the most rounds)."""
    return table[table["rounds"] == table["rounds"].max()]


def sparsity_of(row: Mapping) -> float:
    """The sparsity of one row of a table, as `sparsities` has it."""
    own = row.get("sparsity", np.nan)
    return ladder(int(row["rounds"])) if pd.isna(own) else float(own)


def _mixed(table: pd.DataFrame, keys: list[str]) -> str | None:
    """The first setting that several records hold, if `table` has ids at all."""
    keys = [*keys, *(name for name in ("mask_seed", "subset_seed") if name in table.columns)]
    if (
        "id" not in table.columns
        or not (many := table.groupby(keys, observed=True)["id"].nunique() > 1).any()
    ):
        return None
    found = many.index[many][0]
    return ", ".join(f"{name} {value}" for name, value in zip(keys, found, strict=True))


def _whole(values: pd.Series) -> pd.Series:
    return (values >= 0) & (values < 2**53) & (values % 1 == 0)


def _share(values: pd.Series) -> pd.Series:
    return (values >= -DUST) & (values <= 1 + DUST)


ACCURACY = "an accuracy as a fraction in [0, 1], not in percent"
NUMBERS = {  # column: (what may stand there, whether it may be missing, the rule)
    "rounds": ("a whole number, 0 or more", False, _whole),
    "seed": ("a whole number, 0 or more", False, _whole),
    "fraction": ("a share of the images in (0, 1]", False, lambda v: (v > 0) & (v <= 1)),
    "SA": (ACCURACY, True, _share),
    "RA": (ACCURACY, True, _share),
    "sparsity": ("a share of the weights in [0, 1]", True, _share),
    "chance": (ACCURACY, True, _share),
    "test_images": ("a number of images, 1 or more", True, lambda v: (v >= 1) & np.isfinite(v)),
}
OPTIONAL = ("sparsity", "chance", "test_images")


def _numbers(values: pd.Series, name: str) -> pd.Series:
    """A column as floats; anything that may not stand there is refused in one line."""
    want, may_lack, fine = NUMBERS[name]
    number = [not isinstance(value, str | bool | np.bool_) for value in values]
    found = pd.to_numeric(values.where(number), errors="coerce").astype("Float64")
    found = pd.Series(found.to_numpy(float, na_value=np.nan), values.index)
    with np.errstate(invalid="ignore"):
        bad = ~np.array(number, bool) | ~np.where(values.isna(), may_lack, fine(found))
    if bad.any():
        value = values[bad].iloc[0]
        text = f"{value!r} (text)" if isinstance(value, str) else f"{value}"
        raise ValueError(f"{name} {text} in {int(bad.sum())} of {len(values)} rows: want {want}")
    return found


def _checked(table: pd.DataFrame) -> pd.DataFrame:
    """The columns of a table of transfers that verdicts are about, as numbers and names."""
    wanted = [*GROUP, "regime", "rounds", "seed", "SA", "RA"]
    if absent := [name for name in wanted if name not in table.columns]:
        raise ValueError(
            f"columns {absent} are missing: want {wanted}; pass records.table('transfer',"
            " study=...)"
        )
    kept = [*wanted, *OPTIONAL, "id", "mask_seed", "subset_seed"]
    table = table.loc[:, table.columns.isin(kept)].reset_index(drop=True)
    if twice := sorted(set(table.columns[table.columns.duplicated()])):
        raise ValueError(f"columns {twice} stand twice: want each once")
    for name in NUMBERS:
        if name in table.columns:
            table[name] = _numbers(table[name], name)
    table = table.astype({"rounds": int, "seed": int})
    table["method"] = table["method"].astype(object).mask(table["rounds"] == 0, "dense")
    for name in ("pretraining", "method", "dataset", "regime"):
        table[name] = table[name].astype(object)
        if (bad := ~table[name].map(lambda value: isinstance(value, str)).astype(bool)).any():
            value = table[name][bad].iloc[0]
            raise ValueError(f"{name} {value} in {bad.sum()} of {len(table)} rows: want a name")
    if len(pruned := table.loc[(table["method"] == "dense") & (table["rounds"] > 0), "rounds"]):
        raise ValueError(
            f"method 'dense' with rounds {pruned.iloc[0]}: want rounds 0, or the "
            "method that drew the mask"
        )
    return table


def replicates(table: pd.DataFrame) -> pd.DataFrame:
    """One row a (group, regime, rounds, seed): rows that share a seed (copies of dense, several
    masks) are averaged.

    Args:
        table: columns pretraining, method, dataset, regime (names), fraction (in (0, 1]), rounds,
            seed (whole numbers, 0 or more), SA, RA (fractions in [0, 1]; NaN: not measured). Rows
            with rounds 0 become method "dense", whatever their method. Three columns may be there:
            sparsity (in [0, 1], of the level), chance (in [0, 1]: what naming the commonest class
            of the test images always would give) and test_images (how many there are).
    Returns:
        The columns named, those that may be there included (NaN where they are not). A NaN among
        the averaged SA or RA stays NaN.
    Raises:
        ValueError: one line, if a column is missing or stands twice, a value may not stand in its
            column, or the table mixes studies: two records for one setting (told apart by a
            column `id`), or records of one level that differ in sparsity.
    """
    table = _checked(table)
    keys = [*GROUP, "regime", "rounds", "seed"]
    if (mixed := _mixed(table, keys)) is not None:
        raise ValueError(
            f"{mixed}: two records for one setting; want one study: records.table('transfer',"
            " study=...)"
        )
    table = table.reindex(columns=[*keys, "SA", "RA", *OPTIONAL])
    level = table.groupby([*GROUP, "rounds"])["sparsity"]
    if (apart := level.max() - level.min() > SAME_SPARSITY).any():
        found = apart.index[apart][0]
        span = f"{level.min()[found]:.4g} to {level.max()[found]:.4g}"
        named = zip([*GROUP, "rounds"], found, strict=True)
        setting = ", ".join(f"{name} {value}" for name, value in named)
        raise ValueError(
            f"{setting}: sparsity {span}, which is no one level; want one study: "
            "records.table('transfer', study=...)"
        )
    by = table.groupby(keys)
    means = by[["SA", "RA"]].mean().where(by[["SA", "RA"]].count().eq(by.size(), axis=0))
    return means.join(by[[*OPTIONAL]].median()).reset_index()


def spread(table: pd.DataFrame, ddof: int = 1) -> pd.DataFrame:
    """Mean and deviation over seeds, one row a (group, regime, rounds): SA, RA, SA_std, RA_std,
    seeds (how many), sparsity (the records', as `sparsities` has it)."""
    each = replicates(table)
    by, at = each.groupby([*GROUP, "regime", "rounds"]), sparsities(each)
    out = by[["SA", "RA"]].mean()
    std = by[["SA", "RA"]].std(ddof=ddof)
    out = out.assign(SA_std=std["SA"], RA_std=std["RA"], seeds=by.size())
    out = out.assign(sparsity=by["sparsity"].median()).reset_index()
    return out.assign(sparsity=out["sparsity"].fillna(out["rounds"].map(at)).astype(float))


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


def _judge(level: dict, dense: dict, metric: str, seeds: set, rule: str, ddof: int) -> dict:
    """One criterion of one level. level, dense: {(seed, metric): accuracy} and {(seed, "floor"):
    what chance may give}; seeds: all that the level ought to have. Dense may have more, and all of
    them count."""
    b = {seed: value for (seed, name), value in dense.items() if name == metric}
    floors = [dense[seed, "floor"] for seed in b]
    a = np.array([level.get((seed, metric), np.nan) for seed in sorted(seeds)])
    base = np.array([b[seed] for seed in sorted(b)])
    whole, usable = not np.isnan(a).any(), seeds <= b.keys() and not np.isnan(base).any()
    lost = [value <= floor for value, floor in zip(b.values(), floors, strict=True)]  # NaN: no
    usable = usable and not any(lost) and (rule == "eq3" or len(base) > ddof)
    a, base = a[~np.isnan(a)], base[~np.isnan(base)]
    mean, reference = (v.mean() if len(v) else np.nan for v in (a, base))
    threshold = np.nan
    if usable:
        threshold = reference - (base.std(ddof=ddof) if rule == "one_std" else 0.0)
    low, high = _welch(a, base)
    status = "unknown"
    if whole and usable:
        status = "win" if mean >= threshold - DUST else "miss"
    return dict(
        mean=mean,
        dense=reference,
        threshold=threshold,
        difference=mean - reference,
        low=low,
        high=high,
        status=status,
        at_chance=sum(lost),
    )


def criteria(
    table: pd.DataFrame, rule: Literal["one_std", "eq3"] = "one_std", ddof: int = 1
) -> pd.DataFrame:
    """Judge every level: one row a (pretraining, method, dataset, fraction, rounds > 0).

    It has `sparsity` (the records', else 1 - 0.8^rounds) and, for each criterion c of ST_SA, AT_SA,
    AT_RA: c_mean, c_dense, c_threshold, c_difference with its 90 % Welch interval c_low, c_high,
    c_status ("win", "miss", "unknown") and c_at_chance; `double_win` is unknown if any criterion
    is, else win if all win.

    A criterion of a level is unknown if
    - the level lacks a seed, or the metric of one, that its curve (the levels of one pretraining,
      method, dataset and fraction) has anywhere in the regimes ST and AT: a table tells what was
      asked for by what is there;
    - dense lacks one of these seeds in the criterion's regime. Dense may have more: all its seeds
      make its mean and deviation, and none of them may lack the metric;
    - the standard deviation is undefined (rule "one_std", one seed, ddof 1);
    - dense is at chance. c_at_chance counts its seeds that are no more than CHANCE_STDS binomial
      deviations (of `test_images` images; without that column, not at all) above `chance`. Were
      one of three allowed, the deviation it makes would let every level win. A table without a
      column `chance` cannot tell.
    c_threshold is NaN where the baseline is missing, incomplete or at chance.
    """
    if rule not in RULES:
        raise ValueError(
            f"rule={rule!r}: want one of {RULES}; 'one_std' is section 4.1's, 'eq3' equation 3's"
        )
    if ddof not in DDOFS:
        raise ValueError(
            f"ddof={ddof!r}: want one of {DDOFS}; 1 is the sample's deviation, 0 the population's"
        )
    parts = ("mean", "dense", "threshold", "difference", "low", "high", "status", "at_chance")
    columns = [
        *GROUP,
        "rounds",
        "sparsity",
        *(f"{c}_{p}" for c in CRITERIA for p in parts),
        "double_win",
    ]
    each = replicates(table)
    each = each[each["regime"].isin(["ST", "AT"])]
    noise = np.sqrt(each["chance"] * (1 - each["chance"]) / each["test_images"])
    each = each.assign(floor=each["chance"] + CHANCE_STDS * noise.fillna(0.0))
    cells: dict[tuple, dict] = {}  # accuracies of (group, rounds, regime)
    seeds: dict[tuple, set] = {}  # of a curve
    each = each[[*GROUP, "regime", "rounds", "seed", "SA", "RA", "sparsity", "floor"]]
    for *key, regime, rounds, seed, sa, ra, _, floor in each.itertuples(index=False, name=None):
        cell = cells.setdefault((*key, rounds, regime), {})
        cell |= {(seed, "SA"): sa, (seed, "RA"): ra, (seed, "floor"): floor}
        seeds.setdefault(tuple(key), set()).add(seed)
    levels = each[each["rounds"] > 0].groupby([*GROUP, "rounds"])["sparsity"].median().sort_index()
    rows = []
    for (*key, rounds), found in levels.items():
        base = (key[0], "dense", *key[2:])
        row = dict(zip(GROUP, key, strict=True), rounds=rounds)
        row["sparsity"] = ladder(rounds) if pd.isna(found) else found
        for name, (regime, metric) in CRITERIA.items():
            level, dense = (
                cells.get(cell, {}) for cell in ((*key, rounds, regime), (*base, 0, regime))
            )
            judged = _judge(level, dense, metric, seeds[tuple(key)], rule, ddof)
            row |= {f"{name}_{part}": value for part, value in judged.items()}
        status = {row[f"{name}_status"] for name in CRITERIA}
        row["double_win"] = "miss"
        if "unknown" in status:
            row["double_win"] = "unknown"
        elif status == {"win"}:
            row["double_win"] = "win"
        rows.append(row)
    return pd.DataFrame(rows, columns=columns)


def at_chance(levels: pd.DataFrame) -> list[str]:
    """A line for every dense network at chance, against which nothing can be judged.

    levels: of `criteria`. Robust accuracy after standard training is no criterion, and may be 0.
    """
    lines = {}
    for row in levels.to_dict("records"):
        for name, (regime, metric) in CRITERIA.items():
            if count := row[f"{name}_at_chance"]:
                where = f"theta_{row['pretraining']}, {row['dataset']} {100 * row['fraction']:g} %"
                mean = f"{100 * row[f'{name}_dense']:.1f} %"
                lines[
                    f"{where}: dense is at chance in {metric} after {regime} ({count} of its "
                    f"seeds, mean {mean}), so no ticket can match it and its verdicts are "
                    "unknown; look at its learning rate and attack"
                ] = None
    return list(lines)


def _extreme(levels: pd.DataFrame, status: str, extreme: str) -> int | None:
    """Rounds of the extreme level by column `status`; 0 if only dense matches; None if unknown.

    levels: of one group, by rounds.
    """
    found = 0
    open_ = False  # whether a level that may win is not known
    for rounds, said in zip(levels["rounds"], levels[status], strict=True):
        if said == "win":
            found = int(rounds)
        open_ = open_ or said == "unknown"
        if extreme == "prefix" and said != "win":
            break
    return None if open_ and not found else found


def verdict(
    table: pd.DataFrame,
    rule: Literal["one_std", "eq3"] = "one_std",
    ddof: int = 1,
    extreme: Literal["max", "prefix"] = "max",
) -> pd.DataFrame:
    """The extreme double-win sparsity, one row a (pretraining, method, dataset, fraction) (section
    4.1).

    With "max" it is the sparsest level that is known to win; with "prefix" the last level of the
    ladder before the first that is not known to win. An unknown level can only raise it: where a
    level wins, the extreme is at least that, and `unknown` says how many levels are open; where
    none is known to win and one that might is unknown ("prefix": before the first miss), the
    extreme is unknown, too. 0 stands only where every such level is a miss.

    Args:
        table: as of `replicates`; rule, ddof: as of `criteria`, which says when a level is unknown.
    Returns:
        Those four columns; extreme_rounds (Int64; 0: no sparse level wins; <NA>: unknown);
        extreme_sparsity (in [0,1], that of the level's records; of a table without a column
        `sparsity`, 1 - 0.8^rounds; 0.0 and NaN likewise); ST_SA, AT_SA, AT_RA (the extreme sparsity
        by that criterion alone); levels, unknown (counts).
    Raises:
        ValueError: one line, for another rule, ddof or extreme, and as `replicates` does.
    Warns:
        UserWarning: a line of `at_chance` for each dense network at chance.
    """
    if extreme not in EXTREMES:
        raise ValueError(
            f"extreme={extreme!r}: want one of {EXTREMES}; 'max' is the largest winning level"
        )
    judged = criteria(table, rule, ddof)
    for line in at_chance(judged):
        warnings.warn(line, stacklevel=2)
    return _verdict(judged, extreme)


def _verdict(judged: pd.DataFrame, extreme: str) -> pd.DataFrame:
    """The rows of `verdict`. judged: of `criteria`."""
    rows = []
    for key, levels in judged.sort_values("rounds").groupby(GROUP):
        by = {name: _extreme(levels, f"{name}_status", extreme) for name in CRITERIA}
        rounds = _extreme(levels, "double_win", extreme)
        at = dict(zip(levels["rounds"], levels["sparsity"], strict=True)) | {0: 0.0, None: np.nan}
        found = [at[r] for r in (rounds, *by.values())]
        unknown = int((levels["double_win"] == "unknown").sum())
        rows.append([*key, rounds, *found, len(levels), unknown])
    out = pd.DataFrame(
        rows, columns=[*GROUP, "extreme_rounds", "extreme_sparsity", *CRITERIA, "levels", "unknown"]
    )
    floats = dict.fromkeys(["fraction", "extreme_sparsity", *CRITERIA], float)
    return out.astype({"extreme_rounds": "Int64", "levels": int, "unknown": int, **floats})


def alternatives(table: pd.DataFrame) -> pd.DataFrame:
    """Extreme sparsity under every reading of the paper's rule: index the group, columns "rule,
    ddof, extreme". It warns as `verdict` does."""
    readings = {
        "one_std, ddof 1": ("one_std", 1),
        "one_std, ddof 0": ("one_std", 0),
        "eq3": ("eq3", 1),
    }
    judged = {name: criteria(table, *how) for name, how in readings.items()}
    for line in at_chance(judged["eq3"]):
        warnings.warn(line, stacklevel=2)
    return pd.DataFrame(
        {
            f"{name}, {extreme}": _verdict(levels, extreme).set_index(GROUP)["extreme_sparsity"]
            for extreme in EXTREMES
            for name, levels in judged.items()
        }
    )
