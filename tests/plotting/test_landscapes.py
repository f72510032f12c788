"""Theorems on landscapes to look at (Figures 2, 6 and A9)."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from figure_tables import landscape_records

from dwlt_lib.analysis import tables
from dwlt_lib.plotting import landscapes
from dwlt_lib.plotting.style import PRETRAININGS


@pytest.mark.parametrize("kind", ["surface", "trajectory"])
def test_landscapes_share_one_scale_and_stand_in_the_papers_order(kind):
    table, read = landscape_records(kind)
    panels = landscapes.panels(table, read)
    assert [p.pretraining for p in panels[::4]] == list(PRETRAININGS)
    columns = [
        "100 % digits, clean",
        "10 % digits, clean",
        "100 % digits, attacked",
        "10 % digits, attacked",
    ]
    assert [p.where for p in panels[:4]] == columns
    assert [p.position for p in panels] == [(i, j) for i in range(3) for j in range(4)]
    assert all(bool(p.label) == (p.position[0] == 0) for p in panels)
    fig = landscapes.contours(panels)
    fills = [next(c for c in ax.collections if c.filled) for ax in fig.axes[:12]]
    assert (
        len({(c.norm.vmin, c.norm.vmax) for c in fills})
        == len({tuple(c.levels) for c in fills})
        == 1
    )
    (
        landscapes.contours(panels[:1]),
        landscapes.contours([replace(panels[0], loss=np.full((9, 9), 0.5))]),
    )
    loss = panels[0].loss
    diverged = [replace(panels[0], loss=np.where(loss > 1, bad, loss)) for bad in (np.nan, np.inf)]
    (
        landscapes.contours(diverged),
        landscapes.contours([replace(panels[0], loss=np.full((9, 9), np.nan))]),
    )
    if kind == "surface":
        landscapes.surfaces_3d(panels[:3]), landscapes.surfaces_3d(diverged)
    landscapes.panels(table.iloc[:0], read)


def test_any_tickets_stand_side_by_side_on_one_scale_under_names_that_differ():
    (surfaces, read), (paths, read_path) = (
        landscape_records("surface"),
        landscape_records("trajectory"),
    )
    tickets = surfaces[surfaces["fraction"] == 1].assign(kind="surface")
    others = [
        tickets.assign(**{key: value})
        for key, value in dict(rounds=0, seed=1, method="RP", mask_seed=2).items()
    ]
    mixed = pd.concat([tickets, *others, paths.assign(kind="trajectory")], ignore_index=True)
    mixed["id"] = [f"{i:04d}{id}" for i, id in enumerate(mixed["id"])]
    walked = set(mixed.loc[mixed["kind"] == "trajectory", "id"])
    panels = landscapes.side_by_side(mixed, lambda id: read_path(id) if id in walked else read(id))
    assert (
        len({p.title for p in panels})
        == len({p.label for p in panels})
        == len(panels)
        == len(mixed)
    )
    assert [p.id for p in panels] == mixed["id"].tolist() and panels[5].position == (1, 1)
    assert (
        panels[0].title == "theta_AT, IMP-ST, 73.8 %, 100 % digits, AT, attacked, seed 0, surface"
    )
    fig = landscapes.contours(panels)
    fills = [next(c for c in ax.collections if c.filled) for ax in fig.axes[: len(panels)]]
    assert len({(c.norm.vmin, c.norm.vmax) for c in fills}) == 1
    landscapes.surfaces_3d(panels[:5]), landscapes.contours(panels[:1])
    twice = landscapes.side_by_side(tickets.iloc[[0, 0]].assign(id=["aaaaaaa", "bbbbbbb"]), read)
    assert (
        twice[0].title != twice[1].title and landscapes.side_by_side(tickets.iloc[:0], read) == []
    )


def test_a_basin_is_the_part_of_the_plane_below_its_level():
    grid = np.linspace(-1, 1, 101)
    bowl = grid[:, None] ** 2 + grid[None] ** 2
    wide, narrow = (
        landscapes.Panel(t, k * bowl, grid, grid, pretraining=t)
        for t, k in (("FAT", 1), ("STD", 4))
    )
    areas = landscapes.basin_area([wide, narrow], levels=[0.25, 1.0])
    assert areas["level"].tolist() == [0.25, 1.0] * 2
    assert areas["area"].tolist() == pytest.approx([np.pi / n for n in (16, 4, 64, 16)], abs=0.02)
    table, read = landscape_records("trajectory")
    with pytest.raises(ValueError, match="filter-normalised"):
        landscapes.basin_area(landscapes.panels(table, read))


def test_landscapes_of_two_studies_have_a_row_each():
    table, read = landscape_records("surface")
    both = tables.join_studies({"one": table, "two": table[table["pretraining"] == "AT"]})
    panels = landscapes.panels(both, read)
    names = [p.row_label.split("\n")[1] for p in panels if p.position[1] == 0]
    assert names == ["one", "one", "one", "two"] and panels[-1].position[0] == 3
    assert set(landscapes.basin_area(panels)["study"]) == {"one", "two"}
    alone = landscapes.panels(tables.join_studies({"one": table}), read)
    assert [p.title for p in alone] == [p.title for p in landscapes.panels(table, read)]
