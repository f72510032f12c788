"""Loss landscapes to look at (Figures 2, 6 and A9): surfaces, contours and areas of basins.

All panels of a figure share one colour scale, so that they can be compared.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

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
    axes: str = ""
    """What the two axes are."""
    label: str = ""
    """Text above the panel; where it is empty, the column's label is above the first row."""
    row_label: str = ""
    """Text to the left of the panel's row."""
    column_label: str = ""
    """Text above the panel's column."""
    position: tuple[int, int] | None = None
    """Row and column; None: by the order in which the labels of rows and columns come up."""
    shared: str = ""
    """What all panels of the figure have in common; it is above all of them."""


def panels(table: pd.DataFrame, read: Callable[[str], Any]) -> list[Panel]:
    """Landscapes as the paper's figures show them: a row per pre-training, a column per data.

    Args:
        table: rows of records.table("surface") or ("trajectory"), one ticket per pre-training; of
            several seeds the first is taken.
        read: gives the record of an id (`records.read`).

    Returns:
        Panels in order of pre-trainings; columns are images and fractions of data sets.
    """
    order = ["images", "dataset", "fraction", "seed"]
    clean_first = [False, True, False, True]
    table = table.sort_values(order, ascending=clean_first, kind="stable")
    rows = table.drop_duplicates(["pretraining", *order[:3]]).to_dict("records")
    rows.sort(key=lambda row: PRETRAININGS.index(row["pretraining"]))
    drawn = []
    for row in rows:
        column = f"{100 * row['fraction']:g} % {dataset_name(row['dataset'])},\n{row['images']}"
        title = f"{row['pretraining']}, {column}".replace("\n", " ")
        panel = _panel(row, read, title)
        drawn.append(replace(panel, row_label=theta(row["pretraining"]), column_label=column))
    return drawn


def side_by_side(table: pd.DataFrame, read: Callable[[str], Any], columns: int = 4) -> list[Panel]:
    """Landscapes of any tickets to compare, one panel each, in the table's order.

    A panel's title names the whole ticket; its label, drawn above it, the pre-training and what
    differs among the panels. What they share is above all of them.

    Args:
        table: rows of records.table("surface") or ("trajectory"), or of both.
        read: gives the record of an id (`records.read`).
        columns: how many panels per row.

    Returns:
        A panel per row of the table, with its place in the figure.
    """
    rows = table.to_dict("records")
    names = [_ticket_name(row) for row in rows]
    titles = [", ".join(filter(None, name.values())) for name in names]
    keys = list(names[0]) if names else []
    differing = [key for key in keys if len({name[key] for name in names}) > 1]
    common = [names[0][key] for key in keys if key not in ("theta", *differing)]
    drawn = []
    for i, (row, name, title) in enumerate(zip(rows, names, titles, strict=True)):
        own = [name[key] for key in differing if key != "theta" and name[key]]
        if titles.count(title) > 1:
            own.append(f"record {row['id'][:6]}")
            title += f", record {row['id'][:6]}"
        lines = [", ".join(own[j : j + 2]) for j in range(0, len(own), 2)]
        drawn.append(
            replace(
                _panel(row, read, title),
                label="\n".join([theta(row["pretraining"]), *lines]),
                shared=", ".join(filter(None, common)),
                position=divmod(i, columns),
            )
        )
    return drawn


def _panel(row: Row, read: Callable[[str], Any], title: str) -> Panel:
    """The panel of one record, without labels."""
    arrays = read(row["id"]).arrays()
    return Panel(
        title=title,
        loss=arrays["loss"],
        grid_x=arrays.get("grid_x", arrays.get("grid")),
        grid_y=arrays.get("grid_y", arrays.get("grid")),
        coords=arrays.get("coords"),
        id=row["id"],
        pretraining=row["pretraining"],
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


def _ticket_name(row: Row) -> dict[str, str]:
    """The parts of a landscape's name, by what they tell; empty where there is nothing to tell."""
    dense = not row["rounds"]
    name = {
        "theta": f"theta_{row['pretraining']}",
        "method": "dense" if dense else row["method"],
        "sparsity": "" if dense else f"{percent(tables.sparsity_of(row))} %",
        "data": f"{100 * row['fraction']:g} % {dataset_name(row['dataset'])}",
        "regime": row.get("regime", ""),
        "images": row["images"],
        "seed": f"seed {row['seed']}",
        "kind": row.get("kind", ""),
    }
    for key in tables.SEEDS:
        seed = row.get(key)
        name[key] = f"{key.replace('_', ' ')} {seed:g}" if pd.notna(seed) and seed else ""
    return name


def _positions(drawn: list[Panel]) -> list[tuple[int, int]]:
    """Row and column of each panel: its own, or by the order in which labels come up."""
    rows = list(dict.fromkeys(panel.row_label for panel in drawn))
    columns = list(dict.fromkeys(panel.column_label or panel.title for panel in drawn))
    return [
        panel.position
        or (rows.index(panel.row_label), columns.index(panel.column_label or panel.title))
        for panel in drawn
    ]


@dataclass(frozen=True)
class _Scene:
    """A figure with axes for panels, and one logarithmic colour scale for all their losses."""

    fig: Figure
    axes: list[Any]
    """One per panel, 2-D or 3-D."""
    low: float
    high: float
    """Ends of the scale: losses beyond them have the colours of its ends."""

    def norm(self, clip: bool = False) -> LogNorm:
        """The colour scale."""
        return LogNorm(self.low, self.high, clip=clip)


def _scene(drawn: list[Panel], height: float, projection: str | None = None) -> _Scene:
    """Axes for panels, `height` inches per row, and a colour bar for all of them."""
    positions = _positions(drawn)
    rows, columns = (1 + max(position[axis] for position in positions) for axis in (0, 1))
    fig = Figure((PAGE if columns > 1 else COLUMN, height * rows + 0.5), layout="constrained")
    grid = fig.subplots(rows, columns, squeeze=False, subplot_kw={"projection": projection})
    axes = [grid[position] for position in positions]
    for ax in set(grid.flat) - set(axes):
        ax.set_axis_off()
    losses = np.concatenate([np.ravel(panel.loss) for panel in drawn])
    losses = losses[np.isfinite(losses)] if np.isfinite(losses).any() else np.ones(1)
    low = max(losses.min(), 1e-3)
    high = max(np.quantile(losses, 0.9), 1.01 * low)
    scene = _Scene(fig, axes, low, high)
    colors = ScalarMappable(scene.norm(clip=True), "viridis")
    bar = fig.colorbar(
        colors, ax=list(grid.flat), label="loss", extend="max", aspect=40, fraction=0.04, pad=0.02
    )
    ticks = np.geomspace(low, high, 7)
    bar.set_ticks(list(ticks), labels=[f"{tick:.2g}" for tick in ticks])
    bar.minorticks_off()
    for tick in ticks[1:-1]:
        bar.ax.axhline(tick, color="white", linewidth=0.5)
    if drawn[0].shared:
        fig.suptitle(drawn[0].shared)
    return scene


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
    scene = _scene(drawn, 1.9, projection="3d")
    for ax, panel in zip(scene.axes, drawn, strict=True):
        x, y = np.meshgrid(panel.grid_x, panel.grid_y, indexing="ij")
        finite = np.nan_to_num(panel.loss, nan=scene.high, posinf=scene.high)
        z = np.clip(finite, scene.low, scene.high)
        norm = scene.norm(clip=True)
        ax.plot_surface(
            x, y, z, cmap="viridis", norm=norm, rcount=60, ccount=60, linewidth=0, rasterized=True
        )
        ax.set(zlim=(scene.low, scene.high), xlabel="d1", ylabel="d2")
        ax.set_title(panel.label or panel.title.replace(", ", "\n", 1))
        ax.xaxis.labelpad = ax.yaxis.labelpad = -9
        ax.locator_params(nbins=3)
        ax.tick_params(labelsize=6, pad=-3)
    return scene.fig


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
    columns = max(2, 1 + max(column for _, column in _positions(drawn)))
    lines_of_label = max(panel.label.count("\n") for panel in drawn)
    scene = _scene(drawn, min(2.2, 6.25 / columns - 0.03) + 0.13 * lines_of_label)
    fills, lines = (np.geomspace(scene.low, scene.high, n) for n in (24, 7))
    beyond_scale = 10 * scene.high
    for ax, panel in zip(scene.axes, drawn, strict=True):
        x, y = panel.grid_x, panel.grid_y
        finite = np.nan_to_num(panel.loss, nan=beyond_scale, posinf=beyond_scale)
        z = np.clip(finite, scene.low, beyond_scale).T
        filled = ax.contourf(x, y, z, fills, norm=scene.norm(), cmap="viridis", extend="max")
        filled.set_rasterized(True)  # no seams between the bands, and files of half the size
        levels = ax.contour(x, y, z, lines, colors="white", linewidths=0.5)
        # in smaller panels the lines are read off the colour bar, whose ticks they are
        if columns <= 4:
            _number_lines(ax, levels, panel)
        if panel.coords is not None:
            ax.plot(*panel.coords.T, color="black", marker=".", markersize=2.5, linewidth=0.8)
            end = dict(marker="o", markersize=5, color="#D55E00", markeredgecolor="white")
            ax.plot(*panel.coords[-1], **end)
        ax.grid(False)
        ax.set_box_aspect(1)
        ax.locator_params(nbins=3)
        ax.set_xlabel(panel.axes, fontsize=6)
        ax.set_ylabel(panel.row_label if ax.get_subplotspec().is_first_col() else "")
        column = panel.column_label or panel.title
        ax.set_title(panel.label or (column if ax.get_subplotspec().is_first_row() else ""))
    return scene.fig


def _number_lines(ax: Axes, levels: ContourSet, panel: Panel) -> None:
    """Writes losses on their lines where there is room.

    Not at the panel's edge, on one another or on the path's end.
    """
    low = np.array([np.min(panel.grid_x), np.min(panel.grid_y)])
    size = np.array([np.ptp(panel.grid_x), np.ptp(panel.grid_y)])
    taken = [] if panel.coords is None else [(panel.coords[-1] - low) / size]
    for text in ax.clabel(levels, fmt="%.2g", fontsize=6, inline=False, colors="white"):
        position = (np.array(text.get_position()) - low) / size
        at_edge = (position < 0.07).any() or (position > 0.93).any()
        if at_edge or any(np.hypot(*(position - other)) < 0.14 for other in taken):
            text.remove()
            continue
        taken.append(position)
        # white on yellow needs an edge
        text.set_path_effects([withStroke(linewidth=1.2, foreground="#303030")])


def basin_area(drawn: list[Panel], levels: Sequence[float] = BASIN_LEVELS) -> pd.DataFrame:
    """The share of each filter-normalised plane whose loss is below its minimum + a level.

    A wider basin is a flatter one. Which of two is the wider may depend on the level, hence
    several.

    Args:
        drawn: panels of surfaces only: a trajectory's axes are its own, so that areas on them do
            not compare.
        levels: in nats above each plane's minimum.

    Returns:
        One row per panel and level: where, pretraining, minimum, level, area (the share of the
        plane, in [0, 1]), span (the grid reaches from -span to span).

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
        where = " ".join((panel.column_label or panel.title).split())
        low = np.nanmin(panel.loss)
        area = np.mean(panel.loss < low + level)
        rows.append([where, panel.pretraining, low, level, area, panel.grid_x.max()])
    return pd.DataFrame(rows, columns=["where", "pretraining", "minimum", "level", "area", "span"])
