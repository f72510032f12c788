"""Plotly figures for the browser: a table in, plain descriptions of traces out.

These are dictionaries, for which plotly need not be loaded. Tables hold fractions, figures percent.
A trace whose dots are records carries their ids in `customdata`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from dwlt_lib.analysis import double_win, statistics, tables
from dwlt_lib.plotting.style import CRITERION_NAMES, METHODS, PRETRAININGS, ROLES, percent

Trace = dict[str, Any]
Layout = dict[str, Any]
Ticket = tuple[str, str]  # (pretraining, method)
SHARES = (  # columns that hold fractions and are drawn in percent
    *("SA", "RA", "SA_last", "RA_last", "SA_source", "transfer_accuracy", "surrogate_RA"),
    *("sparsity", "chance", "worst"),
)
UNKNOWN_ROLE = ("#666666", "o", "-")
# matplotlib's names in plotly's
DASHES = {"-": "solid", "--": "dash", "-.": "dashdot", ":": "dot"}
SYMBOLS = {
    "o": "circle",
    "s": "square",
    "^": "triangle-up",
    "v": "triangle-down",
    "X": "x",
    "D": "diamond",
    "p": "pentagon",
    "<": "triangle-left",
    ">": "triangle-right",
}
AXIS = {
    "gridcolor": "#E6E6E6",
    "zeroline": False,
    "linecolor": "#444",
    "ticks": "outside",
    "ticklen": 3,
    "automargin": True,
}
LAYOUT = {
    "autosize": True,
    "template": "none",
    "font": {"family": "DejaVu Sans, Verdana, sans-serif", "size": 12, "color": "#222"},
    "paper_bgcolor": "white",
    "plot_bgcolor": "white",
    "margin": {"l": 48, "r": 12, "t": 26, "b": 40},
    "hovermode": "closest",
    "dragmode": False,
    "legend": {"orientation": "h", "yanchor": "top", "y": -0.09, "x": 0, "tracegroupgap": 4},
}


def tickets(table: pd.DataFrame) -> list[Ticket]:
    """The tickets of a table of transfers, in the paper's order; dense is no ticket.

    Args:
        table: with columns pretraining and method.

    Returns:
        Pairs (pretraining, method).
    """
    present = set(zip(table["pretraining"], table["method"], strict=True))
    return [(p, m) for m in METHODS for p in PRETRAININGS if (p, m) in present]


def shown_first(present: list[Ticket]) -> set[Ticket]:
    """What Figure 3 shows of these tickets; the legend hides the others until they are clicked.

    Args:
        present: of `tickets`.

    Returns:
        IMP-ST of every pre-training, and RP of the last pre-training that has it; if there is
        neither, all.
    """
    drawn = [ticket for ticket in present if ticket[1] == "IMP-ST"]
    drawn += [ticket for ticket in present if ticket[1] == "RP"][-1:]
    return set(drawn or present)


def curves(table: pd.DataFrame, levels: pd.DataFrame, rounds: int) -> tuple[list[Trace], Layout]:
    """Figure 3 for one data set and fraction: SA after ST, SA and RA after AT, stacked.

    Each ticket has a dot per seed (its record), a line through its means with one standard
    deviation, and the band in which it would match its dense network.

    Args:
        table: transfers, of `records.table`.
        levels: `double_win.criteria` of the same table.
        rounds: where the slider is.

    Returns:
        Traces, of which the last three are the slider's rings (`rings_at`), and the layout.
    """
    means, sparsities = statistics.spread(table), tables.sparsities(table)
    present = tickets(table)
    shown, last = shown_first(present), int(means["rounds"].max())
    labels = table["rounds"].map({r: percent(s) for r, s in sparsities.items()})
    table = table.assign(level=labels)
    traces: list[Trace] = []
    layout: Layout = LAYOUT | {"height": 620, "shapes": [line_at(rounds)]}
    for panel, (criterion, (regime, metric)) in enumerate(double_win.CRITERIA.items(), 1):
        layout[f"yaxis{panel}"] = AXIS | {
            "title": {"text": f"{CRITERION_NAMES[criterion]} (%)", "standoff": 4},
            "domain": [1 - panel / 3 + 0.025, 1 - (panel - 1) / 3 - 0.01],
        }
        with_band: set[str] = set()  # pre-trainings
        for ticket in present:
            p, m = ticket
            own = _of_ticket(means, ticket, regime).sort_values("rounds")
            records = _of_ticket(table, ticket, regime).dropna(subset=metric)
            verdict_rows = levels[(levels["pretraining"] == p) & (levels["method"] == m)]
            verdict_rows = verdict_rows.dropna(
                subset=[f"{criterion}_threshold", f"{criterion}_dense"]
            )
            drawn = []
            if len(verdict_rows) and len(own) and p not in with_band:
                with_band.add(p)
                drawn.append(_band(verdict_rows.iloc[0], criterion, last))
            drawn.append(_dots(records, ticket, metric))
            drawn.append(_mean_line(own, ticket, metric) | {"showlegend": panel == 1})
            common = {
                "type": "scatter",
                "xaxis": "x",
                "yaxis": f"y{panel}",
                "legendgroup": f"{p} {m}",
                "visible": True if ticket in shown else "legendonly",
            }
            traces += [common | trace for trace in drawn]
    rings = rings_at(table, means, rounds)
    traces += [_ring(panel) | ring for panel, ring in enumerate(rings, 1)]
    ticks = _ticks(sorted(means["rounds"].unique()), sparsities)
    layout["xaxis"] = AXIS | ticks | {"anchor": "y3", "tickfont": {"size": 11}}
    return traces, layout


def _of_ticket(table: pd.DataFrame, ticket: Ticket, regime: str) -> pd.DataFrame:
    """The rows of a ticket after that regime, and of its dense network."""
    p, m = ticket
    rows = table[(table["pretraining"] == p) & (table["regime"] == regime)]
    return rows[(rows["method"] == m) | (rows["rounds"] == 0)]


def _band(level: pd.Series, criterion: str, last: int) -> Trace:
    """From the threshold to the dense mean, over all rounds."""
    low, dense = 100 * level[f"{criterion}_threshold"], 100 * level[f"{criterion}_dense"]
    red, green, blue = (int(_role(level["pretraining"])[0][i : i + 2], 16) for i in (1, 3, 5))
    return {
        "x": [0, last, last, 0],
        "y": [low, low, dense, dense],
        "fill": "toself",
        "mode": "none",
        "fillcolor": f"rgba({red}, {green}, {blue}, 0.13)",
        "hoverinfo": "skip",
        "showlegend": False,
        "name": f"matches dense {level['pretraining']}",
    }


def _dots(records: pd.DataFrame, ticket: Ticket, metric: str) -> Trace:
    """A dot per record."""
    name = ", ".join(ticket)
    levels = zip(records["level"], records["seed"], strict=True)
    return {
        "x": records["rounds"].tolist(),
        "y": (100 * records[metric]).tolist(),
        "mode": "markers",
        "name": name,
        "showlegend": False,
        "customdata": records["id"].tolist(),
        "marker": {"size": 5, "color": _role(*ticket)[0], "opacity": 0.45},
        "text": [f"{name}, {level} %, seed {seed}" for level, seed in levels],
        "hovertemplate": "%{text}: %{y:.1f} %<br>click: its record<extra></extra>",
    }


def _mean_line(means: pd.DataFrame, ticket: Ticket, metric: str) -> Trace:
    """A line through the means with one standard deviation.

    A method on another pre-training than AT has hollow markers.
    """
    p, m = ticket
    color, marker, line = _role(p, m)
    hollow = m != "IMP-ST" and p != "AT"
    deviations = (100 * means[f"{metric}_std"].fillna(0)).tolist()
    return {
        "x": means["rounds"].tolist(),
        "y": (100 * means[metric]).tolist(),
        "mode": "lines+markers",
        "name": f"θ<sub>{p}</sub>, {m}",
        "line": {"color": color, "dash": DASHES.get(str(line), "longdashdot"), "width": 1.8},
        "hoverinfo": "skip",
        "marker": {
            "symbol": SYMBOLS[marker] + ("-open" if hollow else ""),
            "size": 7,
            "color": color,
        },
        "error_y": {"array": deviations, "thickness": 1, "width": 3},
    }


def _role(pretraining: str, method: str = "IMP-ST") -> tuple:
    """Colour, marker and line of a ticket in every figure, in matplotlib's words."""
    return ROLES.get(pretraining if method == "IMP-ST" else method, UNKNOWN_ROLE)


def _ring(panel: int) -> Trace:
    """The slider's rings in a panel, wherever they are."""
    return {
        "type": "scatter",
        "xaxis": "x",
        "yaxis": f"y{panel}",
        "mode": "markers",
        "name": "level",
        "hoverinfo": "skip",
        "showlegend": False,
        "marker": {"symbol": "circle-open", "size": 15, "color": "#222", "line_width": 2},
    }


def rings_at(table: pd.DataFrame, means: pd.DataFrame, rounds: int) -> list[Trace]:
    """Where the slider's rings are: around the means of what is shown first, at one level.

    Args:
        table: transfers, of `records.table`.
        means: `statistics.spread` of the same table.
        rounds: where the slider is.

    Returns:
        x and y (percent) of the rings, one trace per criterion.
    """
    shown, rings = shown_first(tickets(table)), []
    for regime, metric in double_win.CRITERIA.values():
        own = means[(means["rounds"] == rounds) & (means["regime"] == regime)]
        pairs = zip(own["pretraining"], own["method"], strict=True)
        own = own.loc[[pair in shown or pair[1] == "dense" for pair in pairs]]
        rings.append({"x": own["rounds"].tolist(), "y": (100 * own[metric]).tolist()})
    return rings


def line_at(rounds: int) -> dict[str, Any]:
    """The slider's line through all panels.

    Args:
        rounds: where the slider is.

    Returns:
        A shape of plotly's layout.
    """
    line = {"color": "#222", "width": 1}
    return {"type": "line", "x0": rounds, "x1": rounds, "y0": 0, "y1": 1, "yref": "paper"} | {
        "line": line
    }


def _ticks(rounds: list[int], sparsities: dict[int, float]) -> dict[str, Any]:
    """An axis of rounds labelled by sparsity; of many neighbours only the first has a label."""
    gaps = np.diff(rounds, prepend=-9)
    shown = [int(r) for r, gap in zip(rounds, gaps, strict=True) if gap > 1 or len(rounds) < 9]
    labels = [percent(sparsities[r]) for r in shown]
    return {"title": "sparsity (%)", "tickvals": shown, "ticktext": labels}


def scatter(table: pd.DataFrame, x: str, y: str, color: str) -> tuple[list[Trace], Layout]:
    """One column of a table of records against another: a dot per record, a line through means.

    Args:
        table: of `records.table`.
        x: a column of numbers.
        y: another one, whose fractions are drawn in percent.
        color: a column; each of its values has a colour and a line.

    Returns:
        Traces and layout.
    """
    palette, traces = list(ROLES.values()), []
    table = table.dropna(subset=[x, y])
    shares = {*SHARES, *tables.attack_names(table)}
    scale, unit = (100.0, " (%)") if y in shares else (1.0, "")
    groups = table.groupby(color, sort=True) if color else [("all", table)]
    for i, (value, rows) in enumerate(groups):
        shade, *_ = ROLES.get(str(value), palette[i % len(palette)])
        means = scale * rows.groupby(x)[y].mean()
        common = {"type": "scatter", "name": str(value)}
        line = {
            "x": means.index.tolist(),
            "y": means.tolist(),
            "mode": "lines",
            "line": {"color": shade},
            "hoverinfo": "skip",
        }
        dots = {
            "x": rows[x].tolist(),
            "y": (scale * rows[y]).tolist(),
            "mode": "markers",
            "showlegend": False,
            "customdata": rows["id"].tolist(),
            "marker": {"color": shade, "size": 6, "opacity": 0.6},
            "hovertemplate": f"{color} {value}, {x} %{{x}}: %{{y:.4g}}<br>click: its record"
            "<extra></extra>",
        }
        traces += [common | line, common | dots]
    xaxis: dict[str, Any] = AXIS | {"title": x}
    if x == "rounds" and len(table):
        sparsities = tables.sparsities(table)
        labels = [percent(sparsity) for sparsity in sparsities.values()]
        xaxis |= {"title": "sparsity (%)", "tickvals": list(sparsities), "ticktext": labels}
    legend = {"orientation": "h", "yanchor": "bottom", "y": 1.01, "x": 0}
    axes = {"xaxis": xaxis, "yaxis": AXIS | {"title": y + unit}}
    return traces, LAYOUT | axes | {"height": 340, "legend": legend}
