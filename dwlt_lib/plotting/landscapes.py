"""Loss landscapes to look at (Figures 2, 6 and A9).

Panels of surfaces and contours on one scale, and basin areas.
"""

from collections.abc import Sequence
from itertools import product

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from dwlt_lib.analysis import tables
from dwlt_lib.plotting.style import COLUMN, PAGE, PRETRAININGS, figure, name, percent, theta


def panels(table: pd.DataFrame, read) -> list[dict]:
    """Landscapes to draw, pre-trainings as rows, images and fractions as columns; of several seeds
    the first.

    table: records.table("surface" or "trajectory"), one ticket a pre-training; read: id -> Record
    (records.read).
    """
    order = ["images", "dataset", "fraction", "seed"]
    table = table.sort_values(
        order, ascending=[False, True, False, True], kind="stable"
    )  # "clean" before "attacked"
    table = table.drop_duplicates(["pretraining", *order[:3]])
    found = []
    for row in sorted(
        table.to_dict("records"), key=lambda row: PRETRAININGS.index(row["pretraining"])
    ):
        column = f"{100 * row['fraction']:g} % {name(row['dataset'])},\n{row['images']}"
        title = f"{row['pretraining']}, {column}".replace("\n", " ")
        keys = dict(
            title=title,
            row=theta(row["pretraining"]),
            column=column,
            pretraining=row["pretraining"],
        )
        found.append({**keys, "axes": _axes(row), **read(row["id"]).arrays()})
    return found


def _axes(row: dict) -> str:
    """What a plane's two axes are.

    Random directions, or the share of the path's variance that each explains.
    """
    shares = [
        f"PC{i} {100 * row[f'explained_{i}']:.0f} %"
        for i in (1, 2)
        if pd.notna(row.get(f"explained_{i}"))
    ]
    return ", ".join(shares) or "axes d1, d2"


def side_by_side(table: pd.DataFrame, read, columns: int = 4) -> list[dict]:
    """Landscapes of any tickets to compare, a panel each in the table's order, `columns` to a row,
    on one scale.

    table: rows of records.table("surface") or ("trajectory"), or of both; read: id -> Record
    (records.read). A panel's title (plain text) names the whole ticket; its label, drawn above it,
    the pre-training and what differs among them; what they share stands once above all.
    """
    rows = table.to_dict("records")
    parts = [_ticket(row) for row in rows]
    differs = [key for key in (parts[0] if parts else ()) if len({part[key] for part in parts}) > 1]
    titles = [", ".join(filter(None, part.values())) for part in parts]
    common = {
        key: part
        for key, part in (parts[0] if parts else {}).items()
        if key not in ("theta", *differs)
    }
    shared = ", ".join(filter(None, common.values()))
    found = []
    for i, (row, part, title) in enumerate(zip(rows, parts, titles, strict=True)):
        own = [part[key] for key in differs if key != "theta" and part[key]]
        own += [f"record {row['id'][:6]}"] if titles.count(title) > 1 else []
        label = "\n".join(
            [theta(row["pretraining"]), *(", ".join(own[j : j + 2]) for j in range(0, len(own), 2))]
        )
        title += f", record {row['id'][:6]}" if titles.count(title) > 1 else ""
        keys = dict(
            title=title,
            label=label,
            shared=shared,
            place=divmod(i, columns),
            pretraining=row["pretraining"],
        )
        found.append({**keys, "id": row["id"], "axes": _axes(row), **read(row["id"]).arrays()})
    return found


def _ticket(row: dict) -> dict[str, str]:
    """The parts of a landscape's name, by what they tell."""
    dense = not row["rounds"]
    return {
        "theta": f"theta_{row['pretraining']}",
        "method": "dense" if dense else row["method"],
        "sparsity": "" if dense else f"{percent(tables.sparsity_of(row))} %",
        "data": f"{100 * row['fraction']:g} % {name(row['dataset'])}",
        "regime": row.get("regime", ""),
        "images": row["images"],
        "seed": f"seed {row['seed']}",
        "kind": row.get("kind", ""),
        **{
            key: (
                f"{key.replace('_', ' ')} {row[key]:g}"
                if pd.notna(row.get(key)) and row[key]
                else ""
            )
            for key in ("mask_seed", "subset_seed")
        },
    }


def _places(panels: list[dict]) -> list[tuple[int, int]]:
    """Row and column of each panel.

    Its own place, or by the order in which names of rows and columns come up.
    """
    rows = list(dict.fromkeys(p.get("row", "") for p in panels))
    columns = list(dict.fromkeys(p.get("column", p["title"]) for p in panels))
    named = [
        (rows.index(p.get("row", "")), columns.index(p.get("column", p["title"]))) for p in panels
    ]
    return [p.get("place", place) for p, place in zip(panels, named, strict=True)]


def _scene(panels: list[dict], height: float, **axes) -> tuple:
    """Axes by the panels' row and column, and one logarithmic colour scale, with its bar, for all
    their losses.
    """
    places = _places(panels)
    rows, columns = (1 + max(place[k] for place in places) for k in (0, 1))
    fig = Figure((PAGE if columns > 1 else COLUMN, height * rows + 0.5), layout="constrained")
    grid = fig.subplots(rows, columns, squeeze=False, subplot_kw=axes)
    losses = np.concatenate([np.ravel(p["loss"]) for p in panels])
    losses = losses[np.isfinite(losses)] if np.isfinite(losses).any() else np.ones(1)
    low = max(losses.min(), 1e-3)
    norm = LogNorm(low, max(np.quantile(losses, 0.9), 1.01 * low), clip=True)
    used = [(grid[place], p) for place, p in zip(places, panels, strict=True)]
    for ax in set(grid.flat) - {ax for ax, _ in used}:
        ax.set_axis_off()
    ticks = np.geomspace(norm.vmin, norm.vmax, 7)
    colors = mpl.cm.ScalarMappable(norm, "viridis")
    bar = fig.colorbar(
        colors, ax=list(grid.flat), label="loss", extend="max", aspect=40, fraction=0.04, pad=0.02
    )
    bar.set_ticks(ticks, labels=[f"{tick:.2g}" for tick in ticks])
    bar.minorticks_off()
    for tick in ticks[1:-1]:
        bar.ax.axhline(tick, color="white", linewidth=0.5)
    if panels[0].get("shared"):
        fig.suptitle(panels[0]["shared"])
    return fig, used, norm


@figure
def surfaces_3d(panels: list[dict]) -> Figure | None:
    """Figure 2: loss surfaces. panels.

    Title, grid (G,), loss (G, G) and, to be laid out, row and column.
    """
    if not panels:
        return None
    fig, used, norm = _scene(panels, 1.9, projection="3d")
    for ax, p in used:
        x, y = np.meshgrid(
            p.get("grid_x", p.get("grid")), p.get("grid_y", p.get("grid")), indexing="ij"
        )
        z = np.clip(np.nan_to_num(p["loss"], nan=norm.vmax, posinf=norm.vmax), norm.vmin, norm.vmax)
        ax.plot_surface(
            x, y, z, cmap="viridis", norm=norm, rcount=60, ccount=60, linewidth=0, rasterized=True
        )
        ax.set(zlim=(norm.vmin, norm.vmax), xlabel="d1", ylabel="d2")
        ax.set_title(p.get("label", p["title"].replace(", ", "\n", 1)))
        ax.xaxis.labelpad = ax.yaxis.labelpad = -9
        ax.locator_params(nbins=3)
        ax.tick_params(labelsize=6, pad=-3)
    return fig


@figure
def contours(panels: list[dict]) -> Figure | None:
    """Figures 6 and A9: loss contours with the training trajectory, one colour scale and one set of
    levels for all.

    panels: title, loss, with grid (G,) for both axes or grid_x (Gx,) and grid_y (Gy,), coords (T,
    2) if there is a trajectory (it ends at the circle), and row and column to be laid out.
    """
    if not panels:
        return None
    columns = max(2, 1 + max(place[1] for place in _places(panels)))
    labelled = max(p.get("label", "").count("\n") for p in panels)
    fig, used, norm = _scene(panels, min(2.2, 6.25 / columns - 0.03) + 0.13 * labelled)
    fills, lines = (np.geomspace(norm.vmin, norm.vmax, n) for n in (24, 7))
    for ax, p in used:
        x, y, top = (
            p.get("grid_x", p.get("grid")),
            p.get("grid_y", p.get("grid")),
            10 * norm.vmax,
        )  # beyond the scale
        z = np.clip(np.nan_to_num(p["loss"], nan=top, posinf=top), norm.vmin, top).T
        filled = ax.contourf(
            x, y, z, fills, norm=LogNorm(norm.vmin, norm.vmax), cmap="viridis", extend="max"
        )
        filled.set_rasterized(True)  # no seams between the bands, and files of half the size
        found = ax.contour(x, y, z, lines, colors="white", linewidths=0.5)
        if (
            columns <= 4
        ):  # in smaller panels the lines are read off the colour bar, whose ticks they are
            _number(ax, found, x, y, p["coords"][-1] if "coords" in p else None)
        if "coords" in p:
            ax.plot(*p["coords"].T, color="black", marker=".", markersize=2.5, linewidth=0.8)
            ax.plot(
                *p["coords"][-1], marker="o", markersize=5, color="#D55E00", markeredgecolor="white"
            )
        ax.grid(False)
        ax.set_box_aspect(1)
        ax.locator_params(nbins=3)
        ax.set_xlabel(p.get("axes", ""), fontsize=6)
        ax.set_ylabel(p.get("row", "") if ax.get_subplotspec().is_first_col() else "")
        title = p.get("column", p["title"]) if ax.get_subplotspec().is_first_row() else ""
        ax.set_title(p.get("label", title))
    return fig


def _number(ax, lines, x, y, end) -> None:
    """The losses on their lines, those that have room.

    Not at the panel's edge, on one another or on the path's end.
    """
    low, size = np.array([np.min(x), np.min(y)]), np.array([np.ptp(x), np.ptp(y)])
    kept = [] if end is None else [(end - low) / size]
    for text in ax.clabel(lines, fmt="%.2g", fontsize=6, inline=False, colors="white"):
        at = (np.array(text.get_position()) - low) / size
        if (
            (at < 0.07).any()
            or (at > 0.93).any()
            or any(np.hypot(*(at - other)) < 0.14 for other in kept)
        ):
            text.remove()
            continue
        kept.append(at)
        text.set_path_effects(
            [withStroke(linewidth=1.2, foreground="#303030")]
        )  # white on yellow needs an edge


LEVELS = (0.5, 1.0, 2.0)  # nats above a plane's minimum


def basin_area(panels: list[dict], levels: Sequence[float] = LEVELS) -> pd.DataFrame:
    """Fraction of each filter-normalised plane whose loss is below its minimum + a level: a wider
    basin is a flatter one. Which of two is the wider may depend on the level, hence several.

    panels of surfaces only: a trajectory's axes are its own, so areas on them do not compare. One
    row a panel and level: where, pretraining, minimum, level, area (fraction of the plane), span
    (the grid reaches from -span to span).
    """
    if any("grid" not in p for p in panels):
        raise ValueError(
            "a panel has no 'grid': want surfaces over filter-normalised planes; pass no"
            " trajectories"
        )
    rows = []
    for panel, level in product(panels, levels):
        where, low = " ".join(panel.get("column", panel["title"]).split()), np.nanmin(panel["loss"])
        area = np.mean(panel["loss"] < low + level)
        rows.append([where, panel.get("pretraining", ""), low, level, area, panel["grid"].max()])
    return pd.DataFrame(rows, columns=["where", "pretraining", "minimum", "level", "area", "span"])
