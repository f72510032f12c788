"""Theorems on the verdict: what matches, what falls short, and what is not known."""

import numpy as np
import pandas as pd
import pytest
from transfer_rows import frame, rows

from dwlt_lib.analysis import noninferiority as ni
from dwlt_lib.config.studies import Margins

NOISE = np.array([-0.004, 0.004, 0.0])
DENSE = rows(0, 0.90 + NOISE, method="dense")


def level(rounds, loss, **keys):
    return rows(rounds, 0.90 - loss + NOISE, **keys)


def judged(*levels, **keys):
    return ni.noninferiority(frame(DENSE, *levels), **keys).set_index("rounds")


def test_a_level_matches_falls_short_or_is_undecided_by_where_its_bounds_lie():
    found = judged(level(2, 0.0), level(4, 0.02), level(6, 0.2))
    assert found["status"].tolist() == ["matches", "undecided", "falls short"]
    for c in ("ST_SA", "AT_SA", "AT_RA"):
        assert (found[f"{c}_low"] < found[f"{c}_difference"]).all()
        assert (found[f"{c}_difference"] < found[f"{c}_high"]).all()
    assert found["AT_RA_margin"].eq(0.03).all() and found["ST_SA_margin"].eq(0.02).all()


def test_one_criterion_decides_that_a_level_falls_short_and_all_are_needed_to_match():
    one_bad = rows(2, 0.90 + NOISE, ra=0.6 + NOISE)
    assert judged(one_bad).loc[2, "status"] == "falls short"
    one_open = rows(2, 0.90 + NOISE, ra=0.87 + NOISE)
    found = judged(one_open).loc[2]
    assert found["status"] == "undecided" and found["ST_SA_status"] == "matches"


def test_wider_margins_match_more_and_relative_ones_shrink_with_what_dense_reaches():
    assert judged(level(4, 0.02), margins=Margins(SA=0.1, RA=0.1)).loc[4, "status"] == "matches"
    table = frame(DENSE, level(4, 0.0)).assign(chance=0.5)
    found = ni.noninferiority(table, margins=Margins(relative=True)).iloc[0]
    assert found["AT_RA_margin"] == pytest.approx(0.03 * (0.9 - 0.5))


def test_without_replicates_or_without_dense_a_level_is_unknown():
    alone = ni.noninferiority(frame(rows(0, 0.9, seeds=(0,)), rows(2, 0.9, seeds=(0,))))
    assert alone["status"].tolist() == ["unknown"]
    assert ni.noninferiority(frame(level(2, 0.0)))["status"].tolist() == ["unknown"]


def test_a_dense_network_at_chance_is_no_baseline():
    table = frame(DENSE, level(2, 0.0)).assign(chance=0.9, test_images=500)
    assert ni.noninferiority(table)["status"].tolist() == ["unknown"]


def text(*levels):
    return ni.certified(ni.noninferiority(frame(DENSE, *levels)))


def test_the_extreme_is_bounded_from_both_ends():
    found = text(level(2, 0.0), level(4, 0.0), level(6, 0.02), level(8, 0.2), level(10, 0.3)).iloc[
        0
    ]
    assert (found["at_least_rounds"], found["below_rounds"]) == (4, 8)
    assert found["text"] == "at least 59.0, below 83.2 %"
    assert (found["matches"], found["undecided"], found["falls_short"]) == (2, 1, 2)


def test_a_gap_ends_each_sequence():
    found = text(level(2, 0.02), level(4, 0.0), level(6, 0.2), level(8, 0.02)).iloc[0]
    assert found["at_least_rounds"] == 0 and pd.isna(found["below_rounds"])
    assert found["text"] == "undecided (4 levels)"


def test_one_level_and_unknown_levels_say_so():
    assert text(level(10, 0.2)).iloc[0]["text"] == "< 89.3 % (1 level)"
    assert text(level(10, 0.0)).iloc[0]["text"] == "at least 89.3 % (1 level)"
    nothing = ni.certified(ni.noninferiority(frame(level(2, 0.0), level(4, 0.0)))).iloc[0]
    assert nothing["text"] == "unknown (2 levels)" and nothing["at_least_rounds"] == 0


def test_a_win_that_random_pruning_has_too_is_said_to_be_shared():
    ours = [level(r, 0.0) for r in (2, 4, 6)]
    random = [level(2, 0.0, method="RP"), level(4, 0.2, method="RP")]
    found = text(*ours, *random).set_index("method")
    assert found.loc["IMP-ST", "text"] == (
        "at least 73.8 %; shared with random pruning up to 36.0 %"
    )
    assert "shared" not in found.loc["RP", "text"]


def test_an_empty_table_has_no_rows():
    empty = ni.noninferiority(frame(DENSE))
    assert empty.empty and ni.certified(empty).empty
