"""Simulated studies with a known truth: how often bounds and verdicts are right.

A study has one dense network and some levels, each transferred with several seeds and tested on the
same images. Whether a run has an image right is a coin whose chance depends on the image, on what
pruning does to it, and on the luck of the run's seed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from dwlt_lib.analysis.statistics import (
    CONFIDENCE,
    CRITERIA,
    Difference,
    Runs,
    bootstrap_bounds,
    difference,
    fit_noise,
    seeds_needed,
)
from dwlt_lib.config.studies import Margins

STUDIES = 2000
_SPREAD = 0.25  # how far pruning moves the chance of a contested image, up or down, at most
_LUCK = 3.5  # so many standard deviations of luck must leave chances within [0, 1]


@dataclass(frozen=True)
class Setting:
    """What simulated studies are like; accuracies are in [0, 1], one for each of `CRITERIA`."""

    n: int = 3
    """Seeds of each level."""
    n_dense: int = 8
    """Seeds of the dense network."""
    levels: int = 6
    """Levels, of which the first has the effects; the others are equal to dense."""
    images: int = 640
    """Test images."""
    effects: tuple[float, ...] = (0.0, 0.0, 0.0)
    """True difference of the first level to dense, over all images that there could be."""
    accuracies: tuple[float, ...] = (0.95, 0.94, 0.78)
    """Of dense."""
    seed_sds: tuple[float, ...] = (0.004, 0.005, 0.013)
    """Standard deviation of a seed's luck."""
    shared: float = 0.3
    """Share of that variance that all networks of one seed have in common, in [0, 1)."""
    noisier: float = 1.0
    """How much larger the first level's luck is than that of the others and of dense."""


def contested(accuracy: float) -> float:
    """The share of test images that is right with a chance of a half, so that pruning can move it.

    Args:
        accuracy: of dense, in [0, 1].

    Returns:
        A share in [0, 0.2].
    """
    return min(0.2, 2 * (1 - accuracy))


def simulated_runs(setting: Setting, criterion: int, rng: np.random.Generator) -> list[Runs]:
    """The runs of one simulated study by one criterion: dense, the first level and the others.

    Contested images are right with a chance of a half, others always or never. A level moves each
    contested image up or down, by the effect on average; a seed's luck moves all of them.

    Args:
        setting: what the study is like.
        criterion: which of the three, from 0.
        rng: of all draws.

    Returns:
        Of each cell.
    """
    accuracy, sd = setting.accuracies[criterion], setting.seed_sds[criterion]
    effect, share = setting.effects[criterion], contested(accuracy)
    is_contested = rng.random(setting.images) < share
    is_easy = rng.random(setting.images) < (accuracy - share / 2) / (1 - share)
    common = rng.normal(0, sd * np.sqrt(setting.shared), max(setting.n, setting.n_dense))
    room = 0.5 - _LUCK * sd * setting.noisier / share

    def runs(count: int, moved: np.ndarray, scale: float = 1.0) -> Runs:
        luck = scale * (common[:count] + rng.normal(0, sd * np.sqrt(1 - setting.shared), count))
        chance = 0.5 + moved + luck[:, None] / share  # the luck is one of all images
        right = np.where(is_contested, rng.random((count, setting.images)) < chance, is_easy)
        values = dict(enumerate(right.mean(axis=1)))
        return Runs(values, dict(enumerate(right)), setting.images)

    def moves(shift: float) -> np.ndarray:
        spread = min(_SPREAD, max(room - abs(shift), 0.0))
        return shift + rng.choice([-spread, spread], setting.images)

    dense = runs(setting.n_dense, np.zeros(1))
    level = runs(setting.n, moves(effect / share), setting.noisier)
    return [dense, level, *(runs(setting.n, moves(0.0)) for _ in range(setting.levels - 1))]


def simulated_difference(setting: Setting, criterion: int, rng: np.random.Generator) -> Difference:
    """The first level of one simulated study less dense, by one criterion, as it is estimated.

    Args:
        setting: what the study is like.
        criterion: which of the three, from 0.
        rng: of all draws.

    Returns:
        The difference with its standard error.
    """
    cells = simulated_runs(setting, criterion, rng)
    return difference(cells[1], cells[0], fit_noise([own.values for own in cells]))


def bootstrap_coverage(rng: np.random.Generator, studies: int = STUDIES // 10) -> float:
    """How often the two-way bootstrap's one-sided bounds of RA hold the truth, as a check.

    Args:
        rng: of all draws.
        studies: how many are simulated, of tickets that equal dense.

    Returns:
        A share in [0, 1].
    """
    hold = 0
    for _ in range(studies):
        dense, level, *_ = (
            np.array(list(own.bits.values()), float) for own in simulated_runs(Setting(), 2, rng)
        )
        low, high = bootstrap_bounds(level, dense, rng, draws=400)
        hold += (low <= 0) + (high >= 0)
    return hold / (2 * studies)


def proposed_seeds(setting: Setting, margins: list[float]) -> tuple[int, int] | None:
    """(n, n_dense) with which an equal ticket is called `matches` in 80 % of studies like this.

    Args:
        setting: what the study is like, whatever its seeds.
        margins: one for each criterion, in [0, 1].

    Returns:
        As `statistics.seeds_needed`, whose noise is that of the setting.
    """
    shares = np.array([contested(accuracy) for accuracy in setting.accuracies])
    coins = shares * (0.25 - _SPREAD**2 / 2) / setting.images  # variance of tossing every coin anew
    sds = np.sqrt(np.square(setting.seed_sds) + coins)
    image_ses = _SPREAD * np.sqrt(shares / setting.images)
    return seeds_needed(setting.levels, margins, list(sds), list(image_ses))


def paper_pass_rate(n: int, rng: np.random.Generator, studies: int = STUDIES) -> float:
    """How often a ticket that truly equals dense passes the paper's rule by all three criteria.

    mean(level) >= mean(dense) - std(dense), of n seeds each; any normal luck gives the same.

    Args:
        n: seeds of the level and of dense.
        rng: of all draws.
        studies: how many are simulated.

    Returns:
        A share in [0, 1].
    """
    level, dense = rng.normal(size=(2, studies, len(CRITERIA), n))
    passes = level.mean(-1) >= dense.mean(-1) - dense.std(-1, ddof=1)
    return float(passes.all(-1).mean())


def simulate(rng: np.random.Generator, studies: int = STUDIES) -> pd.DataFrame:
    """Simulate studies and count how often the verdict is right.

    Args:
        rng: of all draws.
        studies: how many of each setting.

    Returns:
        One row per setting: truth (in words), n, n_dense, low_covers and high_covers (shares of the
        one-sided bounds, of all criteria, that hold the truth), interval_covers (both), matches,
        falls_short and undecided (shares of studies).
    """
    margins = Margins()
    limits = [margins.SA, margins.SA, margins.RA]
    base = Setting()
    proposed = proposed_seeds(base, limits)
    at_margin = tuple(-margin for margin in limits)
    alone = replace(base, effects=(0.0, 0.0, at_margin[2]))
    settings = {
        "equal to dense": base,
        "all three at the margin": replace(base, effects=at_margin),
        "SA after ST alone at the margin": replace(base, effects=(at_margin[0], 0.0, 0.0)),
        "RA alone at the margin": alone,
        "the same, luck not shared by seeds": replace(alone, shared=0.0),
        "the same, luck mostly shared": replace(alone, shared=0.9),
        "the same, that level 1.5 times as noisy": replace(alone, noisier=1.5),
        "RA twice beyond the margin": replace(base, effects=(0.0, 0.0, 2 * at_margin[2])),
    }
    if proposed:
        settings["equal, with the seeds that power asks for"] = replace(
            base, n=proposed[0], n_dense=proposed[1]
        )
    rows = [
        {"truth": truth, "n": setting.n, "n_dense": setting.n_dense}
        | _rates(setting, limits, rng, studies)
        for truth, setting in settings.items()
    ]
    return pd.DataFrame(rows)


def _rates(
    setting: Setting, limits: list[float], rng: np.random.Generator, studies: int
) -> dict[str, float]:
    """How often bounds hold the truth and what the verdict says, in one setting."""
    effects, margins = np.array(setting.effects), np.array(limits)
    surely = 1 - (1 - CONFIDENCE) / len(CRITERIA)
    bounds = np.empty((studies, len(CRITERIA), 3))
    for i, c in np.ndindex(studies, len(CRITERIA)):
        found = simulated_difference(setting, c, rng)
        bounds[i, c] = found.low(), found.high(), found.high(surely)
    low, high, surely_high = np.moveaxis(bounds, -1, 0)
    matches = (low > -margins).all(axis=1)
    falls_short = (surely_high < -margins).any(axis=1)
    return {
        "low_covers": (low <= effects).mean(),
        "high_covers": (high >= effects).mean(),
        "interval_covers": ((low <= effects) & (high >= effects)).mean(),
        "matches": matches.mean(),
        "falls_short": falls_short.mean(),
        "undecided": (~matches & ~falls_short).mean(),
    }
