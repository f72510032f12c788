"""Theorems on matching, winning and double-win tickets (paper, sections 3 and 4.1)."""

import numpy as np
import pandas as pd
import pytest
from seeds import numpy_rng
from transfer_rows import DENSE, KEYS, frame, rows

from dwlt_lib.analysis import double_win, paper_results, statistics, tables
from dwlt_lib.config.specs import ladder


def extreme(table, **how):
    out = double_win.verdict(table, **how)
    assert len(out) == 1
    return out["extreme_rounds"].iloc[0]


def test_a_level_wins_exactly_when_its_mean_is_within_one_std_of_dense():
    assert extreme(frame(DENSE, rows(3, 0.881))) == 3
    assert extreme(frame(DENSE, rows(3, 0.879))) == 0


def test_equation_3_grants_no_standard_deviation():
    assert extreme(frame(DENSE, rows(3, 0.899)), rule="eq3") == 0
    assert extreme(frame(DENSE, rows(3, 0.901)), rule="eq3") == 3


@pytest.mark.parametrize(
    "how", [dict(rule="eq3"), dict(rule="one_std", ddof=0), dict(rule="one_std", ddof=1)]
)
def test_equality_counts_whatever_the_floats_dust(how):
    accuracies = [0.1, 0.7, 0.3]  # their mean depends on the order of addition
    assert extreme(frame(rows(0, accuracies), rows(2, accuracies[::-1])), **how) == 2
    std = np.std([0.88, 0.90, 0.92], ddof=how.get("ddof", 1)) if how["rule"] == "one_std" else 0
    assert extreme(frame(DENSE, rows(2, np.array([0.88, 0.90, 0.92]) - std)), **how) == 2
    assert extreme(frame(DENSE, rows(2, np.array([0.88, 0.90, 0.92]) - std - 1e-6)), **how) == 0


def test_ddof_moves_the_threshold():
    table = frame(DENSE, rows(4, 0.882))
    assert extreme(table, ddof=1) == 4
    assert extreme(table, ddof=0) == 0


@pytest.mark.parametrize("lost", ["sa", "ra", "st"])
def test_a_double_win_needs_all_three_criteria(lost):
    out = double_win.verdict(frame(DENSE, rows(5, **(dict(sa=0.9, ra=0.9, st=0.9) | {lost: 0.5}))))
    column = {"sa": "AT_SA", "ra": "AT_RA", "st": "ST_SA"}[lost]
    assert out["extreme_rounds"].iloc[0] == 0 and out["extreme_sparsity"].iloc[0] == 0.0
    assert {c: out[c].iloc[0] > 0 for c in double_win.CRITERIA} == {
        c: c != column for c in double_win.CRITERIA
    }


def test_robust_accuracy_after_standard_training_is_no_criterion():
    table = frame(DENSE, rows(3, 0.9))
    table.loc[(table["regime"] == "ST") & (table["rounds"] == 3), "RA"] = np.nan
    assert extreme(table) == 3


def test_max_skips_a_miss_that_prefix_stops_at():
    table = frame(DENSE, rows(1, 0.9), rows(2, 0.5), rows(3, 0.95))
    assert extreme(table, extreme="max") == 3
    assert extreme(table, extreme="prefix") == 1


def test_prefix_follows_the_ladder_not_the_order_of_rows():
    assert extreme(frame(rows(10, 0.5), rows(9, 0.9), rows(2, 0.9), DENSE), extreme="prefix") == 9


def test_dense_matches_itself_when_nothing_else_does():
    out = double_win.verdict(frame(DENSE, rows(1, 0.1), rows(2, 0.2))).iloc[0]
    assert (out["extreme_rounds"], out["extreme_sparsity"], out["levels"], out["unknown"]) == (
        0,
        0.0,
        2,
        0,
    )


def test_sparsity_is_the_papers_ladder():
    out = double_win.verdict(frame(DENSE, rows(6, 0.9)))
    assert out["extreme_sparsity"].iloc[0] == pytest.approx(1 - 0.8**6)
    assert str(out["extreme_rounds"].dtype) == "Int64"


def test_a_level_that_misses_a_seed_is_unknown_never_matching():
    out = double_win.verdict(frame(DENSE, rows(1, 0.9), rows(2, 0.99, seeds=(0, 1)))).iloc[0]
    assert (out["extreme_rounds"], out["levels"], out["unknown"]) == (1, 2, 1)


def test_a_seed_lost_in_one_regime_only_is_unknown_too():
    table = frame(DENSE, rows(1, 0.9), rows(2, 0.99))
    table = table.drop(
        table[(table["rounds"] == 2) & (table["regime"] == "ST") & (table["seed"] == 1)].index
    )
    levels = double_win.criteria(table).set_index("rounds")
    assert (
        extreme(table) == 1
        and levels.loc[2, "double_win"] == levels.loc[2, "ST_SA_status"] == "unknown"
    )
    assert levels.loc[2, "AT_RA_status"] == "win"


@pytest.mark.parametrize("regime", ["ST", "AT"])
def test_a_level_without_a_regime_is_unknown(regime):
    table = frame(DENSE, rows(1, 0.9), rows(2, 0.99))
    table = table[~((table["rounds"] == 2) & (table["regime"] == regime))]
    assert extreme(table) == 1 and double_win.verdict(table)["unknown"].iloc[0] == 1


@pytest.mark.parametrize(("regime", "metric"), double_win.CRITERIA.values())
def test_a_level_without_a_metric_is_unknown(regime, metric):
    table = frame(DENSE, rows(1, 0.9), rows(2, 0.99))
    table.loc[
        (table["rounds"] == 2) & (table["regime"] == regime) & (table["seed"] == 2), metric
    ] = np.nan
    assert extreme(table) == 1 and double_win.verdict(table)["unknown"].iloc[0] == 1


def test_prefix_stops_at_an_unknown_level():
    table = frame(DENSE, rows(1, 0.9), rows(2, 0.9, seeds=(0,)), rows(3, 0.9))
    assert (extreme(table, extreme="prefix"), extreme(table, extreme="max")) == (1, 3)


@pytest.mark.parametrize("lack", ["all", "ST", "seed", "metric"])
def test_without_a_complete_baseline_the_extreme_is_not_known(lack):
    table = frame(DENSE, rows(2, 0.99))
    dense = table["rounds"] == 0
    if lack == "metric":
        table.loc[dense & (table["regime"] == "AT") & (table["seed"] == 0), "RA"] = np.nan
    else:
        table = table[
            ~(
                dense
                & {"all": True, "ST": table["regime"] == "ST", "seed": table["seed"] == 1}[lack]
            )
        ]
    out = double_win.verdict(table).iloc[0]
    assert (
        out["extreme_rounds"] is pd.NA and np.isnan(out["extreme_sparsity"]) and out["unknown"] == 1
    )


def test_one_seed_has_no_standard_deviation_with_ddof_1():
    table = frame(rows(0, 0.9, seeds=(0,)), rows(2, 0.9, seeds=(0,)))
    assert extreme(table, rule="one_std", ddof=1) is pd.NA
    assert extreme(table, rule="one_std", ddof=0) == extreme(table, rule="eq3") == 2


def test_dense_is_dense_under_any_method_and_copies_of_it_change_nothing():
    levels = rows(1, 0.9), rows(2, 0.881), rows(2, 0.5, method="OMP")
    plain = double_win.verdict(frame(DENSE, *levels))
    renamed = double_win.verdict(frame(rows(0, [0.88, 0.90, 0.92], method="RP"), *levels))
    copied = double_win.verdict(
        frame(DENSE, *(rows(0, [0.88, 0.90, 0.92], method=m) for m in ("IMP-ST", "OMP")), *levels)
    )
    pd.testing.assert_frame_equal(plain, renamed)
    pd.testing.assert_frame_equal(plain, copied)
    assert plain["method"].tolist() == ["IMP-ST", "OMP"] and plain["extreme_rounds"].tolist() == [
        2,
        0,
    ]


def test_a_table_of_dense_rows_alone_has_no_verdict():
    out = double_win.verdict(frame(DENSE))
    assert out.empty and list(out) == list(double_win.verdict(frame(DENSE, rows(1, 0.9))))


def test_a_group_is_judged_by_its_own_dense_network_only():
    other = [
        rows(0, 0.99, **{k: v})
        for k, v in dict(pretraining="STD", dataset="svhn", fraction=0.1).items()
    ]
    table = frame(DENSE, rows(2, 0.9), *other)
    assert double_win.verdict(table).query("dataset == 'digits' and fraction == 1")[
        "extreme_rounds"
    ].tolist() == [2]


def test_the_order_of_rows_changes_nothing():
    rng = numpy_rng()
    table = frame(
        *(
            rows(
                r,
                rng.uniform(0.85, 0.95, 3),
                rng.uniform(0.6, 0.7, 3),
                rng.uniform(0.9, 1, 3),
                method=m,
                pretraining=p,
            )
            for r in range(6)
            for m in ("IMP-ST", "RP")
            for p in ("STD", "AT")
        )
    )
    once = double_win.verdict(table)
    for _ in range(5):
        shuffled = table.sample(frac=1, random_state=int(rng.integers(1 << 30)))
        pd.testing.assert_frame_equal(double_win.verdict(shuffled), once)


def test_judging_leaves_the_table_as_it_was():
    table = frame(DENSE, rows(2, 0.9))
    before = table.copy(deep=True)
    double_win.verdict(table), double_win.criteria(table), statistics.spread(table)
    pd.testing.assert_frame_equal(table, before)


def test_an_empty_table_gives_an_empty_verdict_with_every_column():
    empty = pd.DataFrame(columns=[*KEYS, "SA", "RA"])
    out = double_win.verdict(empty)
    assert out.empty and {
        "extreme_rounds",
        "extreme_sparsity",
        "levels",
        "unknown",
        *double_win.CRITERIA,
    } < set(out)
    assert (
        double_win.criteria(empty).empty
        and statistics.spread(empty).empty
        and double_win.alternatives(empty).empty
    )


@pytest.mark.parametrize("how", [dict(rule="two_std"), dict(ddof=2), dict(extreme="last")])
def test_an_unknown_reading_is_refused_in_one_line(how):
    with pytest.raises(ValueError, match=f"{next(iter(how))}=.*want one of") as error:
        double_win.verdict(frame(DENSE), **how)
    assert "\n" not in str(error.value)


# ------------------------------------------------------------------------ unknown stays unknown


MORE = rows(0, [0.88, 0.90, 0.92, 0.70], method="dense", seeds=(0, 1, 2, 3))


def test_dense_may_have_more_seeds_than_the_levels_and_all_of_them_count():
    levels = double_win.criteria(frame(MORE, rows(1, 0.84), rows(2, 0.70))).set_index("rounds")
    assert levels["double_win"].tolist() == ["win", "miss"]
    values = np.array([0.88, 0.90, 0.92, 0.70])
    assert levels.loc[1, "ST_SA_threshold"] == pytest.approx(values.mean() - values.std(ddof=1))
    out = double_win.verdict(frame(MORE, rows(1, 0.84), rows(2, 0.70))).iloc[0]
    assert (out["extreme_rounds"], out["unknown"]) == (1, 0)


def test_a_seed_that_dense_lacks_makes_its_criterion_unknown_and_no_other():
    table = frame(DENSE, rows(1, 0.9))
    dense = (table["rounds"] == 0) & (table["regime"] == "ST") & (table["seed"] == 1)
    out = double_win.criteria(table[~dense]).iloc[0]
    assert out[[f"{c}_status" for c in double_win.CRITERIA]].tolist() == ["unknown", "win", "win"]
    found = double_win.verdict(table[~dense]).iloc[0]
    assert found["extreme_rounds"] is pd.NA and found["AT_SA"] > 0 and np.isnan(found["ST_SA"])


def short(*levels):
    """A table of levels, each win, miss or unknown (it lacks a seed that others have)."""
    value = {"win": 0.95, "miss": 0.5, "unknown": 0.95}
    found = [
        rows(r, value[s], seeds=(0, 1) if s == "unknown" else (0, 1, 2))
        for r, s in enumerate(levels, 1)
    ]
    return frame(DENSE, *found, rows(9, 0.5))


@pytest.mark.parametrize(
    ("levels", "most", "prefix"),
    [
        (["unknown", "unknown"], None, None),
        (["miss", "unknown"], None, 0),  # a prefix ends at its first miss, whatever comes later
        (["unknown", "miss"], None, None),
        (["miss", "miss"], 0, 0),
        (["win", "unknown", "miss"], 1, 1),  # at least that
        (["unknown", "win"], 2, None),  # the largest win is one, whatever the first level is
        (["win", "unknown", "win"], 3, 1),
        (["win", "miss", "unknown"], 1, 1),
    ],
)
def test_the_extreme_is_what_is_known_to_win_and_never_0_where_a_win_may_be_unseen(
    levels, most, prefix
):
    for name, wanted in (("max", most), ("prefix", prefix)):
        out = double_win.verdict(short(*levels), extreme=name).iloc[0]
        known = wanted is not None
        assert out["extreme_rounds"] == wanted if known else out["extreme_rounds"] is pd.NA
        assert (
            out["extreme_sparsity"] == ladder(wanted)
            if known
            else (np.isnan(out["extreme_sparsity"]))
        )
        assert out["unknown"] == levels.count("unknown")


# ------------------------------------------------------------------------ a baseline at chance


def test_a_dense_network_at_chance_gives_a_warning_and_no_win():
    table = frame(rows(0, [0.10, 0.11, 0.09], method="dense"), rows(4, 0.12)).assign(
        chance=0.1, test_images=500
    )
    with pytest.warns(UserWarning, match="theta_AT, digits 100 %: dense is at chance in") as said:
        out = double_win.verdict(table).iloc[0]
    assert out["extreme_rounds"] is pd.NA and out["unknown"] == 1
    lines = double_win.chance_warnings(double_win.criteria(table))
    assert [str(one.message) for one in said] == lines
    assert len(lines) == 3 and not any("\n" in line for line in lines)
    for extra in ("chance", "test_images"):
        assert double_win.chance_warnings(double_win.criteria(table.drop(columns=extra))) == [] or (
            extra == "test_images"
        )


def test_one_collapsed_seed_is_enough_because_its_deviation_lets_everything_win():
    table = frame(rows(0, [0.97, 0.98, 0.10], method="dense"), rows(4, 0.5)).assign(chance=0.1)
    with pytest.warns(UserWarning, match="1 of its seeds"):
        assert extreme(table) is pd.NA
    assert extreme(table.drop(columns="chance")) == 4  # what such a table cannot tell


@pytest.mark.filterwarnings("error")
def test_a_weak_but_real_baseline_is_none_of_chance_and_robustness_after_st_may_be_0():
    table = frame(rows(0, [0.17, 0.16, 0.18], method="dense"), rows(4, 0.17)).assign(
        chance=0.1, test_images=500
    )
    assert extreme(table) == 4
    assert (table.loc[table["regime"] == "ST", "RA"] == 0).all()


# ------------------------------------------------------------------------ sparsity is the records'


def test_the_extreme_sparsity_is_that_of_the_levels_records():
    table = frame(DENSE, rows(1, 0.9), rows(2, 0.9), rows(3, 0.5))
    own = table.assign(sparsity=1 - 0.5 ** table["rounds"])
    out = double_win.verdict(own).iloc[0]
    assert (out["extreme_sparsity"], out["ST_SA"], out["AT_RA"]) == (0.75, 0.75, 0.75)
    assert double_win.criteria(own)["sparsity"].tolist() == [0.5, 0.75, 0.875]
    means = statistics.spread(own).groupby("rounds")["sparsity"].first()
    assert means.tolist() == [0, 0.5, 0.75, 0.875]
    assert tables.sparsities(own) == {0: 0.0, 1: 0.5, 2: 0.75, 3: 0.875}
    gone = own.assign(sparsity=own["sparsity"].where(own["rounds"] == 0))
    assert tables.sparsities(gone) == {0: 0.0} | {r: ladder(r) for r in (1, 2, 3)}
    assert double_win.alternatives(own).iloc[0, 0] == 0.75


def test_the_papers_extremes_lie_on_its_ladder():
    steps = ladder(np.arange(20))
    assert all(
        np.abs(steps - value).min() < 5.1e-5 for value in paper_results.PAPER_EXTREMES.values()
    )


def test_alternatives_are_the_verdicts():
    table = frame(DENSE, rows(1, 0.9), rows(2, 0.882), rows(3, 0.5), rows(4, 0.9))
    out = double_win.alternatives(table).iloc[0]
    assert out["one_std, ddof 1, max"] == out["eq3, max"] == ladder(4)
    assert (out["one_std, ddof 1, prefix"], out["one_std, ddof 0, prefix"]) == (
        ladder(2),
        ladder(1),
    )


def test_the_probabilities_of_extremes_sum_to_one_and_follow_the_noise():
    sure = frame(DENSE, rows(2, 0.95), rows(4, 0.5))
    found = double_win.extreme_probabilities(sure)
    assert found["rounds"].tolist() == [2] and found["probability"].tolist() == [1.0]
    unsure = frame(DENSE, rows(2, [0.86, 0.88, 0.90]), rows(4, [0.87, 0.87, 0.90]))
    found = double_win.extreme_probabilities(unsure)
    assert set(found["rounds"]) == {0, 2, 4} and found["probability"].sum() == pytest.approx(1)
    prefix = double_win.extreme_probabilities(unsure, extreme="prefix").set_index("rounds")
    assert prefix.loc[4, "probability"] <= found.set_index("rounds").loc[4, "probability"]
