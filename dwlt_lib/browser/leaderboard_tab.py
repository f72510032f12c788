"""The browser's tab over all studies: how sparse double-win tickets are, and how good there."""

from typing import Any

import ipywidgets as w
import numpy as np
import pandas as pd

from dwlt_lib.analysis import tables
from dwlt_lib.analysis.statistics import CRITERIA, spread
from dwlt_lib.analysis.tables import GROUP
from dwlt_lib.browser import markup
from dwlt_lib.browser.controls import WIDE, Tab
from dwlt_lib.browser.results_tab import TABLE_OPTIONS
from dwlt_lib.browser.verdicts import of_study
from dwlt_lib.plotting.style import CRITERION_NAMES, dataset_name
from dwlt_lib.records import store

HINT = """<p>A row per curve of every study. <b>At least</b>: the sparsest level that is certified
not to be worse than dense by more than the study's margins (0: none); <b>below</b>: from here on
tickets are known to fall short. Accuracies are means over seeds at the level of <i>at least</i>, in
percent; <b>strong</b>: right under every attack that was tried there. Compare rows of one data set
and share only.</p>"""


class LeaderboardTab(Tab):
    """One row per curve of every study, to sort and filter."""

    kinds = ("transfer", "robustness")

    def __init__(self) -> None:
        """The tab, without rows yet."""
        self.grid: Any = None  # made when it is first seen
        self.problems = w.HTML()
        self._table = w.VBox(layout=WIDE)
        super().__init__([w.HTML(f'<div class="dwlt">{HINT}</div>'), self.problems, self._table])

    def fill(self) -> None:
        """Nothing: all studies are always shown."""

    def draw(self) -> None:
        """The table, and a line for each study that cannot be read."""
        rows, problems = [], []
        self.problems.value = markup.READING
        for study in store.study_names():
            try:
                rows.append(curves_of(study))
            except (KeyError, ValueError, OSError) as error:
                problems.append(str(error.args[0] if error.args else error))
        self.problems.value = "".join(map(markup.problem, problems))
        filled = [own for own in rows if len(own)]
        found = pd.concat(filled, ignore_index=True) if filled else pd.DataFrame()
        if found.empty:
            self._table.children = (w.HTML(markup.problem("No ticket has been transferred yet.")),)
            return
        found = found.sort_values(
            ["data", "share (%)", "at least (%)"], ascending=[True, False, False]
        )
        found = found.astype(object).where(found.notna(), "")  # else NaN is what is read
        options = TABLE_OPTIONS | {"select": False, "pageLength": 25}
        if self.grid is None:
            from itables.widget import ITable

            self.grid = ITable(found, **options)
        else:
            self.grid.update(found, **options)
        self._table.children = (self.grid,)


def curves_of(study: str) -> pd.DataFrame:
    """A study's rows of the leaderboard.

    Args:
        study: its name.

    Returns:
        A row per curve: data, share (%), theta_p, masks, the bounds of its double-win sparsity, at
        the lower of them SA and RA and RA under every attack, in percent (NaN where there is none),
        study, network and source.

    Raises:
        KeyError, ValueError: one line, as `records.table`.
    """
    table, params = store.table(study=study), store.study(study)["params"]
    transfers = table[table["kind"] == "transfer"]
    certified = of_study(study, transfers)
    if certified.empty:
        return pd.DataFrame()
    means = spread(transfers).set_index([*GROUP, "regime", "rounds"])
    strong = table[table["kind"] == "robustness"]
    rows = []
    for curve in certified.to_dict("records"):
        rounds = int(curve["at_least_rounds"])
        p, method, dataset, fraction = (curve[name] for name in GROUP)
        method = method if rounds else "dense"
        row = {
            "data": dataset_name(dataset),
            "share (%)": 100 * fraction,
            "theta_p": p,
            "masks": curve["method"],
            "at least (%)": 100 * curve["at_least_sparsity"],
            "below (%)": 100 * curve["below_sparsity"],
        }
        for criterion, (regime, metric) in CRITERIA.items():
            key = (p, method, dataset, fraction, regime, rounds)
            value = means[metric].get(key, np.nan)
            row[CRITERION_NAMES[criterion].replace(" after", ",")] = 100 * value
        row["strong"] = 100 * _worst(strong, curve, rounds)
        row |= {"study": study, "network": params["arch"], "source": dataset_name(params["source"])}
        rows.append(row)
    return pd.DataFrame(rows).round(2)


def _worst(strong: pd.DataFrame, curve: dict, rounds: int) -> float:
    """The mean accuracy under every attack of a curve's networks at a level."""
    if strong.empty or "worst" not in strong:
        return np.nan
    own = tables.base_seeds(strong)
    for name in ("pretraining", "dataset", "fraction"):
        own = own[own[name] == curve[name]]
    own = own[(own["rounds"] == rounds) & ((own["method"] == curve["method"]) | (rounds == 0))]
    own = own[own["regime"] == "AT"] if "regime" in own else own
    return float(own["worst"].mean()) if len(own) else np.nan
