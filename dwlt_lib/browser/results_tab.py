"""The browser's second tab: the table of all records, to filter, group, draw and export."""

import base64
from types import SimpleNamespace
from typing import Any

import ipywidgets as w
import pandas as pd

from dwlt_lib.analysis import tables
from dwlt_lib.browser import markup, plotly_traces
from dwlt_lib.browser.controls import WIDE, figure, halves, of_kind, offer, row
from dwlt_lib.plotting.style import percent

KEYS = ["pretraining", "method", "dataset", "fraction", "regime", "rounds", "seed", "images"]
KINDS = ["transfer", "mask", "pretraining", "surface", "trajectory", "attack"]


def results(page: SimpleNamespace) -> SimpleNamespace:
    """Every record of a kind: filtered, sorted, grouped, drawn, exported.

    A row or a dot opens its record.
    """
    part = SimpleNamespace(figure=figure(page))
    part.kind = w.Dropdown(options=KINDS, description="records")
    part.filters = {
        k: w.SelectMultiple(rows=4, layout=w.Layout(width="128px", height="92px")) for k in KEYS
    }
    part.group = w.SelectMultiple(
        options=KEYS, rows=4, layout=w.Layout(width="128px", height="92px")
    )
    part.x, part.y, part.color = (
        w.Dropdown(description=d, layout=w.Layout(width="230px"))
        for d in ("draw: x", "y", "colour")
    )
    part.count, part.table = w.HTML(), w.VBox(layout=WIDE)
    part.lists = {k: w.VBox([w.HTML(f"<b>{k}</b>"), box]) for k, box in part.filters.items()}
    lists = row(*part.lists.values(), w.VBox([w.HTML("<b>group by</b>"), part.group]))
    hint = w.HTML(
        "<small>Ctrl-click chooses several, none means all. Click a row or a dot to open its"
        " record.</small>"
    )
    axes = row(part.x, part.y, part.color)
    parts = [row(part.kind, part.count), lists, hint, part.table, axes, halves(part.figure.box)]
    part.box = w.VBox(parts, layout=w.Layout(min_width="0", width="100%", overflow="hidden"))
    now = SimpleNamespace(busy=True, grid=None, ids=[], shown=pd.DataFrame())

    def refresh() -> None:
        now.busy, table = True, of_kind(page, part.kind.value)
        for key, box in part.filters.items():
            values = sorted(table[key].dropna().unique()) if key in table else []
            at = tables.sparsities(table.dropna(subset=key)) if key == "rounds" and values else {}
            box.options = [(_value(key, v, at), v) for v in values]
            box.value = ()
            part.lists[key].layout.display = None if values else "none"
        part.group.options, part.group.value = [k for k in KEYS if k in table], ()
        numbers = (
            [c for c in table.columns if pd.api.types.is_numeric_dtype(table[c])]
            if len(table)
            else []
        )
        keys = [k for k in KEYS if k in table]
        for box, options, first in (
            (part.x, numbers, "rounds"),
            (part.color, keys, "pretraining"),
            (part.y, [c for c in numbers if c not in KEYS], "RA"),
        ):
            offer(box, sorted(options, key=lambda c: c != first))
        now.busy = False
        if page.is_open(part):
            update()

    def update(_: Any = None) -> None:
        if now.busy:
            return
        table = of_kind(page, part.kind.value)
        for key, box in part.filters.items():
            if box.value:
                table = table[table[key].isin(box.value)]
        now.shown, now.ids = table, table["id"].tolist() if len(table) else []
        shown = (
            _grouped(table, list(part.group.value)) if part.group.value and len(table) else table
        )
        file = f"{page.study.value}_{part.kind.value}.csv"
        csv = base64.b64encode(shown.to_csv(index=False).encode()).decode()
        part.count.value = markup.card("count", rows=len(shown), file=file, csv=csv)
        if now.grid is None:
            now.grid = _grid(_readable(shown))
            now.grid.observe(chosen, names="selected_rows")
        else:
            now.grid.selected_rows = []
            now.grid.update(_readable(shown))
        part.table.children = (now.grid,)
        draw()

    def draw(_: Any = None) -> None:
        if now.busy or not part.y.value or not part.x.value:
            return
        part.figure.draw(
            *plotly_traces.scatter(now.shown, part.x.value, part.y.value, part.color.value)
        )

    def chosen(change: dict) -> None:
        if change["new"] and not part.group.value:
            page.open(now.ids[change["new"][-1]])

    part.kind.observe(lambda _: refresh(), names="value")
    for box in (*part.filters.values(), part.group):
        box.observe(update, names="value")
    for box in (part.x, part.y, part.color):
        box.observe(draw, names="value")
    part.refresh, part.opened = refresh, update
    return part


def _value(key: str, value: Any, at: dict[int, float]) -> str:
    """How a filter names a value. at: the sparsity of each of the rounds."""
    if key == "rounds":
        return f"{value} ({percent(at[int(value)])} %)"
    return f"{100 * value:g} %" if key == "fraction" else str(value)


def _grouped(table: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Mean, standard deviation and count of the metrics over what `keys` do not tell apart."""
    metrics = [
        c
        for c in table.columns
        if pd.api.types.is_float_dtype(table[c]) and c not in (*KEYS, "seconds")
    ]
    by = table.groupby(keys, observed=True)[metrics]
    return by.mean().join(by.std(), rsuffix=" std").assign(records=by.size()).reset_index()


def _readable(table: pd.DataFrame) -> pd.DataFrame:
    """Accuracies in percent, constants and long texts left out of sight."""
    wanted = [
        c
        for c in table.columns
        if c not in ("kind", "arch", "surrogate", "mask_seed", "subset_seed")
    ]
    shown = table[wanted].copy()
    for column in shown.columns:
        if pd.api.types.is_float_dtype(shown[column]):
            share = column.removesuffix(" std") in (
                *plotly_traces.SHARES,
                "fraction",
                "explained_1",
                "explained_2",
            )
            shown[column] = (100 * shown[column] if share else shown[column]).round(2)
            shown = shown.rename(columns={column: f"{column} (%)"} if share else {})
    return shown


def _grid(table: pd.DataFrame) -> Any:
    from itables.widget import ITable

    return ITable(
        table,
        select="single",
        showIndex=False,
        maxBytes=0,
        classes="display compact nowrap",
        scrollX=True,
        lengthMenu=[10, 25, 100, -1],
    )
