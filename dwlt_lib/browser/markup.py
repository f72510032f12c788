"""What the browser says in words and small pictures: a table or record in, HTML out; everything in
it is escaped.

Accuracies come as fractions and are shown in percent, differences in points.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np
import pandas as pd

from dwlt_lib.analysis import double_win
from dwlt_lib.plotting.figures import CRITERIA
from dwlt_lib.plotting.style import METHODS, PRETRAININGS, ROLES, percent

MARKS = {"win": "✓", "miss": "✗", "unknown": "?"}
CSS = """<style>
.dwlt { color: #222; background: #fff; font: 14px/1.4 sans-serif; overflow-x: auto; padding: 2px; }
.dwlt table { border-collapse: collapse; font-variant-numeric: tabular-nums; line-height: 1.25; width: auto; }
.dwlt th, .dwlt td { padding: 2px 7px; text-align: right; border-bottom: 1px solid #ddd; background: #fff; }
.dwlt :is(th, td):first-child { text-align: left; padding-left: 0; } .dwlt small { color: #555; font-weight: normal; }
.dwlt .win { background: #e3f1ea; } .dwlt .miss { background: #f9e4d8; } .dwlt .unknown { background: #eee; }
.dwlt h4 { margin: 10px 0 2px; font-size: 14px; } .dwlt p { margin: 2px 0 4px; } .dwlt .bad { color: #a40000; }
.dwlt img { image-rendering: pixelated; display: block; } .dwlt .row { display: flex; flex-wrap: wrap; gap: 8px 14px; }
.dwlt .meter { position: relative; display: inline-block; width: 70px; height: 10px; margin-left: 4px; }
.dwlt .meter { background: #eee; }
.dwlt .meter b { position: absolute; left: 0; top: 0; height: 100%; background: #56b4e9; }
.dwlt .meter i { position: absolute; top: -2px; height: 14px; border-left: 2px solid #222; }
.dwlt .key { display: inline-block; width: 10px; height: 10px; margin-right: 5px; }
.dwlt a.button { border: 1px solid #999; border-radius: 3px; padding: 2px 10px; color: #222; text-decoration: none; }
.widget-html:has(.dwlt), .widget-html-content:has(.dwlt) { min-width: 0; max-width: 100%; flex: 1 1 auto; }
.dwlt sub { line-height: 0; } .dwlt td { white-space: nowrap; }
.dwlt pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: 12px; max-height: 260px; overflow: auto; }
</style>"""


def box(content: str, label: str = "") -> str:
    """A card; label names it for readers of the page's structure."""
    return f'<div class="dwlt" data-card="{escape(label)}">{content}</div>'


def problem(line: str) -> str:
    return box(f'<p class="bad">{escape(line)}</p>', "problem")


def key(pretraining: str, method: str = "") -> str:
    """A ticket's name behind its colour."""
    color = ROLES.get(pretraining if method in ("IMP-ST", "") else method, ("#666666",))[0]
    text = f"θ<sub>{escape(pretraining)}</sub>" + (f", {escape(method)}" if method else "")
    return f'<span class="key" style="background:{color}"></span>{text}'


def verdict(levels: pd.DataFrame, extremes: pd.DataFrame, rounds: int, sparsity: float) -> str:
    """Which criteria each ticket wins at `rounds`, which have that sparsity (in [0,1]).

    levels: winning.criteria, extremes: winning.verdict, one data set and fraction of both.
    """
    at = f"{percent(sparsity)} % sparsity"
    if rounds == 0:
        return box(
            f"<h4>Verdict at {at}</h4><p>The dense networks: what every ticket is judged against."
            " Move the slider to prune.</p>",
            "verdict",
        )
    here = levels[levels["rounds"] == rounds]
    if here.empty:
        return box(
            f"<h4>Verdict at {at}</h4><p>No ticket was transferred at this level.</p>", "verdict"
        )
    wins = (here["double_win"] == "win").sum()
    head = (
        f"<p><b>{wins} of {len(here)} tickets {'is' if wins == 1 else 'are'} double-win"
        " here.</b></p>"
    )
    titles = ["ticket", *CRITERIA.values(), "double win", "extreme"]
    rows = []
    ends = extremes.set_index(["pretraining", "method"])["extreme_sparsity"]
    order = {key: i for i, key in enumerate((p, m) for m in METHODS for p in PRETRAININGS)}
    for row in sorted(
        here.to_dict("records"), key=lambda row: order.get((row["pretraining"], row["method"]), 99)
    ):
        cells = [f"<td>{key(row['pretraining'], row['method'])}</td>"]
        for c in CRITERIA:
            status, mean, gap = row[f"{c}_status"], row[f"{c}_mean"], row[f"{c}_difference"]
            points = "" if pd.isna(gap) else f" <small>{100 * gap:+.1f}</small>"
            cells.append(
                f'<td class="{status}" data-status="{status}">{percent(mean)}{points}'
                f" {MARKS[status]}</td>"
            )
        won = row["double_win"]
        cells.append(f'<td class="{won}" title="{won}"><b>{MARKS[won]}</b></td>')
        cells.append(f"<td>{percent(ends.get((row['pretraining'], row['method']), np.nan))}</td>")
        rows.append(
            f'<tr data-ticket="{escape(row["pretraining"])},{escape(row["method"])}">{"".join(cells)}</tr>'
        )
    note = (
        "<p><small>Mean over seeds in percent, difference to dense in points; ✓ matches dense, ✗"
        " does not, ? not known. Extreme: the sparsest double win, in percent.</small></p>"
    )
    lost = "".join(f'<p class="bad">{escape(line)}</p>' for line in double_win.at_chance(levels))
    return box(f"<h4>Verdict at {at}</h4>{head}{rows_of(titles, rows)}{note}{lost}", "verdict")


def rows_of(titles: list[str], rows: list[str]) -> str:
    return (
        f"<table><tr>{''.join(f'<th>{escape(t)}</th>' for t in titles)}</tr>{''.join(rows)}</table>"
    )


def picture(pixels: np.ndarray, width: int, alt: str) -> str:
    """An <img> of uint8 (H,W) or (H,W,3), enlarged to `width` px without smoothing."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    data = base64.b64encode(file.getvalue()).decode()
    return f'<img width="{width}" alt="{escape(alt)}" src="data:image/png;base64,{data}">'


def _flat(value: Any, name: str = "") -> dict[str, str]:
    """A nested description as one level of dotted names."""
    if isinstance(value, Mapping):
        return {
            k: v
            for key, part in value.items()
            for k, v in _flat(part, f"{name}.{key}" if name else key).items()
        }
    return {name: ", ".join(map(str, value)) if isinstance(value, list) else f"{value}"}


def _facts(facts: Mapping[str, Any]) -> str:
    rows = [
        f"<tr><td>{escape(str(k))}</td><td>{escape(f'{v:.6g}' if isinstance(v, float) else str(v))}</td></tr>"
        for k, v in facts.items()
    ]
    return f"<table>{''.join(rows)}</table>"


def record(found: Any, curve: str = "", notebooks: str = "") -> str:
    """A record, whole.

    What it is, what came out, its training curve, its parameters and where it was made.
    """
    what = {
        k: v
        for k, v in found.columns.items()
        if k
        in (
            "pretraining",
            "method",
            "dataset",
            "fraction",
            "regime",
            "rounds",
            "seed",
            "images",
            "surrogate",
        )
    }
    parameters = "\n".join(f"{name}: {value}" for name, value in _flat(found.spec).items())
    made = {k: v for k, v in found.made.items() if k != "host"}
    return box(
        f'<h4 data-record="{escape(found.id)}">Record {escape(found.id)} '
        f"<small>({escape(found.kind)}, {escape(str(found.path))})</small></h4><div class='row'>"
        f"<div><h4>What</h4>{_facts(what)}</div><div><h4>Result</h4>{_facts(found.metrics)}</div>"
        f"<div><h4>Made</h4>{_facts(made)}</div><div>{curve}</div></div>"
        "<details><summary>All"
        f" parameters</summary><pre>{escape(parameters)}</pre></details>{notebooks}",
        "record",
    )


def examples(tickets: Mapping[str, Mapping[str, np.ndarray]], source: str, amplify: float) -> str:
    """Test images under attack, {"dense" or a sparsity: arrays of an attack record}: each network's
    perturbation in [0,1] pixels times `amplify` around grey, its attacked image, and what it reads;
    source: "own" or "unseen"."""
    first = next(iter(tickets.values()))
    width, cards = 64, []
    for i, label in enumerate(first["label"]):
        rows = [
            f"<tr><td>{picture(_pixels(first['image'][i]), width, f'test image {i}')}</td><td>truth:"
            f" <b>{int(label)}</b></td></tr>"
        ]
        for name, found in tickets.items():
            delta = found[f"{source}_delta"][i].astype(float) / 127 * float(found["eps"])
            shown = (
                _pixels(np.clip(v, 0, 1) * 255)
                for v in (0.5 + amplify * delta, found["image"][i] / 255 + delta)
            )
            change, moved = (
                picture(x, width, f"{what}, image {i}, {name}")
                for x, what in zip(shown, ("perturbation", "attacked"), strict=True)
            )
            said = (("clean", int(found["clean"][i])), ("attacked", int(found[source][i])))
            reads = "".join(
                f"<br>{what}: <b>{digit}</b> {MARKS['win' if digit == label else 'miss']}"
                for what, digit in said
            )
            rows.append(
                f"<tr><td>{change}</td><td>{moved}</td></tr>"
                f"<tr><td colspan='2'>{escape(name)}{reads}</td></tr>"
            )
        cards.append(f"<table data-image='{i}'>{''.join(rows)}</table>")
    return box(f'<div class="row">{"".join(cards)}</div>', "images")


def _pixels(image: np.ndarray) -> np.ndarray:
    """(3,H,W) in 0..255 to uint8 (H,W,3)."""
    return np.round(np.moveaxis(image, 0, -1)).astype(np.uint8)
