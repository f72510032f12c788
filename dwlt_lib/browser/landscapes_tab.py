"""The browser's third tab: loss landscapes of several tickets side by side, on one scale."""

from typing import Any

import ipywidgets as w

from dwlt_lib.browser import markup
from dwlt_lib.browser.controls import WIDE, Tab, arrays_of, of_kind, row, ticket_name
from dwlt_lib.plotting import landscapes
from dwlt_lib.plotting.style import PRETRAININGS
from dwlt_lib.records import store

MOST = 8  # landscapes side by side
LOOKS = {"contours": "surface", "3-D": "surface", "trajectories": "trajectory"}  # of which records


class LandscapesTab(Tab):
    """Contours and 3-D surfaces of the loss on clean and attacked images (Figures 2, 6, A9)."""

    kinds = ("surface", "trajectory")

    def __init__(self) -> None:
        """The tab's controls, without landscapes yet."""
        self.look: Any = w.ToggleButtons(options=list(LOOKS), style={"button_width": "110px"})
        self.chosen: Any = w.SelectMultiple(rows=7, layout={"width": "100%", "max_width": "600px"})
        self.picture = w.HTML(layout=WIDE)
        hint = w.HTML(
            f"<small>Choose up to {MOST} (Ctrl-click); all are drawn on one scale of loss.</small>"
        )
        super().__init__([row(self.look), self.chosen, hint, self.picture])
        self.on_change(self.refill, self.look)
        self.on_change(self.draw, self.chosen)

    def fill(self) -> None:
        """Offer the landscapes that there are; choose one of clean images per pre-training."""
        table = of_kind(self.records, LOOKS[self.look.value])
        order = table["pretraining"].map({p: i for i, p in enumerate(PRETRAININGS)})
        by = ["fraction", "dataset", "rounds", "order"]
        self.table = table.assign(order=order).sort_values(by, ascending=[False, True, True, True])
        clean = self.table[self.table["images"] == "clean"]
        before = [id for id in self.chosen.value if id in set(self.table["id"])]
        with self.chosen.hold_sync():
            self.chosen.options = [
                (f"{ticket_name(record)}, {record['images']} images", record["id"])
                for record in self.table.to_dict("records")
            ]
            self.chosen.value = before or list(clean.drop_duplicates("pretraining")["id"])

    def draw(self) -> None:
        """The chosen landscapes that can be read, and a line for each that cannot."""
        chosen = self.table[self.table["id"].isin(self.chosen.value)]
        if not 1 <= len(chosen) <= MOST:
            self.picture.value = markup.problem(
                f"{len(chosen)} of {len(self.table)} landscapes are chosen: want 1 to {MOST}."
            )
            return
        found = [arrays_of(id) for id in chosen["id"]]
        problems = "".join(problem for _, problem in found)
        readable = chosen[[bool(arrays) for arrays, _ in found]]
        panels = landscapes.side_by_side(readable, store.read)
        draw = landscapes.surfaces_3d if self.look.value == "3-D" else landscapes.contours
        alt = f"loss landscapes: {'; '.join(panel.title for panel in panels)}"
        card = markup.card("landscapes", drawn=markup.figure_png(draw(panels)), alt=alt)
        self.picture.value = problems + card
