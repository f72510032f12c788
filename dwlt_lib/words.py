"""One sentence a figure, from the same table: what this study shows. The paper's findings stand in the notebooks."""

import pandas as pd

from dwlt_lib import plots, winning
from dwlt_lib.style import METHODS, PRETRAININGS, name, percent

NOTHING = "No records yet."


def _extremes(table: pd.DataFrame, by: str, order: tuple, start: str, how: dict) -> str:
    out = winning.verdict(table, **how)
    found = []
    for dataset, part in out.groupby("dataset"):
        by_key = part.set_index(by)["extreme_sparsity"]
        each = [f"{key} {percent(by_key[key], ' %')}" for key in order if key in by_key.index]
        seeds = table[table["dataset"] == dataset]["seed"].nunique()
        verb = "" if found else " the extreme double-win sparsities are"
        found.append(f"{name(dataset)}{verb} {', '.join(each)} ({seeds} seed{'s' * (seeds != 1)})")
    return f"{start} {'; on '.join(found)}." if found else NOTHING


def existence(table: pd.DataFrame, **how) -> str:
    """Figure 3 in a sentence: the extreme sparsities of IMP-ST by theta_p, on the largest fraction of the data."""
    table = table[(table["fraction"] == table["fraction"].max()) & table["method"].isin(["dense", "IMP-ST"])]
    return _extremes(table, "pretraining", PRETRAININGS, "On", how)


def methods(table: pd.DataFrame, pretraining: str = "AT", **how) -> str:
    """Figure 4 in a sentence: the extreme sparsities of the pruning methods on one theta_p."""
    table = table[(table["fraction"] == table["fraction"].max()) & (table["pretraining"] == pretraining)]
    return _extremes(table, "method", METHODS, f"From theta_{pretraining} on", how)


def data_limited(table: pd.DataFrame) -> str:
    """Figure 5 in a sentence: the best mean RA after AT on the ladder, dense included, of each theta_p."""
    table = table[table["method"].isin(["dense", "IMP-ST"]) & (table["regime"] == "AT")]
    levels = winning.spread(table).dropna(subset="RA").sort_values(["dataset", "fraction"], ascending=[True, False])
    found = []
    for (d, f), part in levels.groupby(["dataset", "fraction"], sort=False):
        best = part.loc[part.groupby("pretraining")["RA"].idxmax()].set_index("pretraining")
        best["at"] = winning.ladder(best["rounds"])
        each = [f"{p} {percent(best.RA[p])} % at {percent(best['at'][p])} %" for p in PRETRAININGS if p in best.index]
        found.append(f"with {100 * f:g} % of {name(d)} {', '.join(each)}")
    return f"The best mean RA after AT, at its sparsity: {'; '.join(found)}." if found else NOTHING


def basins(areas: pd.DataFrame, level: float = 1.0) -> str:
    """Figures 2 and 6 in a sentence, from basin_area."""
    found = []
    for where, part in areas.groupby("where", sort=False):
        found.append(f"{where}, {', '.join(f'{r.pretraining} {percent(r.area)} %' for r in part.itertuples())}")
    return f"The basin below its minimum + {level:g} covers, of the plane: {'; '.join(found)}." if found else NOTHING


def masks(pairs: pd.DataFrame, kernels: pd.DataFrame) -> str:
    """Figures 7 and A8 in a sentence, at the sparsest level."""
    if pairs.empty or kernels.empty:
        return NOTHING
    deepest = pairs["rounds"].max()
    last, zeros = (f[f["rounds"] == deepest] for f in (pairs, plots.zero_shares(kernels)))
    means = last.groupby("pair")[["similarity", "chance"]].mean()
    overlap = [f"{r.Index} {percent(r.similarity)} % (chance {percent(r.chance)} %)" for r in means.itertuples()]
    shares = zeros.groupby("pretraining")["zero"].mean()
    pruned = ", ".join(f"{p} {percent(shares[p])} %" for p in PRETRAININGS if p in shares)
    at = percent(winning.ladder(deepest))
    return f"At {at} % sparsity masks overlap: {', '.join(overlap)}; zero kernels, of those above 1x1: {pruned}."


def transfer_attack(table: pd.DataFrame) -> str:
    """Table A2 in a sentence: a transfer-attack accuracy below RA would point to masked gradients."""
    if table.empty:
        return NOTHING
    means = table.groupby([*winning.GROUP, "rounds"])[["transfer_accuracy", "RA"]].mean()
    margin = 100 * (means["transfer_accuracy"] - means["RA"])
    return (f"{(margin < 0).sum()} of {len(margin)} networks withstand the unseen model's images worse than their own "
            f"PGD's, which would point to masked gradients; the smallest margin is {margin.min():.1f} points.")
