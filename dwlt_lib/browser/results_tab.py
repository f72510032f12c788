"""The browser's second tab: the table of all records of a kind."""

import base64
from collections.abc import Callable
from typing import Any

import ipywidgets as w
import pandas as pd

from dwlt_lib.analysis import tables
from dwlt_lib.browser import markup
from dwlt_lib.browser.controls import WIDE, Tab, dropdown, of_kind, row

KINDS = ["transfer", "mask", "pretraining", "surface", "trajectory", "attack", "robustness"]
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
    """Every record of a kind, to sort, filter and export. A row opens its record."""

    kinds = tuple(KINDS)
    _study = ""  # whose records the table shows

    def __init__(self, show_record: Callable[[str], None]) -> None:
        """The tab's controls, without options yet.

        Args:
            show_record: called with the id of the record whose row is clicked.
        """
        self.kind, self.count = dropdown("records", KINDS), w.HTML()
        self.new = w.Button(icon="refresh", layout={"display": "none", "width": "auto"})
        self.grid: Any = None  # made when it is first seen
        self._show_record = show_record
        self._table = w.VBox(layout=WIDE)
        hint = w.HTML(
            "<small>Sort and filter by what a column's head offers. Click a row to open its record."
            "</small>"
        )
        head = row(self.kind, self.count, self.new)
        super().__init__([head, hint, self._table], layout={"width": "100%"})
        self.on_change(self.draw_table, self.kind)
        self.new.on_click(lambda _: self.draw_table())

    def fill(self) -> None:
        """Nothing: all kinds are always offered."""

    def draw(self) -> None:
        """The table; a reader in the midst of it is offered the new rows, and stays where he is."""
        found, drawn = of_kind(self.records, self.kind.value), self.grid is not None
        if not drawn or self._study != self.study:
            self.draw_table()
        elif new := len(set(found["id"]) ^ set(self.shown["id"])):
            self.new.description = f"Show {new} new or changed row{'s' if new > 1 else ''}"
            self.new.layout.display = "inline-flex"

    def draw_table(self) -> None:
        """The table, and as it is in the records a file of it."""
        self.new.layout.display, self._study = "none", self.study
        self.shown = of_kind(self.records, self.kind.value)
        csv = base64.b64encode(self.shown.to_csv(index=False).encode()).decode()
        file = f"{self.study}_{self.kind.value}.csv"
        self.count.value = markup.card("count", rows=len(self.shown), file=file, csv=csv)
        if self.grid is None:
            from itables.widget import ITable

            self.grid = ITable(_readable(self.shown), **TABLE_OPTIONS)
            self.grid.observe(self._row_chosen, names="selected_rows")
            self._table.children = (self.grid,)
        else:
            self.grid.selected_rows = []
            self.grid.update(_readable(self.shown), **TABLE_OPTIONS)

    def _row_chosen(self, change: dict[str, Any]) -> None:
        if change["new"]:
            self._show_record(self.shown["id"].iloc[change["new"][-1]])


def _readable(table: pd.DataFrame) -> pd.DataFrame:
    """Shares in percent, numbers to two decimals; what is constant or long is left out."""
    shown = table.drop(columns=HIDDEN, errors="ignore")
    in_percent = {*SHARES, *tables.attack_names(table)}
    shares = [c for c in shown.columns if c in in_percent]
    shown = shown.assign(**{c: 100 * shown[c] for c in shares}).round(2)
    return shown.rename(columns={c: f"{c} (%)" for c in shares})
