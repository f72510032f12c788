"""Every figure takes what is there.

A whole table, a part of it, or nothing (paper, Figures 1-7, A8, A9, Table A2).
"""

import numpy as np
import pandas as pd
import pytest
from figure_tables import PARAMS, ROUNDS, mask_records, subsets, texts, transfers

from dwlt_lib.analysis import double_win, mask_patterns, tables
from dwlt_lib.config.specs import ladder
from dwlt_lib.plotting import figures, landscapes, study_overview
from dwlt_lib.plotting.style import ROLES


@pytest.mark.parametrize(
    "draw", [figures.existence, figures.methods, figures.data_limited, figures.more_tasks]
)
def test_curves_take_whatever_part_of_a_table_is_there(draw):
    for table in subsets(transfers(methods=("IMP-ST", "RP"), fractions=(0.1,))):
        assert isinstance(draw(table), figures.Figure)


def test_an_empty_table_says_so():
    nothing = transfers().iloc[:0]
    empty = [
        figures.existence(nothing),
        figures.methods(nothing),
        figures.data_limited(nothing),
        figures.kernel_maps({}),
    ]
    empty += [
        landscapes.contours([]),
        landscapes.surfaces_3d([]),
        figures.training_curve([]),
        figures.transfer_attack_curve(nothing),
    ]
    assert all(
        "no records yet" in texts(fig) and fig.axes for fig in empty
    )  # without axes no notebook shows it


def test_further_tasks_are_all_but_the_papers_first_three_a_row_each():
    table = transfers(sets=("cifar10", "cub200", "visda17"))
    said = " ".join(texts(figures.more_tasks(table)))
    assert (
        "CUB-200, 100 %" in said
        and "VisDA-17, 100 %" in said
        and "CIFAR" not in said
        and "10 %" not in said
    )
    assert len(figures.more_tasks(table).axes) == 2 * 3
    for one in ("cifar10", "cub200"):  # a study's only task is its main one, whichever it is
        assert "no records yet" in texts(figures.more_tasks(table[table["dataset"] == one]))


def test_the_ladder_is_labelled_in_percent_with_one_decimal():
    ax = figures.existence(transfers()).axes[-1]
    assert ax.get_xticks().tolist() == ROUNDS
    assert [label.get_text() for label in ax.get_xticklabels()] == [
        "0.0",
        "48.8",
        "73.8",
        "89.3",
        "95.6",
    ]
    assert ax.get_xlabel() == "sparsity (%)"


def test_a_long_ladder_has_a_minor_tick_a_level_and_labels_that_keep_apart():
    ax = figures.Figure().subplots()
    figures.ladder_ticks(ax, {r: ladder(r) for r in range(20)}, most=7)
    assert (
        sorted([*ax.get_xticks(minor=True), *ax.get_xticks()]) == [*range(20)]
        and len(ax.get_xticks()) <= 8
    )
    assert np.diff(ax.get_xticks()).min() >= 19 / 7


def test_curves_are_means_in_percent():
    table = transfers()
    top = figures.existence(table).axes[0]
    line = next(line for line in top.get_lines() if line.get_color() == ROLES["FAT"][0])
    chosen = table.query(
        "dataset == 'digits' and fraction == 1 and regime == 'ST' and pretraining == 'FAT'"
    )
    mean = chosen[chosen["method"].isin(["dense", "IMP-ST"])].groupby("rounds")["SA"].mean()
    assert (
        line.get_ydata() == pytest.approx(100 * mean.to_numpy())
        and line.get_xdata().tolist() == ROUNDS
    )


def test_the_star_stands_on_the_verdicts_extreme():
    table = transfers(sets=("digits",), fractions=(1.0,))
    table.loc[table["rounds"].isin([0, 3, 6]) | (table["method"] == "RP"), ["SA", "RA"]] = 0.9
    assert double_win.verdict(table).query("method == 'IMP-ST'")["extreme_rounds"].tolist() == [
        6,
        6,
        6,
    ]
    stars = [
        line for line in figures.existence(table).axes[0].get_lines() if line.get_marker() == "*"
    ]
    assert sorted(line.get_xdata()[0] for line in stars) == [6, 6, 6, 14]


def test_existence_has_a_column_a_data_set_and_a_row_a_criterion():
    fig = figures.existence(transfers())
    assert len(fig.axes) == 2 * len(double_win.CRITERIA)
    assert [ax.get_title() for ax in fig.axes[:2]] == ["digits", "tiles"]
    assert [fig.axes[i].get_ylabel() for i in (0, 2, 4)] == [
        "SA after ST (%)",
        "SA after AT (%)",
        "RA after AT (%)",
    ]


def test_noise_of_one_seed_fills_no_axis():
    table = transfers(sets=("digits",), fractions=(1.0,), seeds=(0,)).assign(SA=0.9, RA=0.5)
    fig = figures.existence(table)
    assert fig.axes[0].get_title() == "digits, one seed"
    assert all(np.ptp(ax.get_ylim()) >= 4 for ax in fig.axes)


def breaks(fig):
    """Whether each panel's y axis is marked as broken."""
    marked = [[line.get_marker() for line in ax.get_lines()] for ax in fig.axes]
    return [figures.BREAK["marker"] in markers for markers in marked]


def test_criteria_on_the_same_data_have_one_scale_and_an_axis_that_omits_0_is_marked():
    table = transfers(sets=("digits",))
    table.loc[table["fraction"] == 0.1, "SA"] -= 0.05 * table["rounds"]
    fig = figures.data_limited(table)
    spans = np.reshape([np.ptp(ax.get_ylim()) for ax in fig.axes], (2, 3))
    assert spans[:, 1:] == pytest.approx(spans[:, :-1]) and spans[1, 0] > spans[0, 0] + 40
    assert breaks(fig) == [ax.get_ylim()[0] > 0 for ax in fig.axes] and any(breaks(fig))
    assert all(-1 <= ax.get_ylim()[0] and ax.get_ylim()[1] <= 101.01 for ax in fig.axes)


def test_one_method_alone_is_no_comparison_of_methods():
    table = transfers(methods=("IMP-ST", "RP"))
    assert "no records yet" in texts(figures.methods(table[table["method"] != "RP"]))
    assert len(figures.methods(table).axes) == 2 * 3


def test_the_paradigm_names_the_studys_own_parameters():
    shown = " ".join(texts(study_overview.paradigm(PARAMS)))
    for word in ("resnet8", "MNIST-5k", "digits", "tiles", "IMP-ST, RP", "100 % / 10 %", "2 seeds"):
        assert word in shown


def test_a_network_with_keyword_arguments_has_room_in_the_paradigm():
    arch = "timm/vit_tiny_patch16_224(depth=1, embed_dim=16, img_size=8, num_heads=2)"
    fig = study_overview.paradigm({**PARAMS, "arch": arch})
    fig.draw_without_rendering()
    first, second = (
        next(text for text in fig.axes[0].texts if text.get_text().startswith(number))
        for number in "12"
    )
    assert first.get_text() == "1  pre-train on MNIST-5k\nvit_tiny_patch16_224"
    assert 0 <= first.get_window_extent().x0
    assert first.get_window_extent().x1 < second.get_window_extent().x0


def test_masks_of_methods_are_drawn_beside_imp_sts():
    table, masks = mask_records()
    methods = dict(zip(["STD", "FAT", "AT"], ["IMP-ST", "OMP", "IMP-ST-shuffled"], strict=True))
    table = table.assign(method=table["pretraining"].map(methods), pretraining="AT")
    pairs = mask_patterns.similarity_table(table, masks.get, between="method")
    shown = texts(figures.similarity(pairs))
    assert {"IMP-ST and OMP", "IMP-ST and IMP-ST-shuffled"} <= set(shown)
    assert "OMP and IMP-ST-shuffled" in set(pairs["pair"]) - set(shown)


def test_mask_figures_show_chance_beside_what_was_found():
    table, masks = mask_records()
    pairs, kernels = (
        mask_patterns.similarity_table(table, masks.get),
        mask_patterns.zero_kernel_table(table, masks.get),
    )
    for fig in (figures.similarity(pairs), figures.zero_kernels(kernels)):
        assert "random, same layer densities" in texts(fig)
    one = table[table["pretraining"] == "AT"]
    (
        figures.similarity(mask_patterns.similarity_table(one, masks.get)),
        figures.zero_kernels(kernels[kernels["rounds"] == 3]),
    )
    figures.similarity(pairs.iloc[:0]), figures.zero_kernels(kernels.iloc[:0])


def test_kernel_maps_have_a_row_a_pretraining_and_a_column_a_block():
    _, masks = mask_records()
    fig = figures.kernel_maps({p: mask_patterns.kernel_map(masks[f"{p}10"]) for p in ("AT", "STD")})
    assert len(fig.axes) == 2 and "STD" in fig.axes[0].get_title()


def test_transfer_attacks_are_shown_beside_ra():
    table = pd.DataFrame(
        [
            dict(pretraining="AT", method=m, dataset="digits", fraction=1.0, rounds=r, seed=s)
            for m, r in (("dense", 0), ("IMP-ST", 6))
            for s in (0, 1)
        ]
    ).assign(transfer_accuracy=0.8, RA=0.7, SA=0.9)
    lines = figures.transfer_attack_curve(table).axes[0].get_lines()[:2]
    assert [line.get_ydata().tolist() for line in lines] == [[80.0, 80.0], [70.0, 70.0]]


def test_a_training_curve_needs_no_validation():
    history = [
        dict(epoch=e, lr=0.1, loss=1.0 / (e + 1), SA=float("nan"), RA=float("nan"))
        for e in range(3)
    ]
    figures.training_curve(history), figures.training_curve([dict(epoch=0, loss=1.0)])


def test_figures_of_curves_draw_the_base_seeds_alone():
    base = transfers(methods=("IMP-ST", "RP"), sets=("digits",)).assign(theta_seed=0, mask_seed=0)
    other = base.assign(RA=0.1, seed=base["seed"] + 7)
    both = pd.concat([base, other.assign(theta_seed=1), other.assign(mask_seed=1)])
    for draw in (figures.existence, figures.methods, figures.data_limited):
        lines = [
            [line.get_xydata().tolist() for ax in draw(table).axes for line in ax.get_lines()]
            for table in (base, both[(both["rounds"] > 0) | (both["mask_seed"] == 0)])
        ]
        assert lines[0] == lines[1], draw.__name__


def test_controls_are_drawn_beside_imp_st_where_there_are_any():
    table = transfers(methods=("IMP-ST", "RP", "IMP-ST-shuffled"), fractions=(1.0,))
    table = table[(table["dataset"] == "digits") | (table["method"] != "IMP-ST-shuffled")]
    fig = figures.controls(table)
    names = {text.get_text() for text in fig.legends[0].get_texts()}
    assert {name.split(", ")[1] for name in names if "AT, " in name} == {
        "IMP-ST",
        "IMP-ST-shuffled",
    }
    assert len(fig.axes) == 3  # one data set
    drawn = {text.get_text() for text in figures.controls(table[:0]).axes[0].texts}
    assert drawn == {"no records yet"}


def lines_of(ax, pretraining):
    shown = [line for line in ax.get_lines() if line.get_color() == ROLES[pretraining].color]
    return [line for line in shown if len(line.get_xdata()) == len(ROUNDS)]


def test_a_second_study_has_the_same_colours_dotted_and_both_are_named():
    one = transfers(sets=("digits",), fractions=(1.0,))
    two = one.assign(SA=one["SA"] - 0.05)
    both = tables.join_studies({"one": one, "two": two})
    fig = figures.existence(both)
    first, second = lines_of(fig.axes[0], "STD")
    assert (first.get_linestyle(), second.get_linestyle()) == ("-", ":")
    assert second.get_ydata() == pytest.approx(first.get_ydata() - 5)
    legend = [text.get_text() for text in fig.legends[0].get_texts()]
    assert legend[-2:] == ["one", "two"] and len(legend) == len(set(legend))
    only = both[both["study"] == "two"]  # its look does not depend on what the first one has
    assert [line.get_linestyle() for line in lines_of(figures.existence(only).axes[0], "STD")] == [
        ":"
    ]
    alone = figures.existence(tables.join_studies({"one": one}))
    assert texts(alone) == texts(figures.existence(one))


def test_a_study_is_compared_at_its_own_largest_share_of_the_data():
    both = {"one": transfers(sets=("digits",)), "two": transfers(sets=("tiles",), fractions=(0.1,))}
    fig = figures.existence(tables.join_studies(both))
    assert [ax.get_title() for ax in fig.axes[:2]] == ["digits, 100 %", "tiles, 10 %"]


def test_studies_of_other_levels_are_not_compared():
    table = transfers(sets=("digits",), fractions=(1.0,)).assign(sparsity=0.0)
    one, two = (table.assign(sparsity=1 - share ** table["rounds"]) for share in (0.8, 0.7))
    with pytest.raises(ValueError, match="study two: sparsity 0.657 after 3 rounds, not 0.488"):
        figures.existence(tables.join_studies({"one": one, "two": two}))


@pytest.mark.parametrize("draw", [figures.methods, figures.data_limited, figures.more_tasks])
def test_curves_of_two_studies_take_whatever_is_there(draw):
    for table in subsets(transfers(methods=("IMP-ST", "RP"), fractions=(0.1,))):
        fig = draw(tables.join_studies({"one": table, "two": table.iloc[:0]}))
        assert isinstance(fig, figures.Figure)


def test_masks_of_two_studies_are_drawn_together():
    table, masks = mask_records()
    both = tables.join_studies({"one": table, "two": table})
    for draw, compute in (
        (figures.similarity, mask_patterns.similarity_table),
        (figures.zero_kernels, mask_patterns.zero_kernel_table),
    ):
        fig = draw(tables.each_study(compute, both, masks.get))
        styles = [line.get_linestyle() for line in fig.axes[0].get_lines()]
        assert styles.count("-") == styles.count(":") == 3 and {"one", "two"} <= set(texts(fig))
    names = ("AT, one", "STD, one", "STD, two")
    fig = figures.kernel_maps({name: mask_patterns.kernel_map(masks["AT10"]) for name in names})
    shown = [ax.get_title().partition(", B")[0] for ax in fig.axes]
    assert shown == ["\u03b8\u202fSTD, one", "\u03b8\u202fSTD, two", "\u03b8\u202fAT, one"]
