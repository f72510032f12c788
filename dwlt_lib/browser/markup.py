"""What the browser says in words and small pictures: a table or record in, HTML out.

The HTML stands in the templates beside this module, which escape every value. Accuracies come as
fractions and are shown in percent, differences in points.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from dwlt_lib.analysis import double_win
from dwlt_lib.plotting.style import CRITERION_NAMES, METHODS, PRETRAININGS, ROLES, percent, style
from dwlt_lib.records.store import Record

FOLDER = Path(__file__).parent
TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(FOLDER),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
CSS = f"<style>{(FOLDER / 'cards.css').read_text(encoding='utf-8')}</style>"


def _color(pretraining: str, method: str) -> str:
    return ROLES.get(pretraining if method in ("IMP-ST", "") else method, ("#666666",))[0]


TEMPLATES.filters["percent"] = percent
TEMPLATES.tests["missing"] = pd.isna
TEMPLATES.globals["color"] = _color


def card(name: str, **shown: Any) -> str:
    """A card as HTML.

    Args:
        name: of the macro in cards.html.j2.
        **shown: the macro's arguments; they are escaped.

    Returns:
        The HTML.
    """
    return str(getattr(TEMPLATES.get_template("cards.html.j2").module, name)(**shown))


def problem(line: str) -> str:
    """A line that says what is wrong.

    Args:
        line: the text; it is escaped.

    Returns:
        The HTML.
    """
    return card("problem", line=line)


def verdict(levels: pd.DataFrame, extremes: pd.DataFrame, rounds: int, sparsity: float) -> str:
    """Which criteria each ticket wins at one level.

    Args:
        levels: `double_win.criteria` of one data set and fraction.
        extremes: `double_win.verdict` of the same.
        rounds: the level.
        sparsity: that of the level, in [0, 1].

    Returns:
        The HTML: a row per ticket, in the paper's order, and warnings where dense is at chance.
    """
    ticket = ["pretraining", "method"]
    rows = levels[levels["rounds"] == rounds]
    rows = rows.merge(extremes[[*ticket, "extreme_sparsity"]], how="left", on=ticket)
    order = {(p, m): i for i, (m, p) in enumerate((m, p) for m in METHODS for p in PRETRAININGS)}
    places = [order.get(pair, len(order)) for pair in zip(*(rows[c] for c in ticket), strict=True)]
    rows = rows.assign(place=places).sort_values("place", kind="stable")
    return card(
        "verdict",
        sparsity=sparsity,
        rounds=rounds,
        criteria=CRITERION_NAMES,
        tickets=rows.to_dict("records"),
        warnings=double_win.chance_warnings(levels),
    )


def record(found: Record, curve: str = "", executed: bool = True) -> str:
    """A record, whole: what it is, what came out, its parameters, where it was made.

    Args:
        found: the record.
        curve: its training curve, the address of an image; empty if there is none.
        executed: whether its executed notebook is kept.

    Returns:
        The HTML.
    """
    parameters = pd.json_normalize(found.spec).to_dict("records")[0]
    return card("record", found=found, parameters=parameters, curve=curve, executed=executed)


@dataclass(frozen=True)
class Attacked:
    """What one network is shown, and what it reads, from a record of a transfer attack."""

    arrays: Mapping[str, np.ndarray]
    """The record's: image (N,3,H,W), label (N,), clean (N,); per source, its class after the attack
    (N,) and SOURCE_delta (N,3,H,W), int8, the perturbation in 1/127 of eps."""
    source: str
    """Whose images it is attacked with: its "own" or those of an "unseen" model."""
    eps: float
    """Radius of the perturbations, in [0,1] pixels."""

    def example(self, i: int, amplify: float) -> dict[str, Any]:
        """One image under attack.

        Args:
            i: its place among the N images.
            amplify: how many times the perturbation is enlarged, around grey.

        Returns:
            Perturbation and attacked, images as data URIs; reads, the class that the network gives
            the clean and the attacked image.
        """
        delta = self.arrays[f"{self.source}_delta"][i].astype(float) / 127 * float(self.eps)
        attacked = self.arrays["image"][i] / 255 + delta
        return {
            "perturbation": _image_png(255 * (0.5 + amplify * delta)),
            "attacked": _image_png(255 * attacked),
            "reads": {"clean": self.arrays["clean"][i], "attacked": self.arrays[self.source][i]},
        }


def examples(networks: Mapping[str, Attacked], amplify: float) -> str:
    """Test images under attack.

    Args:
        networks: by name, "dense" or a sparsity; all attacked on the same test images.
        amplify: how many times a perturbation is enlarged.

    Returns:
        The HTML: a row per image, with what each network reads.
    """
    first = next(iter(networks.values())).arrays
    images = [
        {
            "label": label,
            "clean": _image_png(first["image"][i]),
            "networks": {name: shown.example(i, amplify) for name, shown in networks.items()},
        }
        for i, label in enumerate(first["label"])
    ]
    return card("examples", images=images)


def _image_png(image: np.ndarray) -> str:
    """An image (3,H,W), 0..255 or beyond, which is cut off, as a data URI."""
    return png(np.round(np.moveaxis(image.clip(0, 255), 0, -1)).astype(np.uint8))


def png(pixels: np.ndarray) -> str:
    """Pixels as an image that a page carries in itself.

    Args:
        pixels: uint8 (H,W) or (H,W,3).

    Returns:
        A data URI.
    """
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return _data_uri(file)


def figure_png(figure: Figure) -> str:
    """A figure as an image that a page carries in itself.

    Args:
        figure: of matplotlib.

    Returns:
        A data URI.
    """
    file = io.BytesIO()
    with style():
        figure.savefig(file, format="png", dpi=160)
    return _data_uri(file)


def _data_uri(file: io.BytesIO) -> str:
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
