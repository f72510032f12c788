"""The browser's first tab: one slider along the ladder moves curves, verdict and masks."""

from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import ipywidgets as w
import pandas as pd

from dwlt_lib.analysis import double_win, statistics, tables
from dwlt_lib.browser import markup, plotly_traces
from dwlt_lib.browser.controls import WIDE, figure, halves, of_kind, offer, row
from dwlt_lib.plotting import style
from dwlt_lib.plotting.style import dataset_name, percent
from dwlt_lib.pruning.ticket_files import mask_of

READINGS = {
    "within one std of dense (section 4.1)": ("one_std", 1),
    "the same, population std": ("one_std", 0),
    "no lower than dense (equation 3)": ("eq3", 1),
}
EXTREMES = {"sparsest level that wins": "max", "last before the first miss": "prefix"}


def sparsity(page: SimpleNamespace) -> SimpleNamespace:
    """One slider along the ladder: curves, verdict and masks follow."""
    part = SimpleNamespace(figure=figure(page))
    part.data = w.Dropdown(description="data")
    part.method = w.Dropdown(description="masks by")
    part.rule = w.Dropdown(options=READINGS, description="matches", layout=w.Layout(width="370px"))
    part.extreme = w.Dropdown(options=EXTREMES, description="extreme")
    part.slider = w.SelectionSlider(
        options=[("dense", 0)], description="sparsity", layout=w.Layout(width="98%")
    )
    part.verdict, part.masks_html = w.HTML(), w.HTML(layout=WIDE)
    right = w.VBox([part.verdict, part.masks_html])
    controls = row(part.data, part.method, part.rule, part.extreme)
    part.box = w.VBox([controls, part.slider, halves(part.figure.box, right)])
    now = SimpleNamespace(table=pd.DataFrame(), ready=False, busy=False)

    def refresh() -> None:
        _masks_at.cache_clear()
        now.busy, table = True, of_kind(page, "transfer")
        now.all, now.mask_table = table, of_kind(page, "mask")
        groups = table[["dataset", "fraction"]].drop_duplicates() if len(table) else pd.DataFrame()
        groups = (
            groups.sort_values(["fraction", "dataset"], ascending=[False, True])
            if len(groups)
            else groups
        )
        offer(
            part.data,
            [
                (f"{dataset_name(d)}, {100 * f:g} %", (d, f))
                for d, f in groups.itertuples(index=False)
            ],
        )
        methods = set(now.mask_table["method"]) if len(now.mask_table) else set()
        offer(part.method, [m for m in style.METHODS if m in methods])
        both = [found[["rounds", "sparsity"]] for found in (table, now.mask_table) if len(found)]
        now.at = {0: 0.0} | (tables.sparsities(pd.concat(both)) if both else {})
        rounds = sorted(now.at)
        was = part.slider.value
        part.slider.options = [(f"{percent(now.at[r])} %", r) for r in rounds]
        part.slider.value = was if was in rounds and was else 6 if 6 in rounds else rounds[-1]
        now.busy = False
        redraw()

    def redraw(_: Any = None) -> None:
        if now.busy:
            return
        d, f = part.data.value or ("", 0)
        now.table = (
            now.all[(now.all["dataset"] == d) & (now.all["fraction"] == f)]
            if len(now.all)
            else now.all
        )
        if now.table.empty:
            part.figure.draw([], plotly_traces.LAYOUT | dict(title="no transfers yet"))
            part.verdict.value = markup.problem(
                "No ticket has been transferred yet, so there is nothing to judge."
            )
        else:
            now.spread = statistics.spread(now.table)
            now.levels = double_win.criteria(now.table, *part.rule.value)
            now.ends = double_win.verdict(now.table, *part.rule.value, part.extreme.value)
            part.figure.draw(*plotly_traces.curves(now.table, now.levels, part.slider.value))
        moved()

    def moved(_: Any = None) -> None:
        if now.busy:
            return
        r = part.slider.value
        if len(now.table):
            with part.figure.widget.batch_update():
                marks = plotly_traces.marks_at(now.table, now.spread, r)
                for trace, mark in zip(part.figure.widget.data[-3:], marks, strict=True):
                    trace.update(mark)
                part.figure.widget.layout.shapes = [plotly_traces.line_at(r)]
            part.verdict.value = markup.verdict(now.levels, now.ends, r, now.at[r])
        if now.ready:
            masks()

    def masks() -> None:
        now.ready, method, r = True, part.method.value or "IMP-ST", part.slider.value
        found = (
            now.mask_table[(now.mask_table["method"] == method) & (now.mask_table["rounds"] == r)]
            if (len(now.mask_table))
            else now.mask_table
        )
        found = found.sort_values("seed").drop_duplicates("pretraining") if len(found) else found
        ids = tuple(zip(found["pretraining"], found["id"], strict=True)) if len(found) else ()
        part.masks_html.value = _masks_at(ids, method, r, now.at[r])

    @lru_cache(64)
    def _masks_at(ids: tuple, method: str, r: int, sparsity: float) -> str:
        from dwlt_lib.browser import (
            mask_markup,
        )  # with it comes torch, a second that the curves need not wait for

        read, lines = {}, []
        for p, id in ids:
            try:
                read[p] = mask_of(id)
            except (
                Exception
            ) as error:  # safetensors' own, OSError, KeyError: a damaged file has many faces
                lines.append(markup.problem(f"mask {id} cannot be read: {error}"))
        return "".join(lines) + mask_markup.masks_at(read, method, r, sparsity)

    for control in (part.data, part.rule, part.extreme):
        control.observe(redraw, names="value")
    for control in (part.slider, part.method):
        control.observe(moved, names="value")
    part.refresh, part.masks, part.opened = refresh, masks, lambda: None
    return part
