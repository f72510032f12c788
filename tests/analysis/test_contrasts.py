"""Theorems on contrasts of means: estimates, errors and degrees of freedom."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_rel
from seeds import numpy_rng
from transfer_rows import frame, rows

from dwlt_lib.analysis import contrasts, noninferiority
from dwlt_lib.analysis.contrasts import (
    SEEDS,
    THETAS,
    Evidence,
    best_over_dense,
    between,
    extremes,
    within,
)

AT, STD = ("AT", "IMP-ST"), ("STD", "IMP-ST")


def estimate(contrast, table, outcomes=None):
    """Of a contrast by name, with its arguments."""
    function, *arguments = contrast
    (found,) = function(Evidence(table, outcomes or {}), *arguments)
    return found


def noisy(rng, pretraining, mean, rounds=(0, 3, 6), method="IMP-ST"):
    return [
        rows(
            r,
            0.9,
            ra=mean + rng.normal(0, 0.01, 4),
            method=method if r else "dense",
            seeds=(0, 1, 2, 3),
            pretraining=pretraining,
        )
        for r in rounds
    ]


def test_two_curves_alone_are_compared_by_the_paired_t_test_of_their_level_means():
    rng = numpy_rng(0)
    table = frame(*noisy(rng, "AT", 0.7), *noisy(rng, "STD", 0.6))
    found = estimate((between, AT, STD, "AT_RA"), table)
    sparse = table[(table["regime"] == "AT") & (table["rounds"] > 0)]
    means = sparse.groupby(["pretraining", "seed"])["RA"].mean()
    oracle = ttest_rel(means["AT"], means["STD"], alternative="greater")
    assert found.effect == pytest.approx((means["AT"] - means["STD"]).mean())
    assert found.low(oracle.pvalue) == pytest.approx(0.0, abs=1e-9)
    assert found.n == 4 and found.terms[0].df == 3 and found.speaks_for == SEEDS


def test_further_curves_lend_degrees_of_freedom_and_further_levels_do_not():
    rng = numpy_rng(1)
    two = [*noisy(rng, "AT", 0.7), *noisy(rng, "STD", 0.6)]
    df = estimate((between, AT, STD, "AT_RA"), frame(*two)).terms[0].df
    third = noisy(rng, "AT", 0.5, rounds=(3, 6), method="RP")
    assert estimate((between, AT, STD, "AT_RA"), frame(*two, *third)).terms[0].df == 2 * df
    more = [*noisy(rng, "AT", 0.7, (10, 14)), *noisy(rng, "STD", 0.6, (10, 14))]
    assert estimate((between, AT, STD, "AT_RA"), frame(*two, *more)).terms[0].df == df


def test_luck_that_a_seed_gives_to_all_curves_changes_nothing():
    rng = numpy_rng(2)
    table = frame(*noisy(rng, "AT", 0.7), *noisy(rng, "STD", 0.6))
    lucky = table.assign(RA=table["RA"] + 0.05 * table["seed"].map({0: 1, 1: 0, 2: 2, 3: 5}))
    for contrast in ((between, AT, STD, "AT_RA"), (within, AT, "AT_RA", (0, 0.5), (0.5, 1))):
        plain, moved = (estimate(contrast, each).terms[0] for each in (table, lucky))
        assert dataclasses.astuple(moved) == pytest.approx(dataclasses.astuple(plain), nan_ok=True)


def test_the_interval_holds_the_true_difference_as_often_as_it_says():
    rng, draws = numpy_rng(3), 200
    levels = []
    for i in range(draws + 1):  # each is a data set; the first is the main one
        curve_luck = rng.normal(0, 0.01, (2, 3))  # of curve and seed: levels share it
        for p, mean, luck in zip(("AT", "STD"), (0.7, 0.6), curve_luck, strict=True):
            keys = dict(pretraining=p, dataset=f"set {i}")
            for r in (3, 6, 10):
                levels.append(rows(r, 0.9, ra=mean + luck + rng.normal(0, 0.01, 3), **keys))
    found = list(between(Evidence(frame(*levels)), AT, STD, "AT_RA", data="further"))
    held = np.mean([each.low(0.05) <= 0.1 <= each.high(0.05) for each in found])
    assert len(found) == draws
    assert abs(held - 0.9) < 4 * np.sqrt(0.9 * 0.1 / draws)


def test_the_best_of_several_levels_pays_for_the_choice():
    rng = numpy_rng(4)
    table = frame(*noisy(rng, "AT", 0.7))
    table = pd.concat([table, table.assign(fraction=0.1)])
    found = estimate((best_over_dense, ["AT"]), table)
    singles = [contrasts.Estimate("", "", (term,), 4, SEEDS) for term in found.terms]
    assert len(singles) == 2 and found.effect == max(each.effect for each in singles)
    assert found.low(0.05) == max(each.low(0.05 / 2) for each in singles)
    assert found.high(0.05) == max(each.high(0.05) for each in singles)


def test_bits_narrow_the_images_part_as_far_as_networks_agree_on_images():
    rng, images = numpy_rng(5), 400
    table = frame(*noisy(rng, "AT", 0.7), *noisy(rng, "STD", 0.6))
    table = table.assign(test_images=images, id=[f"{i}" for i in range(len(table))])
    hard = rng.random(images)  # each image is right where its network is good enough
    bits = {row.id: {"SA": hard < row.SA, "RA": hard < row.RA} for row in table.itertuples()}
    table["RA"] = [bits[id]["RA"].mean() for id in table["id"]]
    seeds, without, paired = (
        estimate((between, AT, STD, "AT_RA"), each, outcomes).error
        for each, outcomes in ((table.drop(columns="test_images"), {}), (table, {}), (table, bits))
    )
    assert seeds < paired < without
    p = np.array([0.7, 0.6])
    assert without**2 - seeds**2 == pytest.approx((p * (1 - p)).sum() / images, rel=0.1)
    # an image between the two networks' levels, 1 in 10, is the only one that differs
    assert paired**2 - seeds**2 == pytest.approx(0.1 * 0.9 / images, rel=0.4)


def test_several_theta_seeds_of_both_curves_are_the_unit():
    rng = numpy_rng(6)
    drawn = [
        frame(*noisy(rng, "AT", 0.7 + luck), *noisy(rng, "STD", 0.6)).assign(theta_seed=t)
        for t, luck in enumerate((0.0, 0.05, -0.05))
    ]
    found = estimate((between, AT, STD, "AT_RA"), pd.concat(drawn))
    assert found.speaks_for == THETAS and found.n == 3
    base = estimate((between, AT, STD, "AT_RA"), drawn[0])
    assert base.speaks_for == SEEDS and base.error < found.error


ROUNDS = (3, 6, 10, 14)


def cliff(rng, last, pretraining, noise=0.005):
    """A curve that is as good as dense up to a level, and worse by ten points beyond."""
    return [
        rows(
            r,
            0.9 + rng.normal(0, noise, 4),
            ra=0.7 - 0.1 * (r > last) + rng.normal(0, noise, 4),
            method="IMP-ST" if r else "dense",
            seeds=(0, 1, 2, 3),
            pretraining=pretraining,
        )
        for r in (0, *ROUNDS)
    ]


def test_extremes_are_ordered_by_the_bounds_that_are_certified_at_half_the_error():
    rng, overlapping = numpy_rng(7), 0
    for last in (*ROUNDS, *ROUNDS):
        noise = rng.choice([0.005, 0.02])
        table = frame(*cliff(rng, last, "AT", noise), *cliff(rng, 6, "STD", noise))
        found = estimate((extremes, AT, STD), table)
        for alpha in (0.3, 0.05, 0.001):
            levels = noninferiority.noninferiority(table, confidence=1 - alpha / 2)
            bounds = noninferiority.certified(levels).set_index("pretraining")
            at_least, below = bounds["at_least_sparsity"], bounds["below_sparsity"].fillna(2)
            is_decided = at_least["AT"] >= below["STD"]
            overlapping += not is_decided
            assert (found.low(alpha) > 0) == is_decided
            assert (found.high(alpha) < 0) == (at_least["STD"] >= below["AT"])
            sparsity = {0.0, *levels["sparsity"]}
            at_most = {p: max(s for s in sparsity if s < below[p]) for p in ("AT", "STD")}
            assert found.low(alpha) == pytest.approx(at_least["AT"] - at_most["STD"])
            assert found.high(alpha) == pytest.approx(at_most["AT"] - at_least["STD"])
            assert found.low(alpha) <= found.effect <= found.high(alpha)
    assert 0 < overlapping < 24


def test_extremes_that_are_far_apart_are_told_and_equal_or_unknown_ones_are_not():
    rng = numpy_rng(8)
    lasts = {"AT": 14, "STD": 3, "FAT": 14}
    table = frame(*(row for p, last in lasts.items() for row in cliff(rng, last, p, 0.001)))
    fat = ("FAT", "IMP-ST")
    above, below, equal = (
        estimate((extremes, *curves), table) for curves in ((AT, STD), (STD, AT), (AT, fat))
    )
    assert above.low(1e-4) > 0 > below.high(1e-4) and above.effect == -below.effect
    assert equal.effect == 0 and equal.low(0.05) <= 0 <= equal.high(0.05)
    missing = table["pretraining"].eq("AT") & table["rounds"].eq(3) & table["seed"].eq(2)
    assert estimate((extremes, AT, STD), table[~missing]).low(0.4) < 0
    alone = table[table["pretraining"] == "AT"]
    assert not list(extremes(Evidence(alone), AT, STD))


def test_a_curve_that_is_known_to_fall_short_before_it_was_trained_by_at_is_no_error():
    table = frame(*noisy(numpy_rng(9), "AT", 0.7))
    table.loc[(table["regime"] == "ST") & (table["rounds"] > 0), "SA"] = 0.5
    evidence = Evidence(table[(table["regime"] == "ST") | (table["rounds"] == 0)])
    assert noninferiority.FALLS_SHORT in set(evidence.levels["status"])
    assert not list(contrasts.beyond_margin(evidence, "AT"))
