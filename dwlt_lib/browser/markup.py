"""What the browser says in words and small pictures: a table or record in, HTML out, by the
templates beside this module, which escape everything in it.

Accuracies come as fractions and are shown in percent, differences in points.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd

from dwlt_lib.analysis import double_win
from dwlt_lib.plotting.style import CRITERION_NAMES, METHODS, PRETRAININGS, ROLES, percent

FACTS = "pretraining method dataset fraction regime rounds seed images surrogate".split()
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
TEMPLATES.globals["color"] = _color


def card(name: str, **shown: Any) -> str:
    """The card of that name (a macro of cards.html.j2) with what it shows, escaped, as HTML."""
    return str(getattr(TEMPLATES.get_template("cards.html.j2").module, name)(**shown))


def problem(line: str) -> str:
    return card("problem", line=line)


def verdict(levels: pd.DataFrame, extremes: pd.DataFrame, rounds: int, sparsity: float) -> str:
    """Which criteria each ticket wins at `rounds`, which have that sparsity (in [0,1]).

    levels: of double_win.criteria, extremes: of verdict, one data set and fraction of both.
    """
    order = [(p, m) for m in METHODS for p in PRETRAININGS]
    ends = extremes.set_index(["pretraining", "method"])["extreme_sparsity"]
    tickets = []
    for row in levels[levels["rounds"] == rounds].to_dict("records"):
        ticket = row["pretraining"], row["method"]
        criteria = []
        for c in CRITERION_NAMES:
            gap = row[f"{c}_difference"]
            points = "" if pd.isna(gap) else f"{100 * gap:+.1f}"
            criteria.append((row[f"{c}_status"], row[f"{c}_mean"], points))
        tickets.append(
            {
                "pretraining": ticket[0],
                "method": ticket[1],
                "place": order.index(ticket) if ticket in order else len(order),
                "criteria": criteria,
                "won": row["double_win"],
                "extreme": ends.get(ticket, np.nan),
            }
        )
    return card(
        "verdict",
        sparsity=sparsity,
        rounds=rounds,
        criteria=CRITERION_NAMES.values(),
        tickets=sorted(tickets, key=lambda ticket: ticket["place"]),
        at_chance=double_win.chance_warnings(levels),
    )


def png(pixels: np.ndarray) -> str:
    """uint8 (H,W) or (H,W,3) as the address of an image that a page carries in itself."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return address(file.getvalue())


def address(content: bytes) -> str:
    """A PNG file as a data URI."""
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def _flat(value: Any, name: str = "") -> dict[str, str]:
    """A nested description as one level of dotted names."""
    if isinstance(value, Mapping):
        return {
            k: v
            for key, part in value.items()
            for k, v in _flat(part, f"{name}.{key}" if name else key).items()
        }
    return {name: ", ".join(map(str, value)) if isinstance(value, list) else f"{value}"}


def record(found: Any, curve: str = "", executed: bool = True) -> str:
    """A record, whole.

    What it is, what came out, its training curve (the address of an image), its parameters, where
    it was made, and whether its executed notebook is kept.
    """
    return card(
        "record",
        found=found,
        what={name: value for name, value in found.columns.items() if name in FACTS},
        made={name: value for name, value in found.made.items() if name != "host"},
        parameters="\n".join(f"{name}: {value}" for name, value in _flat(found.spec).items()),
        curve=curve,
        executed=executed,
    )


def examples(tickets: Mapping[str, Mapping[str, np.ndarray]], source: str, amplify: float) -> str:
    """Test images under attack, {"dense" or a sparsity: arrays of an attack record}: each network's
    perturbation in [0,1] pixels times `amplify` around grey, its attacked image, and what it reads;
    source: "own" or "unseen"."""
    first = next(iter(tickets.values()))
    images = []
    for i, label in enumerate(first["label"]):
        networks = []
        for name, found in tickets.items():
            delta = found[f"{source}_delta"][i].astype(float) / 127 * float(found["eps"])
            shown = {
                "perturbation": 0.5 + amplify * delta,
                "attacked": found["image"][i] / 255 + delta,
            }
            networks.append(
                {
                    "name": name,
                    "shown": {
                        what: png(_pixels(np.clip(x, 0, 1) * 255)) for what, x in shown.items()
                    },
                    "reads": {"clean": found["clean"][i], "attacked": found[source][i]},
                }
            )
        images.append(
            {"label": label, "shown": png(_pixels(first["image"][i])), "networks": networks}
        )
    return card("examples", images=images)


def _pixels(image: np.ndarray) -> np.ndarray:
    """(3,H,W) in 0..255 to uint8 (H,W,3)."""
    return np.round(np.moveaxis(image, 0, -1)).astype(np.uint8)
