"""Loss landscapes to look at (Figures 2, 6 and A9): surfaces, contours and areas of basins.

All panels of a figure share one colour scale, so that they can be compared.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from dwlt_lib.analysis import tables
from dwlt_lib.plotting.style import (
    COLUMN,
    PAGE,
    PRETRAININGS,
    dataset_name,
    figure,
    percent,
    theta,
)

Row = Mapping[Any, Any]
"""One row of a table, by column."""

BASIN_LEVELS = (0.5, 1.0, 2.0)
"""Levels of loss above a plane's minimum, in nats."""


@dataclass(frozen=True)
class Panel:
    """One loss landscape to draw."""

    title: str
    """The whole name, in plain text on one line."""
    loss: np.ndarray
    """(Gx, Gy) losses, in nats."""
    grid_x: np.ndarray
    """(Gx,) coordinates along the first axis."""
    grid_y: np.ndarray
    """(Gy,) coordinates along the second axis."""
    coords: np.ndarray | None = None
    """(T, 2) the training trajectory, which ends at (0, 0); None for a surface."""
    id: str = ""
    """The record's id."""
    pretraining: str = ""
    """STD, FAT or AT."""
    study: str = ""
    """The study that it comes from, if the table says so."""
    where: str = ""
    """The data that it is about, and which images: "10 % digits, clean"."""
    axes: str = ""
    """What the two axes are."""
    label: str = ""
    """Text above the panel."""
    row_label: str = ""
    """Text to the left of the panel's row."""
    position: tuple[int, int] = (0, 0)
    """Row and column in the figure."""


def panels(table: pd.DataFrame, read: Callable[[str], Any]) -> list[Panel]:
    """Landscapes as the paper's figures show them: a row per pre-training, a column per data.

    Args:
        table: rows of records.table("surface") or ("trajectory"), one ticket per pre-training; of
            several seeds the first is taken. Several studies have a row each.
        read: gives the record of an id (`records.read`).

    Returns:
        Panels in order of pre-trainings; columns are images and fractions of data sets.
    """
    order = ["images", "dataset", "fraction", "seed"]
    clean_first = [False, True, False, True]
    table = table.sort_values(order, ascending=clean_first, kind="stable")
    studies = tables.by_study(table)
    rows = [
        row
        for own in studies.values()
        for row in own.drop_duplicates(["pretraining", *order[:3]]).to_dict("records")
    ]
    rows.sort(key=lambda row: PRETRAININGS.index(row["pretraining"]))
    drawn, rows_of, columns_of = [], {}, {}
    for row in rows:
        panel = _panel(row, read)
        study = panel.study if len(studies) > 1 else ""
        label = "" if panel.where in columns_of else panel.where.replace(", ", ",\n")
        position = (
            rows_of.setdefault((panel.pretraining, study), len(rows_of)),
            columns_of.setdefault(panel.where, len(columns_of)),
        )
        ticket = f"{theta(panel.pretraining)}\n{study}".strip()
        title = ", ".join(filter(None, [panel.pretraining, study, panel.where]))
        names = dict(label=label, row_label=ticket, position=position)
        drawn.append(replace(panel, title=title, **names))
    return drawn


def side_by_side(table: pd.DataFrame, read: Callable[[str], Any], columns: int = 4) -> list[Panel]:
    """Landscapes of any tickets to compare, one panel each, in the table's order.

    Args:
        table: rows of records.table("surface") or ("trajectory"), or of both.
        read: gives the record of an id (`records.read`).
        columns: how many panels per row.

    Returns:
        A panel per row of the table, with its place in the figure; its title, which names the whole
        ticket, stands above it.
    """
    rows = table.to_dict("records")
    titles = [_ticket_name(row) for row in rows]
    drawn = []
    for i, (row, title) in enumerate(zip(rows, titles, strict=True)):
        if titles.count(title) > 1:
            title += f", record {row['id'][:6]}"
        # breaks after commas only
        label = fill(title.replace(" ", "\xa0").replace(",\xa0", ", "), 28).replace("\xa0", " ")
        names = dict(title=title, label=label, position=divmod(i, columns))
        drawn.append(replace(_panel(row, read), **names))
    return drawn


def _panel(row: Row, read: Callable[[str], Any]) -> Panel:
    """The panel of one record, without a name and a place."""
    arrays = read(row["id"]).arrays()
    return Panel(
        title="",
        loss=arrays["loss"],
        grid_x=arrays.get("grid_x", arrays.get("grid")),
        grid_y=arrays.get("grid_y", arrays.get("grid")),
        coords=arrays.get("coords"),
        id=row["id"],
        pretraining=row["pretraining"],
        study=row.get("study", ""),
        where=f"{100 * row['fraction']:g} % {dataset_name(row['dataset'])}, {row['images']}",
        axes=_axes(row),
    )


def _axes(row: Row) -> str:
    """What a plane's axes are: random directions, or each one's share of the path's variance."""
    shares = [
        f"PC{i} {100 * row[f'explained_{i}']:.0f} %"
        for i in (1, 2)
        if pd.notna(row.get(f"explained_{i}"))
    ]
    return ", ".join(shares) or "axes d1, d2"


def _ticket_name(row: Row) -> str:
    """Everything that tells one landscape from another, on one line."""
    dense = not row["rounds"]
    parts = [
        f"theta_{row['pretraining']}",
        "dense" if dense else row["method"],
        "" if dense else f"{percent(tables.sparsity_of(row))} %",
        f"{100 * row['fraction']:g} % {dataset_name(row['dataset'])}",
        row.get("regime", ""),
        row["images"],
        f"seed {row['seed']}",
        row.get("kind", ""),
    ]
    for key in tables.SEEDS:
        seed = row.get(key)
        parts.append(f"{key.replace('_', ' ')} {seed:g}" if pd.notna(seed) and seed else "")
    return ", ".join(filter(None, parts))


def _scene(
    drawn: list[Panel], height: float, projection: str | None = None
) -> tuple[Figure, list[Any], float, float]:
    """Axes for panels, and the ends of one logarithmic colour scale for all their losses.

    height: inches per row. Losses beyond the scale have the colours of its ends.
    """
    rows, columns = (1 + max(panel.position[axis] for panel in drawn) for axis in (0, 1))
    fig = Figure((PAGE if columns > 1 else COLUMN, height * rows + 0.5), layout="constrained")
    grid = fig.subplots(rows, columns, squeeze=False, subplot_kw={"projection": projection})
    axes = [grid[panel.position] for panel in drawn]
    for ax in set(grid.flat) - set(axes):
        ax.set_axis_off()
    losses = np.concatenate([np.ravel(panel.loss) for panel in drawn])
    losses = losses[np.isfinite(losses)] if np.isfinite(losses).any() else np.ones(1)
    low = max(losses.min(), 1e-3)
    high = max(np.quantile(losses, 0.9), 1.01 * low)
    bar = fig.colorbar(
        ScalarMappable(LogNorm(low, high), "viridis"),
        ax=list(grid.flat),
        label="loss",
        extend="max",
        aspect=40,
        fraction=0.04,
        pad=0.02,
    )
    ticks = np.geomspace(low, high, 7)
    bar.set_ticks(list(ticks), labels=[f"{tick:.2g}" for tick in ticks])
    bar.minorticks_off()
    for tick in ticks[1:-1]:
        bar.ax.axhline(tick, color="white", linewidth=0.5)
    return fig, axes, low, high


@figure
def surfaces_3d(drawn: list[Panel]) -> Figure | None:
    """Figure 2: loss surfaces, their height cut off where the common colour scale ends.

    Args:
        drawn: of `panels` or `side_by_side`.

    Returns:
        One 3-D panel each, and a colour bar for all.
    """
    if not drawn:
        return None
    fig, axes, low, high = _scene(drawn, 1.9, projection="3d")
    look = dict(cmap="viridis", norm=LogNorm(low, high), linewidth=0, rasterized=True)
    for ax, panel in zip(axes, drawn, strict=True):
        x, y = np.meshgrid(panel.grid_x, panel.grid_y, indexing="ij")
        z = np.clip(np.nan_to_num(panel.loss, nan=high, posinf=high), low, high)
        ax.plot_surface(x, y, z, rcount=60, ccount=60, **look)
        ax.set(zlim=(low, high), xlabel="d1", ylabel="d2")
        ax.set_title(panel.title.replace(", ", "\n", 1) if panel.row_label else panel.label)
        ax.xaxis.labelpad = ax.yaxis.labelpad = -9
        ax.locator_params(nbins=3)
        ax.tick_params(labelsize=6, pad=-3)
    return fig


@figure
def contours(drawn: list[Panel]) -> Figure | None:
    """Figures 6 and A9: loss contours, with the training trajectory, which ends at the circle.

    Args:
        drawn: of `panels` or `side_by_side`; all have the same levels.

    Returns:
        One square panel each, and a colour bar for all.
    """
    if not drawn:
        return None
    columns = max(2, 1 + max(panel.position[1] for panel in drawn))
    lines_of_label = max(panel.label.count("\n") for panel in drawn)
    height = min(2.2, 6.25 / columns - 0.03) + 0.13 * lines_of_label
    fig, axes, low, high = _scene(drawn, height)
    look = dict(cmap="viridis", norm=LogNorm(low, high), extend="max")
    fills, lines = (np.geomspace(low, high, n) for n in (24, 7))
    for ax, panel in zip(axes, drawn, strict=True):
        x, y = panel.grid_x, panel.grid_y
        z = np.nan_to_num(panel.loss, nan=10 * high, posinf=10 * high)
        z = np.clip(z, low, 10 * high).T
        filled = ax.contourf(x, y, z, fills, **look)
        filled.set_rasterized(True)  # no seams between the bands, and files of half the size
        # the lines are read off the colour bar, whose ticks they are
        ax.contour(x, y, z, lines, colors="white", linewidths=0.5)
        if panel.coords is not None:
            ax.plot(*panel.coords.T, color="black", marker=".", markersize=2.5, linewidth=0.8)
            end = dict(marker="o", markersize=5, color="#D55E00", markeredgecolor="white")
            ax.plot(*panel.coords[-1], **end)
        ax.grid(False)
        ax.set_box_aspect(1)
        ax.locator_params(nbins=3)
        ax.set_xlabel(panel.axes, fontsize=6)
        ax.set_ylabel(panel.row_label if panel.position[1] == 0 else "")
        ax.set_title(panel.label)
    return fig


def basin_area(drawn: list[Panel], levels: Sequence[float] = BASIN_LEVELS) -> pd.DataFrame:
    """The share of each filter-normalised plane whose loss is below its minimum + a level.

    A wider basin is a flatter one. Which of two is the wider may depend on the level, hence
    several.

    Args:
        drawn: panels of surfaces only: a trajectory's axes are its own, so that areas on them do
            not compare.
        levels: in nats above each plane's minimum.

    Returns:
        One row per panel and level: study, where, pretraining, minimum, level, area (the share of
        the plane, in [0, 1]), span (the grid reaches from -span to span).

    Raises:
        ValueError: one line, for panels of trajectories.
    """
    if any(panel.coords is not None for panel in drawn):
        raise ValueError(
            "a panel is a trajectory's: want surfaces over filter-normalised planes; pass no"
            " trajectories"
        )
    rows = []
    for panel, level in product(drawn, levels):
        low = np.nanmin(panel.loss)
        area = np.mean(panel.loss < low + level)
        span = panel.grid_x.max()
        rows.append([panel.study, panel.where, panel.pretraining, low, level, area, span])
    columns = ["study", "where", "pretraining", "minimum", "level", "area", "span"]
    return pd.DataFrame(rows, columns=columns)
