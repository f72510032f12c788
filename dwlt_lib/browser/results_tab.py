"""The browser's second tab: the table of all records, to filter, group, draw and export."""

import base64
from collections.abc import Callable
from typing import Any

import ipywidgets as w
import pandas as pd

from dwlt_lib.analysis import tables
from dwlt_lib.browser import markup, plotly_traces
from dwlt_lib.browser.controls import WIDE, Tab, dropdown, halves, of_kind, offer, row
from dwlt_lib.browser.live_figure import LiveFigure
from dwlt_lib.plotting.style import percent

KEYS = ["pretraining", "method", "dataset", "fraction", "regime", "rounds", "seed", "images"]
KINDS = ["transfer", "mask", "pretraining", "surface", "trajectory", "attack", "robustness"]
HIDDEN = ["kind", "arch", "surrogate", *tables.SEEDS]
IN_PERCENT = {*plotly_traces.SHARES, "fraction", "explained_1", "explained_2"}
TABLE_OPTIONS = {
    "select": "single",
    "showIndex": False,
    "maxBytes": 0,  # all rows, however many
    "classes": "display compact nowrap",
    "scrollX": True,
    "lengthMenu": [10, 25, 100, -1],
}


class ResultsTab(Tab):
    """Every record of a kind: filtered, sorted, grouped, drawn, exported.

    A row or a dot opens its record.

    Attributes:
        shown: the records that the filters let through, one row each.
        filters: a list to choose from per column of KEYS; nothing chosen lets all through.
    """

    def __init__(self, show_record: Callable[[str], None]) -> None:
        """The tab's controls, without options yet.

        Args:
            show_record: called with the id of the record whose row or dot is clicked.
        """
        self.kind = dropdown("records", KINDS)
        self.filters = {key: _list() for key in KEYS}
        self.group = _list()
        self.x, self.y, self.color = (
            dropdown(label, width="230px") for label in ("draw: x", "y", "colour")
        )
        self.count, self.figure = w.HTML(), LiveFigure(show_record)
        self.grid: Any = None  # made when it is first seen
        self.shown = pd.DataFrame()
        self._show_record = show_record
        titled = {**self.filters, "group by": self.group}
        lists = [w.VBox([w.HTML(f"<b>{title}</b>"), box]) for title, box in titled.items()]
        self._lists = dict(zip(titled, lists, strict=True))
        hint = w.HTML(
            "<small>Ctrl-click chooses several, none means all. Click a row or a dot to open its"
            " record.</small>"
        )
        axes = row(self.x, self.y, self.color)
        self._table = w.VBox(layout=WIDE)
        super().__init__(
            [row(self.kind, self.count), row(*lists), hint, self._table, axes, halves(self.figure)],
            layout={"min_width": "0", "width": "100%", "overflow": "hidden"},
        )
        self.on_change(self.refill, self.kind)
        self.on_change(self.draw, *self.filters.values(), self.group)
        self.on_change(self.draw_figure, self.x, self.y, self.color)

    def fill(self) -> None:
        """Offer the values, the keys and the numbers that records of this kind have."""
        table = self.all_records = of_kind(self.records, self.kind.value)
        for key, box in self.filters.items():
            values = sorted(table[key].dropna().unique()) if key in table else []
            box.options, box.value = [(_label(key, value, table), value) for value in values], ()
            self._lists[key].layout.display = None if values else "none"
        keys = [key for key in KEYS if key in table]
        self.group.options, self.group.value = keys, ()
        numbers = [c for c in table.columns if pd.api.types.is_numeric_dtype(table[c])]
        metrics = [c for c in numbers if c not in KEYS]
        axes = {
            "rounds": (self.x, numbers),
            "RA": (self.y, metrics),
            "pretraining": (self.color, keys),
        }
        for first, (box, options) in axes.items():
            offer(box, sorted(options, key=lambda column: column != first))

    def draw(self) -> None:
        """The table, its CSV and its figure, filtered and grouped."""
        table = self.all_records
        for key, box in self.filters.items():
            if box.value:
                table = table[table[key].isin(box.value)]
        self.shown, rows = table, table
        if self.group.value and len(table):
            rows = _grouped(table, list(self.group.value))
        csv = base64.b64encode(rows.to_csv(index=False).encode()).decode()
        file = f"{self.study}_{self.kind.value}.csv"
        self.count.value = markup.card("count", rows=len(rows), file=file, csv=csv)
        self._show_table(_readable(rows))
        self.draw_figure()

    def _show_table(self, rows: pd.DataFrame) -> None:
        if self.grid is None:
            from itables.widget import ITable

            self.grid = ITable(rows, **TABLE_OPTIONS)
            self.grid.observe(self._row_chosen, names="selected_rows")
            self._table.children = (self.grid,)
        else:
            self.grid.selected_rows = []
            self.grid.update(rows, **TABLE_OPTIONS)

    def draw_figure(self) -> None:
        """The records that are shown, one column against another."""
        if self.x.value and self.y.value:
            axes = self.x.value, self.y.value, self.color.value
            self.figure.draw(*plotly_traces.scatter(self.shown, *axes))

    def _row_chosen(self, change: dict[str, Any]) -> None:
        if change["new"] and not self.group.value:
            self._show_record(self.shown["id"].iloc[change["new"][-1]])


def _list() -> Any:
    return w.SelectMultiple(rows=4, layout={"width": "128px", "height": "92px"})


def _label(key: str, value: Any, table: pd.DataFrame) -> str:
    """How a filter names a value of that column."""
    if key == "rounds":
        sparsities = tables.sparsities(table[table["rounds"] == value])
        return f"{value} ({percent(sparsities[int(value)])} %)"
    return f"{100 * value:g} %" if key == "fraction" else str(value)


def _grouped(table: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Mean, standard deviation and count of the metrics over what `keys` do not tell apart."""
    floats = [c for c in table.columns if pd.api.types.is_float_dtype(table[c])]
    metrics = [c for c in floats if c not in (*KEYS, "seconds")]
    by = table.groupby(keys, observed=True)[metrics]
    return by.mean().join(by.std(), rsuffix=" std").assign(records=by.size()).reset_index()


def _readable(table: pd.DataFrame) -> pd.DataFrame:
    """Shares in percent, numbers to two decimals; what is constant or long is left out."""
    shown = table.drop(columns=HIDDEN, errors="ignore")
    floats = [c for c in shown.columns if pd.api.types.is_float_dtype(shown[c])]
    in_percent = {*IN_PERCENT, *tables.attack_names(table)}
    shares = [c for c in floats if c.removesuffix(" std") in in_percent]
    shown = shown.assign(**{c: 100 * shown[c] for c in shares})
    shown[floats] = shown[floats].round(2)
    return shown.rename(columns={c: f"{c} (%)" for c in shares})
