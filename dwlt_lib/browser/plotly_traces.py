"""Plotly figures for the browser: a table in, plain descriptions of traces out (dictionaries, which
load no plotly).

Tables hold fractions, figures percent. A trace whose dots are records carries their ids in
`customdata`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from dwlt_lib.analysis import double_win, statistics, tables
from dwlt_lib.plotting.style import CRITERION_NAMES, METHODS, PRETRAININGS, ROLES, percent

Trace = dict[str, Any]
DASHES = {"-": "solid", "--": "dash", "-.": "dashdot", ":": "dot"}
SYMBOLS = {
    "o": "circle",
    "s": "square",
    "^": "triangle-up",
    "v": "triangle-down",
    "X": "x",
    "D": "diamond",
}
FONT = dict(family="DejaVu Sans, Verdana, sans-serif", size=12, color="#222")
GRID = dict(gridcolor="#E6E6E6", zeroline=False, linecolor="#444", ticks="outside", ticklen=3)
LAYOUT = dict(
    autosize=True,
    template="none",
    font=FONT,
    paper_bgcolor="white",
    plot_bgcolor="white",
    margin=dict(l=48, r=12, t=26, b=40),
    hovermode="closest",
    dragmode=False,
    legend=dict(orientation="h", yanchor="top", y=-0.09, x=0, tracegroupgap=4),
)


def look(pretraining: str, method: str) -> tuple[str, str, str]:
    """Colour, symbol and dash of a (pretraining, method), as in the figures; a method on another
    pre-training than AT is drawn hollow."""
    color, marker, line = ROLES.get(
        pretraining if method == "IMP-ST" else method, ("#666666", "o", "-")
    )
    hollow = "-open" if method != "IMP-ST" and pretraining != "AT" else ""
    return (
        color,
        SYMBOLS[marker] + hollow,
        DASHES.get(line, "longdashdot") if isinstance(line, str) else "longdashdot",
    )


def tickets(table: pd.DataFrame) -> list[tuple[str, str]]:
    """The (pretraining, method) there are, in the paper's order.

    Dense networks belong to all methods.
    """
    found = set(zip(table["pretraining"], table["method"], strict=True))
    return [(p, m) for m in METHODS for p in PRETRAININGS if (p, m) in found]


def first_shown(found: list[tuple[str, str]]) -> set[tuple[str, str]]:
    """What Figure 3 shows: IMP-ST of every pre-training and RP on the last of them that has it.

    Else all.
    """
    drawn = [t for t in found if t[1] == "IMP-ST"] + [t for t in found if t[1] == "RP"][-1:]
    return set(drawn or found)


def curves(table: pd.DataFrame, judged: pd.DataFrame, rounds: int) -> tuple[list[Trace], dict]:
    """Figure 3 for one data set and fraction: SA after ST, SA and RA after AT, stacked over the
    ladder.

    table: transfers with ids; judged: winning.criteria of the same. Returns traces and layout. Each
    ticket is a mean line with one standard deviation, a dot a seed (its record), and the band in
    which it would match its dense network. The last three traces are the slider's marks at `rounds`
    (marks_at).
    """
    shown, traces, axes = first_shown(tickets(table)), [], {}
    levels, at = statistics.spread(table), tables.sparsities(table)
    based: set[tuple[str, str]] = set()
    for i, (c, (regime, metric)) in enumerate(double_win.CRITERIA.items(), 1):
        n = "" if i == 1 else str(i)
        axes[f"yaxis{n}"] = dict(
            GRID,
            title=dict(text=f"{CRITERION_NAMES[c]} (%)", standoff=4),
            automargin=True,
            domain=[1 - i / 3 + 0.025, 1 - (i - 1) / 3 - 0.01],
        )
        for p, m in tickets(table):
            here = levels[
                (levels["pretraining"] == p)
                & (levels["regime"] == regime)
                & levels["method"].isin(["dense", m])
            ].sort_values("rounds")
            color, symbol, dash = look(p, m)
            how = dict(
                type="scatter",
                xaxis="x",
                yaxis=f"y{n}",
                legendgroup=f"{p} {m}",
                showlegend=False,
                visible=True if (p, m) in shown else "legendonly",
            )
            band = judged[(judged["pretraining"] == p) & (judged["method"] == m)][
                [f"{c}_threshold", f"{c}_dense"]
            ]
            if len(band := band.dropna()) and len(here) and ((c, p) not in based):
                low, dense = 100 * band.iloc[0]
                ends = [0, int(levels["rounds"].max())]
                traces.append(
                    how
                    | dict(
                        x=[*ends, *ends[::-1]],
                        y=[low, low, dense, dense],
                        fill="toself",
                        mode="none",
                        fillcolor=_faint(color),
                        hoverinfo="skip",
                        name=f"matches dense {p}",
                    )
                )
                based.add((c, p))
            seeds = table[
                (table["pretraining"] == p)
                & (table["regime"] == regime)
                & ((table["method"] == m) | (table["rounds"] == 0))
            ].dropna(subset=metric)
            traces.append(
                how
                | dict(
                    x=seeds["rounds"].tolist(),
                    y=(100 * seeds[metric]).tolist(),
                    mode="markers",
                    name=f"{p}, {m}",
                    customdata=seeds["id"].tolist(),
                    marker=dict(size=5, color=color, opacity=0.45),
                    text=[
                        f"{p}, {m}, {percent(at[r])} %, seed {s}"
                        for r, s in zip(seeds["rounds"], seeds["seed"], strict=True)
                    ],
                    hovertemplate="%{text}: %{y:.1f} %<br>click: its record<extra></extra>",
                )
            )
            traces.append(
                how
                | dict(
                    x=here["rounds"].tolist(),
                    y=(100 * here[metric]).tolist(),
                    mode="lines+markers",
                    showlegend=i == 1,
                    name=f"θ<sub>{p}</sub>, {m}",
                    line=dict(color=color, dash=dash, width=1.8),
                    hoverinfo="skip",
                    marker=dict(symbol=symbol, size=7, color=color),
                    error_y=dict(
                        array=(100 * here[f"{metric}_std"].fillna(0)).tolist(), thickness=1, width=3
                    ),
                )
            )
    run = sorted(levels["rounds"].unique())
    shown = [r for r, gap in zip(run, [9, *np.diff(run)], strict=True) if gap > 1 or len(run) < 9]
    axes["xaxis"] = dict(
        GRID,
        title="sparsity (%)",
        tickfont=dict(size=11),
        tickvals=shown,
        anchor="y3",
        ticktext=[percent(at[r]) for r in shown],
    )
    marks = [
        dict(
            type="scatter",
            xaxis="x",
            yaxis=f"y{'' if i == 1 else i}",
            mode="markers",
            name="level",
            hoverinfo="skip",
            showlegend=False,
            marker=dict(symbol="circle-open", size=15, color="#222", line_width=2),
            **mark,
        )
        for i, mark in enumerate(marks_at(table, levels, rounds), 1)
    ]
    return [*traces, *marks], LAYOUT | axes | dict(height=620, shapes=[line_at(rounds)])


def _faint(color: str) -> str:
    """#RRGGBB as it is drawn for bands."""
    return f"rgba({', '.join(str(int(color[i : i + 2], 16)) for i in (1, 3, 5))}, 0.13)"


def line_at(rounds: int) -> dict:
    """The slider's line through all three panels."""
    return dict(
        type="line",
        x0=rounds,
        x1=rounds,
        y0=0,
        y1=1,
        yref="paper",
        line=dict(color="#222", width=1),
    )


def marks_at(table: pd.DataFrame, levels: pd.DataFrame, rounds: int) -> list[Trace]:
    """Where the slider's rings are at `rounds`: x and y of the first-shown tickets' means, a
    criterion each. levels: winning.spread(table)."""
    shown, found = first_shown(tickets(table)), []
    here = levels[levels["rounds"] == rounds]
    for regime, metric in double_win.CRITERIA.values():
        own = here[(here["regime"] == regime)]
        rings = [
            t
            for t in zip(own["pretraining"], own["method"], 100 * own[metric], strict=True)
            if t[:2] in shown or t[1] == "dense"
        ]
        found.append(dict(x=[rounds] * len(rings), y=[y for *_, y in rings]))
    return found


def scatter(table: pd.DataFrame, x: str, y: str, color: str) -> tuple[list[Trace], dict]:
    """Any metric of a table against any of its columns, a dot a record, a mean line a value of
    `color`.
    """
    traces, palette = [], [role[0] for role in ROLES.values()]
    table = table.dropna(subset=[x, y])
    table = table[pd.to_numeric(table[y], errors="coerce").notna()]
    share = 100.0 if y in SHARES else 1.0
    for i, (value, part) in enumerate(
        table.groupby(color, sort=True) if color else [("all", table)]
    ):
        shade = ROLES[value][0] if value in ROLES else palette[i % len(palette)]
        means = part.groupby(x)[y].mean() * share
        traces.append(
            dict(
                type="scatter",
                x=means.index.tolist(),
                y=means.tolist(),
                mode="lines",
                name=f"{value}",
                line=dict(color=shade),
                hoverinfo="skip",
            )
        )
        traces.append(
            dict(
                type="scatter",
                x=part[x].tolist(),
                y=(share * part[y]).tolist(),
                mode="markers",
                showlegend=False,
                name=f"{value}",
                customdata=part["id"].tolist(),
                marker=dict(color=shade, size=6, opacity=0.6),
                hovertemplate=f"{color} {value}, {x} %{{x}}: %{{y:.4g}}<br>click: its record"
                "<extra></extra>",
            )
        )
    axes = dict(
        xaxis=dict(GRID, title=x), yaxis=dict(GRID, title=y + " (%)" * (share > 1), automargin=True)
    )
    if x == "rounds" and len(table):
        ticks, at = sorted(table[x].unique()), tables.sparsities(table)
        axes["xaxis"] |= dict(
            title="sparsity (%)", tickvals=ticks, ticktext=[percent(at[r]) for r in ticks]
        )
    legend = dict(orientation="h", yanchor="bottom", y=1.01, x=0)
    return traces, LAYOUT | axes | dict(height=340, legend=legend)


SHARES = (
    "SA",
    "RA",
    "SA_last",
    "RA_last",
    "SA_source",
    "transfer_accuracy",
    "surrogate_RA",
    "sparsity",
    "chance",
)
