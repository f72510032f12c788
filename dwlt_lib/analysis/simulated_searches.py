"""Simulated adaptive searches with a known truth: what they find and cost, beside a whole grid.

A curve's levels and its dense network are trained with so many seeds each. A measured difference is
the true one, plus luck that all networks of a seed share, a network's own, and the test images'.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from dwlt_lib.analysis.noninferiority import FALLS_SHORT, MATCHES, SEARCHED, UNDECIDED
from dwlt_lib.analysis.search import Curve, Tried, next_level
from dwlt_lib.analysis.simulation import Setting
from dwlt_lib.analysis.statistics import CONFIDENCE, CRITERIA
from dwlt_lib.config.studies import Margins

LEVELS = 19
"""Of a ladder, as the paper's."""
SEEDS = 3
"""Of every level and of dense, as the paper's."""
COSTS = (1.0, 11.0)
"""Of a network trained by ST and by AT with PGD-10: passes through the network, about."""
IMAGE_SES = (0.004, 0.005, 0.008)
"""The test images' part of the standard errors, about that of 640 images."""

Truth = Callable[[np.random.Generator], np.ndarray]
"""Draws (criteria, LEVELS) true differences to dense, falling."""


def falling(rng: np.random.Generator) -> np.ndarray:
    """A plausible truth: accuracies stay, then fall off a slope; not of the search's own family.

    Args:
        rng: of all draws.

    Returns:
        (criteria, LEVELS) differences to dense, each no larger than the one before.
    """
    x, criteria = np.arange(1, LEVELS + 1) / LEVELS, len(CRITERIA)
    middle = rng.uniform(0.3, 1.5) + rng.normal(0, 0.1, (criteria, 1))
    width, depth = rng.uniform(0.03, 0.2), rng.uniform(0.05, 0.6, (criteria, 1))
    fall = rng.normal(0, 0.004, (criteria, 1)) - depth / (1 + np.exp(-(x - middle) / width))
    return np.minimum.accumulate(fall, axis=1)


def at_margin(rng: np.random.Generator) -> np.ndarray:
    """The worst truth: from some level on RA lies at the margin exactly, all else equals dense.

    Args:
        rng: of all draws.

    Returns:
        (criteria, LEVELS) differences to dense.
    """
    truth = np.zeros((len(CRITERIA), LEVELS))
    truth[-1, rng.integers(0, LEVELS) :] = -_margins()[-1]
    return truth


TRUTHS: dict[str, Truth] = {
    "accuracies fall with sparsity": falling,
    "RA stays at the margin": at_margin,
}


def simulate(rng: np.random.Generator, studies: int = 500) -> pd.DataFrame:
    """Simulate curves, search each, and judge its whole grid.

    Args:
        rng: of all draws.
        studies: how many curves of each truth.

    Returns:
        One row per curve: truth (in words), extreme (how many levels truly match), and of search
        and grid the certified bounds, search_low, search_high, grid_low, grid_high (low: so many
        levels match; high: the place, from 0, of the first that falls short); tried (levels), and
        cost (a share of the grid's).
    """
    rows = []
    for name, truth in TRUTHS.items():
        for _ in range(studies):
            true = truth(rng)
            within = (true > -_margins()[:, None] + 1e-12).all(axis=0)
            rows.append(
                {"truth": name, "extreme": LEVELS if within.all() else int(np.argmin(within))}
                | _curve(true, rng)
            )
    return pd.DataFrame(rows)


def rates(curves: pd.DataFrame) -> pd.DataFrame:
    """How searches do beside grids.

    Args:
        curves: of `simulate`.

    Returns:
        One row per truth: low_wrong and high_wrong (in %: bounds of the search that do not hold the
        true extreme), grid_low_wrong and grid_high_wrong, not_wider (in %: no bound is worse than
        the grid's by more than a level), width and grid_width (levels between the bounds, mean),
        tried (levels, mean), cost (in % of the grid's, median) and cost_90 (its 90th percentile).
    """
    rows = []
    for truth, own in curves.groupby("truth", sort=False):
        not_wider = (own["search_low"] >= own["grid_low"] - 1) & (
            own["search_high"] <= own["grid_high"] + 1
        )
        row: dict = {"truth": truth}
        for kind, prefix in (("search", ""), ("grid", "grid_")):
            row[f"{prefix}low_wrong"] = 100 * (own[f"{kind}_low"] > own["extreme"]).mean()
            row[f"{prefix}high_wrong"] = 100 * (own[f"{kind}_high"] < own["extreme"]).mean()
            row[f"{prefix}width"] = (own[f"{kind}_high"] - own[f"{kind}_low"]).mean()
        row |= {"not_wider": 100 * not_wider.mean(), "tried": own["tried"].mean()}
        row |= {"cost": 100 * own["cost"].median(), "cost_90": 100 * own["cost"].quantile(0.9)}
        rows.append(row)
    return pd.DataFrame(rows)


def _margins() -> np.ndarray:
    own = Margins()
    return np.array([own.SA, own.SA, own.RA])


def _curve(true: np.ndarray, rng: np.random.Generator) -> dict[str, float]:
    """One curve: its levels as they would be measured, the search among them, and its grid."""
    setting = Setting()
    sds = np.asarray(setting.seed_sds)
    common = np.sqrt(setting.shared) * rng.normal(size=(len(sds), SEEDS))

    def luck(*levels: int) -> np.ndarray:
        shape = (len(sds), *levels, SEEDS)
        shared = common.reshape(len(sds), *(1 for _ in levels), SEEDS)
        all_luck = shared + np.sqrt(1 - setting.shared) * rng.normal(size=shape)
        return (sds.reshape(-1, *(1 for _ in shape[1:])) * all_luck).mean(axis=-1)

    images = np.asarray(IMAGE_SES)
    measured = true + luck(LEVELS) - luck()[:, None]
    measured += images[:, None] * rng.normal(size=measured.shape)
    errors = np.sqrt((1 - setting.shared) * sds**2 * 2 / SEEDS + images**2)
    df = 2.0 * (SEEDS - 1) * LEVELS / 2
    curve = Curve(range(1, LEVELS + 1), list(_margins()), list(errors), df)
    whole = replace(curve, tried=outcomes(curve, measured, CONFIDENCE))
    found = searched(curve, measured)
    cost = SEEDS * sum(COSTS)  # of dense
    for one in found.tried.values():
        by_st = _falls_short(curve, np.asarray(one.differences[:1]), SEARCHED)
        cost += SEEDS * (COSTS[0] if by_st else sum(COSTS))
    low, high = found.bounds()
    grid_low, grid_high = whole.bounds()
    return {
        "search_low": low,
        "search_high": high,
        "grid_low": grid_low,
        "grid_high": grid_high,
        "tried": len(found.tried),
        "cost": cost / (SEEDS * sum(COSTS) * (LEVELS + 1)),
    }


def outcomes(curve: Curve, measured: np.ndarray, confidence: float) -> dict[int, Tried]:
    """Every level as it comes out if it is tried.

    Args:
        curve: whose margins, errors and degrees of freedom count.
        measured: (criteria, levels) differences to dense.
        confidence: of each one-sided bound.

    Returns:
        What came out, by rounds.
    """
    errors = np.asarray(curve.errors)
    found = {}
    for rounds, own in zip(curve.rounds, measured.T, strict=True):
        status = UNDECIDED
        if (own - stdtrit(curve.df, confidence) * errors > -np.asarray(curve.margins)).all():
            status = MATCHES
        elif _falls_short(curve, own, confidence):
            status = FALLS_SHORT
        found[rounds] = Tried(status, tuple(own), tuple(errors))
    return found


def searched(curve: Curve, measured: np.ndarray) -> Curve:
    """A curve as its search leaves it, if all levels cost the same.

    Args:
        curve: of which nothing was tried.
        measured: (criteria, levels) differences to dense, as they would come out.

    Returns:
        The curve with the levels that were tried.
    """
    costs, found = dict.fromkeys(curve.rounds, 1.0), outcomes(curve, measured, SEARCHED)
    while (choice := next_level(curve, costs)) is not None:
        curve = replace(curve, tried={**curve.tried, choice[0]: found[choice[0]]})
    return curve


def _falls_short(curve: Curve, differences: np.ndarray, confidence: float) -> bool:
    """Whether a level falls short by one of the first criteria, as many as are given."""
    count = len(differences)
    surely = stdtrit(curve.df, 1 - (1 - confidence) / len(CRITERIA))
    high = differences + surely * np.asarray(curve.errors)[:count]
    return bool((high < -np.asarray(curve.margins)[:count]).any())
