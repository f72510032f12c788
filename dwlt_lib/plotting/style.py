"""One look for every figure: colours, markers and lines by role, sizes, printed names, files.

Each curve keeps its role's colour, marker and line in every figure, so that they stay apart in grey
print: STD orange, FAT green, AT blue, RP rust. Figures are 3.4 in (a column) or 7 in (a page) wide.
"""

import os
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from functools import wraps
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec, get_args

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dwlt_lib import files
from dwlt_lib.config.specs import (
    LR_REWINDING,
    REINITIALIZED,
    SHUFFLED,
    SYNFLOW,
    TRANSPLANTED,
    Method,
    Pretraining,
)

# A notebook learns from its inline backend how to show a Figure, and pyplot, which would load that,
# is not used here.
if "inline" in os.environ.get("MPLBACKEND", ""):
    import_module("matplotlib_inline.backend_inline")

COLUMN, PAGE = 3.4, 7.0
"""Widths of figures, in inches."""

PRETRAININGS: tuple[str, ...] = get_args(Pretraining)
METHODS: tuple[str, ...] = get_args(Method)
"""In the paper's order, then the field's other methods and the controls."""

NO_RECORDS = "no records yet"
"""What a figure of nothing says, and its label."""

Arguments = ParamSpec("Arguments")


class Role(NamedTuple):
    """How the curve of a pre-training or of a pruning method looks."""

    color: str
    """As #RRGGBB."""
    marker: str
    """A name of matplotlib's."""
    linestyle: Any
    """A name of matplotlib's, or (offset, lengths of strokes and gaps in points)."""


# Okabe and Ito's hues, moved apart in lightness until those that share a figure differ to every eye
# (deuteranopia, protanopia, tritanopia) and in grey. IMP-ST has the role of its pre-training.
ROLES = {
    "STD": Role("#EBA000", "o", "-"),
    "FAT": Role("#12B083", "s", "--"),
    "AT": Role("#0B4F94", "^", "-."),
    "RP": Role("#A83800", "X", ":"),
    "IMP-AT": Role("#DB90BE", "D", "--"),
    "OMP": Role("#6B6B6B", "v", (0, (5, 1, 1, 1, 1, 1))),
    "IMP-ST-2of4": Role("#7205F8", "P", "-"),
    "OMP-2of4": Role("#4996B7", "d", ":"),
    "IMP-ST-channel": Role("#9F2954", "h", "--"),
    "OMP-channel": Role("#CDA4A2", "8", (0, (5, 1, 1, 1, 1, 1))),
    "SNIP": Role("#D54423", "X", (0, (1, 1))),
    "GraSP": Role("#CD55FD", "v", (0, (5, 2))),
    SYNFLOW: Role("#25290D", "s", (0, (3, 1, 1, 1))),
    LR_REWINDING: Role("#A7C375", "D", (0, (8, 2))),
    SHUFFLED: Role("#590016", "p", (0, (1, 1))),
    REINITIALIZED: Role("#9ECC70", "<", (0, (5, 2))),
    TRANSPLANTED: Role("#EB46EB", ">", (0, (3, 1, 1, 1))),
}
CRITERION_NAMES = {"ST_SA": "SA after ST", "AT_SA": "SA after AT", "AT_RA": "RA after AT"}
DATASET_NAMES = {
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "svhn": "SVHN",
    "mnist5k": "MNIST-5k",
    "cub200": "CUB-200",
    "visda17": "VisDA-17",
}
LOOK = Path(__file__).with_name("double_win.mplstyle")
"""Sizes, widths and fonts, in matplotlib's own format."""


def style() -> AbstractContextManager[None]:
    """The one style of all figures.

    Returns:
        A context for a `with` statement.
    """
    return mpl.rc_context(fname=LOOK)


def figure(draw: Callable[Arguments, Figure | None]) -> Callable[Arguments, Figure]:
    """Decorates a function that draws: in the one style, and "no records yet" where it draws None.

    Args:
        draw: returns a Figure, or None where there is nothing to draw.

    Returns:
        A function of the same arguments that always returns a Figure, laid out.
    """

    @wraps(draw)
    def styled(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Figure:
        with style():
            fig = draw(*args, **kwargs)
            if fig is None:
                fig = Figure((COLUMN, 1.2), layout="constrained")
                fig.set_label(NO_RECORDS)
                ax = fig.add_subplot()  # a notebook shows a figure without axes as text
                ax.set_axis_off()
                ax.text(0.5, 0.5, NO_RECORDS, ha="center", va="center", color="#666666")
            fig.draw_without_rendering()
            # it is laid out once, not again for each file, which saves a third of a figure's time
            fig.set_layout_engine("none")
        return fig

    return styled


def save(fig: Figure, path: str | Path) -> list[Path]:
    """Write path.pdf, path.svg and path.png (200 dpi), the same bytes for the same figure.

    Args:
        fig: a figure.
        path: without a suffix; its folder is made where it is missing.

    Returns:
        The three paths; none of a figure without records, of which no file stays.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    without_dates = {
        "pdf": {"CreationDate": None},
        "svg": {"Date": None},
        "png": {"Software": None},
    }
    written = []
    with style():
        for suffix, metadata in without_dates.items():
            target = path.with_name(f"{path.name}.{suffix}")
            if fig.get_label() == NO_RECORDS:
                target.unlink(missing_ok=True)
                continue
            content = BytesIO()
            fig.savefig(content, format=suffix, dpi=200, metadata=metadata)
            written.append(files.write(target, content.getvalue()))
    return written


def show_whole_tables() -> None:
    """Let a notebook show all of a table and all of a cell's text, which pandas cuts."""
    pd.set_option("display.max_columns", None)
    pd.set_option("display.max_rows", None)
    pd.set_option("display.max_colwidth", None)


def percent(fraction: float, unit: str = "") -> str:
    """A fraction in percent, as text.

    Args:
        fraction: a number, mostly in [0, 1], or NaN.
        unit: what follows the number, such as " %".

    Returns:
        With one decimal: 0.738 gives "73.8"; "not known" for NaN.
    """
    return "not known" if pd.isna(fraction) else f"{100 * fraction:.1f}{unit}"


def dataset_name(dataset: str) -> str:
    """A data set's name as it is printed.

    Args:
        dataset: its name in a study, such as "cifar10".

    Returns:
        For example "CIFAR-10"; names without a printed form stay as they are.
    """
    return DATASET_NAMES.get(dataset, dataset)


def theta(pretraining: str) -> str:
    """The name of theta_p as figures print it.

    Args:
        pretraining: STD, FAT or AT.

    Returns:
        One line without a subscript: that of 7 pt text would be under 5 pt.
    """
    return f"\u03b8\u202f{pretraining}"


def study_style(look: Mapping[str, Any], rank: int, count: int) -> dict[str, Any]:
    """How a curve looks where studies are compared: its colour and marker stay its role's.

    Args:
        look: of the curve, as `curve_style` gives it.
        rank: the place of its study among those compared.
        count: how many are compared.

    Returns:
        `look` of a study alone; else a solid line for the first study, dotted with hollow markers
        for the others.
    """
    if count == 1:
        return dict(look)
    if rank == 0:
        return {**look, "linestyle": "-"}
    hollow = dict(markerfacecolor="white", markeredgecolor=look["color"], markeredgewidth=0.7)
    return {**look, "linestyle": ":", **hollow}


def study_handles(studies: Collection[str]) -> list[Line2D]:
    """What a legend says of the studies that are compared.

    Args:
        studies: their names, in their order.

    Returns:
        A line per study in the look of its curves; none of a study alone.
    """
    if len(studies) < 2:
        return []
    look = dict(color="#666666", marker="o")
    return [
        Line2D([], [], **study_style(look, rank, len(studies)), label=name)
        for rank, name in enumerate(studies)
    ]


def curve_style(pretraining: str, method: str = "IMP-ST") -> dict[str, Any]:
    """How a ticket's curve looks.

    Args:
        pretraining: STD, FAT or AT.
        method: of pruning; IMP-ST has the look of its pre-training, the others have their own.

    Returns:
        Colour, marker and line, as arguments of `Axes.plot`.
    """
    role = ROLES[pretraining if method == "IMP-ST" else method]
    return {**role._asdict(), "markeredgecolor": "white", "markeredgewidth": 0.3}
