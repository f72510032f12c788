"""Theorems on tables of transfers: what they may hold, and the sparsity of their levels."""

import numpy as np
import pandas as pd
import pytest
from transfer_rows import DENSE, frame, rows

from dwlt_lib.analysis import double_win, tables
from dwlt_lib.config.specs import ladder


def test_a_missing_column_is_named():
    with pytest.raises(ValueError, match="'RA'.*records.table"):
        double_win.verdict(frame(DENSE).drop(columns="RA"))


def test_two_records_for_one_setting_are_refused():
    table = frame(DENSE, rows(1, 0.9), rows(1, 0.8)).assign(mask_seed=0)
    double_win.verdict(table.assign(id="same"))
    with pytest.raises(ValueError, match="rounds 1, seed 0.*want one study"):
        double_win.verdict(table.assign(id=[str(i) for i in range(len(table))]))
    double_win.verdict(
        table.assign(id=range(len(table)), mask_seed=[0] * 12 + [1] * 6)
    )  # a second mask is no second record of the first


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("SA", 91.2, "SA 91.2"),
        ("RA", -0.1, "RA -0.1"),
        ("SA", np.inf, "SA inf"),
        ("RA", "0.9", "RA '0.9' .text."),
        ("rounds", np.nan, "rounds nan"),
        ("rounds", -1, "rounds -1"),
        ("rounds", np.inf, "rounds inf"),
        ("rounds", 1.5, "rounds 1.5"),
        ("rounds", "1", "rounds '1'"),
        ("seed", 0.5, "seed 0.5"),
        ("seed", None, "seed (nan|None)"),
        ("fraction", 100, "fraction 100"),
        ("fraction", 0, "fraction 0"),
        ("method", np.nan, "method nan"),
        ("dataset", None, "dataset None"),
        ("method", "dense", "method 'dense' with rounds 1"),
        ("sparsity", 20.0, "sparsity 20.0"),
        ("sparsity", 0.4, "sparsity 0.2 to 0.4"),
        ("chance", 2, "chance 2"),
    ],
)
def test_what_may_not_stand_in_a_column_is_refused_in_one_line(column, value, said):
    table = frame(DENSE, rows(1, 0.9)).assign(sparsity=lambda t: ladder(t["rounds"]), chance=0.1)
    table[column] = table[column].astype(object)
    table.loc[len(table) - 1, column] = value
    with pytest.raises(ValueError, match=f"^.*{said}.*want ") as error:
        double_win.verdict(table)
    assert "\n" not in str(error.value)


def test_a_table_read_as_text_and_a_column_twice_are_refused_in_one_line():
    table = frame(DENSE, rows(1, 0.9))
    with pytest.raises(ValueError, match="text.*want ") as error:
        double_win.verdict(table.astype(str))
    assert "\n" not in str(error.value)
    twice = pd.concat([table, table[["SA"]]], axis=1)
    with pytest.raises(ValueError, match="columns .'SA'. occur twice"):
        double_win.verdict(twice)


def test_numbers_may_come_in_any_type_and_an_index_may_repeat():
    table = frame(DENSE, rows(1, 0.9), rows(2, 0.5))
    once = double_win.verdict(table)
    repeated = pd.concat([table.iloc[:7], table.iloc[7:].reset_index(drop=True)])
    named = table.astype({"pretraining": "category", "regime": "category"})
    for same in (table.astype(object), table.convert_dtypes(), repeated, named):
        pd.testing.assert_frame_equal(double_win.verdict(same), once, check_dtype=False)


def test_rows_that_share_a_seed_are_averaged_and_a_missing_value_stays_missing():
    table = frame(rows(1, 0.8, seeds=(0,)), rows(1, 0.9, seeds=(0,)), rows(1, 0.7, seeds=(1,)))
    table.loc[(table["SA"] == 0.8) & (table["regime"] == "AT"), "RA"] = np.nan
    means = tables.replicates(table).set_index(["regime", "seed"])
    assert means["SA"].to_dict() == pytest.approx(
        {("AT", 0): 0.85, ("AT", 1): 0.7, ("ST", 0): 0.85, ("ST", 1): 0.7}
    )
    assert means["RA"].isna().to_dict() == {
        ("AT", 0): True,
        ("AT", 1): False,
        ("ST", 0): False,
        ("ST", 1): False,
    }


def test_the_sparsity_of_a_level_is_its_records_median_else_the_ladders():
    table = pd.DataFrame({"rounds": [0, 1, 1, 1, 2], "sparsity": [0.0, 0.5, 0.5, None, None]})
    assert tables.sparsities(table) == {0: 0.0, 1: 0.5, 2: ladder(2)}
    assert tables.sparsities(table[["rounds"]]) == {r: ladder(r) for r in (0, 1, 2)}
    assert [tables.sparsity_of(row) for row in table.to_dict("records")] == [
        0.0,
        0.5,
        0.5,
        ladder(1),
        ladder(2),
    ]
    assert tables.sparsest(table)["rounds"].tolist() == [2]


def test_a_verdict_is_about_the_smallest_seeds_of_theta_subset_and_mask():
    base = frame(DENSE, rows(1, 0.9), rows(2, 0.5), rows(1, 0.8, method="OMP"))
    base = base.assign(theta_seed=3, subset_seed=2, mask_seed=4)
    base.loc[base["rounds"] == 0, "mask_seed"] = 0  # dense has no mask, one-shot pruning no seed
    base.loc[base["method"] == "OMP", "mask_seed"] = 0
    worse = base.assign(SA=0.6 * base["SA"], RA=0.6 * base["RA"])
    others = [
        worse.assign(theta_seed=4, subset_seed=0),
        worse.assign(subset_seed=3),
        worse[worse["method"] == "IMP-ST"].assign(mask_seed=5),
    ]
    table = pd.concat([*others, base], ignore_index=True)
    assert len(tables.base_seeds(table)) == len(base)
    pd.testing.assert_frame_equal(double_win.verdict(table), double_win.verdict(base))
    for known in (base, base.drop(columns=tables.SEEDS), base.iloc[:0]):
        pd.testing.assert_frame_equal(tables.base_seeds(known), known)
    bad = table.astype({"theta_seed": object})
    bad.loc[0, "theta_seed"] = "1"
    with pytest.raises(ValueError, match="theta_seed '1' .text.* want "):
        double_win.verdict(bad)


def test_the_seeds_of_a_figure_are_those_of_its_levels_not_the_more_of_dense():
    dense = rows(0, 0.9, method="dense", seeds=range(8))
    assert tables.count_seeds(frame(dense)) == 8
    assert tables.count_seeds(frame(dense, rows(1, 0.9, seeds=(0, 1)))) == 2
    several_masks = frame(dense, rows(1, 0.9, seeds=(0, 1))).assign(mask_seed=0)
    other = frame(rows(1, 0.9, seeds=(2,))).assign(mask_seed=1)
    assert tables.count_seeds(pd.concat([several_masks, other])) == 2
