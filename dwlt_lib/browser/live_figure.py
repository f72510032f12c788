"""A plotly figure in a page, whose dots open their records."""

from collections.abc import Callable
from typing import Any

import ipywidgets as w
from anywidget import AnyWidget

from dwlt_lib.browser.controls import WIDE

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


class LiveFigure(w.VBox):
    """A figure that can be drawn again and again.

    Attributes:
        widget: plotly's FigureWidget; None until something is drawn.
    """

    def __init__(self, show_record: Callable[[str], None]) -> None:
        """An empty box.

        Args:
            show_record: called with the id of the record whose dot is clicked.
        """
        self.widget: Any = None
        self._show_record = show_record
        super().__init__(layout=WIDE)

    def draw(self, traces: list[dict[str, Any]], layout: dict[str, Any]) -> None:
        """Replace the figure.

        Args:
            traces: descriptions of traces; the dots of one with `customdata`, a list of ids, open
                those records.
            layout: plotly's.
        """
        import plotly.graph_objects as go  # takes half a second: after what needs none

        # A page is told only what a figure was made with; what changes before it is shown is lost.
        self.widget = go.FigureWidget(data=traces, layout=layout)
        # a new dictionary: one that is changed in place is not sent to the page
        self.widget._config = {**self.widget._config, "displaylogo": False, "responsive": True}
        for trace in self.widget.data:
            if trace.customdata is not None:
                trace.on_click(self._clicked)
        previous, self.children = self.children, (self.widget, AnyWidget(_esm=FIT))
        for child in previous:
            child.close()

    def _clicked(self, trace: Any, points: Any, _: Any) -> None:
        if points.point_inds:
            self._show_record(trace.customdata[points.point_inds[0]])
