"""Theorems on contrasts of means: estimates, errors and degrees of freedom."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_rel
from seeds import numpy_rng
from transfer_rows import frame, rows

from dwlt_lib.analysis import contrasts
from dwlt_lib.analysis.contrasts import SEEDS, THETAS, Evidence, best_over_dense, between, within

AT, STD = ("AT", "IMP-ST"), ("STD", "IMP-ST")


def estimate(contrast, table, outcomes=None):
    (found,) = contrast(Evidence(table, outcomes or {}))
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
    found = estimate(between(AT, STD, "AT_RA"), table)
    sparse = table[(table["regime"] == "AT") & (table["rounds"] > 0)]
    means = sparse.groupby(["pretraining", "seed"])["RA"].mean()
    oracle = ttest_rel(means["AT"], means["STD"], alternative="greater")
    assert found.effect == pytest.approx((means["AT"] - means["STD"]).mean())
    assert found.p_above(0.0) == pytest.approx(oracle.pvalue, rel=1e-6)
    assert found.n == 4 and found.terms[0].df == 3 and found.speaks_for == SEEDS


def test_further_curves_lend_degrees_of_freedom_and_further_levels_do_not():
    rng = numpy_rng(1)
    two = [*noisy(rng, "AT", 0.7), *noisy(rng, "STD", 0.6)]
    df = estimate(between(AT, STD, "AT_RA"), frame(*two)).terms[0].df
    third = noisy(rng, "AT", 0.5, rounds=(3, 6), method="RP")
    assert estimate(between(AT, STD, "AT_RA"), frame(*two, *third)).terms[0].df == 2 * df
    more = [*noisy(rng, "AT", 0.7, (10, 14)), *noisy(rng, "STD", 0.6, (10, 14))]
    assert estimate(between(AT, STD, "AT_RA"), frame(*two, *more)).terms[0].df == df


def test_luck_that_a_seed_gives_to_all_curves_changes_nothing():
    rng = numpy_rng(2)
    table = frame(*noisy(rng, "AT", 0.7), *noisy(rng, "STD", 0.6))
    lucky = table.assign(RA=table["RA"] + 0.05 * table["seed"].map({0: 1, 1: 0, 2: 2, 3: 5}))
    for contrast in (between(AT, STD, "AT_RA"), within(AT, "AT_RA", (0, 0.5), (0.5, 1))):
        plain, moved = (estimate(contrast, each).terms[0] for each in (table, lucky))
        assert moved == pytest.approx(plain)


def test_the_interval_holds_the_true_difference_as_often_as_it_says():
    rng, draws = numpy_rng(3), 200
    levels = []
    for i in range(draws + 1):  # each is a data set; the first is the main one
        curve_luck = rng.normal(0, 0.01, (2, 3))  # of curve and seed: levels share it
        for p, mean, luck in zip(("AT", "STD"), (0.7, 0.6), curve_luck, strict=True):
            keys = dict(pretraining=p, dataset=f"set {i}")
            for r in (3, 6, 10):
                levels.append(rows(r, 0.9, ra=mean + luck + rng.normal(0, 0.01, 3), **keys))
    found = list(between(AT, STD, "AT_RA", data="further")(Evidence(frame(*levels))))
    held = np.mean([each.low(0.05) <= 0.1 <= each.high(0.05) for each in found])
    assert len(found) == draws
    assert abs(held - 0.9) < 4 * np.sqrt(0.9 * 0.1 / draws)


def test_the_best_of_several_levels_pays_for_the_choice():
    rng = numpy_rng(4)
    table = frame(*noisy(rng, "AT", 0.7))
    table = pd.concat([table, table.assign(fraction=0.1)])
    found = estimate(best_over_dense(["AT"], "AT_RA", "limited"), table)
    single = contrasts.Estimate("", "", (max(found.terms),), 4, SEEDS)
    assert len(found.terms) == 2 and found.effect == single.effect
    assert found.p_above(0.0) == pytest.approx(min(1, 2 * single.p_above(0.0)))
    assert found.low(0.05) <= single.low(0.05)


def test_bits_narrow_the_images_part_as_far_as_networks_agree_on_images():
    rng, images = numpy_rng(5), 400
    table = frame(*noisy(rng, "AT", 0.7), *noisy(rng, "STD", 0.6))
    table = table.assign(test_images=images, id=[f"{i}" for i in range(len(table))])
    hard = rng.random(images)  # each image is right where its network is good enough
    bits = {row.id: {"SA": hard < row.SA, "RA": hard < row.RA} for row in table.itertuples()}
    table["RA"] = [bits[id]["RA"].mean() for id in table["id"]]
    seeds, without, paired = (
        estimate(between(AT, STD, "AT_RA"), each, outcomes).error
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
    found = estimate(between(AT, STD, "AT_RA"), pd.concat(drawn))
    assert found.speaks_for == THETAS and found.n == 3
    base = estimate(between(AT, STD, "AT_RA"), drawn[0])
    assert base.speaks_for == SEEDS and base.error < found.error
