"""The browser's fourth tab: test images under attack, and what dense and a ticket read."""

import ipywidgets as w
import pandas as pd

from dwlt_lib.analysis import tables
from dwlt_lib.browser import controls, markup
from dwlt_lib.browser.controls import Tab
from dwlt_lib.plotting.style import percent
from dwlt_lib.records import store

SAME = ["pretraining", "dataset", "fraction", "regime", "seed"]  # of a ticket and its dense network
ATTACKS = {"each network's own PGD": "own", "the unseen model's images": "unseen"}


class ImagesTab(Tab):
    """Test images, their perturbations and what dense and a ticket read (Table A2)."""

    kinds = ("attack",)

    def __init__(self) -> None:
        """The tab's controls, without tickets yet."""
        self.ticket = controls.dropdown("ticket", width="min(560px, 100%)")
        self.source = controls.dropdown("attack", ATTACKS)
        self.picture = w.HTML(layout=controls.WIDE)
        super().__init__([controls.row(self.ticket, self.source), self.picture])
        self.on_change(self.draw, self.ticket, self.source)

    def fill(self) -> None:
        """Offer the tickets that were attacked."""
        self.table = tables.base_seeds(controls.of_kind(self.records, "attack"))
        sparse = self.table[self.table["rounds"] > 0].to_dict("records")
        options = [(controls.ticket_name(record), record["id"]) for record in sparse]
        controls.offer(self.ticket, options)

    def draw(self) -> None:
        """The images, and a line for each record whose arrays cannot be read."""
        if not self.ticket.value:
            self.picture.value = markup.problem(
                "No transfer-attack record in this study yet: they hold the images."
            )
            return
        ticket = self.table[self.table["id"] == self.ticket.value]
        dense = self.table[self.table["rounds"] == 0].merge(ticket[SAME])
        networks, problems = {}, ""
        for record in pd.concat([dense, ticket]).to_dict("records"):
            arrays, problem = controls.arrays_of(record["id"])
            problems += problem
            if "image" in arrays:
                label = f"{percent(tables.sparsity_of(record))} %" if record["rounds"] else "dense"
                eps = store.read(record["id"]).spec["transfer"]["evaluation"]["eps"]
                networks[label] = arrays, float(eps)
        if networks:
            shown = markup.examples(networks, self.source.value)
        else:
            shown = markup.problem("No images are kept with these records; run the study again.")
        self.picture.value = problems + shown
