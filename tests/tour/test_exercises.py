"""The answers to the exercises of `00_tour` are those of the committed study."""

import re

import nbformat
import pandas as pd
import pytest

from dwlt_lib.records import store

STUDY = store.checkout() / "outputs" / "reference" / "tour_full"


def answers():
    """The text of each hidden answer, in order."""
    cells = nbformat.read(store.checkout() / "notebooks" / "00_tour.ipynb", 4).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    found = re.findall(r"(?s)<details><summary>Answer</summary>\n(.*?)</details>", text)
    return [" ".join(each.split()) for each in found]


@pytest.fixture(scope="module")
def from_AT():
    """Transfers of theta_AT with all the data, accuracies in percent."""
    table = pd.read_csv(STUDY / "results.csv", low_memory=False)
    table = table[(table["kind"] == "transfer") & (table["pretraining"] == "AT")]
    table = table[(table["fraction"] == 1) & (table["theta_seed"] == 0)]
    return table.assign(SA=100 * table["SA"], RA=100 * table["RA"])


def test_the_ladder_takes_as_many_rounds_as_the_first_answer_says():
    rounds = next(k for k in range(99) if 0.8**k < 1 / 20)
    before, after = (100 * (1 - 0.8**k) for k in (rounds - 1, rounds))
    assert f"{rounds} rounds: $1 - 0.8^{{{rounds}}}$ is {after:.1f} %" in answers()[0]
    assert f"After {rounds - 1} it is still {before:.1f} %" in answers()[0]


def test_dense_networks_lose_as_much_robustness_as_the_second_answer_says(from_AT):
    dense = from_AT[from_AT["rounds"] == 0].groupby("regime")[["SA", "RA"]].mean()
    shown = {regime: f"{row.RA:.1f} % RA and {row.SA:.1f} % SA" for regime, row in dense.iterrows()}
    assert f"After AT it has {shown['AT']}, after ST {shown['ST']}" in answers()[1]
    assert dense.RA["ST"] / dense.RA["AT"] == pytest.approx(1 / 3, abs=0.05)


def test_controls_are_as_robust_as_the_third_answer_says(from_AT):
    level = from_AT[(from_AT["rounds"] == 6) & (from_AT["regime"] == "AT")]
    level = level[level["mask_seed"] == 0].groupby("method")["RA"]
    mean = level.mean().map("{:.1f} %".format)
    assert f"{mean['IMP-ST']} RA for IMP-ST" in answers()[2]
    assert f"{mean['IMP-ST-shuffled']} shuffled" in answers()[2]
    assert f"{mean['IMP-ST-reinit']} with new weights" in answers()[2]
    assert level.size()["IMP-ST"] == 3


def test_the_two_rules_say_what_the_fourth_answer_says(from_AT):
    curves = pd.read_csv(STUDY / "verdict.csv").set_index(["pretraining", "method", "fraction"])
    curve = curves.loc[("AT", "IMP-ST", 1.0)]
    low, high = curve["at_least_sparsity"], curve["below_sparsity"]
    assert f"at least {100 * low:.1f} % and less than {100 * high:.1f} %" in answers()[3]
    assert f"by the paper's rule {100 * curve['paper_extreme_sparsity']:.1f} %" in answers()[3]
    dense = from_AT[(from_AT["rounds"] == 0)].groupby("regime")[["SA", "RA"]].std()
    assert dense["SA"].max() < 2 and dense.RA["AT"] < 3
    assert from_AT[from_AT["rounds"] == 0].groupby("regime").size().max() == 8
