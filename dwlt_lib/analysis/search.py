"""Which level to try next, so that the extreme double-win sparsity is known for little compute.

A whole grid tries every level of a curve; most of them lie far from where the verdict changes.
Here a level is tried only if it is expected to narrow the certified bounds (`noninferiority`).

What is expected follows from curves of differences to dense that fall with sparsity:

    d_c(x) = -a_c max(x - k_c, 0)^q        x: rounds / deepest rounds, c: one of three criteria

with a knee k ~ U(-0.2, 1.2) that the criteria share up to N(0, 0.1), log-uniform slopes a in
[0.02, 1] and q from {1, 1.5, 2}. Curves are weighted by the likelihood of what was measured, so
that p_match(x) and p_short(x), the chances that a level would match or fall short if it were tried,
are means over curves. Between the last level that matches, l, and the first that falls short, h, a
level at index i is worth

    p_match(i) (i - l) + p_short(i) (h - i)        levels of narrowing,

where the first term counts only below every tried level that does not match, and the second only
above every tried level that does not fall short: elsewhere the bounds would not move. The search
takes the level with the most narrowing for its cost, and ends when none is worth `LEAST`.

The curves only choose what is tried. Verdicts are `noninferiority`'s, of the levels that were
tried; each is tested once, with all its seeds, so nothing is tested again and again until it
passes. Since several levels may be tried of which none matches, each bound is taken at a higher
confidence (`noninferiority.SEARCHED`); `simulated_searches` counts how often bounds err then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from scipy.special import ndtr, stdtrit

from dwlt_lib.analysis.noninferiority import FALLS_SHORT, MATCHES, SEARCHED
from dwlt_lib.analysis.statistics import CRITERIA

LEAST = 0.3
"""Levels by which the bounds must be expected to narrow, or a level is not tried."""
CURVES = 2000
"""How many curves stand for all that there could be."""
MISFIT = 0.003
"""By how much a true curve may lie off the nearest of them, in accuracy."""


@dataclass(frozen=True)
class Tried:
    """A level that was tried."""

    status: str
    """Of `noninferiority`."""
    differences: tuple[float, ...]
    """To dense, one for each of `CRITERIA`, in [-1, 1]; NaN where that was not measured."""
    errors: tuple[float, ...]
    """Their standard errors."""


@dataclass(frozen=True)
class Curve:
    """The levels of one theta_p, method, data set and fraction."""

    rounds: Sequence[int]
    """The levels that may be tried, ascending."""
    margins: Sequence[float]
    """One for each criterion, in [0, 1]."""
    errors: Sequence[float]
    """Standard errors that a level's differences are expected to have, one for each criterion."""
    df: float
    """Their degrees of freedom."""
    tried: Mapping[int, Tried] = field(default_factory=dict)
    """By rounds."""

    def bounds(self) -> tuple[int, int]:
        """The certified bounds, as places in `rounds`, as `noninferiority.certified` has them.

        Returns:
            The place after the last level that matches, 0 if none does; and that of the first level
            that falls short, len(rounds) if none does.
        """
        return self._first_not(MATCHES), self._last_not(FALLS_SHORT) + 1

    def _first_not(self, status: str) -> int:
        """The place after the last tried level up to which every tried one has that status."""
        reached = 0
        for place, rounds in enumerate(self.rounds):
            if rounds in self.tried:
                if self.tried[rounds].status != status:
                    break
                reached = place + 1
        return reached

    def _last_not(self, status: str) -> int:
        """The place before the first tried level from which on every tried one has that status."""
        reached = len(self.rounds) - 1
        for place in reversed(range(len(self.rounds))):
            if (found := self.tried.get(self.rounds[place])) is not None:
                if found.status != status:
                    break
                reached = place - 1
        return reached


def narrowing(curve: Curve) -> dict[int, float]:
    """By how many levels each untried level is expected to narrow the certified bounds.

    Args:
        curve: what was tried so far.

    Returns:
        {rounds: levels, at least 0} of each level that is not tried.
    """
    low, high = curve.bounds()
    places = {rounds: place for place, rounds in enumerate(curve.rounds)}
    others = {
        status: [places[r] for r, found in curve.tried.items() if found.status != status]
        for status in (MATCHES, FALLS_SHORT)
    }
    ceiling = min(others[MATCHES], default=len(places))
    floor = max(others[FALLS_SHORT], default=-1)
    chances = _chances(curve)
    found = {}
    for rounds, place in places.items():
        if rounds not in curve.tried:
            matches, short = chances[rounds]
            found[rounds] = (matches * (place + 1 - low) if place < ceiling else 0.0) + (
                short * (high - place) if place > floor else 0.0
            )
    return found


def next_level(curve: Curve, costs: Mapping[int, float]) -> tuple[int, float] | None:
    """The level to try next.

    Args:
        curve: what was tried so far.
        costs: of each level that is not tried, above 0, in any unit.

    Returns:
        Its rounds, and by how many levels it is expected to narrow the bounds; None if no level is
        worth it.
    """
    worth = {rounds: gain for rounds, gain in narrowing(curve).items() if gain >= LEAST}
    if not worth:
        return None
    best = max(worth, key=lambda rounds: (worth[rounds] / costs[rounds], -rounds))
    return best, worth[best]


def _chances(curve: Curve) -> dict[int, tuple[float, float]]:
    """{rounds: chances to be found to match and to fall short} of every level."""
    depth = max(curve.rounds)
    curves = plausible_curves(depth)
    log_weight = np.zeros(len(curves))
    for rounds, found in curve.tried.items():
        known = ~np.isnan(found.differences)
        scale = np.hypot(np.asarray(found.errors)[known], MISFIT)
        off = (curves[:, known, rounds - 1] - np.asarray(found.differences)[known]) / scale
        log_weight -= 0.5 * (off**2).sum(axis=1)
    weight = np.exp(log_weight - log_weight.max())
    weight /= weight.sum()
    errors, margins = np.asarray(curve.errors)[:, None], np.asarray(curve.margins)[:, None]
    at = curves[:, :, np.asarray(curve.rounds) - 1]
    needed = stdtrit(curve.df, SEARCHED)
    surely = stdtrit(curve.df, 1 - (1 - SEARCHED) / len(CRITERIA))
    matches = ndtr((at + margins) / errors - needed).prod(axis=1)
    short = 1 - ndtr((at + margins) / errors + surely).prod(axis=1)
    return {
        rounds: (float(weight @ matches[:, place]), float(weight @ short[:, place]))
        for place, rounds in enumerate(curve.rounds)
    }


@cache
def plausible_curves(depth: int) -> np.ndarray:
    """Curves of differences to dense that fall with sparsity, drawn once and for all.

    Args:
        depth: the deepest rounds.

    Returns:
        (CURVES, criteria, depth) differences after 1 to `depth` rounds, at most 0.
    """
    rng, criteria = np.random.default_rng(0), len(CRITERIA)
    x = np.arange(1, depth + 1) / depth
    knee = rng.uniform(-0.2, 1.2, (CURVES, 1, 1)) + rng.normal(0, 0.1, (CURVES, criteria, 1))
    slope = np.exp(rng.uniform(np.log(0.02), 0.0, (CURVES, criteria, 1)))
    power = rng.choice([1.0, 1.5, 2.0], (CURVES, 1, 1))
    return -slope * np.maximum(x - knee, 0) ** power
