"""Figure 3 of one data set and fraction, live: accuracies fall along the ladder, a dot is a record.

Tables hold fractions, the figure percent.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ipywidgets as w
import numpy as np
import pandas as pd
import traitlets
from anywidget import AnyWidget
from plotly.graph_objects import Figure, FigureWidget, Scatter
from plotly.subplots import make_subplots

from dwlt_lib.analysis import double_win, statistics, tables
from dwlt_lib.plotting.style import CRITERION_NAMES, METHODS, PRETRAININGS, curve_style, percent

Ticket = tuple[str, str]  # (pretraining, method)
SHOWN_FIRST = {"IMP-ST", "RP"}  # a click in the legend shows the other methods
HEIGHT = 620  # pixels; kept while a figure is replaced, so that the page does not move
SYMBOLS = {"STD": "circle", "FAT": "square", "AT": "triangle-up"}
DASHES = {"-": "solid", "--": "dash", "-.": "dashdot", ":": "dot"}  # matplotlib's in plotly's words
FORM = ("type", "name", "legendgroup", "mode", "xaxis", "yaxis")  # what a trace is
MOVED = ("x", "y", "customdata", "text", "error_y", "dimensions")  # of a trace, with new records
FIT = Path(__file__).with_name("fit.js").read_text(encoding="utf-8")


class Page(AnyWidget):
    """Sees in the page when a figure is drawn, and that it is as wide as its box."""

    _esm = FIT
    drawn = traitlets.Int(0).tag(sync=True)


class LiveFigure(w.VBox):
    """A figure that can be drawn again and again.

    Attributes:
        widget: plotly's FigureWidget; None until something is drawn.
        page: whose trait `drawn` counts how many figures a page has shown.
    """

    def __init__(self, show_record: Callable[[str], None]) -> None:
        """An empty box.

        Args:
            show_record: called with the id of the record whose dot is clicked.
        """
        self.widget: Any = None
        self._show_record, self.page = show_record, Page()
        super().__init__(layout={"width": "100%", "min_height": f"{HEIGHT}px"})

    def draw(self, figure: Figure) -> None:
        """Show a figure in place of the one before: moved if it is of the same form, else replaced.

        Args:
            figure: the new one; a dot opens the record whose id is the first of its `customdata`.
        """
        if self.widget is not None and _form(self.widget) == _form(figure):
            self._update(figure)
        else:
            self._replace(figure)

    def _update(self, figure: Figure) -> None:
        """Move what is drawn; what the legend hides or shows stays so."""
        with self.widget.batch_update():
            for trace, new in zip(self.widget.data, _traces(figure), strict=True):
                changed = new.to_plotly_json()
                trace.update({name: changed[name] for name in MOVED if name in changed})
            layout = figure.layout.to_plotly_json()
            self.widget.update_layout({k: v for k, v in layout.items() if k != "template"})

    def _replace(self, figure: Figure) -> None:
        if self.widget is not None:
            chosen = {trace["legendgroup"]: trace.visible for trace in self.widget.data}
            for trace in _traces(figure):
                trace.visible = chosen.get(trace["legendgroup"], trace.visible)
        # A page is told only what a figure was made with; what changes before it is shown is lost.
        self.widget = FigureWidget(figure)
        # a new dictionary: one that is changed in place is not sent to the page
        self.widget._config = {**self.widget._config, "displaylogo": False, "responsive": True}
        for trace in self.widget.data:
            if trace.customdata is not None:
                trace.on_click(self._clicked)
        self.children = (self.widget, self.page)

    def _clicked(self, trace: Any, points: Any, _: Any) -> None:
        if points.point_inds:
            self._show_record(trace.customdata[points.point_inds[0]][0])


def curves(table: pd.DataFrame, levels: pd.DataFrame, rounds: int) -> Figure:
    """SA after ST, SA and RA after AT, stacked.

    Each ticket has a dot per seed (its record), a line through its means with one standard
    deviation, and the band in which it would match its dense network.

    Args:
        table: transfers to one share of one data set, of `records.table`.
        levels: `double_win.criteria` of the same table.
        rounds: where the slider is: at the figure's only shape, a line through all panels.

    Returns:
        The figure.
    """
    means, sparsities = statistics.spread(table), tables.sparsities(table)
    pairs = set(zip(table["pretraining"], table["method"], strict=True))
    tickets = [(p, m) for m in METHODS for p in PRETRAININGS if (p, m) in pairs]
    present = {m for _, m in tickets}
    shown = SHOWN_FIRST & present or present
    legend = {
        (p, m): {"legendgroup": f"{p} {m}", "visible": True if m in shown else "legendonly"}
        for p, m in tickets
    }
    fig = make_subplots(rows=3, shared_xaxes=True, vertical_spacing=0.03)
    for panel, (criterion, (regime, metric)) in enumerate(double_win.CRITERIA.items(), 1):
        known = levels.dropna(subset=[f"{criterion}_threshold", f"{criterion}_dense"])
        for level in known.drop_duplicates("pretraining").to_dict("records"):
            band = _band(level, criterion, max(sparsities))
            first = next(ticket for ticket in tickets if ticket[0] == level["pretraining"])
            fig.add_trace(band.update(legend[first]), row=panel, col=1)
        for ticket in tickets:
            dots = _dots(_of_ticket(table, ticket, regime), ticket, metric, sparsities)
            line = _mean_line(_of_ticket(means, ticket, regime), ticket, metric)
            line.showlegend = panel == 1
            for trace in (dots, line):
                fig.add_trace(trace.update(legend[ticket]), row=panel, col=1)
        fig.update_yaxes(title=f"{CRITERION_NAMES[criterion]} (%)", showgrid=True, row=panel)
    fig.add_shape(type="line", x0=rounds, x1=rounds, y0=0, y1=1, yref="paper", line={"width": 1})
    labelled = np.array(sorted(sparsities))
    if len(labelled) > 8:  # of neighbours only the first: there is no room for all
        labelled = labelled[np.diff(labelled, prepend=-9) > 1]
    labels = [percent(sparsities[r]) for r in labelled]
    fig.update_xaxes(tickvals=labelled, ticktext=labels, showgrid=True)
    fig.update_xaxes(title="sparsity (%)", row=3)
    return fig.update_layout(
        template="simple_white",
        height=HEIGHT,
        margin={"l": 48, "r": 12, "t": 26, "b": 40},
        dragmode=False,
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.02},
    )


def _traces(figure: Figure) -> Any:
    """All of them; to a type checker they are whatever iterating over a figure gives."""
    return figure.data


def _form(figure: Figure) -> list[tuple]:
    """What a figure is made of: the same in two figures that differ in numbers alone."""
    traces = [trace.to_plotly_json() for trace in _traces(figure)]
    return [tuple(trace.get(name) for name in FORM) for trace in traces]


def _of_ticket(table: pd.DataFrame, ticket: Ticket, regime: str) -> pd.DataFrame:
    """The rows of a ticket after that regime, and of its dense network."""
    p, m = ticket
    rows = table[(table["pretraining"] == p) & (table["regime"] == regime)]
    return rows[(rows["method"] == m) | (rows["rounds"] == 0)].sort_values("rounds")


def _band(level: dict[Any, Any], criterion: str, last: int) -> Scatter:
    """From the threshold to the dense mean, over all rounds."""
    low, dense = 100 * level[f"{criterion}_threshold"], 100 * level[f"{criterion}_dense"]
    return Scatter(
        x=[0, last, last, 0],
        y=[low, low, dense, dense],
        fill="toself",
        mode="none",
        fillcolor=curve_style(level["pretraining"])["color"],
        opacity=0.13,
        hoverinfo="skip",
        showlegend=False,
    )


def _dots(
    records: pd.DataFrame, ticket: Ticket, metric: str, sparsities: dict[int, float]
) -> Scatter:
    """A dot per record."""
    said = f"{', '.join(ticket)}, %{{text}}, seed %{{customdata[1]}}: %{{y:.1f}} %"
    return Scatter(
        x=records["rounds"],
        y=100 * records[metric],
        mode="markers",
        showlegend=False,
        customdata=records[["id", "seed"]],
        text=[percent(sparsities[r], " %") for r in records["rounds"]],
        marker={"size": 5, "color": curve_style(*ticket)["color"], "opacity": 0.45},
        hovertemplate=f"{said}<br>click: its record<extra></extra>",
    )


def _mean_line(means: pd.DataFrame, ticket: Ticket, metric: str) -> Scatter:
    """A line through the means with one standard deviation."""
    (p, m), look = ticket, curve_style(*ticket)
    return Scatter(
        x=means["rounds"],
        y=100 * means[metric],
        mode="lines+markers",
        name=f"θ<sub>{p}</sub>, {m}",
        line={"color": look["color"], "dash": DASHES.get(look["linestyle"], "longdashdot")},
        marker={"symbol": SYMBOLS[p], "size": 7},
        error_y={"array": 100 * means[f"{metric}_std"], "thickness": 1, "width": 3},
        hoverinfo="skip",
    )
