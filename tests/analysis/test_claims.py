"""Theorems on the paper's claims: what decides them, and that noise does not."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from seeds import numpy_rng
from transfer_rows import KEYS

from dwlt_lib.analysis import claims, contrasts
from dwlt_lib.analysis.claims import FAILS, HOLDS, OPEN
from dwlt_lib.analysis.statistics import Difference
from dwlt_lib.config.specs import ladder
from dwlt_lib.records import store

ROUNDS = (0, 3, 6, 10, 14, 16)
LEAD = {"STD": -0.10, "FAT": 0.0, "AT": 0.05}
WORSE = {"IMP-ST": 0.0, "IMP-AT": 0.002, "OMP": 0.03, "RP": 0.10}


def study(
    rng, lead=LEAD, worse=WORSE, noise=0.005, seeds=(0, 1, 2), fractions=(1.0, 0.1), rounds=ROUNDS
):
    """Transfers of a study whose true means are known."""
    curves = [(p, "IMP-ST") for p in lead] + [("AT", m) for m in worse if m != "IMP-ST"]
    rows = [
        (p, m if r else "dense", "digits", f, g, r, s)
        for p, m in curves
        for f in fractions
        for g in ("ST", "AT")
        for r in rounds
        for s in seeds
    ]
    table = pd.DataFrame(rows, columns=KEYS).drop_duplicates(ignore_index=True)
    shared = {s: rng.normal(0, noise) for s in seeds}
    lost = table["method"].map(worse).fillna(0.0)
    mean = table["pretraining"].map(lead) - lost - 0.004 * (table["rounds"] == 16)
    error = table["seed"].map(shared) + rng.normal(0, noise, len(table))
    return table.assign(SA=0.9 + error, RA=0.6 + mean + error)


def verdicts(table, **more):
    return claims.claims(table, **more).groupby("number")["verdict"].agg(set).to_dict()


def test_of_no_records_nothing_can_be_told():
    for table in (store.empty_table(), study(numpy_rng())[:0]):
        found = claims.claims(table)
        assert set(found["verdict"]) == {OPEN} and len(found) == len(claims.CLAIMS)
        assert found["sentence"].str.contains("it takes").all() and found["effect"].isna().all()
    text = claims.as_text(found)
    assert text.startswith("Decided: 0 of ") and "nan" not in text


def test_what_the_means_show_is_told_on_its_side():
    found = verdicts(study(numpy_rng(1), noise=0.001))
    holding = (
        "4.1 (1a)",
        "4.1 (1c)",
        "4.1 (1d)",
        "4.1 (2a)",
        "4.1 (2b)",
        "4.1 (4a)",
        "4.1 (4b)",
        "4.2 (a)",
        "4.2 (b)",
        "4.2 (d)",
        "4.2 (e)",
    )
    assert {number: found[number] for number in holding} == dict.fromkeys(holding, {HOLDS})
    lost = study(numpy_rng(1), noise=0.001)
    lost["RA"] -= 0.1 * (lost["rounds"] == 6) * (lost["pretraining"] == "STD")
    found = verdicts(lost)
    assert found["4.1 (1a)"] == {FAILS} and found["4.1 (1b)"] == {HOLDS}
    lost = study(numpy_rng(1), noise=0.001)
    lost["RA"] -= 0.1 * (lost["rounds"] >= 10) * (lost["pretraining"] == "STD")
    found = verdicts(lost)
    assert found["4.1 (2e)"] == found["4.1 (2g)"] == found["4.2 (g)"] == {HOLDS}
    assert found["4.1 (2f)"] == {OPEN}
    turned = {p: -lead for p, lead in LEAD.items()}
    turned = verdicts(study(numpy_rng(1), turned, noise=0.001))
    for number in ("4.1 (2a)", "4.1 (2b)", "4.1 (4a)", "5 (1a)", "5 (1b)"):
        assert turned[number] == {FAILS}, number


def permuted(table, rng, count):
    """The table with the methods' labels permuted in each level, regime and seed, many times."""
    sparse = table["rounds"] > 0
    blocks = table[sparse].groupby(["regime", "fraction", "rounds", "seed"])["method"]
    for _ in range(count):
        yield table.assign(
            method=table["method"].where(~sparse, blocks.transform(lambda m: rng.permutation(m)))
        )


def test_with_permuted_labels_no_claim_about_methods_holds(monkeypatch):
    monkeypatch.setattr(claims, "CLAIMS", [c for c in claims.CLAIMS if c.about == "method"])
    rng = numpy_rng(2)
    table = study(rng, lead={"AT": 0.0}, fractions=(1.0,), rounds=(0, 6, 10, 16))

    true = claims.claims(table)
    assert (true.loc[true["unit"] == "points of sparsity", "verdict"] == HOLDS).any()
    wrong = [HOLDS in set(claims.claims(each)["verdict"]) for each in permuted(table, rng, 200)]
    assert sum(wrong) <= 0.05 * 200


def test_under_one_training_seed_no_labels_of_methods_decide_anything():
    rng = numpy_rng(2)
    table = study(rng, lead={"AT": 0.0}, fractions=(1.0,), seeds=(0,), rounds=(0, 6, 10, 16))
    table = table.assign(test_images=10**6)  # so that only seeds are missing
    for each in (table, *permuted(table, rng, 20)):
        found = claims.claims(each)
        assert set(found["verdict"]) == {OPEN}
    assert found["effect"].notna().any() and found["low"].isna().all()


def test_alike_is_told_only_by_records_that_tell_something_apart():
    same = dict.fromkeys(WORSE, 0.0)
    table = study(numpy_rng(3), worse=same)
    found = claims.claims(table).set_index("number").loc["4.2 (a)"]
    assert abs(found["effect"]) < 0.03 and found["verdict"] == OPEN
    assert verdicts(study(numpy_rng(3)))["4.2 (a)"] == {HOLDS}


def test_one_seed_tells_an_effect_and_no_more():
    found = claims.claims(study(numpy_rng(4), seeds=(0,)))
    assert set(found["verdict"]) == {OPEN}
    row = found.set_index("number").loc["4.1 (2a)"]
    assert row["effect"] == pytest.approx(0.15, abs=0.03) and np.isnan(row["low"])
    assert "its noise is not known" in row["sentence"] and "nan" not in row["sentence"]


def test_what_is_decided_comes_first_and_its_interval_says_so():
    found = claims.claims(study(numpy_rng(5)))
    order = [claims.VERDICTS.index(verdict) for verdict in found["verdict"]]
    assert order == sorted(order)
    sides = {claim.name: claim for claim in claims.CLAIMS}
    for row in found[found["low"].notna()].to_dict("records"):
        claim = sides[row["number"]]
        inside = {
            "above": row["low"] > claim.threshold,
            "below": row["high"] < claim.threshold,
            "alike": max(-row["low"], row["high"]) < claim.threshold,
        }[claim.side]
        assert inside == (row["verdict"] == HOLDS) or claim.provided
        assert row["low"] <= row["effect"] <= row["high"]


def test_holms_procedure_tests_each_claim_against_those_that_are_left():
    term = Difference(0.1, 0.05, 1e9)
    claim = next(claim for claim in claims.CLAIMS if claim.side == "above")
    weak, strong = (
        contrasts.Estimate("", "", (replace(term, difference=effect),), 3, contrasts.SEEDS)
        for effect in (0.09, 1.0)  # p is 0.036 and 0
    )
    assert [v for v, _ in claims._judge([(claim, weak)] * 3, 0.05)] == [OPEN] * 3
    found = claims._judge([(claim, weak), (claim, strong), (claim, contrasts.NOTHING)], 0.05)
    assert found == [(HOLDS, 0.05), (HOLDS, 0.025), (OPEN, 0.05)]


def test_masks_are_found_by_what_they_are():
    pairs = pd.DataFrame(
        [
            ("IMP-ST", r, 0, ladder(r), pair, similarity - 0.01 * (r - 6), 0.15)
            for r in (6, 16)
            for pair, similarity in (("STD and FAT", 0.3), ("STD and AT", 0.1))
        ],
        columns=["method", "rounds", "seed", "sparsity", "pair", "similarity", "chance"],
    )
    found = verdicts(store.empty_table(), pairs=pairs)
    assert found["6 (a)"] == {FAILS} and found["6 (b)"] == {HOLDS}
    few = pairs.assign(similarity=pairs["similarity"] - 0.2)
    assert verdicts(store.empty_table(), pairs=few)["6 (a)"] == {HOLDS}
    kernels = pd.DataFrame(
        [
            (p, "IMP-ST", 16, 0, ladder(16), block, 3, 100, zero)
            for p, front, later in (("STD", 90, 90), ("FAT", 40, 80), ("AT", 80, 60))
            for block, zero in (("B1", front), ("B2", front), ("B3", later), ("B4", later))
        ],
        columns="pretraining method rounds seed sparsity block kernel kernels zero".split(),
    )
    found = verdicts(store.empty_table(), kernels=kernels)
    assert [found[f"6 ({n})"] for n in "cdef"] == [{HOLDS}] * 4


def test_transfer_attacks_and_basins_have_claims_of_their_own():
    rng = numpy_rng(6)
    attacks = pd.DataFrame(
        [
            dict(kind="attack", pretraining="AT", method=m, dataset="digits", fraction=1.0, seed=s)
            | dict(rounds=r, RA=0.5, transfer_accuracy=0.6 + gain + rng.normal(0, 0.002))
            for m, r, gain in (("dense", 0, 0.0), ("IMP-ST", 10, 0.1), ("IMP-ST", 14, 0.05))
            for s in range(3)
        ]
    )
    found = verdicts(pd.concat([store.empty_table(), attacks]))
    assert found["A2 (a)"] == found["A2 (b)"] == {HOLDS}
    areas = pd.DataFrame(
        [
            dict(where=f"{f} %", pretraining=p, level=level, area=0.1 * level * width, images=i)
            for i in ("clean", "attacked")
            for f in (100, 10, 1)
            for p, width in (("STD", 1.0), ("FAT", 2.0 + rng.normal(0, 0.02)), ("AT", 1.1))
            for level in (0.5, 1.0, 2.0)
        ]
    )
    found = verdicts(store.empty_table(), areas=areas)
    assert found["5 (Fig. 6)"] == found["5 (Fig. A9)"] == {HOLDS}
    clean = areas[areas["images"] == "clean"]
    assert verdicts(store.empty_table(), areas=clean)["5 (Fig. A9)"] == {OPEN}
