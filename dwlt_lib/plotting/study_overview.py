"""What a study asks for, drawn from its own parameters: the work paradigm (Figure 1).

The parameters are the mapping of a study's file (`records.study(NAME)["params"]`).
"""

from collections.abc import Mapping
from textwrap import wrap
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle

from dwlt_lib.config.specs import CONTROLS, PRUNE_FRACTION, ladder
from dwlt_lib.plotting.style import (
    CRITERION_NAMES,
    PAGE,
    PRETRAININGS,
    ROLES,
    dataset_name,
    figure,
    percent,
    theta,
)

Parameters = Mapping[str, Any]
"""A study's parameters, by key of its file."""


def requested_values(params: Parameters, key: str) -> list[Any]:
    """What a study asks for under a key of its grid, such as "dataset" or "rounds".

    Args:
        params: the study's parameters.
        key: a key of the blocks of its grid, or, in a study without a grid, of its other blocks.

    Returns:
        The values over all blocks, each once, in the order of its file.
    """
    others = [
        block
        for name in ("masks", "landscapes", "transfer_attacks")
        for block in params.get(name, [])
    ]
    blocks = params.get("grid", [params]) or others
    return list(dict.fromkeys(value for block in blocks for value in block.get(key) or []))


def requested_sparsities(params: Parameters) -> dict[int, float]:
    """The levels that a study asks for, by its own prune_fraction.

    Args:
        params: the study's parameters.

    Returns:
        {rounds: sparsity in [0, 1]}.
    """
    fraction = params.get("prune_fraction", PRUNE_FRACTION)
    return {rounds: ladder(rounds, fraction) for rounds in requested_values(params, "rounds")}


@figure
def paradigm(params: Parameters) -> Figure:
    """Figure 1: the work paradigm, pre-train, prune, transfer and compare, with a study's values.

    Args:
        params: the study's parameters.

    Returns:
        Four columns of boxes, joined by arrows.
    """
    seeds = len(requested_values(params, "seeds"))
    requested_fractions = sorted(requested_values(params, "fraction"), reverse=True)
    fractions = " / ".join(f"{100 * fraction:g} %" for fraction in requested_fractions)
    names = ", ".join(map(dataset_name, requested_values(params, "dataset")))
    datasets = "\n".join(wrap(names, 30)[:3])
    fig = Figure((PAGE, 2.2))
    ax = fig.add_axes((0, 0, 1, 1), xlim=(0, 10), ylim=(0.15, 3.3))
    ax.set_axis_off()
    trainings = {"STD": "standard", "FAT": "fast adversarial", "AT": "adversarial"}
    for p, y in zip(PRETRAININGS, (2.1, 1.3, 0.5), strict=True):
        _box(ax, (0.15, y), (1.75, 0.6), f"{theta(p)}\n{trainings[p]}", ROLES[p].color)
        _arrow(ax, (1.95, y + 0.3), (2.5, 1.6))
    _pruning_bars(ax, params)
    for y, text in ((2.15, "standard training (ST)"), (0.5, "adversarial training (AT)")):
        _box(ax, (5.2, y), (1.95, 0.6), text)
        _arrow(ax, (4.6, 1.6), (5.15, y + 0.3))
    _write(ax, 6.17, 1.63, f"{datasets}\n{fractions} of the images")
    for y, text in zip((2.26, 0.94, 0.28), CRITERION_NAMES.values(), strict=True):
        _box(ax, (7.6, y), (0.95, 0.38), text)
        _arrow(ax, (7.2, 2.45 if y > 2 else 0.8), (7.55, y + 0.19))
        _arrow(ax, (8.6, y + 0.19), (8.85, 1.6))
    plural = "" if seeds == 1 else "s"
    verdict = f"double win:\nall match\ndense,\n{seeds} seed{plural}"
    _box(ax, (8.95, 1.1), (0.9, 1.0), verdict, "#222222")
    source = dataset_name(params.get("source", ""))
    # without its library and keyword arguments
    network = params.get("arch", "").partition("(")[0].rpartition("/")[2]
    start = f"1  pre-train {network}\non {source}"
    if len(network) > 12:
        start = f"1  pre-train on {source}\n{network}"
    heads = start, "2  prune, rewind, retrain\non the source", "3  transfer", "4  judge"
    for x, head in zip((1.02, 3.6, 6.17, 8.7), heads, strict=True):
        _write(ax, x, 3.2, head, va="top", fontweight="bold")
    return fig


def _write(ax: Axes, x: float, y: float, text: str, **settings: Any) -> None:
    """Text centred at a point."""
    centred: dict[str, Any] = dict(ha="center", va="center", linespacing=1.4)
    ax.text(x, y, text, **centred | settings)


def _box(
    ax: Axes,
    corner: tuple[float, float],
    size: tuple[float, float],
    text: str,
    color: str = "#666666",
) -> None:
    """A round box with text in it; corner: its lower left one."""
    width, height = size
    face = to_rgba(color, 0.12)
    box = FancyBboxPatch(corner, width, height, "round,pad=0.04", facecolor=face, edgecolor=color)
    ax.add_patch(box)
    _write(ax, corner[0] + width / 2, corner[1] + height / 2, text)


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    look = dict(arrowstyle="-|>", color="#666666", linewidth=0.8, shrinkB=1)
    ax.annotate("", end, start, arrowprops=look)


def _pruning_bars(ax: Axes, params: Parameters) -> None:
    """Six bars whose filled part is the share of weights kept, from dense to the last level."""
    sparsities = requested_sparsities(params)
    fraction = params.get("prune_fraction", PRUNE_FRACTION)
    for i, rounds in enumerate(np.linspace(0, max(sparsities, default=6), 6)):
        corner, kept = (2.75 + 0.3 * i, 0.95), 1 - ladder(rounds, fraction)
        ax.add_patch(Rectangle(corner, 0.2, 1.5 * kept, color="#56B4E9"))
        ax.add_patch(Rectangle(corner, 0.2, 1.5, fill=False, edgecolor="#999999", linewidth=0.5))
    names = [name for name in requested_values(params, "method") if name not in CONTROLS]
    sparse = sorted(set(sparsities.values()) - {0.0}) or [0.0]
    levels = f"sparsity {percent(sparse[0])} to {percent(sparse[-1])} %"
    _write(ax, 3.6, 0.55, f"{levels}\n{', '.join(names)}")
