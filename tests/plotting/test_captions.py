"""Each sentence says what its table holds, whatever part of it is there, and no more."""

import json
import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from figure_tables import PARAMS, falls, mask_records, robustness_records, subsets, transfers
from seeds import numpy_rng, torch_rng

from dwlt_lib.analysis import claims, mask_patterns
from dwlt_lib.config.specs import CONTROLS, ladder
from dwlt_lib.plotting import captions, landscapes
from dwlt_lib.plotting.style import percent
from dwlt_lib.pruning.masks import random_prune
from dwlt_lib.records.store import checkout

TABLES = [
    captions.existence,
    captions.methods,
    captions.controls,
    captions.data_limited,
    captions.more_tasks,
]


def won_up_to(rounds, **which):
    """Transfers of one data set whose tickets match dense down to `rounds` and fall by 30 points
    beyond.
    """
    table = transfers(sets=("digits",), fractions=(1.0,), **which)
    table[["SA", "RA"]] = np.where(table[["rounds"]] <= rounds, [0.9, 0.6], [0.6, 0.3])
    table["RA"] -= 0.1 * (table["pretraining"] == "STD")
    return table


@pytest.mark.parametrize("say", TABLES)
def test_a_sentence_is_one_line_whatever_is_there(say):
    for table in subsets(transfers(methods=("IMP-ST", "RP"))):
        said = say(table)
        assert (
            said.endswith(".")
            and ".." not in said
            and "\n" not in said
            and "nan" not in said
            and "-0.0" not in said
        )


@pytest.mark.parametrize("say", TABLES)
def test_without_records_it_says_so(say):
    assert say(transfers().iloc[:0]) == captions.NOTHING


def test_who_reaches_furthest_is_named_first():
    table = won_up_to(6)
    lost = (table["pretraining"] == "STD") & (table["rounds"] == 6)
    table.loc[lost, "SA"] = 0.5
    said = (
        "On digits (2 seeds) FAT and AT reach furthest, 73.8 % (STD 48.8 %); random masks of AT:"
        " 73.8 %"
    )
    assert captions.existence(table).startswith(said)


def test_the_lead_in_ra_stands_beside_its_bounds_and_is_the_claims_effect():
    rng = numpy_rng()
    table = won_up_to(6)
    table["RA"] += rng.normal(0, 0.01, len(table))
    said, found = captions.existence(table), claims.claims(table).set_index("number")
    for number, p in (("4.1 (2a)", "AT"), ("4.1 (4a)", "FAT")):
        effect = found["measured"][number].split()[0]
        assert (
            f"{p} less STD, mean of 4 levels, 48.8 to 95.6 %: {effect} points (95 % bounds " in said
        )
    assert "one seed: noise not known" in captions.existence(table[table["seed"] == 0])


def test_no_win_and_no_verdict_are_told_apart():
    table = won_up_to(0)
    assert "no sparse ticket of STD, FAT and AT is a double win" in captions.existence(table)
    alone = table[table["seed"] == 0]
    assert (
        "it is not known whether tickets of STD, FAT and AT are double wins"
        in captions.existence(alone)
    )
    assert "AT not known" in captions.existence(
        won_up_to(6)[lambda t: (t["pretraining"] != "AT") | (t["rounds"] > 0)]
    )


def test_levels_not_made_yet_are_counted():
    table = won_up_to(6)
    table = table[
        ~((table["rounds"] == 14) & (table["seed"] == 1) & (table["pretraining"] == "AT"))
    ]
    assert "FAT and AT reach 73.8 % so far, 1 level not known yet" in captions.existence(table)
    table = table.assign(SA=table["SA"].where(table["rounds"] == 0, 0.5))
    said = "no sparse ticket of STD and FAT is known to be a double win (AT not known) so far"
    assert said in captions.existence(table)


def test_methods_with_fewer_levels_say_so():
    table = won_up_to(6, methods=("IMP-ST", "IMP-AT", "RP"))
    table = table[(table["method"] != "IMP-AT") | (table["rounds"] == 10)]
    said = captions.methods(table)
    assert "IMP-ST (4 levels)" in said and "IMP-AT (1 level) 0.0 %" in said
    assert "RA after AT, IMP-AT less IMP-ST, 89.3 %: +0.0 points (95 % bounds " in said


def test_a_sparse_ticket_above_dense_comes_with_its_interval():
    table = won_up_to(14)
    assert captions.data_limited(table).endswith(
        "No sparse ticket has a higher mean RA than its own dense network."
    )
    best = (table["pretraining"] == "AT") & (table["rounds"] == 6) & (table["method"] == "IMP-ST")
    table["RA"] += 0.05 * best + 0.001 * table["seed"]
    said = captions.data_limited(table)
    assert (
        "AT, 100 % of digits, 73.8 % sparse, by +5.0 points" in said
        and "above zero; it is the best of 12." in said
    )
    assert "noise not known" in captions.data_limited(table[table["seed"] == 0])


def test_on_further_tasks_robust_pre_training_stands_beside_std_over_shared_levels():
    table = won_up_to(14)
    said = captions.more_tasks(pd.concat([table, table.assign(dataset="cifar10", RA=0.0)]))
    assert said.startswith(
        "Robust pre-training is ahead in 2 of 6 means over shared sparse levels. Less STD, on "
    )
    assert "RA after AT FAT +10.0 points (95 % bounds " in said and "CIFAR" not in said
    assert "on digits (2 seeds, 4 levels) SA after ST FAT +0.0 points" in said
    assert captions.more_tasks(table.assign(dataset="cifar10")) == captions.NOTHING
    main = table.assign(dataset="cifar10")
    alone = pd.concat([main, table[table["pretraining"] == "AT"]])
    assert captions.more_tasks(alone) == "STD and robust pre-training share no level yet."
    dense = pd.concat([main, table[table["rounds"] == 0]])
    assert captions.more_tasks(dense) == "No sparse ticket has been transferred yet."


def test_a_fall_of_ra_is_told_beside_its_noise_and_test_images_where_there_are_any():
    table = falls()
    said = captions.overfitting(table)
    for dataset in ("digits", "tiles"):
        assert (
            f"on 10 % of {dataset} by 2.0 points at 0.0 % sparsity and 0.6 points at 95.6 %"
            " sparsity (one standard error of one such RA: 4.0)" in said
        )
    chosen = table[table["method"].isin(["dense", "IMP-ST"])]
    assert f"{100 * chosen['test'].mean():+.1f} points on average" in said
    assert f"over {len(chosen)} transfers." in said
    assert "test images tell nothing of it." in captions.overfitting(falls(selects=False))
    dense = captions.overfitting(table[table["rounds"] == 0])
    assert "by 2.0 points at 0.0 % sparsity (one" in dense
    assert captions.overfitting(table.iloc[:0]).startswith("No training has validated RA")


def test_masks_of_two_methods_are_compared_in_the_middle_and_at_the_end():
    rng, rows = torch_rng(), []
    dense = {"layer1.0.conv1.weight": torch.ones(8, 8, 3, 3, dtype=torch.bool)}
    found = {
        f"{method} {rounds}": random_prune(dense, 1 - 0.5**rounds, rng)
        for rounds in (1, 2, 3)
        for method in ("IMP-ST", "OMP")
    }
    found["OMP 1"] = found["IMP-ST 1"]
    for id in found:
        method, rounds = id.split()
        rows.append(
            dict(
                id=id,
                pretraining="AT",
                method=method,
                rounds=int(rounds),
                seed=0,
                sparsity=1 - 0.5 ** int(rounds),
            )
        )
    pairs = mask_patterns.similarity_table(pd.DataFrame(rows), found.get, between="method")
    assert pairs["pair"].tolist() == ["IMP-ST and OMP"] * 3 and pairs["similarity"][0] == 1
    assert captions.alike(pairs).startswith("Masks overlap, at 75.0 % IMP-ST and OMP ")
    assert "; at 87.5 % IMP-ST and OMP " in captions.alike(pairs)
    assert captions.alike(pairs.iloc[:0]).endswith("another method are not there to be compared.")


def test_the_widest_basin_is_counted_at_every_level():
    areas = pd.DataFrame(
        dict(
            where=(["clean"] * 2 + ["attacked"] * 2) * 2,
            pretraining=["FAT", "AT"] * 4,
            level=[0.5] * 4 + [1.0] * 4,
            area=[0.3, 0.2, 0.1, 0.4, 0.5, 0.4, 0.6, 0.4],
        )
    )
    assert "is the widest: 1 of 2 at + 0.5, 2 of 2 at + 1." in captions.basins(areas)
    assert captions.basins(areas[areas["pretraining"] == "AT"]).startswith("No plane of FAT")
    assert captions.basins(landscapes.basin_area([])) == captions.NOTHING


def test_the_end_of_a_path_is_its_loss():
    ends = pd.DataFrame([("STD", "clean", 0.5), ("AT", "clean", 0.25), ("AT", "attacked", 1.5)])
    table = ends.set_axis(["pretraining", "images", "loss_centre"], axis=1).assign(
        method="IMP-ST", dataset="digits", fraction=1.0, rounds=6, explained_1=0.7, explained_2=0.2
    )
    said = captions.paths(table)
    assert (
        "on clean images 100 % digits STD 0.50, AT 0.25. And on attacked images 100 % digits AT"
        " 1.50." in said
    )
    assert "at least 90.0 %" in said and captions.paths(table.iloc[:0]) == captions.NOTHING


def test_masks_are_compared_with_chance():
    table, masks = mask_records()
    pairs, kernels = (
        mask_patterns.similarity_table(table, masks.get),
        mask_patterns.zero_kernel_table(table, masks.get),
    )
    last = pairs[pairs["rounds"] == 10]
    assert (
        f"{(last['similarity'] / last['chance']).max():.1f} times as much as by chance"
        in captions.overlap(pairs)
    )
    assert captions.masks(pairs, kernels) == f"{captions.overlap(pairs)} {captions.zeros(kernels)}"
    first = kernels[(kernels["rounds"] == 10) & (kernels["block"] == "B1")]
    share = first.groupby("pretraining")[["zero", "kernels"]].sum()
    assert percent((share["zero"] / share["kernels"]).max()) in captions.blocks(kernels)
    for say in (captions.overlap, captions.zeros, captions.blocks):
        assert say((pairs if say is captions.overlap else kernels).iloc[:0]) == captions.NOTHING


def test_a_transfer_accuracy_below_ra_is_a_sign_of_masked_gradients():
    table = pd.DataFrame(
        [
            dict(pretraining="AT", method=m, dataset="digits", fraction=1.0, rounds=r, seed=s)
            for m, r in (("dense", 0), ("IMP-ST", 6))
            for s in (0, 1)
        ]
    ).assign(transfer_accuracy=0.8, RA=0.7, SA=0.9)
    said = captions.transfer_attack(table)
    assert (
        said.startswith("No sign of masked gradients: all 2 networks withstand")
        and "+10.0 points" in said
    )
    table.loc[table["rounds"] == 6, "RA"] = 0.85
    said = captions.transfer_attack(table)
    assert (
        said.startswith("1 of 2 networks")
        and "-5.0 points" in said
        and "0 of 1 sparse ticket" in said
    )
    assert captions.transfer_attack(table.iloc[:0]) == captions.NOTHING


def test_the_worst_case_is_told_beside_ra_and_by_what_it_moves_a_tickets_difference_to_dense():
    table, read = robustness_records(["AT"], ["IMP-ST"])
    said = captions.strong_attacks(table)
    assert "On 1,000 test images" in said and "lies 6.0 points below RA, over 3 networks" in said
    assert "strongest single attack is APGD-T" in said
    assert "moves by +0.0 points to +0.0 points over 2 sparse tickets" in said
    table.loc[table["rounds"] == 14, "worst"] -= 0.02
    said = captions.strong_attacks(table)
    assert "6.0 to 8.0 points below" in said and "-2.0 points to +0.0 points" in said
    assert "sparse" not in captions.strong_attacks(table[table["rounds"] > 0])
    said = captions.security_curves(table, read)
    assert "At 4 times the radius RA is 27.0 % at most (a constant answer: 12.0 %)" in said
    assert "from 10 to 100 steps it falls by 2.0 points at most" in said
    nothing = table.iloc[:0]
    assert captions.strong_attacks(nothing) == captions.NOTHING
    assert captions.security_curves(nothing, read) == captions.NOTHING


def test_signs_of_masked_gradients_are_told_for_each_network_with_those_of_transfer_attacks():
    table, read = robustness_records(["AT"], ["IMP-ST"], rounds=(6,))
    attacks = pd.DataFrame({"id": ["attack", "of a former version", "elsewhere"]})
    ticket = read(table["id"].iloc[1]).upstream[0]
    right = {"SA": np.ones(100, bool), "RA": np.ones(100, bool)}
    outcomes = {ticket: right, "attack": {"transfer": np.arange(100) >= 40}}
    upstream = {"attack": ticket, "of a former version": ticket, "elsewhere": "another"}

    def reads(id):
        if id not in upstream:
            return read(id)
        return SimpleNamespace(upstream=[upstream[id]], has=lambda name: id == "attack")

    said = captions.masked_gradients(table, attacks.iloc[:0], reads, outcomes.get)
    assert said.startswith("None of 4 networks shows signs") and "transfer" not in said
    said = captions.masked_gradients(table, attacks, reads, outcomes.__getitem__)
    assert said.startswith("1 of 4 networks shows signs") and "1 transfer attack on them" in said
    assert "AT, dense, digits, 0.0 %, seed 1: sign of useless gradients (a transfer" in said
    table.loc[2, "RA_grey"] = 0.5
    said = captions.masked_gradients(table, attacks, reads, outcomes.__getitem__)
    assert said.startswith("2 of 4 networks") and "seed 0: sign of an attack that fails" in said
    for nothing in (pd.DataFrame(), table.drop(columns="gradient_above_random")):
        assert captions.masked_gradients(nothing, attacks, read, len) == captions.NOTHING


def test_the_paradigm_counts_what_is_asked_for():
    assert (
        captions.paradigm(PARAMS)
        == "This study takes resnet8 from MNIST-5k to digits and tiles: 2 pre-trainings, 2 pruning"
        " methods, 2 levels of sparsity (48.8 to 73.8 %), 2 fractions of the data, 2 seeds."
    )
    masks = dict(
        arch="resnet8", grid=[], masks=[dict(pretraining=["AT"], method=["RP"], rounds=[6])]
    )
    assert (
        "1 pre-training, 1 pruning method, 1 level of sparsity (73.8 to 73.8 %)"
        in captions.paradigm(masks)
    )
    assert percent(ladder(6)) == "73.8" and percent(np.nan, " %") == "not known"


@pytest.mark.parametrize(
    "path", sorted((checkout() / "notebooks").glob("1[1-7]_*.ipynb")), ids=lambda path: path.stem
)
def test_beside_every_figure_of_the_report_stand_its_sentence_and_the_papers_finding(path):
    cells = [
        cell
        for cell in json.loads(path.read_text())["cells"]
        if "report" in cell["metadata"].get("tags", [])
    ]
    sources = ["".join(cell["source"]) for cell in cells]
    shown = [i for i, source in enumerate(sources) if "style.save" in source]
    assert shown
    for i in shown:
        assert "**What the paper found**" in sources[i - 1], sources[i]
        assert re.match(r"print\((captions|verdicts)\.", sources[i + 1]), sources[i]


def test_a_figure_of_methods_leaves_controls_out_and_theirs_compares_them_with_imp_st():
    table = won_up_to(6, methods=("IMP-ST", "RP", *CONTROLS))
    table.loc[table["method"] == "IMP-ST-reinit", "RA"] -= 0.1
    said, controls = captions.methods(table), captions.controls(table)
    assert "reach 73.8 %" in said and not any(method in said for method in CONTROLS)
    assert "IMP-ST, IMP-ST-shuffled and IMP-ST-transplant reach furthest, 73.8 %" in controls
    assert "IMP-ST-reinit 0.0 %" in controls and "RP" not in controls
    difference = "IMP-ST-reinit less IMP-ST, mean of 4 levels, 48.8 to 95.6 %: -10.0 points ("
    assert difference in controls
    assert captions.controls(table[~table["method"].isin(CONTROLS)]) == captions.NOTHING
    params = dict(PARAMS, grid=[dict(PARAMS["grid"][0], method=["IMP-ST", *CONTROLS])])
    assert "1 pruning method, 3 controls," in captions.paradigm(params)
