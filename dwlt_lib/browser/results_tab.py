"""The browser's second tab: records of a kind as a table, or as lines across their columns."""

import base64
from collections.abc import Callable
from typing import Any

import ipywidgets as w
import pandas as pd
from plotly.graph_objects import Figure, Parcoords

from dwlt_lib.analysis import tables
from dwlt_lib.browser import markup
from dwlt_lib.browser.controls import WIDE, Tab, data_options, dropdown, of_kind, offer, row
from dwlt_lib.browser.curves import LiveFigure

KINDS = ["transfer", "mask", "pretraining", "surface", "trajectory", "attack", "robustness"]
AXES = ["pretraining", "method", "dataset", "regime", "seed", "images"]
VIEWS = TABLE, LINES = "table", "parallel coordinates"
HIDDEN = ["kind", "arch", "surrogate", *tables.SEEDS]
SHARES = (  # columns that hold fractions and are shown in percent
    *("SA", "RA", "SA_last", "RA_last", "SA_source", "transfer_accuracy", "surrogate_RA"),
    *("sparsity", "chance", "worst", "fraction", "explained_1", "explained_2"),
)
TABLE_OPTIONS = {
    "select": "single",
    "showIndex": False,
    "maxBytes": 0,  # all rows, however many
    "classes": "display compact nowrap",
    "scrollX": True,
    "lengthMenu": [10, 25, 100, -1],
    "columnControl": ["order", ["searchList"]],
    "ordering": {"indicators": False, "handler": False},
}


class ResultsTab(Tab):
    """Records of a kind, to sort, filter and export. A row opens its record.

    Shown first are records of one data set, share and regime: only these can be compared.
    """

    kinds = tuple(KINDS)
    _study = ""  # whose records the table shows

    def __init__(self, show_record: Callable[[str], None]) -> None:
        """The tab's controls, without options yet.

        Args:
            show_record: called with the id of the record whose row is clicked.
        """
        self.kind, self.count = dropdown("records", KINDS), w.HTML()
        self.data, self.regime = dropdown("data"), dropdown("regime")
        self.view: Any = w.ToggleButtons(options=VIEWS, style={"button_width": "auto"})
        self.new = w.Button(icon="refresh", layout={"display": "none", "width": "auto"})
        self.grid: Any = None  # made when it is first seen
        self._show_record = show_record
        self._lines = LiveFigure(show_record)
        self._table, self._hint = w.VBox(layout=WIDE), w.HTML()
        controls = row(self.kind, self.data, self.regime, self.view)
        head = row(self.count, self.new)
        super().__init__([controls, head, self._hint, self._table], layout={"width": "100%"})
        self.on_change(self.refill, self.kind)
        self.on_change(self.draw_table, self.data, self.regime, self.view)
        self.new.on_click(lambda _: self.draw_table())

    def fill(self) -> None:
        """Offer the data and regimes that records of the kind have."""
        found = of_kind(self.records, self.kind.value)
        offer(self.data, [*data_options(found), ("all", "")])
        regimes = sorted(found["regime"].dropna().unique()) if "regime" in found else []
        offer(self.regime, [*((regime, regime) for regime in regimes), ("all", "")])

    def refill(self) -> None:
        """Offer and draw anew, as another kind of record is chosen."""
        self._study = ""
        super().refill()

    def draw(self) -> None:
        """The table; a reader in the midst of it is offered the new rows, and stays where he is."""
        found, drawn = self._found(), self.grid is not None
        if not drawn or self._study != self.study:
            self.draw_table()
        elif new := len(set(found["id"]) ^ set(self.shown["id"])):
            self.new.description = f"Show {new} new or changed row{'s' if new > 1 else ''}"
            self.new.layout.display = "inline-flex"

    def _found(self) -> pd.DataFrame:
        found = of_kind(self.records, self.kind.value)
        if self.data.value:
            dataset, fraction = self.data.value
            found = found[(found["dataset"] == dataset) & (found["fraction"] == fraction)]
        if self.regime.value:
            found = found[found["regime"] == self.regime.value]
        return found

    def draw_table(self) -> None:
        """What is chosen, and as it is in the records a file of it."""
        self.new.layout.display, self._study = "none", self.study
        self.shown = self._found()
        csv = base64.b64encode(self.shown.to_csv(index=False).encode()).decode()
        file = f"{self.study}_{self.kind.value}.csv"
        self.count.value = markup.card("count", rows=len(self.shown), file=file, csv=csv)
        if self.view.value == LINES:
            self._draw_lines()
            return
        self._hint.value = (
            "<small>Sort and filter by what a column's head offers. Click a row to open its record."
            "</small>"
        )
        if self.grid is None:
            from itables.widget import ITable

            self.grid = ITable(_readable(self.shown), **TABLE_OPTIONS)
            self.grid.observe(self._row_chosen, names="selected_rows")
        else:
            self.grid.selected_rows = []
            self.grid.update(_readable(self.shown), **TABLE_OPTIONS)
        self._table.children = (self.grid,)

    def _draw_lines(self) -> None:
        self._hint.value = (
            "<small>A line is a record. Drag along an axis to choose a range.</small>"
        )
        self._lines.draw(parallel_coordinates(_readable(self.shown)))
        self._table.children = (self._lines,)

    def _row_chosen(self, change: dict[str, Any]) -> None:
        if change["new"]:
            self._show_record(self.shown["id"].iloc[change["new"][-1]])


def parallel_coordinates(table: pd.DataFrame) -> Figure:
    """A line per record across what it is and what came out, as far as that differs among them.

    Args:
        table: of records, as it is read: shares in percent.

    Returns:
        The figure; lines are coloured by the last accuracy of the table, words are axes with a
        tick each.
    """
    dimensions = []
    for name in [name for name in table.columns if name in AXES or name.endswith(" (%)")]:
        values = table[name]
        if values.nunique() == 1 or "_last" in name:
            continue
        if pd.api.types.is_numeric_dtype(values):
            dimensions.append({"label": name, "values": values.astype(float)})
        else:
            codes, words = pd.factorize(values, sort=True)
            ticks = {"tickvals": list(range(len(words))), "ticktext": [str(word) for word in words]}
            dimensions.append({"label": name, "values": codes, **ticks})
    accuracies = [name for name in table.columns if name in ("SA (%)", "RA (%)")]
    line = {"color": table[accuracies[-1]], "colorscale": "Viridis"} if accuracies else {}
    figure = Figure(Parcoords(dimensions=dimensions, line=line))
    return figure.update_layout(
        autosize=True, height=460, margin={"l": 70, "r": 40, "t": 60, "b": 20}
    )


def _readable(table: pd.DataFrame) -> pd.DataFrame:
    """Shares in percent, numbers to two decimals; what is constant or long is left out."""
    shown = table.drop(columns=HIDDEN, errors="ignore")
    in_percent = {*SHARES, *tables.attack_names(table)}
    shares = [c for c in shown.columns if c in in_percent]
    shown = shown.assign(**{c: 100 * shown[c] for c in shares}).round(2)
    return shown.rename(columns={c: f"{c} (%)" for c in shares})
