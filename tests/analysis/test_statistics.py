"""Theorems on differences to dense: their estimates, their errors, and what the bounds hold."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import stdtrit
from seeds import numpy_rng
from transfer_rows import DENSE, frame, rows

from dwlt_lib.analysis import power, statistics
from dwlt_lib.analysis.statistics import Noise, Runs, difference, fit_noise
from dwlt_lib.config.studies import Margins


def with_bits(table, images, rng, agree=True):
    """The table with ids and test_images, and outcomes whose means are its accuracies."""
    table = table.assign(id=[f"r{i}" for i in range(len(table))], test_images=images)
    order, outcomes = rng.permutation(images), {}
    for row in table.to_dict("records"):
        own = order if agree else rng.permutation(images)
        outcomes[row["id"]] = {
            metric: np.isin(np.arange(images), own[: round(row[metric] * images)])
            for metric in ("SA", "RA")
        }
    return table, outcomes


def test_luck_that_seeds_share_is_told_from_a_runs_own():
    shared = [{0: mean, 1: mean + 0.04, 2: mean + 0.02} for mean in (0.5, 0.6, 0.7, 0.8)]
    noise = fit_noise(shared)
    assert noise.residual == pytest.approx(0, abs=1e-12) and noise.rho == pytest.approx(1)
    rng = numpy_rng(1)
    sd, cells = 0.02, []
    common = rng.normal(0, sd, 400)
    for mean in (0.5, 0.6, 0.7):
        cells.append(dict(enumerate(mean + common + rng.normal(0, sd, 400))))
    noise = fit_noise(cells)
    assert noise.df == 2 * 399
    # four standard deviations of each estimate
    assert noise.residual == pytest.approx(sd**2, rel=4 * np.sqrt(2 / noise.df))
    assert abs(noise.rho - 0.5) < 4 * np.sqrt(noise.rho_variance) < 0.2


def test_rho_is_as_unsure_as_it_says():
    rng, found = numpy_rng(8), []
    for _ in range(400):
        common = rng.normal(0, 1, 8)
        sizes = (8, 3, 3, 3, 3, 3, 3)
        cells = [dict(enumerate(common[:n] + rng.normal(0, 1, n))) for n in sizes]
        found.append(fit_noise(cells))
    assert {noise.df for noise in found} == {12}
    rhos = np.array([noise.rho for noise in found])
    # the delta method and the floor at 0 make it rough: within a factor of 1.5
    said = np.mean([noise.rho_variance for noise in found])
    assert 1 / 1.5 < np.sqrt(said) / rhos.std() < 1.5


def test_seeds_are_paired_only_where_the_layout_can_tell_what_they_share():
    alike = {0: 0.70, 1: 0.74, 2: 0.72}
    for cells in ([alike, alike], [alike, {3: 0.6}], [alike, {3: 0.6, 4: 0.7}] * 4):
        assert fit_noise(cells).rho == 0
        assert fit_noise(cells).df == sum(len(cell) - 1 for cell in cells)


def test_without_two_seeds_in_any_cell_no_noise_is_known():
    noise = fit_noise([{0: 0.7}, {0: 0.6}, {1: 0.5}])
    assert np.isnan(noise.residual) and noise.df == 0
    found = difference(Runs({0: 0.6}), Runs({0: 0.7}), noise)
    assert found.difference == pytest.approx(-0.1) and np.isnan(found.se) and np.isnan(found.low())


def test_the_difference_is_that_of_means_or_of_pairs_as_seeds_share_nothing_or_all():
    level, dense = Runs({0: 0.60, 1: 0.66}), Runs({0: 0.70, 1: 0.72, 2: 0.80, 3: 0.90})
    apart = difference(level, dense, Noise(4e-4, 0.0, 10))
    assert apart.difference == pytest.approx(0.63 - 0.78)
    assert apart.seed_se == pytest.approx(np.sqrt(4e-4 * (1 / 2 + 1 / 4)))
    paired = difference(level, dense, Noise(4e-4, 1.0, 10))
    assert paired.difference == pytest.approx(np.mean([0.60 - 0.70, 0.66 - 0.72]))
    assert paired.seed_se == pytest.approx(np.sqrt(4e-4 * 2 / 2))
    half = difference(level, dense, Noise(4e-4, 0.5, 10))
    unsure = difference(level, dense, Noise(4e-4, 0.5, 10, rho_variance=0.04))
    off = np.mean([0.70, 0.72]) - 0.78
    assert unsure.seed_se**2 - half.seed_se**2 == pytest.approx(0.04 * off**2)
    assert half.difference == pytest.approx((apart.difference + paired.difference) / 2)


def test_bounds_are_students_at_the_pooled_degrees_of_freedom():
    level, dense = Runs({0: 0.6, 1: 0.6}), Runs({0: 0.7, 1: 0.7})
    found = difference(level, dense, Noise(1e-4, 0.0, 7))
    assert found.df == pytest.approx(7) and found.image_se == 0
    t = stdtrit(7, 0.95)
    assert (
        found.low() == pytest.approx(-0.1 - t * 0.01) == pytest.approx(-0.1 - 1.8946 * 0.01, 1e-4)
    )
    assert found.high() == pytest.approx(-0.1 + t * 0.01)


def test_images_on_which_both_networks_agree_add_no_error():
    rng = numpy_rng(2)
    same = rng.random(500) < 0.8
    agree = Runs({0: same.mean()}, {0: same}, 500)
    assert difference(agree, agree, Noise(1e-4, 0.0, 9)).image_se == 0
    other = rng.permutation(same)
    found = difference(agree, Runs({0: other.mean()}, {0: other}, 500), Noise(1e-4, 0.0, 9))
    assert found.image_se == pytest.approx((same * 1.0 - other).std(ddof=1) / np.sqrt(500))
    unknown = difference(Runs({0: 0.8}, {}, 500), Runs({0: 0.8}, {}, 500), Noise(1e-4, 0.0, 9))
    assert unknown.image_se == pytest.approx(np.sqrt(2 * 0.8 * 0.2 / 500))


def test_few_images_that_one_network_alone_has_right_shift_both_bounds_towards_them():
    dense = np.ones(400, bool)
    level = np.arange(400) >= 20  # wrong on 5 % of the images
    runs = [Runs({0: bits.mean()}, {0: bits}, 400) for bits in (level, dense)]
    found = difference(*runs, Noise(1e-6, 0.0, 50))
    p = 0.05
    expected = (1 - 2 * p) / np.sqrt(p * (1 - p) * 400)
    assert found.skewness == pytest.approx(-expected, rel=0.1)
    z = 1.6449
    centre = -p + found.se * found.skewness * (2 * z**2 + 1) / 6
    assert (found.low() + found.high()) / 2 == pytest.approx(centre, abs=1e-5)
    mirrored = difference(*runs[::-1], Noise(1e-6, 0.0, 50))
    assert mirrored.low() == pytest.approx(-found.high())


def test_tossing_every_images_coin_anew_is_the_seeds_error_and_not_counted_twice():
    rng = numpy_rng(3)
    chance = np.full(4000, 0.5)
    level, dense = (
        Runs(dict(enumerate(bits.mean(1))), dict(enumerate(bits)), 4000)
        for bits in (rng.random((6, 4000)) < chance, rng.random((6, 4000)) < chance)
    )
    found = difference(level, dense, Noise(0.25 / 4000, 0.0, 50))
    # the seeds' part is all of it; the images' is an estimate of 0 and may be as large as its noise
    assert found.seed_se == pytest.approx(np.sqrt(0.25 / 4000 * (1 / 6 + 1 / 6)))
    assert found.image_se**2 < 4 * np.sqrt(2 / 4000) * found.seed_se**2


def test_a_table_gives_a_row_per_level_and_criterion():
    table = frame(DENSE, rows(2, 0.9, ra=[0.80, 0.81, 0.85]), rows(5, 0.7, method="RP"))
    found = statistics.differences(table).set_index(["method", "rounds", "criterion"])
    assert len(found) == 6
    row = found.loc["IMP-ST", 2, "AT_RA"]
    assert row["difference"] == pytest.approx(0.82 - 0.90) and row["low"] < row["difference"]
    assert (row["n_level"], row["n_dense"]) == (3, 3)
    assert found.loc["RP", 5, "ST_SA"]["difference"] == pytest.approx(-0.2)


def test_more_dense_seeds_narrow_the_bounds_and_a_missing_one_leaves_the_level_out():
    level = rows(2, [0.91, 0.88, 0.90])
    few = statistics.differences(frame(DENSE, level))
    dense = rows(0, [0.88, 0.90, 0.92] * 3, method="dense", seeds=range(9))
    many = statistics.differences(frame(dense, level))
    assert (many["seed_se"] < few["seed_se"]).all()
    lacking = statistics.differences(frame(rows(0, [0.9, 0.9], seeds=(0, 1)), level))
    assert lacking.empty


def test_outcomes_change_the_error_alone():
    table = frame(DENSE, rows(2, [0.80, 0.82, 0.84], ra=[0.70, 0.72, 0.74]))
    table, outcomes = with_bits(table, 1000, numpy_rng(4))
    without, found = statistics.differences(table), statistics.differences(table, outcomes)
    assert found["difference"].tolist() == pytest.approx(without["difference"].tolist())
    assert (found["image_se"] < without["image_se"]).all() and (found["test_images"] == 1000).all()


def test_the_worst_case_is_a_criterion_where_every_run_was_attacked_further():
    table = frame(DENSE, rows(2, [0.80, 0.82, 0.84], ra=[0.70, 0.72, 0.74]))
    table, outcomes = with_bits(table, 1000, numpy_rng(5))
    for own in outcomes.values():
        own["worst"] = own["SA"] & own["RA"]
    assert "AT_worst" not in set(statistics.differences(table, outcomes)["criterion"])
    for own in outcomes.values():
        own["PGD-50x10"] = own["worst"] = own["RA"][:400]
    worst = statistics.differences(table, outcomes).set_index("criterion").loc["AT_worst"]
    assert worst["test_images"] == 400
    expected = [
        np.mean([outcomes[i]["RA"][:400].mean() for i in table["id"][(table["rounds"] == r) & at]])
        for r in (2, 0)
        for at in [table["regime"] == "AT"]
    ]
    assert worst["difference"] == pytest.approx(expected[0] - expected[1], abs=0.02)


def test_the_bootstrap_over_seeds_and_images_is_centred_and_no_narrower():
    rng = numpy_rng(6)
    chance = np.clip(rng.normal(0.7, 0.3, 600), 0, 1)
    level, dense = (rng.random((8, 600)) < chance for _ in range(2))
    low, high = statistics.bootstrap_bounds(level, dense, rng, draws=400)
    centre = level.mean() - dense.mean()
    runs = [Runs(dict(enumerate(b.mean(1))), dict(enumerate(b)), 600) for b in (level, dense)]
    found = difference(*runs, fit_noise([own.values for own in runs]))
    assert low < centre < high
    # it resamples images of single seeds, whose coins it therefore counts again: it is wider
    assert high - low > 0.8 * (found.high() - found.low())


def test_components_find_the_variance_of_each_seed():
    rng = numpy_rng(7)
    sds = {"theta_seed": 0.03, "subset_seed": 0.01, "seed": 0.02}
    effects = {name: rng.normal(0, sd, 300) for name, sd in sds.items() if name != "seed"}
    table = pd.DataFrame(
        [
            dict(pretraining="AT", method="IMP-ST", dataset="digits", fraction=1.0, regime="AT")
            | dict(rounds=2, theta_seed=t, subset_seed=s, mask_seed=0, seed=seed, test_images=500)
            | dict(RA=0.7 + effects["theta_seed"][t] + effects["subset_seed"][s])
            | dict(SA=0.9)
            for t in range(100)
            for s in range(100)
            if t == 0 or s == 0
            for seed in range(3)
        ]
    )
    table["RA"] += rng.normal(0, sds["seed"], len(table))
    found = statistics.variance_components(table)
    found = found[found["criterion"] == "AT_RA"].set_index("source")
    for source, sd in {"theta_p": 0.03, "subset": 0.01, "training": 0.02}.items():
        assert found["sd"][source] == pytest.approx(sd, rel=0.5), source
    assert np.isnan(found["sd"]["mask"])
    p = table["RA"].mean()
    assert found["sd"]["images"] == pytest.approx(np.sqrt(p * (1 - p) / 500))


def test_power_asks_for_more_seeds_where_noise_is_larger_and_says_when_images_are_too_few():
    quiet = statistics.seeds_needed(6, [0.03], [0.01], [0.002])
    loud = statistics.seeds_needed(6, [0.03], [0.03], [0.002])
    assert quiet and loud and quiet[0] < loud[0]
    assert all(n_dense == np.ceil(n * np.sqrt(6)) for n, n_dense in (quiet, loud))
    assert statistics.seeds_needed(6, [0.03], [0.01], [0.03]) is None


def test_power_takes_relative_margins_as_shares_of_what_dense_reaches_above_chance():
    rng = numpy_rng(11)
    table = frame(*[rows(r, 0.5 + rng.normal(0, 0.025, 8), seeds=range(8)) for r in (0, 3, 6)])
    table = table.assign(chance=0.1)
    dense = table[table["rounds"] == 0].groupby("regime")["SA"].mean()
    smallest, largest = (f(dense - 0.1) / 10 for f in (min, max))

    def seeds(**margins):
        (line,) = power.proposals(table, margins=Margins(**margins))
        return int(line.split(": ")[1].split()[0])

    found = seeds(SA=0.1, RA=0.1, relative=True)
    assert seeds(SA=largest, RA=largest) <= found <= seeds(SA=smallest, RA=smallest)
    assert found > seeds(SA=0.1, RA=0.1)
    (line,) = power.proposals(table[:0], margins=Margins(relative=True))
    assert "dense" in line and "assumed" not in line
    sparse = table[table["rounds"] > 0]
    assert list(power.proposals(sparse, margins=Margins(relative=True))) == [line]


def test_spread_is_the_mean_and_the_standard_deviation_over_seeds():
    values = np.array([0.88, 0.90, 0.92])
    for ddof in (0, 1):
        row = statistics.spread(frame(rows(2, values, ra=values - 0.1)), ddof).set_index("regime")
        assert row.loc["AT", "SA"] == pytest.approx(values.mean())
        assert row.loc["AT", "RA_std"] == pytest.approx(values.std(ddof=ddof))
        assert row["seeds"].tolist() == [3, 3]
    alone = statistics.spread(frame(rows(2, 0.9, seeds=(0,))))
    assert alone["SA_std"].isna().all()


def test_means_are_written_with_their_deviation_and_seeds_dense_first():
    level = rows(6, [0.7, 0.8], [0.4, 0.4], [0.9, 0.9], seeds=(0, 1))
    alone = [row for row in rows(10, 0.5, seeds=(0,)) if row["regime"] == "AT"]
    lines = statistics.means_as_markdown(frame(level, alone, DENSE)).split("\n")
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert [row[0] for row in cells[2:]] == ["dense", "IMP-ST", "IMP-ST"]
    assert cells[2][1:3] == ["0.0", "AT"] and cells[2][5] == "90.0 ± 2.0"
    assert cells[3][4:] == ["90.0 ± 0.0", "75.0 ± 7.1", "40.0 ± 0.0", "2/2"]
    assert cells[4][4:] == ["-", "50.0", "50.0", "1"] and cells[4][3] == "100 % of digits"
