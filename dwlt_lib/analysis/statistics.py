"""Means, standard deviations and confidence intervals over seeds."""

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from dwlt_lib.analysis.tables import GROUP, TOLERANCE, replicates

CONFIDENCE = 0.90
"""Coverage of the intervals of `welch_interval`."""


def spread(table: pd.DataFrame, ddof: int = 1) -> pd.DataFrame:
    """Mean and standard deviation of SA and RA over seeds, one row per (curve, regime, rounds).

    Args:
        table: transfers, as `tables.replicates` takes them.
        ddof: 1 for the sample's standard deviation, 0 for the population's.

    Returns:
        pretraining, method, dataset, fraction, regime, rounds, SA, RA (means in [0, 1]), SA_std,
        RA_std (NaN for one seed and ddof 1), seeds (how many), sparsity (the level's, in [0, 1]).

    Raises:
        ValueError: one line, as `tables.replicates`.
    """
    by_level = replicates(table).groupby([*GROUP, "regime", "rounds"])
    means, stds = by_level[["SA", "RA"]].mean(), by_level[["SA", "RA"]].std(ddof=ddof)
    levels = means.assign(SA_std=stds["SA"], RA_std=stds["RA"], seeds=by_level.size())
    return levels.assign(sparsity=by_level["sparsity"].first()).reset_index()


def welch_interval(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Welch's 90 % interval of mean(a) - mean(b), for samples of unequal variances.

    mean(a) - mean(b) +- t_{0.95, df} sqrt(va + vb), where v = std^2 / n of each sample and df = (va
    + vb)^2 / (va^2 / (na - 1) + vb^2 / (nb - 1)).

    Args:
        a: (na,) accuracies.
        b: (nb,) accuracies.

    Returns:
        Its lower and upper end; NaN with fewer than two values in a sample.
    """
    if min(len(a), len(b)) < 2:
        return np.nan, np.nan
    gap = a.mean() - b.mean()
    va, vb = a.var(ddof=1) / len(a), b.var(ddof=1) / len(b)
    if va + vb < TOLERANCE**2:
        return gap, gap
    df = (va + vb) ** 2 / (va**2 / (len(a) - 1) + vb**2 / (len(b) - 1))
    half = stdtrit(df, (1 + CONFIDENCE) / 2) * np.sqrt(va + vb)  # Student's t quantile
    return gap - half, gap + half
