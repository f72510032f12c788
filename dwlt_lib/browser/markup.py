"""What the browser says in words and small pictures: a table or record in, HTML out.

The HTML stands in the templates beside this module, which escape every value. Accuracies come as
fractions and are shown in percent, differences in points.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from dwlt_lib.analysis import double_win, noninferiority
from dwlt_lib.analysis.tables import GROUP
from dwlt_lib.config.studies import Margins
from dwlt_lib.plotting.style import CRITERION_NAMES, ROLES, percent, style
from dwlt_lib.plotting.verdicts import in_paper_order
from dwlt_lib.records.store import Record

Arrays = Mapping[str, np.ndarray]
ENLARGED = 3  # how many times a perturbation is drawn
FOLDER = Path(__file__).parent
TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(FOLDER),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
CSS = f"<style>{(FOLDER / 'cards.css').read_text(encoding='utf-8')}</style>"

READING = '<p class="dwlt">Reading the studies …</p>'


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
    ticket = ["method", "pretraining"]
    rows = in_paper_order(levels[levels["rounds"] == rounds])
    rows = rows.merge(extremes[[*ticket, "extreme_sparsity"]], how="left", on=ticket)
    return card(
        "verdict",
        sparsity=sparsity,
        rounds=rounds,
        criteria=CRITERION_NAMES,
        tickets=rows.to_dict("records"),
        warnings=double_win.chance_warnings(levels),
    )


def within_margins(
    levels: pd.DataFrame, rounds: int, sparsity: float, margins: Margins, confidence: float
) -> str:
    """Which tickets are not worse than dense by more than a margin, at one level.

    Args:
        levels: `noninferiority.noninferiority` of one data set and fraction.
        rounds: the level.
        sparsity: that of the level, in [0, 1].
        margins: of the study.
        confidence: of each bound.

    Returns:
        The HTML: a row per ticket, in the paper's order, with what is certified of its curve.
    """
    curves = noninferiority.certified(levels)[[*GROUP, "text"]]
    rows = in_paper_order(levels[levels["rounds"] == rounds]).merge(curves, on=GROUP)
    return card(
        "within_margins",
        sparsity=sparsity,
        rounds=rounds,
        criteria=CRITERION_NAMES,
        tickets=rows.to_dict("records"),
        margins=margins,
        confidence=f"{100 * confidence:.3g}",
    )


def record(found: Record, curve: str = "", notebook: Path | None = None) -> str:
    """A record, whole: what it is, what came out, its parameters, where it was made.

    Args:
        found: the record.
        curve: its training curve, the address of an image; empty if there is none.
        notebook: the executed notebook that made it, if it is kept.

    Returns:
        The HTML.
    """
    parameters = pd.json_normalize(found.spec).to_dict("records")[0]
    return card("record", found=found, parameters=parameters, curve=curve, notebook=notebook)


def examples(networks: Mapping[str, tuple[Arrays, float]], source: str) -> str:
    """Test images under attack.

    Args:
        networks: by name, "dense" or a sparsity, the arrays of a record of a transfer attack and
            eps, the perturbations' radius in [0,1] pixels. The arrays are image (N,3,H,W), label
            (N,), clean (N,); per source, its class after the attack (N,) and SOURCE_delta
            (N,3,H,W), int8, the perturbation in 1/127 of eps.
        source: whose images they are attacked with: each network's "own" or those of an "unseen"
            model.

    Returns:
        The HTML: a row per image, with what each network reads; perturbations are enlarged
        around grey.
    """
    (first, _), *_ = networks.values()
    images = [
        {"label": label, "clean": _image_png(image), "networks": {}}
        for label, image in zip(first["label"], first["image"], strict=True)
    ]
    for name, (arrays, eps) in networks.items():
        deltas = arrays[f"{source}_delta"].astype(float) / 127 * eps
        for i, (image, delta) in enumerate(zip(images, deltas, strict=True)):
            image["networks"][name] = {
                "perturbation": _image_png(255 * (0.5 + ENLARGED * delta)),
                "attacked": _image_png(arrays["image"][i] + 255 * delta),
                "reads": {"clean": arrays["clean"][i], "attacked": arrays[source][i]},
            }
    return card("examples", images=images, enlarged=ENLARGED)


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
    return _data_uri(lambda file: Image.fromarray(pixels).save(file, "PNG"))


def figure_png(figure: Figure) -> str:
    """A figure as an image that a page carries in itself.

    Args:
        figure: of matplotlib.

    Returns:
        A data URI.
    """
    with style():
        return _data_uri(lambda file: figure.savefig(file, format="png", dpi=160))


def _data_uri(save: Callable[[io.BytesIO], None]) -> str:
    file = io.BytesIO()
    save(file)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
