"""Parts that the browser's tabs share.

Rows that wrap on narrow pages, a live figure, a kind of record.
"""

from types import SimpleNamespace
from typing import Any

import ipywidgets as w
import pandas as pd
from anywidget import AnyWidget

WIDE = w.Layout(width="100%")
# plotly may draw before its box has a width, and then takes 700 px: once drawn, it is told to
# measure again
FIT = """export default { render({ el }) {
  const fit = () => requestAnimationFrame(() => window.dispatchEvent(new Event("resize")));
  const look = () => el.closest(".widget-vbox")?.querySelector(".main-svg")
    && (drawn.disconnect(), fit());
  const drawn = new MutationObserver(look);
  requestAnimationFrame(() => {
    drawn.observe(el.closest(".widget-vbox") ?? el, { childList: true, subtree: true });
    look();
  });
  return () => drawn.disconnect();
} }"""


def of_kind(page: SimpleNamespace, kind: str) -> pd.DataFrame:
    """The study's records of a kind, without the columns that only other kinds have."""
    table = page.data.table
    if table.empty:
        return table
    table = table[table["kind"] == kind]
    return table[[c for c in table.columns if c in ("SA", "RA") or table[c].notna().any()]]


def row(*children: w.Widget) -> w.Box:
    return w.Box(
        children,
        layout=w.Layout(display="flex", flex_flow="row wrap", align_items="center", width="100%"),
    )


def offer(box: w.Widget, options: list) -> None:
    """Options of (label, value) or plain ones; what was chosen stays chosen if it still is among
    them, else the first is."""
    was, values = box.value, [o[1] if isinstance(o, tuple) else o for o in options]
    box.options = options
    box.value = was if was in values else values[0] if values else None


def halves(*children: w.Widget) -> w.Box:
    """Side by side where there is room, below each other where not."""
    half = dict(flex="1 1 340px", min_width="0", max_width="100%")
    boxes = [w.VBox([child], layout=w.Layout(**half)) for child in children]
    return w.Box(
        boxes,
        layout=w.Layout(
            display="flex", flex_flow="row wrap", align_items="flex-start", width="100%"
        ),
    )


def figure(page: SimpleNamespace) -> SimpleNamespace:
    """A live figure: box, to be placed; draw(traces, layout); widget, plotly's own once something
    was drawn. A click on a dot opens its record."""
    found = SimpleNamespace(box=w.VBox(layout=WIDE), widget=None)

    def clicked(trace: Any, points: Any, _: Any) -> None:
        if points.point_inds:
            page.open(trace.customdata[points.point_inds[0]])

    def draw(traces: list, layout: dict) -> None:
        import plotly.graph_objects as go  # half a second, after what needs none

        # a page is told only what a figure was made with, and whatever changes before it shows it
        # is lost
        old, found.widget = found.widget, go.FigureWidget(data=traces, layout=layout)
        found.widget._config = found.widget._config | {"displaylogo": False, "responsive": True}
        found.box.children = (found.widget, AnyWidget(_esm=FIT))
        if old is not None:
            old.close()
        for trace in found.widget.data:
            if trace.customdata is not None:
                trace.on_click(clicked)

    found.draw = draw
    return found
