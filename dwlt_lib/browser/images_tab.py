"""The browser's fourth tab: test images under attack, and what dense and a ticket read."""

import ipywidgets as w
import pandas as pd

from dwlt_lib.analysis import tables
from dwlt_lib.browser import markup
from dwlt_lib.browser.controls import (
    WIDE,
    Tab,
    arrays_of,
    dropdown,
    level_slider,
    of_kind,
    offer,
    row,
    ticket_name,
)
from dwlt_lib.plotting.style import percent
from dwlt_lib.records import store

TICKET = ["pretraining", "method", "dataset", "fraction", "regime", "seed"]  # its ladder's columns
ATTACKS = {"each network's own PGD": "own", "the unseen model's images": "unseen"}


class ImagesTab(Tab):
    """Test images, their perturbations and what dense and a ticket read (Table A2)."""

    def __init__(self) -> None:
        """The tab's controls, without tickets yet."""
        self.ticket = dropdown("ticket", width="min(560px, 100%)")
        self.level = level_slider(continuous_update=False)
        self.source = dropdown("attack", ATTACKS)
        self.picture = w.HTML(layout=WIDE)
        super().__init__([row(self.ticket, self.source), self.level, self.picture])
        self.on_change(self.refill, self.ticket)
        self.on_change(self.draw, self.level, self.source)

    def fill(self) -> None:
        """Offer the tickets that were attacked, and the levels of the one that is chosen."""
        table = tables.base_seeds(of_kind(self.records, "attack"))
        sparse = table[table["rounds"] > 0]
        tickets = sparse[TICKET].drop_duplicates().to_dict("records")
        offer(self.ticket, [(ticket_name(ticket), tuple(ticket.values())) for ticket in tickets])
        if not self.ticket.value:
            self.levels = sparse
            return
        ladder = dict(zip(TICKET, self.ticket.value, strict=True))
        method = ladder.pop("method")
        table = table[(table["method"] == method) | (table["rounds"] == 0)]
        self.levels = table[(table[list(ladder)] == pd.Series(ladder)).all(axis="columns")]
        sparsities = tables.sparsities(self.levels)
        offer(self.level, [(f"{percent(s)} %", r) for r, s in sparsities.items() if r])

    def draw(self) -> None:
        """The images, and a line for each record whose arrays cannot be read."""
        if self.levels.empty:
            self.picture.value = markup.problem(
                "No transfer-attack record in this study yet: they hold the images."
            )
            return
        networks, problems = {}, ""
        chosen = self.levels[self.levels["rounds"].isin([0, self.level.value])]
        for level in chosen.sort_values("rounds").to_dict("records"):
            arrays, problem = arrays_of(level["id"])
            problems += problem
            if "image" in arrays:
                label = f"{percent(tables.sparsity_of(level))} %" if level["rounds"] else "dense"
                eps = store.read(level["id"]).spec["transfer"]["evaluation"]["eps"]
                networks[label] = arrays, float(eps)
        if networks:
            shown = markup.examples(networks, self.source.value)
        else:
            shown = markup.problem("No images are kept with these records; run the study again.")
        self.picture.value = problems + shown
