"""Theorems on figures and words of verdicts."""

import numpy as np
import pandas as pd
from figure_tables import transfers
from matplotlib.collections import PathCollection

from dwlt_lib.analysis import claims, noninferiority, tables
from dwlt_lib.config.studies import Margins
from dwlt_lib.plotting import verdicts


def by_level(rounds=6, **which):
    """Verdicts on one data set whose tickets match dense down to `rounds` and fall beyond."""
    table = transfers(sets=("digits",), fractions=(1.0,), **which)
    table[["SA", "RA"]] = np.where(table[["rounds"]] <= rounds, [0.9, 0.6], [0.6, 0.3])
    table[["SA", "RA"]] += 0.002 * np.sin(np.arange(len(table)))[:, None]
    return noninferiority.noninferiority(table)


def test_words_name_every_curve_what_is_certified_of_it_and_count_levels():
    found = by_level()
    said, counts = verdicts.in_words(found, Margins()), found["status"].value_counts()
    assert said.startswith("Double-win sparsity within 2 points of SA and 3 of RA of dense")
    assert f"{counts['matches']} matches" in said and f"{counts['falls short']} falls short" in said
    for pretraining in ("STD", "FAT", "AT"):
        assert f"{pretraining} by IMP-ST at least 73.8, below " in said
    assert "On 100 % of digits: STD by IMP-ST" in said and "nan" not in said
    assert "at least" not in verdicts.in_words(by_level(0), Margins())
    assert verdicts.in_words(found.iloc[:0], Margins()) == verdicts.NOTHING


def test_curves_stand_in_the_papers_order_with_the_most_data_first():
    found = noninferiority.noninferiority(transfers().sample(frac=1, random_state=1))
    ordered = verdicts.in_paper_order(found)[["dataset", "fraction", "method", "pretraining"]]
    curves = ordered.drop_duplicates().values.tolist()
    assert curves[:4] == [["digits", 1.0, "IMP-ST", p] for p in ("STD", "FAT", "AT")] + [
        ["digits", 1.0, "OMP", "STD"]
    ]
    assert curves[9][:2] == ["digits", 0.1] and curves[18][:2] == ["tiles", 1.0]


def test_a_figure_of_levels_has_a_panel_per_curve_and_criterion():
    found = by_level()
    curves = found.groupby(noninferiority.GROUP).ngroups
    assert len(verdicts.levels(found).axes) == 3 * curves
    assert not verdicts.levels(found.iloc[:0]).axes[0].collections


def test_tickets_on_the_same_data_have_one_scale_of_levels():
    found = noninferiority.noninferiority(transfers(sets=("digits",), methods=("IMP-ST",)))
    limits = [ax.get_ylim() for ax in verdicts.levels(found).axes]
    assert len(set(limits[:9])) == 1 and len(set(limits[9:])) == 1


def test_simulated_studies_are_drawn_as_shares_that_sum_to_all():
    rates = pd.DataFrame(
        [dict(truth="equal", n=3, n_dense=8, matches=0.7, undecided=0.2, falls_short=0.1)]
    )
    ax = verdicts.simulated(rates).axes[0]
    assert sum(bar.get_width() for bar in ax.patches) == 100


def some_claims():
    """Claims on transfers whose means are known: FAT's and AT's RA is 10 points above STD's."""
    table = transfers(seeds=(0, 1, 2), sets=("digits",), fractions=(1.0,))
    table["RA"] += 0.1 * (table["pretraining"] != "STD") + 0.002 * np.sin(np.arange(len(table)))
    return claims.claims(table)


def test_claims_lie_to_the_right_of_their_tick_where_they_hold():
    found = some_claims()
    known = found[found["low"] < found["high"]].to_dict("records")
    ax = verdicts.forest(found).axes[0]
    dots = [own.get_offsets()[0] for own in ax.collections if isinstance(own, PathCollection)]
    texts = [" ".join(label.get_text().split()) for label in ax.get_yticklabels()]
    labels = dict(zip(ax.get_yticks(), texts, strict=True))
    for row, (x, y) in zip(known, dots, strict=True):
        assert labels[y].startswith(f"{row['number']} {row['claim']}")
        if row["verdict"] == claims.HOLDS and row["side"] != "alike":
            assert x > 100 * row["threshold"] * (-1 if row["side"] == "below" else 1)


def test_the_sentence_on_claims_counts_them_and_names_those_that_are_decided():
    found = some_claims()
    said = verdicts.count_claims(found)
    counts = found["verdict"].value_counts()
    assert f"holds {counts[claims.HOLDS]} (" in said and "4.1 (2a)" in said
    assert said.endswith(f"cannot be told {counts[claims.OPEN]}.")
    none = claims.claims(transfers().iloc[:0])
    assert "holds 0; does not hold 0; cannot" in verdicts.count_claims(none)
    assert not verdicts.forest(none).axes[0].collections


def test_verdicts_of_two_studies_share_a_panel_the_first_filled_and_before_the_other():
    one, two = by_level(), by_level(3)
    fig = verdicts.levels(tables.join_studies({"one": one, "two": two}))
    assert len(fig.axes) == len(verdicts.levels(one).axes)
    (dots,) = [own for own in fig.axes[0].collections if isinstance(own, PathCollection)]
    x = dots.get_offsets()[:, 0]
    is_hollow = (dots.get_facecolors() == 1).all(axis=1)
    assert is_hollow.sum() == (~is_hollow).sum() == len(x) / 2
    assert (x[is_hollow] > np.round(x[is_hollow])).all()
    assert (x[~is_hollow] < np.round(x[~is_hollow])).all()


def test_claims_of_two_studies_share_a_line():
    found = some_claims()
    alone = verdicts.forest(found).axes[0]
    ax = verdicts.forest(tables.join_studies({"one": found, "two": found})).axes[0]
    assert ax.get_yticks().tolist() == alone.get_yticks().tolist()
    dots = [own.get_offsets()[0] for own in ax.collections if isinstance(own, PathCollection)]
    first, second = np.split(np.array(dots), 2)
    assert (first[:, 0] == second[:, 0]).all() and (first[:, 1] > second[:, 1]).all()
