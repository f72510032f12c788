"""One look for every figure: colours, markers and lines by role, type sizes, names as printed, and
files that repeat.

Each curve keeps its role's colour, marker and line in every figure, so that they stay apart in grey
print: STD orange, FAT green, AT blue, RP rust. Widths are 3.4 in (a column) and 7 in (a page).
"""

import functools
import os
from importlib import import_module
from io import BytesIO
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from dwlt_lib import files

# A notebook learns from its inline backend how to show a Figure, and pyplot, which would load that,
# is not used here.
if "inline" in os.environ.get("MPLBACKEND", ""):
    import_module("matplotlib_inline.backend_inline")

COLUMN, PAGE = 3.4, 7.0  # inches
PRETRAININGS, METHODS = ("STD", "FAT", "AT"), ("IMP-ST", "IMP-AT", "OMP", "RP")
# Colour, marker, line. Okabe and Ito's hues, moved apart in lightness until those that share a
# figure differ to every
# eye (deuteranopia, protanopia, tritanopia) and in grey. IMP-ST wears its pre-training's role.
ROLES = {
    "STD": ("#EBA000", "o", "-"),
    "FAT": ("#12B083", "s", "--"),
    "AT": ("#0B4F94", "^", "-."),
    "RP": ("#A83800", "X", ":"),
    "IMP-AT": ("#DB90BE", "D", "--"),
    "OMP": ("#6B6B6B", "v", (0, (5, 1, 1, 1, 1, 1))),
}
NAMES = {
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "svhn": "SVHN",
    "mnist5k": "MNIST-5k",
    "cub200": "CUB-200",
    "visda17": "VisDA-17",
}
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 7,
    "axes.titlesize": 7.5,
    "figure.titlesize": 7.5,
    "axes.labelsize": 7,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "legend.fontsize": 6.5,
    "legend.frameon": False,
    "legend.handlelength": 3,
    "legend.columnspacing": 1.2,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.titlepad": 4,
    "axes.labelpad": 2,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.1,
    "lines.markersize": 3.2,
    "xtick.major.size": 2,
    "ytick.major.size": 2,
    "xtick.minor.size": 1,
    "figure.dpi": 150,
    "pdf.fonttype": 42,  # text stays text
    "svg.hashsalt": "double-win",  # the same file for the same figure
}


def style():
    """The one style of all figures, as a context."""
    return mpl.rc_context(STYLE)


def figure(draw):
    """Draw in the style, ticks included.

    What finds nothing to draw returns None and becomes 'no records yet'.
    """

    @functools.wraps(draw)
    def drawn(*args, **kwargs) -> Figure:
        with style():
            fig = draw(*args, **kwargs)
            if fig is None:
                fig = Figure((COLUMN, 1.2), layout="constrained")
                ax = fig.add_subplot()  # a notebook shows a figure without axes as text
                ax.set_axis_off()
                ax.text(0.5, 0.5, "no records yet", ha="center", va="center", color="#666666")
            fig.draw_without_rendering()
            fig.set_layout_engine(
                "none"
            )  # laid out once, not at every file: a third of a figure's time
        return fig

    return drawn


def save(fig: Figure, path: str | Path) -> list[Path]:
    """Write path.pdf, path.svg and path.png (200 dpi), the same bytes for the same figure.

    Returns the three paths.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    clean = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {"Software": None}}
    drawn = []
    with style():
        for kind, metadata in clean.items():
            picture = BytesIO()
            fig.savefig(picture, format=kind, dpi=200, metadata=metadata)
            drawn.append(files.write(path.with_name(f"{path.name}.{kind}"), picture.getvalue()))
    return drawn


def show_whole_tables() -> None:
    """Let a notebook show all columns of a table and all of a cell's text, which pandas cuts."""
    pd.set_option("display.max_columns", None, "display.max_colwidth", None)


def percent(fraction: float, unit: str = "") -> str:
    """0.738 -> '73.8', with its unit if one is given; unknown -> 'not known'."""
    return "not known" if pd.isna(fraction) else f"{100 * fraction:.1f}{unit}"


def name(dataset: str) -> str:
    """A data set's name as it is printed."""
    return NAMES.get(dataset, dataset)


def theta(pretraining: str) -> str:
    """theta_p as figures print it, on one line.

    A subscript of 7 pt text would be under 5 pt in print.
    """
    return f"\u03b8\u202f{pretraining}"


def role(pretraining: str, method: str = "IMP-ST") -> dict:
    """How a curve looks: colour, marker and line of its (pretraining, method)."""
    color, marker, line = ROLES[pretraining if method == "IMP-ST" else method]
    return dict(
        color=color, marker=marker, linestyle=line, markeredgecolor="white", markeredgewidth=0.3
    )
