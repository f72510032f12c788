"""The browser's first tab: one slider along the ladder moves curves, verdict and masks."""

import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import ipywidgets as w
import pandas as pd
from plotly.graph_objects import Figure

from dwlt_lib.analysis import double_win, noninferiority, tables
from dwlt_lib.browser import markup
from dwlt_lib.browser.controls import WIDE, Tab, data_options, dropdown, halves, of_kind, offer, row
from dwlt_lib.browser.curves import LiveFigure, curves
from dwlt_lib.config.studies import Margins
from dwlt_lib.plotting.style import METHODS, percent
from dwlt_lib.pruning.tickets import read_mask
from dwlt_lib.records import store

MARGINS = "margins"
RULES = {
    "if no worse by a margin": MARGINS,
    "within one std (section 4.1)": "one_std",
    "if no lower (equation 3)": "eq3",
}
FIRST_ROUNDS = 6  # where the slider stands at first, if that level is there


class SparsityTab(Tab):
    """Figure 3 of one data set and fraction, live, with verdict and masks at the slider's level.

    Verdict and masks, and with these torch, wait for `complete`, so that the curves are seen early.
    """

    kinds = ("transfer", "mask")

    def __init__(self, show_record: Callable[[str], None]) -> None:
        """The tab's controls, without options yet.

        Args:
            show_record: called with the id of the record whose dot is clicked.
        """
        self.data = dropdown("data")
        self.method = dropdown("masks by")
        self.rule = dropdown("matches", RULES, width="min(370px, 100%)")
        self.slider: Any = w.SelectionSlider(
            options=[("dense", 0)], description="sparsity", layout={"width": "98%"}
        )
        self.figure = LiveFigure(show_record)
        self.verdict, self.masks = w.HTML(), w.HTML(layout=WIDE)
        self._is_complete = False
        self._drawn: Any = None  # what the figure shows
        text = w.VBox([self.verdict, self.masks])
        controls = row(self.data, self.method, self.rule)
        super().__init__([controls, self.slider, halves(self.figure, text)])
        self.on_change(self.draw, self.data, self.rule)
        self.on_change(self.move, self.slider, self.method)

    def fill(self) -> None:
        """Offer the data sets of the study's transfers, its masks' methods and all its levels."""
        _mask_card.cache_clear()
        self.all_transfers = of_kind(self.records, "transfer")
        offer(self.data, data_options(self.all_transfers))
        methods = set(of_kind(self.records, "mask")["method"])
        offer(self.method, [method for method in METHODS if method in methods])
        levels = tables.sparsities(of_kind(self.records, "transfer", "mask"))
        self.sparsities = {0: 0.0, **levels}
        before, rounds = self.slider.value, sorted(self.sparsities)
        first = FIRST_ROUNDS if FIRST_ROUNDS in rounds else rounds[-1]
        with self.slider.hold_sync():
            self.slider.options = [(f"{percent(self.sparsities[r])} %", r) for r in rounds]
            self.slider.value = before if before and before in rounds else first

    def draw(self) -> None:
        """The curves of the chosen data set, judged by the chosen rule, and all at the slider."""
        table, (dataset, fraction) = self.all_transfers, self.data.value or ("", 0)
        table = table[(table["dataset"] == dataset) & (table["fraction"] == fraction)]
        self.all_seeds, self.transfers = table, tables.base_seeds(table)
        table = self.transfers
        if table.empty:
            self._drawn = None
            self.figure.draw(Figure(layout={"title": "no transfers yet"}))
            self.verdict.value = markup.problem(
                "No ticket has been transferred yet, so there is nothing to judge."
            )
        else:
            self._judged = None
            levels = self._with_margins(table) if self.rule.value == MARGINS else self._by_rule()
            drawn = table.drop(columns="seconds").to_csv(), self.rule.value
            if drawn != self._drawn:  # else only another data set's records are new
                self.figure.draw(curves(table, levels, self.slider.value))
            self._drawn = drawn
        self.move()

    def move(self) -> None:
        """Move line, verdict and masks to the slider's level."""
        rounds = self.slider.value
        if len(self.transfers):
            self.figure.widget.update_shapes(x0=rounds, x1=rounds)
        if self._is_complete:
            self.complete()

    def complete(self) -> None:
        """Show verdict and masks at the slider's level, from now on with every move."""
        self._is_complete = True
        if len(self.transfers):
            self._show_verdict()
        method, rounds = self.method.value or METHODS[0], self.slider.value
        table = tables.base_seeds(of_kind(self.records, "mask"))
        table = table[(table["method"] == method) & (table["rounds"] == rounds)]
        table = table.sort_values("seed").drop_duplicates("pretraining")
        ids = tuple(zip(table["pretraining"], table["id"], strict=True))
        self.masks.value = _mask_card(ids, method, rounds, self.sparsities[rounds])

    def _show_verdict(self) -> None:
        rounds, rule = self.slider.value, self.rule.value
        at = (rounds, self.sparsities[rounds])
        if self._judged is None:
            self._judged = self._by_margins() if rule == MARGINS else self._by_rule()
        if rule == MARGINS:
            says = self._margins, self._confidence
            self.verdict.value = markup.within_margins(self._judged, *at, *says)
        else:
            with warnings.catch_warnings(action="ignore"):  # the card says it
                extremes = double_win.verdict(self.transfers, rule)
            self.verdict.value = markup.verdict(self._judged, extremes, *at)

    def _by_rule(self) -> pd.DataFrame:
        return double_win.criteria(self.transfers, self.rule.value)

    def _by_margins(self) -> pd.DataFrame:
        """The verdict of the report: over all seeds, with what was right image by image."""
        table, outcomes = self.all_seeds, store.outcomes_of(self.all_seeds)
        return noninferiority.noninferiority(table, outcomes, self._margins, self._confidence)

    def _with_margins(self, table: pd.DataFrame) -> pd.DataFrame:
        """Where dense stands and how far below it still matches, as `double_win.criteria`."""
        params = store.study(self.study)["params"]
        self._margins = Margins(**params.get("margins", {}))
        self._confidence = noninferiority.confidence_of(params.get("search", "grid"))
        levels, chances = double_win.criteria(table, "eq3"), noninferiority.chances_of(table)
        for criterion, (_, metric) in double_win.CRITERIA.items():
            dense, chance = levels[f"{criterion}_dense"], chances.get(self.data.value[0], 0.0)
            margins = [noninferiority.margin_of(self._margins, metric, d, chance) for d in dense]
            levels[f"{criterion}_threshold"] = dense - margins
        return levels


@lru_cache(64)
def _mask_card(ids: tuple[tuple[str, str], ...], method: str, rounds: int, sparsity: float) -> str:
    """What is said of these masks, (pre-training, record id) each, as HTML."""
    from dwlt_lib.browser import mask_markup  # with it comes torch: the curves need not wait for it

    masks, problems = {}, []
    for pretraining, id in ids:
        try:
            masks[pretraining] = read_mask(id)
        except Exception as error:  # a damaged file has many faces: safetensors' own, OSError...
            problems.append(markup.problem(f"mask {id} cannot be read: {error}"))
    return "".join(problems) + mask_markup.masks_at(masks, method, rounds, sparsity)
