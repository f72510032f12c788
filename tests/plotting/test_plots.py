"""Every figure takes what is there.

A whole table, a part of it, or nothing (paper, Figures 1-7, A8, A9, Table A2).
"""

import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from seeds import torch_rng

from dwlt_lib.analysis import double_win, mask_patterns
from dwlt_lib.plotting import figures
from dwlt_lib.plotting.style import PRETRAININGS, ROLES

ROUNDS = [0, 3, 6, 10, 14]
PARAMS = dict(
    arch="resnet8",
    source="mnist5k",
    grid=[
        dict(
            pretraining=["STD", "AT"],
            method=["IMP-ST"],
            dataset=["digits"],
            fraction=[1, 0.1],
            rounds=[0, 3],
            seeds=[0],
        ),
        dict(
            pretraining=["AT"],
            method=["RP"],
            dataset=["digits", "tiles"],
            fraction=[1.0],
            rounds=[6],
            seeds=[0, 1],
        ),
    ],
)


def transfers(
    seeds=(0, 1), sets=("digits", "tiles"), fractions=(1.0, 0.1), methods=("IMP-ST", "OMP", "RP")
):
    keys = pd.MultiIndex.from_product(
        [PRETRAININGS, methods, sets, fractions, ("ST", "AT"), ROUNDS, seeds],
        names=["pretraining", "method", "dataset", "fraction", "regime", "rounds", "seed"],
    )
    table = keys.to_frame(index=False)
    table.loc[table["rounds"] == 0, "method"] = "dense"
    table = table.drop_duplicates(ignore_index=True)
    return table.assign(
        SA=0.95 - 0.01 * table["rounds"] + 0.002 * table["seed"], RA=0.6 - 0.01 * table["rounds"]
    )


def subsets(table):
    yield table
    yield table[table["seed"] == 0]
    yield table[table["dataset"] == "tiles"]
    yield table[table["method"] != "dense"]
    yield table[table["rounds"] == 0]
    yield table[table["regime"] == "AT"]
    yield table.assign(RA=np.nan)
    yield table.iloc[:0]


def mask_records():
    shapes = {"conv1.weight": (4, 3, 3, 3), "layer1.0.conv1.weight": (4, 4, 3, 3)}
    shapes["layer2.0.downsample.0.weight"] = (8, 4, 1, 1)
    rng, found = torch_rng(), {}
    for p in PRETRAININGS:
        for r in (3, 10):
            found[f"{p}{r}"] = {
                name: torch.rand(shape, generator=rng) < 0.8**r for name, shape in shapes.items()
            }
    rows = [
        dict(id=key, pretraining=key.rstrip("0123456789"), method="IMP-ST", seed=0) for key in found
    ]
    return pd.DataFrame(rows).assign(rounds=[3, 10] * 3), found


def landscapes(kind):
    """Records of one kind, out of order: a table and what reads its arrays."""
    same = dict(method="IMP-ST", dataset="digits", regime="AT", rounds=6, seed=0)
    same |= dict(explained_1=0.6, explained_2=0.2) if kind == "trajectory" else {}
    rows = [
        dict(id=f"{p}{f}{images}", pretraining=p, fraction=f, images=images, **same)
        for p in ("AT", "FAT", "STD")
        for f in (0.1, 1.0)
        for images in ("attacked", "clean")
    ]
    grid = np.linspace(-1, 1, 9)
    loss = 0.1 + grid[:, None] ** 2 + 2 * grid[None] ** 2
    if kind == "surface":
        arrays = dict(grid=grid, loss=loss)
    else:
        path = np.stack([np.linspace(1, 0, 5), np.linspace(-1, 0, 5)], axis=1)
        arrays = dict(grid_x=grid, grid_y=grid, loss=loss, coords=path, residual=np.zeros(5))
    return pd.DataFrame(rows), lambda id: SimpleNamespace(arrays=lambda: arrays)


def texts(fig):
    return [text.get_text() for text in fig.findobj(lambda artist: hasattr(artist, "get_text"))]


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
        figures.contours([]),
        figures.surfaces_3d([]),
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
    assert "no records yet" in texts(figures.more_tasks(table[table["dataset"] == "cifar10"]))


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
    figures.ladder_ticks(ax, {r: double_win.ladder(r) for r in range(20)}, most=7)
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


def test_each_role_keeps_its_colour_and_differs_in_grey_print():
    colours, markers, lines = zip(*ROLES.values(), strict=True)
    assert len(set(colours)) == len(set(markers)) == len(ROLES)
    assert len({str(line) for line in lines[:4]}) == 4
    fig = figures.existence(transfers())
    assert {line.get_color() for line in fig.axes[0].get_lines()} >= {
        ROLES[p][0] for p in (*PRETRAININGS, "RP")
    }


def test_the_paradigm_names_the_studys_own_parameters():
    shown = " ".join(texts(figures.paradigm(PARAMS)))
    for word in ("resnet8", "MNIST-5k", "digits", "tiles", "IMP-ST, RP", "100 % / 10 %", "2 seeds"):
        assert word in shown
    assert figures.criteria_table(PARAMS).shape == (5, 3)


@pytest.mark.parametrize("kind", ["surface", "trajectory"])
def test_landscapes_share_one_scale_and_stand_in_the_papers_order(kind):
    table, read = landscapes(kind)
    panels = figures.panels(table, read)
    assert [p["pretraining"] for p in panels[::4]] == list(PRETRAININGS)
    columns = [
        "100 % digits,\nclean",
        "10 % digits,\nclean",
        "100 % digits,\nattacked",
        "10 % digits,\nattacked",
    ]
    assert [p["column"] for p in panels[:4]] == columns
    fig = figures.contours(panels)
    fills = [next(c for c in ax.collections if c.filled) for ax in fig.axes[:12]]
    assert (
        len({(c.norm.vmin, c.norm.vmax) for c in fills})
        == len({tuple(c.levels) for c in fills})
        == 1
    )
    figures.contours(panels[:1]), figures.contours([{**panels[0], "loss": np.full((9, 9), 0.5)}])
    loss = panels[0]["loss"]
    diverged = [{**panels[0], "loss": np.where(loss > 1, bad, loss)} for bad in (np.nan, np.inf)]
    figures.contours(diverged), figures.contours([{**panels[0], "loss": np.full((9, 9), np.nan)}])
    if kind == "surface":
        figures.surfaces_3d(panels[:3]), figures.surfaces_3d(diverged)
    figures.panels(table.iloc[:0], read)


def test_any_tickets_stand_side_by_side_on_one_scale_under_names_that_differ():
    (surfaces, read), (paths, read_path) = landscapes("surface"), landscapes("trajectory")
    tickets = surfaces[surfaces["fraction"] == 1].assign(kind="surface")
    others = [
        tickets.assign(**{key: value})
        for key, value in dict(rounds=0, seed=1, method="RP", mask_seed=2).items()
    ]
    mixed = pd.concat([tickets, *others, paths.assign(kind="trajectory")], ignore_index=True)
    mixed["id"] = [f"{i:04d}{id}" for i, id in enumerate(mixed["id"])]
    walked = set(mixed.loc[mixed["kind"] == "trajectory", "id"])
    panels = figures.side_by_side(mixed, lambda id: read_path(id) if id in walked else read(id))
    assert (
        len({p["title"] for p in panels})
        == len({p["label"] for p in panels})
        == len(panels)
        == len(mixed)
    )
    assert [p["id"] for p in panels] == mixed["id"].tolist() and panels[5]["place"] == (1, 1)
    assert (
        panels[0]["title"]
        == "theta_AT, IMP-ST, 73.8 %, 100 % digits, AT, attacked, seed 0, surface"
    )
    fig = figures.contours(panels)
    fills = [next(c for c in ax.collections if c.filled) for ax in fig.axes[: len(panels)]]
    assert len({(c.norm.vmin, c.norm.vmax) for c in fills}) == 1
    figures.surfaces_3d(panels[:5]), figures.contours(panels[:1])
    twice = figures.side_by_side(tickets.iloc[[0, 0]].assign(id=["aaaaaaa", "bbbbbbb"]), read)
    assert (
        twice[0]["title"] != twice[1]["title"]
        and figures.side_by_side(tickets.iloc[:0], read) == []
    )


def test_a_basin_is_the_part_of_the_plane_below_its_level():
    grid = np.linspace(-1, 1, 101)
    bowl = grid[:, None] ** 2 + grid[None] ** 2
    wide, narrow = (
        dict(title=t, pretraining=t, grid=grid, loss=k * bowl) for t, k in (("FAT", 1), ("STD", 4))
    )
    areas = figures.basin_area([wide, narrow], levels=[0.25, 1.0])
    assert areas["level"].tolist() == [0.25, 1.0] * 2
    assert areas["area"].tolist() == pytest.approx([np.pi / n for n in (16, 4, 64, 16)], abs=0.02)
    table, read = landscapes("trajectory")
    with pytest.raises(ValueError, match="filter-normalised"):
        figures.basin_area(figures.panels(table, read))


def test_mask_figures_show_chance_beside_what_was_found():
    table, masks = mask_records()
    pairs, kernels = (
        mask_patterns.similarity_table(table, masks.get),
        mask_patterns.zero_kernel_table(table, masks.get),
    )
    for fig in (
        figures.similarity(pairs),
        figures.zero_kernels(kernels),
        figures.zero_kernels(kernels, larger=False),
    ):
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
    shown = figures.transfer_attack(table)
    assert (
        shown.data["sparsity"].tolist() == [0.0, double_win.ladder(6)] and "73.8" in shown.to_html()
    )
    assert shown.to_html() == figures.transfer_attack(table).to_html()
    assert figures.transfer_attack(pd.DataFrame(columns=["pretraining", "seed"])).data.empty
    figures.transfer_attack_curve(table)


def test_a_training_curve_needs_no_validation():
    history = [
        dict(epoch=e, lr=0.1, loss=1.0 / (e + 1), SA=float("nan"), RA=float("nan"))
        for e in range(3)
    ]
    figures.training_curve(history), figures.training_curve([dict(epoch=0, loss=1.0)])


def test_saving_twice_writes_the_same_three_files(tmp_path):
    table = transfers(sets=("digits",), fractions=(1.0,))
    first, second = (
        figures.save(figures.existence(table), tmp_path / part / "figure_03") for part in ("a", "b")
    )
    assert [file.name for file in first] == ["figure_03.pdf", "figure_03.svg", "figure_03.png"]
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in second]


def test_a_notebook_shows_a_figure_as_a_picture():
    code = """
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
from dwlt_lib import style
shell.display_formatter.formatters["image/png"].lookup_by_type(style.Figure)  # or KeyError
"""
    env = {**os.environ, "MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    subprocess.run([sys.executable, "-c", code], env=env, check=True)
