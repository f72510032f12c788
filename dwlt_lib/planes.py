"""Loss landscapes to look at (Figures 2, 6 and A9): panels of surfaces and contours on one scale, and basin areas."""

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from dwlt_lib.style import COLUMN, PAGE, PRETRAININGS, figure, name, theta


def panels(table: pd.DataFrame, read) -> list[dict]:
    """Landscapes to draw, pre-trainings as rows, images and fractions as columns; of several seeds the first.

    table: records.table("surface" or "trajectory"), one ticket a pre-training; read: id -> Record (records.read).
    """
    order = ["images", "dataset", "fraction", "seed"]
    table = table.sort_values(order, ascending=[False, True, False, True], kind="stable")  # "clean" before "attacked"
    table = table.drop_duplicates(["pretraining", *order[:3]])
    found = []
    for row in sorted(table.to_dict("records"), key=lambda row: PRETRAININGS.index(row["pretraining"])):
        column = f"{100 * row['fraction']:g} % {name(row['dataset'])},\n{row['images']}"
        shares = [f"PC{i} {100 * row[f'explained_{i}']:.0f} %" for i in (1, 2) if f"explained_{i}" in row]
        title = f"{row['pretraining']}, {column}".replace("\n", " ")
        keys = dict(title=title, row=theta(row["pretraining"]), column=column, pretraining=row["pretraining"])
        found.append({**keys, "axes": ", ".join(shares) or "$d_1$, $d_2$", **read(row["id"]).arrays()})
    return found


def _scene(panels: list[dict], height: float, **axes) -> tuple:
    """Axes by the panels' row and column, and one logarithmic colour scale, with its bar, for all their losses."""
    rows = list(dict.fromkeys(p.get("row", "") for p in panels))
    columns = list(dict.fromkeys(p.get("column", p["title"]) for p in panels))
    fig = Figure((PAGE if len(columns) > 1 else COLUMN, height * len(rows) + 0.6), layout="constrained")
    grid = fig.subplots(len(rows), len(columns), squeeze=False, subplot_kw=axes)
    losses = np.concatenate([np.ravel(p["loss"]) for p in panels])
    losses = losses[np.isfinite(losses)] if np.isfinite(losses).any() else np.ones(1)
    low = max(losses.min(), 1e-3)
    norm = LogNorm(low, max(np.quantile(losses, 0.9), 1.01 * low), clip=True)
    used = [(grid[rows.index(p.get("row", "")), columns.index(p.get("column", p["title"]))], p) for p in panels]
    for ax in set(grid.flat) - {ax for ax, _ in used}:
        ax.set_axis_off()
    ticks = np.geomspace(norm.vmin, norm.vmax, 7)
    colors = mpl.cm.ScalarMappable(norm, "viridis")
    bar = fig.colorbar(colors, ax=list(grid.flat), label="loss", extend="max", aspect=40, fraction=0.04, pad=0.02)
    bar.set_ticks(ticks, labels=[f"{tick:.2g}" for tick in ticks])
    bar.minorticks_off()
    return fig, used, norm


@figure
def surfaces_3d(panels: list[dict]) -> Figure | None:
    """Figure 2: loss surfaces. panels: title, grid (G,), loss (G, G) and, to be laid out, row and column."""
    if not panels:
        return None
    fig, used, norm = _scene(panels, 1.9, projection="3d")
    for ax, p in used:
        x, y = np.meshgrid(p["grid"], p["grid"], indexing="ij")
        z = np.clip(np.nan_to_num(p["loss"], nan=norm.vmax, posinf=norm.vmax), norm.vmin, norm.vmax)
        ax.plot_surface(x, y, z, cmap="viridis", norm=norm, rcount=60, ccount=60, linewidth=0, rasterized=True)
        ax.set(zlim=(norm.vmin, norm.vmax), xlabel="$d_1$", ylabel="$d_2$", title=p["title"].replace(", ", "\n", 1))
        ax.xaxis.labelpad = ax.yaxis.labelpad = -9
        ax.locator_params(nbins=3)
        ax.tick_params(labelsize=6, pad=-3)
    return fig


@figure
def contours(panels: list[dict]) -> Figure | None:
    """Figures 6 and A9: loss contours with the training trajectory, one colour scale and one set of levels for all.

    panels: title, loss, with grid (G,) for both axes or grid_x (Gx,) and grid_y (Gy,), coords (T, 2) if there is a
    trajectory (it ends at the circle), and row and column to be laid out.
    """
    if not panels:
        return None
    columns = len({p.get("column", p["title"]) for p in panels})
    fig, used, norm = _scene(panels, min(2.2, 0.12 + 5.9 / max(columns, 2)))
    fills, lines = (np.geomspace(norm.vmin, norm.vmax, n) for n in (24, 7))
    for ax, p in used:
        x, y, top = p.get("grid_x", p.get("grid")), p.get("grid_y", p.get("grid")), 10 * norm.vmax  # beyond the scale
        z = np.clip(np.nan_to_num(p["loss"], nan=top, posinf=top), norm.vmin, top).T
        ax.contourf(x, y, z, fills, norm=LogNorm(norm.vmin, norm.vmax), cmap="viridis", extend="max")
        ax.clabel(ax.contour(x, y, z, lines, colors="white", linewidths=0.5), fmt="%.2g", fontsize=6)
        if "coords" in p:
            ax.plot(*p["coords"].T, color="black", marker=".", markersize=2.5, linewidth=0.8)
            ax.plot(*p["coords"][-1], marker="o", markersize=5, color="#D55E00", markeredgecolor="white")
        ax.grid(False)
        ax.set_box_aspect(1)
        ax.locator_params(nbins=3)
        ax.set_xlabel(p.get("axes", ""), fontsize=6)
        ax.set_ylabel(p.get("row", "") if ax.get_subplotspec().is_first_col() else "")
        ax.set_title(p.get("column", p["title"]) if ax.get_subplotspec().is_first_row() else "")
    return fig


def basin_area(panels: list[dict], level: float = 1.0) -> pd.DataFrame:
    """Fraction of each filter-normalised plane whose loss is below its minimum + level: a wider basin is a flatter one.

    panels of surfaces only: a trajectory's axes are its own, so areas on them do not compare. One row a panel: where,
    pretraining, minimum, area (fraction of the plane), span (the grid reaches from -span to span).
    """
    if any("grid" not in p for p in panels):
        raise ValueError("a panel has no 'grid': want surfaces over filter-normalised planes; pass no trajectories")
    lows = [np.nanmin(p["loss"]) for p in panels]
    areas = [np.mean(p["loss"] < low + level) for p, low in zip(panels, lows, strict=True)]
    keys = {"where": [" ".join(p.get("column", p["title"]).split()) for p in panels]}
    keys["pretraining"] = [p.get("pretraining", "") for p in panels]
    return pd.DataFrame({**keys, "minimum": lows, "area": areas, "span": [p["grid"].max() for p in panels]})
