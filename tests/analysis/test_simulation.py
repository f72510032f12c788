"""Theorems on simulated studies: bounds hold the truth as often as they say."""

from dataclasses import replace

import numpy as np
import pytest
from seeds import numpy_rng

from dwlt_lib.analysis import simulation
from dwlt_lib.analysis.simulation import Setting

STUDIES = 400


def binomial(p, n=STUDIES, sds=4):
    """So many standard deviations of a share of n."""
    return sds * np.sqrt(p * (1 - p) / n)


@pytest.mark.parametrize("shared", [0.0, 0.9])
def test_one_sided_bounds_hold_the_truth_in_95_of_100_studies(shared):
    setting, rng = Setting(shared=shared, effects=(0.0, 0.0, -0.03)), numpy_rng(1)
    found = [simulation.simulated_difference(setting, 2, rng) for _ in range(STUDIES)]
    for covers in (
        np.mean([d.low() <= -0.03 for d in found]),
        np.mean([d.high() >= -0.03 for d in found]),
    ):
        assert abs(covers - 0.95) < 0.02 + binomial(0.95)


def test_a_ticket_at_the_margin_rarely_matches_and_an_equal_one_mostly_with_the_seeds_proposed():
    limits, rng = [0.02, 0.02, 0.03], numpy_rng(2)
    at = replace(Setting(), effects=(0.0, 0.0, -0.03))
    rates = simulation._rates(at, limits, rng, STUDIES)
    assert rates["matches"] <= 0.05 + binomial(0.05)
    n, n_dense = simulation.proposed_seeds(Setting(), limits)
    rates = simulation._rates(replace(Setting(), n=n, n_dense=n_dense), limits, rng, STUDIES)
    assert rates["matches"] >= 0.8 - binomial(0.8) and rates["falls_short"] < binomial(0.01)


def test_a_ticket_far_beyond_the_margin_falls_short():
    setting = replace(Setting(n=5), effects=(0.0, 0.0, -0.06))
    rates = simulation._rates(setting, [0.02, 0.02, 0.03], numpy_rng(3), 200)
    assert rates["falls_short"] > 0.5 and rates["matches"] == 0


@pytest.mark.parametrize(("n", "rate"), [(2, 0.42), (3, 0.57), (10, 0.93)])
def test_the_papers_rule_passes_an_equal_ticket_as_often_as_known(n, rate):
    found = simulation.paper_pass_rate(n, numpy_rng(n), 20_000)
    assert abs(found - rate) < 0.01 + binomial(rate, 20_000)
