"""The browser's tab that lays studies over each other: curves, settings, verdicts, trainings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ipywidgets as w
import pandas as pd
from plotly.graph_objects import Figure, Scatter

from dwlt_lib.analysis import double_win, statistics, tables
from dwlt_lib.browser import markup
from dwlt_lib.browser.controls import WIDE, Tab, data_options, dropdown, halves, of_kind, offer, row
from dwlt_lib.browser.curves import SYMBOLS, LiveFigure
from dwlt_lib.browser.verdicts import of_study
from dwlt_lib.plotting.style import CRITERION_NAMES, METHODS, PRETRAININGS, curve_style, percent
from dwlt_lib.plotting.verdicts import in_paper_order
from dwlt_lib.records import store

DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
TRAININGS = {"training: SA on validation images": "SA", "training: loss": "loss"}


class CompareTab(Tab):
    """Two or more studies: mean curves over each other, a colour per theta_p, a line per study."""

    kinds = ("transfer",)

    def __init__(self, show_record: Callable[[str], None]) -> None:
        """The tab's controls, without options yet.

        Args:
            show_record: called with the id of the record whose point is clicked.
        """
        self.others: Any = w.SelectMultiple(description="with", rows=4)
        self.data, self.method = dropdown("data"), dropdown("masks by")
        shown = {name: key for key, name in CRITERION_NAMES.items()} | TRAININGS
        self.shown, self.level = dropdown("shown", shown), dropdown("level")
        self.figure = LiveFigure(show_record)
        self.says = w.HTML(layout=WIDE)
        controls = row(self.others, self.data, self.method, self.shown, self.level)
        super().__init__([controls, halves(self.figure, self.says)])
        self.on_change(self.refill, self.others)
        self.on_change(self.draw, self.data, self.method, self.shown, self.level)

    def fill(self) -> None:
        """Offer the other studies; what they have in common is looked up when the tab is seen."""
        others = [name for name in store.study_names() if name != self.study]
        before = [name for name in self.others.value if name in others]
        if self.others.options != tuple(others):
            with self.others.hold_sync():
                self.others.options, self.others.value = others, before
        self.tables: dict[str, pd.DataFrame] = {}

    def _read(self) -> None:
        """Read the other studies, and offer what all that are chosen have transferred."""
        own = of_kind(self.records, "transfer")
        self.problems: list[str] = []
        self.tables = {self.study: own}
        if not self.others.value:  # first the one that has most in common
            shared = {name: _shared(own, self._of(name)) for name in self.others.options}
            self.others.value = sorted(shared, key=lambda name: -shared[name])[:1]
        self.tables |= {name: self._of(name) for name in self.others.value}
        offer(self.data, _in_all(data_options(table) for table in self.tables.values()))
        chosen = [self._chosen(table) for table in self.tables.values()]
        methods = _in_all(list(t["method"]) for t in chosen)
        offer(self.method, [method for method in METHODS if method in methods])
        levels = tables.sparsities(pd.concat(chosen))
        offer(self.level, [(f"{percent(levels[r])} %", r) for r in sorted(levels)])

    def _of(self, study: str) -> pd.DataFrame:
        try:
            return store.table("transfer", study=study)
        except (KeyError, ValueError, OSError) as error:
            self.problems.append(str(error.args[0] if error.args else error))
            return store.empty_table()

    def _chosen(self, table: pd.DataFrame) -> pd.DataFrame:
        if not self.data.value or table.empty:
            return table.iloc[:0]
        dataset, fraction = self.data.value
        return table[(table["dataset"] == dataset) & (table["fraction"] == fraction)]

    def draw(self) -> None:
        """Curves or trainings, and below what is certified and which settings differ."""
        if not self.tables:
            self._held = True
            try:
                self._read()
            finally:
                self._held = False
        is_training = self.shown.value in TRAININGS.values()
        self.level.layout.display = "flex" if is_training else "none"
        traces = [
            trace
            for number, (study, table) in enumerate(self.tables.items())
            for trace in (self._trainings if is_training else self._curves)(study, table, number)
        ]
        figure = Figure(traces)
        sparsities = tables.sparsities(self._chosen(pd.concat(self.tables.values())))
        if is_training:
            figure.update_xaxes(title="epoch")
            figure.update_yaxes(title=self.shown.label.removeprefix("training: "))
        else:
            figure.update_xaxes(
                title="sparsity (%)",
                tickvals=list(sparsities),
                ticktext=[percent(sparsity) for sparsity in sparsities.values()],
            )
            figure.update_yaxes(title=f"{self.shown.label} (%)")
        if not traces:
            figure = Figure(layout={"title": "nothing that these studies share is there"})
            figure.update_xaxes(visible=False).update_yaxes(visible=False)
        figure.update_layout(
            template="simple_white",
            height=520,
            margin={"l": 48, "r": 12, "t": 40, "b": 40},
            dragmode=False,
            legend={"orientation": "h", "yanchor": "bottom", "y": 1.02},
        )
        self.figure.draw(figure)
        self.says.value = markup.READING
        self.says.value = "".join([*map(markup.problem, self.problems), self._in_words()])

    def _curves(self, study: str, table: pd.DataFrame, number: int) -> list[Scatter]:
        regime, metric = double_win.CRITERIA[self.shown.value]
        own = tables.base_seeds(self._chosen(table))
        if own.empty:
            return []
        means, found = statistics.spread(own[own["regime"] == regime]), []
        for pretraining in PRETRAININGS:
            line = means[means["pretraining"] == pretraining]
            if self.method.value not in set(line["method"]):
                continue
            line = line[(line["method"] == self.method.value) | (line["rounds"] == 0)]
            line = line.sort_values("rounds")
            style = _look(pretraining, study, number)
            deviations = {"array": 100 * line[f"{metric}_std"], "thickness": 1, "width": 3}
            said = [f"{n} seeds" for n in line["seeds"]]
            found.append(
                Scatter(
                    x=line["rounds"],
                    y=100 * line[metric],
                    error_y=deviations,
                    text=said,
                    mode="lines+markers",
                    hovertemplate="%{y:.1f} %, %{text}",
                    **style,
                )
            )
        return found

    def _trainings(self, study: str, table: pd.DataFrame, number: int) -> list[Scatter]:
        """A line per network at the chosen level: what its training looked like, first seeds."""
        own = tables.base_seeds(self._chosen(table))
        if own.empty:
            return []
        is_method = (own["method"] == self.method.value) | (own["rounds"] == 0)
        own = own[is_method & (own["rounds"] == self.level.value)].sort_values("seed")
        found = []
        for record in own.drop_duplicates(["pretraining", "regime"]).to_dict("records"):
            history = store.read(record["id"]).history
            points = [(e["epoch"], e[self.shown.value]) for e in history if self.shown.value in e]
            if not points:
                continue
            regime, seed = record["regime"], record["seed"]
            style = _look(record["pretraining"], study, number, f", {regime}, seed {seed}")
            x, y = zip(*points, strict=True)
            ids = [(record["id"], seed)] * len(x)
            found.append(Scatter(x=x, y=y, customdata=ids, mode="lines+markers", **style))
        return found

    def _in_words(self) -> str:
        readable = [name for name, table in self.tables.items() if len(table)]
        found = store.differences(*readable)
        certified = pd.concat([of_study(study, table) for study, table in self.tables.items()])
        rows: dict[tuple, dict[str, str]] = {}
        for row_ in in_paper_order(self._chosen(certified)).to_dict("records"):
            rows.setdefault((row_["method"], row_["pretraining"]), {})[row_["study"]] = row_["text"]
        return markup.card(
            "compared",
            studies=list(self.tables),
            certified=rows,
            settings={} if found is None else found.to_dict("index"),
        )


def _look(pretraining: str, study: str, number: int, more: str = "") -> dict[str, Any]:
    return {
        "name": f"θ<sub>{pretraining}</sub>, {study}{more}",
        "legendgroup": f"{pretraining} {study}{more}",
        "line": {"color": curve_style(pretraining)["color"], "dash": DASHES[number % len(DASHES)]},
        "marker": {"symbol": SYMBOLS[pretraining], "size": 7},
    }


def _shared(first: pd.DataFrame, second: pd.DataFrame) -> int:
    """On how many shares of data sets both have transfers."""
    return len(_in_all(map(data_options, (first, second))))


def _in_all(offers: Any) -> list:
    """What is in every one of some lists, in the order of the first."""
    first, *others = [list(one) for one in offers]
    return [one for one in first if all(one in other for other in others)]
