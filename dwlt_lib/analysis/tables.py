"""Tables of transfers: what they may hold, one row per seed, and the sparsity of their levels.

A table of transfers has one row per record (`records.table("transfer")`). A *level* is a sparsity
of the network, counted in pruning rounds; the level with 0 rounds is the dense network.
"""

from collections.abc import Callable, Hashable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from dwlt_lib.config.specs import ladder

GROUP = ["pretraining", "method", "dataset", "fraction"]
"""Columns that name one curve: (theta_p, m^P) on a share of a data set, over all its levels."""

TOLERANCE = 1e-9
"""How far equal accuracies may differ by rounding; one image in a million is 1e-6."""

SAME_SPARSITY = 1e-3
"""How far the sparsities of one level may differ: by the rounding of a count of weights."""

TASK = ["pretraining", "dataset", "fraction"]
"""Columns that name what tickets are compared on: theta_p and a share of a data set."""

RUN = [*GROUP, "regime", "rounds", "seed"]
"""Columns that name one transfer: a level under one regime, with one training seed."""

SEEDS = ["theta_seed", "subset_seed", "mask_seed"]
"""Columns of the seeds besides that of training."""

OPTIONAL = ["sparsity", "chance", "test_images"]
_ONE_STUDY = "want one study: records.table('transfer', study=...)"

WHOLE = ["rounds", "seed", *SEEDS]
"""Columns of whole numbers."""

NUMBERS = {
    **dict.fromkeys(WHOLE, ("a whole number, 0 or more", 0, 2**53)),
    "fraction": ("a share of the images in (0, 1]", 1e-6, 1),
    "SA": ("an accuracy as a fraction in [0, 1], not in percent", 0, 1),
    "RA": ("an accuracy as a fraction in [0, 1], not in percent", 0, 1),
    "chance": ("an accuracy as a fraction in [0, 1], not in percent", 0, 1),
    "sparsity": ("a share of the weights in [0, 1]", 0, 1),
    "test_images": ("a number of images, 1 or more", 1, 2**53),
}
"""What each column of numbers may hold: in words, the least and the most."""

NEVER_MISSING = ["rounds", "seed", "fraction"]


def by_study(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The rows of each study of a table.

    Args:
        table: records of any kind, of several studies if it has a column study.

    Returns:
        {study: its rows}, in the order in which the studies were asked for, whether or not they
        have rows; {"": all} of a table without that column.
    """
    if "study" not in table:
        return {"": table}
    return {name: table[table["study"] == name] for name in table["study"].cat.categories}


def join_studies(parts: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """One table of several studies: the inverse of `by_study`.

    Args:
        parts: {study: its rows}.

    Returns:
        All rows, and a column study, whose categories are the studies in their order.
    """
    filled = {name: part for name, part in parts.items() if len(part)} or parts
    joined = pd.concat([part.assign(study=name) for name, part in filled.items()])
    return joined.reset_index(drop=True).astype({"study": pd.CategoricalDtype(list(parts))})


def each_study(
    compute: Callable[..., pd.DataFrame], table: pd.DataFrame, *more: Any
) -> pd.DataFrame:
    """What is computed of each study's rows alone, as one table.

    Args:
        compute: takes a table of one study, and gives a table.
        table: of one study, or of several with a column study.
        more: what else `compute` takes.

    Returns:
        Its tables joined, with the column study if `table` has it.
    """
    parts = {name: compute(rows, *more) for name, rows in by_study(table).items()}
    return parts[""] if "" in parts else join_studies(parts)


def sparsities(table: pd.DataFrame) -> dict[int, float]:
    """The sparsity of each level of a table of records: the median of its column `sparsity`.

    Args:
        table: records of any kind, with a column rounds and perhaps a column sparsity, in [0, 1].

    Returns:
        {rounds: sparsity in [0, 1]}. A level whose records do not give their sparsity gets that of
        the paper's ladder, 1 - 0.8^rounds.

    Raises:
        ValueError: one line, if the levels of several studies differ.
    """
    found: dict[int, float] = {}
    for study, own in by_study(table).items():
        rounds = own["rounds"].astype(int)
        recorded = own.get("sparsity", pd.Series(np.nan, own.index))
        medians = pd.to_numeric(recorded).groupby(rounds).median()
        for r, median in zip(medians.index.tolist(), medians, strict=True):
            sparsity = sparsity_of({"rounds": r, "sparsity": median})
            if abs(found.setdefault(r, sparsity) - sparsity) > 20 * SAME_SPARSITY:
                raise ValueError(
                    f"study {study}: sparsity {sparsity:.3g} after {r} rounds, not {found[r]:.3g}"
                    " as in the other: want studies of the same prune_fraction"
                )
    return dict(sorted(found.items()))


def sparsity_of(row: Mapping[Hashable, Any]) -> float:
    """The sparsity of one row of a table.

    Args:
        row: by column; `rounds` is there.

    Returns:
        The row's own, in [0, 1], else 1 - 0.8^rounds as in `sparsities`.
    """
    own = row.get("sparsity", np.nan)
    return ladder(int(row["rounds"])) if pd.isna(own) else float(own)


def attack_names(table: pd.DataFrame) -> list[str]:
    """The columns of a table that are accuracies under one attack each.

    Args:
        table: robustness records.

    Returns:
        Names such as "PGD-50x10", in the table's order.
    """
    attacks = ("PGD-", "APGD-", "Square", "AutoAttack")
    return [name for name in table.columns if name.startswith(attacks)]


def sparsest(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of a table that are at its sparsest level.

    Args:
        table: of records, with the column rounds.

    Returns:
        Those with the most rounds.
    """
    return table[table["rounds"] == table["rounds"].max()]


def base_seeds(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the base theta_p, subset and mask: verdicts and figures are about these.

    The base is the smallest theta_seed and then subset_seed that a task has, and of these the
    smallest mask_seed of each method. Records of other seeds tell how much these seeds matter; as
    replicates of a level they would count training seeds twice.

    Args:
        table: records of any kind, with the columns pretraining, method, dataset, rounds, and as
            far as they have any fraction and `SEEDS`.

    Returns:
        Those rows, in their order. A row without a seed counts as one of seed 0.
    """
    task = [column for column in TASK if column in table.columns]
    for column in SEEDS:
        if column in table.columns and len(table):
            keys = [table[name] for name in task]
            if column == "mask_seed":  # the dense network, one for all methods, has no mask
                keys.append(table["method"].mask(table["rounds"] == 0, "dense"))
            seeds = table[column].fillna(0)
            table = table[
                seeds == seeds.groupby(keys, observed=True, dropna=False).transform("min")
            ]
    return table


def count_seeds(table: pd.DataFrame) -> int:
    """How many training seeds the levels of a table have; the dense network's, if it is alone.

    Args:
        table: transfers.

    Returns:
        A number from 0 on.
    """
    base = base_seeds(table)
    levels = base[base["rounds"] > 0]
    return (levels if len(levels) else base)["seed"].nunique()


def replicates(table: pd.DataFrame) -> pd.DataFrame:
    """One row per (curve, regime, rounds, seed) of the base seeds (`base_seeds`).

    Rows that share a seed, such as copies of the dense network, are averaged.

    Args:
        table: columns pretraining, method, dataset, regime (names), fraction (in (0, 1]), rounds,
            seed (whole numbers, 0 or more), SA, RA (fractions in [0, 1]; NaN: not measured). Rows
            with rounds 0 become method "dense", whatever their method. Optional columns: sparsity
            (in [0, 1], of the level), chance (in [0, 1]: the accuracy of naming always the
            commonest class of the test images), test_images (how many there are) and `SEEDS`.

    Returns:
        The columns named, and ids, the list of the records that were averaged. The sparsity is
        the level's: the median of its records, else 1 - 0.8^rounds; chance and test_images are NaN
        where the table has none. A NaN among the averaged SA or RA stays NaN.

    Raises:
        ValueError: one line, if a column is missing or occurs twice, a value is not allowed in its
            column, or the table mixes studies: two records for one setting (told apart by a
            column `id`), or records of one level that differ in sparsity.
    """
    table = base_seeds(_checked(table))
    if "id" in table.columns:
        counts = table.groupby(RUN, observed=True)["id"].nunique()
        if (counts > 1).any():
            setting = _named(RUN, counts.index[counts > 1][0])
            raise ValueError(f"{setting}: two records for one setting; {_ONE_STUDY}")
    table = table.reindex(columns=[*RUN, "SA", "RA", *OPTIONAL, "id"])
    table["sparsity"] = _level_sparsity(table)
    by_seed = table.groupby(RUN)
    complete = by_seed[["SA", "RA"]].count().eq(by_seed.size(), axis=0)
    means = by_seed[["SA", "RA"]].mean().where(complete)
    means["ids"] = by_seed["id"].agg(list)
    return means.join(by_seed[OPTIONAL].median()).reset_index()


def _checked(table: pd.DataFrame) -> pd.DataFrame:
    """The columns of a table of transfers that verdicts are about, as numbers and names."""
    required = [*RUN, "SA", "RA"]
    missing = [column for column in required if column not in table.columns]
    if missing:
        raise ValueError(
            f"columns {missing} are missing: want {required}; pass records.table('transfer',"
            " study=...)"
        )
    used = [*required, *OPTIONAL, "id", *SEEDS]
    table = table.loc[:, table.columns.isin(used)].reset_index(drop=True)
    repeated = sorted(set(table.columns[table.columns.duplicated()]))
    if repeated:
        raise ValueError(f"columns {repeated} occur twice: want each once")
    for column in NUMBERS:
        if column in table.columns:
            table[column] = _as_numbers(table[column])
    table = table.astype({"rounds": int, "seed": int})
    table["method"] = table["method"].astype(object).mask(table["rounds"] == 0, "dense")
    for column in ("pretraining", "method", "dataset", "regime"):
        table[column] = table[column].astype(object)
        is_name = np.array([isinstance(value, str) for value in table[column]], bool)
        _refuse(table[column], ~is_name, "a name")
    pruned = table.loc[(table["method"] == "dense") & (table["rounds"] > 0), "rounds"]
    if len(pruned):
        raise ValueError(
            f"method 'dense' with rounds {pruned.iloc[0]}: want rounds 0, or the method that drew"
            " the mask"
        )
    return table


def _as_numbers(values: pd.Series) -> pd.Series:
    """A column as floats; a value that is not allowed there is refused in one line."""
    name = str(values.name)
    expected, least, most = NUMBERS[name]
    is_number = np.array([not isinstance(v, str | bool | np.bool_) for v in values], bool)
    parsed = pd.to_numeric(values.where(is_number), errors="coerce").astype("Float64")
    numbers = pd.Series(parsed.to_numpy(float, na_value=np.nan), values.index)
    is_valid = numbers.between(least - TOLERANCE, most + TOLERANCE)
    if name in WHOLE:
        is_valid &= numbers == numbers.round()
    is_allowed = np.where(values.isna(), name not in NEVER_MISSING, is_valid)
    _refuse(values, ~is_number | ~is_allowed, expected)
    return numbers


def _refuse(values: pd.Series, is_bad: np.ndarray, expected: str) -> None:
    """Raises ValueError with the first bad value of a column, if there is one."""
    if is_bad.any():
        value = values[is_bad].iloc[0]
        shown = f"{value!r} (text)" if isinstance(value, str) else f"{value}"
        rows = f"in {is_bad.sum()} of {len(values)} rows"
        raise ValueError(f"{values.name} {shown} {rows}: want {expected}")


def _level_sparsity(table: pd.DataFrame) -> pd.Series:
    """The sparsity of each row's level: its records' median, else that of the paper's ladder."""
    keys = [*GROUP, "rounds"]
    by_level = table.groupby(keys)["sparsity"]
    low, high = by_level.min(), by_level.max()
    differ = high - low > SAME_SPARSITY
    if differ.any():
        level = differ.index[differ][0]
        raise ValueError(
            f"{_named(keys, level)}: sparsity {low[level]:.4g} to {high[level]:.4g}, which is not"
            f" one level; {_ONE_STUDY}"
        )
    return by_level.transform("median").fillna(table["rounds"].map(ladder)).astype(float)


def _named(columns: list[str], values: tuple) -> str:
    """One row's setting in words: "pretraining AT, method RP, ..."."""
    return ", ".join(f"{column} {value}" for column, value in zip(columns, values, strict=True))
