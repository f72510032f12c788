"""Theorems on which level a search tries next, and on how often searches err."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from seeds import numpy_rng

from dwlt_lib.analysis import noninferiority, search, simulated_searches
from dwlt_lib.analysis.noninferiority import FALLS_SHORT, MATCHES, STATUSES, UNDECIDED
from dwlt_lib.analysis.search import Curve, Tried
from dwlt_lib.analysis.tables import GROUP

MARGINS, ERRORS, ROUNDS = (0.02, 0.02, 0.03), (0.004, 0.005, 0.008), (1, 2, 3, 5, 8, 12, 16)


def curve(statuses=None, rounds=ROUNDS, errors=ERRORS):
    """A curve whose levels have these statuses, by rounds, at differences that go with them."""
    at = {MATCHES: 0.0, UNDECIDED: -0.025, FALLS_SHORT: -0.2}
    tried = {
        level: Tried(status, (at.get(status, np.nan),) * 3, tuple(errors))
        for level, status in (statuses or {}).items()
    }
    return Curve(rounds, MARGINS, errors, 20.0, tried)


@pytest.mark.parametrize("number", range(20))
def test_bounds_are_those_that_the_verdict_certifies(number):
    rng = numpy_rng(number)
    tried = sorted(rng.choice(ROUNDS, rng.integers(1, len(ROUNDS) + 1), replace=False).tolist())
    statuses = dict(zip(tried, rng.choice(STATUSES, len(tried)).tolist(), strict=True))
    low, high = curve(statuses).bounds()
    task = dict(zip(GROUP, ("AT", "IMP-ST", "digits", 1.0), strict=True))
    levels = pd.DataFrame(
        [{**task, "rounds": r, "sparsity": 0.5, "status": s} for r, s in statuses.items()]
    )
    (found,) = noninferiority.certified(levels).to_dict("records")
    assert found["at_least_rounds"] == (ROUNDS[low - 1] if low else 0)
    assert (pd.isna(found["below_rounds"]) if high == len(ROUNDS) else found["below_rounds"]) == (
        True if high == len(ROUNDS) else ROUNDS[high]
    )


def test_a_level_is_worth_nothing_where_the_bounds_cannot_move():
    gains = search.narrowing(curve({5: MATCHES, 12: FALLS_SHORT}))
    assert gains.keys() == {1, 2, 3, 8, 16}
    assert gains[8] > 0 and max(gains[level] for level in (1, 2, 3, 16)) < gains[8]
    assert search.narrowing(curve({5: UNDECIDED, 8: UNDECIDED}))[3] > 0
    between = search.narrowing(curve({2: UNDECIDED, 8: UNDECIDED}))
    assert between[3] == between[5] == 0  # neither the last to match nor the first to fall short
    assert search.next_level(curve({r: UNDECIDED for r in ROUNDS}), {}) is None
    neighbours = curve({1: MATCHES, 2: MATCHES, 3: MATCHES, 5: FALLS_SHORT})
    assert search.next_level(neighbours, dict.fromkeys(ROUNDS, 1.0)) is None


def test_of_two_levels_that_are_worth_as_much_the_cheaper_one_is_tried():
    costs = dict.fromkeys(ROUNDS, 1.0)
    first, gain = search.next_level(curve(), costs)
    assert gain == search.narrowing(curve())[first] >= search.LEAST
    other, _ = search.next_level(curve(), {**costs, first: 1e6})
    assert other != first


@pytest.mark.parametrize("extreme", range(20))
def test_without_noise_a_search_finds_the_extreme_with_few_levels(extreme):
    """Accuracies that fall off a cliff: the levels up to `extreme` equal dense, the others fail."""
    rounds = range(1, 20)
    measured = np.where(np.arange(19) < extreme, 0.0, -0.5) * np.ones((3, 1))
    found = simulated_searches.searched(curve(rounds=rounds, errors=(1e-3,) * 3), measured)
    low, high = found.bounds()
    assert low <= extreme <= high and high - low <= 1
    assert len(found.tried) <= 12  # a cliff is none of the curves that are expected


def test_searches_err_as_rarely_as_they_say_and_cost_less_than_grids():
    studies = 60
    found = simulated_searches.simulate(numpy_rng(5), studies)
    slack = 400 * np.sqrt(0.05 * 0.95 / studies)
    for row in simulated_searches.rates(found).to_dict("records"):
        assert row["low_wrong"] <= 5 + slack and row["high_wrong"] <= 5 + slack
        assert row["not_wider"] >= 75 and row["cost"] < 60 and row["width"] < row["grid_width"]
    assert (found["cost"] <= 1).all() and (found["tried"] <= simulated_searches.LEVELS).all()


def test_what_is_tried_outside_the_grid_of_expected_curves_does_not_stop_a_search():
    """Tickets better than dense, and accuracies that rise: no curve of the family is near."""
    measured = np.tile(np.linspace(0.0, 0.3, len(ROUNDS)), (3, 1))
    found = simulated_searches.searched(curve(), measured)
    assert found.bounds()[0] == len(ROUNDS)
    blank = replace(curve(), tried={8: Tried(noninferiority.UNKNOWN, (np.nan,) * 3, (np.nan,) * 3)})
    assert all(np.isfinite(list(search.narrowing(blank).values())))
