"""The browser's third tab: loss landscapes of several tickets side by side, on one scale."""

from typing import Any

import ipywidgets as w
import pandas as pd

from dwlt_lib.analysis import tables
from dwlt_lib.browser import markup
from dwlt_lib.browser.controls import WIDE, Tab, arrays_of, of_kind, row
from dwlt_lib.config.specs import other_seeds
from dwlt_lib.plotting import landscapes
from dwlt_lib.plotting.style import PRETRAININGS, dataset_name, percent
from dwlt_lib.records import store

MOST = 8  # landscapes side by side


class LandscapesTab(Tab):
    """Contours and 3-D surfaces of the loss on clean and attacked images (Figures 2, 6, A9)."""

    def __init__(self) -> None:
        """The tab's controls, without tickets yet."""
        self.kind = _buttons("surface", "trajectory", width=110)
        self.look = _buttons("contours", "3-D")
        self.images = _buttons("clean", "attacked", "both")
        self.chosen: Any = w.SelectMultiple(rows=7, layout={"width": "100%", "max_width": "560px"})
        self.picture = w.HTML(layout=WIDE)
        hint = w.HTML(
            f"<small>Choose up to {MOST} tickets (Ctrl-click); all are drawn on one scale of"
            " loss.</small>"
        )
        controls = row(self.kind, self.look, self.images)
        super().__init__([controls, self.chosen, hint, self.picture])
        self.on_change(self.refill, self.kind)
        self.on_change(self.draw, self.look, self.images, self.chosen)

    def fill(self) -> None:
        """Offer the tickets that have landscapes of this kind; choose one per pre-training."""
        table = of_kind(self.records, self.kind.value)
        order = table["pretraining"].map({p: i for i, p in enumerate(PRETRAININGS)})
        by = ["fraction", "dataset", "rounds", "order"]
        table = table.assign(order=order).sort_values(by, ascending=[False, True, True, True])
        self.table = table.assign(ticket=[_label(row) for row in table.to_dict("records")])
        self.chosen.options = list(self.table["ticket"].unique())
        self.chosen.value = list(self.table.drop_duplicates("pretraining")["ticket"])

    def draw(self) -> None:
        """The chosen landscapes that can be read, and a line for each that cannot."""
        if self.table.empty:
            kind = self.kind.value
            self.picture.value = markup.problem(f"No {kind} record in this study yet.")
            return
        table = self.table[self.table["ticket"].isin(self.chosen.value)]
        if self.images.value != "both":
            table = table[table["images"] == self.images.value]
        if not 1 <= len(table) <= MOST:
            self.picture.value = markup.problem(
                f"{len(table)} landscapes are chosen: want 1 to {MOST}."
            )
            return
        found = [arrays_of(id) for id in table["id"]]
        problems = "".join(problem for _, problem in found)
        self.picture.value = problems + self._drawn(table[[bool(arrays) for arrays, _ in found]])

    def _drawn(self, table: pd.DataFrame) -> str:
        """The landscapes of these records as HTML."""
        panels = landscapes.side_by_side(table, store.read, columns=min(max(len(table), 1), 4))
        if self.kind.value == "surface" and self.look.value == "3-D":
            figure = landscapes.surfaces_3d(panels)
        else:
            figure = landscapes.contours(panels)
        alt = f"loss landscapes: {'; '.join(panel.title for panel in panels)}"
        return markup.card("landscapes", drawn=markup.figure_png(figure), alt=alt)


def _buttons(*options: str, width: int = 90) -> Any:
    return w.ToggleButtons(options=options, style={"button_width": f"{width}px"})


def _label(row: dict) -> str:
    """A row of a table as one line."""
    sparsity = percent(tables.sparsity_of(row))
    data = f"{dataset_name(row['dataset'])} {100 * row['fraction']:g} %"
    ticket = f"θ_{row['pretraining']}, {row['method']}, {sparsity} %"
    others = other_seeds({name: row[name] for name in tables.SEEDS if pd.notna(row.get(name))})
    return f"{ticket}, {data}, {row['regime']}, seed {row['seed']}{others}"
