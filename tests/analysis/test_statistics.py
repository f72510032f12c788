"""Theorems on means, deviations and intervals over seeds."""

import numpy as np
import pytest
from seeds import numpy_rng
from transfer_rows import DENSE, frame, rows

from dwlt_lib.analysis import double_win, statistics


def test_interval_is_welchs_by_hand():
    row = double_win.criteria(frame(DENSE, rows(2, 0.9, ra=[0.80, 0.81, 0.85]))).iloc[0]
    gap, va, vb = 0.82 - 0.90, 7e-4 / 3, 4e-4 / 3
    df = (va + vb) ** 2 / (va**2 / 2 + vb**2 / 2)
    half = 2.1686 * np.sqrt(va + vb)  # Student's t, 95th percentile at df = 3.72
    assert df == pytest.approx(3.723, abs=1e-3) and row["AT_RA_difference"] == pytest.approx(gap)
    assert (row["AT_RA_low"], row["AT_RA_high"]) == pytest.approx(
        (gap - half, gap + half), abs=2e-4
    )
    assert (
        row["AT_RA_threshold"] == pytest.approx(0.88)
        and row["AT_RA_status"] == row["double_win"] == "miss"
    )


def test_an_interval_of_few_or_equal_values_is_unknown_or_a_point():
    assert np.isnan(statistics.welch_interval(np.array([0.9]), np.array([0.8, 0.9]))).all()
    equal = statistics.welch_interval(np.array([0.9, 0.9]), np.array([0.8, 0.8]))
    assert equal == pytest.approx((0.1, 0.1))


def test_the_interval_holds_the_true_difference_in_9_of_10_draws():
    rng = numpy_rng(0)
    held = 0
    for _ in range(2000):
        low, high = statistics.welch_interval(rng.normal(0.5, 0.1, 5), rng.normal(0.3, 0.3, 8))
        held += low <= 0.2 <= high
    # four binomial standard deviations, and a point for Welch's approximation of the df
    assert abs(held / 2000 - statistics.CONFIDENCE) < 4 * np.sqrt(0.9 * 0.1 / 2000) + 0.01


def test_spread_is_the_mean_and_the_standard_deviation_over_seeds():
    values = np.array([0.88, 0.90, 0.92])
    for ddof in (0, 1):
        row = statistics.spread(frame(rows(2, values, ra=values - 0.1)), ddof).set_index("regime")
        assert row.loc["AT", "SA"] == pytest.approx(values.mean())
        assert row.loc["AT", "RA_std"] == pytest.approx(values.std(ddof=ddof))
        assert row["seeds"].tolist() == [3, 3]
    alone = statistics.spread(frame(rows(2, 0.9, seeds=(0,))))
    assert alone["SA_std"].isna().all()
