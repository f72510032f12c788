"""The verdict: is a ticket worse than its dense network by no more than a stated margin?

The paper's rule (`double_win`) asks three noisy means to pass three bars that are as noisy. Here a
level *matches* if it can be excluded that it is worse than the margin by any of the three criteria,
*falls short* if by one of them it can be excluded that it is better, and is *undecided* otherwise:
an outcome that more seeds or more test images would resolve.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, get_args

import numpy as np
import pandas as pd

from dwlt_lib.analysis import double_win, statistics
from dwlt_lib.analysis.double_win import leading
from dwlt_lib.analysis.statistics import CONFIDENCE, CRITERIA, STRONG, Difference, Outcomes
from dwlt_lib.analysis.tables import GROUP, TASK
from dwlt_lib.config.specs import Pretraining
from dwlt_lib.config.studies import Margins

MATCHES, FALLS_SHORT, UNDECIDED, UNKNOWN = "matches", "falls short", "undecided", "unknown"
STATUSES = (MATCHES, FALLS_SHORT, UNDECIDED, UNKNOWN)

SEARCHED = 1 - (1 - CONFIDENCE) / 3
"""Of each one-sided bound where a search chose the levels. It may try several levels of which none
matches, and each is a chance to err: at this confidence their bounds hold in 95 % of studies even
in the worst case (`dwlt simulate --searches`)."""

MEASURES = ("difference", "se", "df", "skewness", "low", "high", "n_level")
"""What is told of each criterion, of `statistics.differences`."""


def noninferiority(
    table: pd.DataFrame,
    outcomes: Outcomes | None = None,
    margins: Margins | None = None,
    confidence: float = CONFIDENCE,
) -> pd.DataFrame:
    """Judge every level against its dense network, within margins.

    With alpha = 1 - confidence, a level

    - matches if by all three criteria the lower bound of its difference lies above -margin. Each
      bound is taken at alpha: all three must pass, so a ticket that is worse than a margin is
      called so with a chance of at most alpha (intersection-union test; Berger 1982);
    - falls short if by one of them the upper bound lies below -margin. One is enough, so each bound
      is taken at alpha / 3 (Bonferroni);
    - is unknown where the paper's rule would not know either (`double_win.criteria`: a seed is
      missing, or dense is at chance), or no variance over seeds is known.

    Args:
        table: transfers, as `tables.replicates` takes them; with a column id if outcomes are given.
        outcomes: the correctness per image (`records.outcomes_of`).
        margins: how much worse still matches; None: the default of a study.
        confidence: 1 - alpha, in (0.5, 1).

    Returns:
        One row per (pretraining, method, dataset, fraction, rounds > 0): sparsity; for each
        criterion c (ST_SA, AT_SA, AT_RA and, where further attacks were tried, AT_worst, which has
        no part in the verdict): c_difference, c_se, c_df, c_skewness, c_low, c_high (one-sided
        bounds at `confidence`), c_n_level (seeds), c_margin and c_status; and status.

    Raises:
        ValueError: one line, as `tables.replicates`.
    """
    margins = margins or Margins()
    found = statistics.differences(table, outcomes, confidence)
    by_level = found.set_index([*GROUP, "rounds", "criterion"]).to_dict("index")
    nothing = dict.fromkeys(MEASURES, np.nan)
    chances = chances_of(table)
    rows = []
    for level in double_win.criteria(table, rule="eq3").to_dict("records"):
        row = {column: level[column] for column in [*GROUP, "rounds", "sparsity"]}
        key = tuple(level[column] for column in [*GROUP, "rounds"])
        for name, (_, metric) in (CRITERIA | STRONG).items():
            own = by_level.get((*key, name), nothing)
            if level.get(f"{name}_status") == UNKNOWN:
                own = nothing
            dense = level.get(f"{name}_dense", level["AT_RA_dense"])
            margin = margin_of(margins, metric, dense, chances.get(level["dataset"], 0.0))
            row |= {f"{name}_{measure}": own[measure] for measure in MEASURES}
            row[f"{name}_margin"] = margin
            row[f"{name}_status"] = _status(own, margin, confidence)
        row["status"] = _joint(row[f"{name}_status"] for name in CRITERIA)
        rows.append(row)
    measures = (*MEASURES, "margin", "status")
    columns = [f"{name}_{measure}" for name in CRITERIA | STRONG for measure in measures]
    return pd.DataFrame(rows, columns=[*GROUP, "rounds", "sparsity", *columns, "status"])


def confidence_of(search: str) -> float:
    """The confidence of each bound in a study.

    Args:
        search: of the study: grid or adaptive.

    Returns:
        CONFIDENCE, or SEARCHED.
    """
    return SEARCHED if search == "adaptive" else CONFIDENCE


def chances_of(table: pd.DataFrame) -> dict[str, float]:
    """How often naming always the commonest class is right.

    Args:
        table: transfers, with or without a column chance.

    Returns:
        {data set: an accuracy}; empty where the table has none.
    """
    if "chance" not in table.columns or table.empty:
        return {}
    chances = table.groupby("dataset")["chance"].median().fillna(0.0)
    return {str(dataset): chance for dataset, chance in chances.items()}


def margin_of(margins: Margins, metric: str, dense: float, chance: float) -> float:
    """How much worse than dense still matches.

    Args:
        margins: of the study.
        metric: "SA" or "RA".
        dense: the dense network's mean accuracy.
        chance: of `chances_of`.

    Returns:
        A difference, in [0, 1]; for relative margins, NaN where dense is.
    """
    own = margins.SA if metric == "SA" else margins.RA
    return own * max(dense - chance, 0.0) if margins.relative else own


def _status(row: Mapping[Any, Any], margin: float, confidence: float) -> str:
    if np.isnan(row["se"]):
        return UNKNOWN
    d = Difference(row["difference"], row["se"], row["df"], row["skewness"])
    if d.low(confidence) > -margin:
        return MATCHES
    if d.high(1 - (1 - confidence) / len(CRITERIA)) < -margin:
        return FALLS_SHORT
    return UNDECIDED


def _joint(statuses: Iterable[str]) -> str:
    """The status of a level from those of its criteria."""
    found = set(statuses)
    if FALLS_SHORT in found:
        return FALLS_SHORT
    if UNKNOWN in found:
        return UNKNOWN
    return MATCHES if found == {MATCHES} else UNDECIDED


def certified(levels: pd.DataFrame) -> pd.DataFrame:
    """Between which sparsities the extreme double-win sparsity of each curve lies.

    From the dense end upwards, levels are tested one after another as long as they match: the last
    of them is a certified lower bound. From the sparsest level downwards, as long as they fall
    short: the extreme lies below the last of these. In a fixed sequence each test keeps its full
    alpha (Maurer, Hothorn and Lehmacher 1995). A curve whose lower bound random pruning (RP) of the
    same theta_p and data reaches, too, shares it: that sparsity is no merit of its masks.

    Args:
        levels: of `noninferiority`.

    Returns:
        One row per (pretraining, method, dataset, fraction): at_least_rounds and at_least_sparsity
        (0: no level is known to match), below_rounds and below_sparsity (<NA> and NaN: no level is
        known to fall short), levels, matches, falls_short, undecided, unknown (counts),
        shared_with_random (sparsity up to which RP is known to match, too; NaN: RP was not tried)
        and text, as it is read.
    """
    rows = []
    for curve, own in levels.sort_values("rounds").groupby(GROUP):
        status = own["status"].to_numpy()
        rounds, sparsity = [0, *own["rounds"], None], [0.0, *own["sparsity"], np.nan]
        last = leading(status == MATCHES)
        first = len(own) + 1 - leading(status[::-1] == FALLS_SHORT)
        counts = [(status == one).sum() for one in STATUSES]
        bounds = [rounds[last], sparsity[last], rounds[first], sparsity[first]]
        rows.append([*curve, *bounds, len(own), *counts])
    columns = ["at_least_rounds", "at_least_sparsity", "below_rounds", "below_sparsity", "levels"]
    columns += [status.replace(" ", "_") for status in STATUSES]
    found = pd.DataFrame(rows, columns=[*GROUP, *columns])
    found = found.astype({"at_least_rounds": "Int64", "below_rounds": "Int64"})
    random = found[found["method"] == "RP"].set_index(TASK)["at_least_sparsity"]
    shared = random.reindex(pd.MultiIndex.from_frame(found[TASK])).to_numpy()
    found["shared_with_random"] = np.where(found["method"] == "RP", np.nan, shared)
    found["text"] = [_text(row) for row in found.to_dict("records")]
    return found


def _text(row: dict) -> str:
    """What is certified of one curve, in words."""
    low, high, levels = row["at_least_sparsity"], row["below_sparsity"], row["levels"]
    counted = f"{levels} level{'s' if levels > 1 else ''}"
    if low > 0 and high == high:
        text = f"at least {100 * low:.1f}, below {100 * high:.1f} %"
    elif low > 0:
        text = f"at least {100 * low:.1f} %"
    elif high == high:
        text = f"< {100 * high:.1f} %"
    elif row["unknown"] == levels:
        return f"unknown ({counted})"
    else:
        return f"undecided ({counted})"
    if levels == 1:
        text += " (1 level)"
    shared = row["shared_with_random"]
    if low > 0 and shared > 0:
        text += f"; shared with random pruning up to {100 * min(shared, low):.1f} %"
    return text


def as_markdown(curves: pd.DataFrame) -> str:
    """What is certified as a table for a page.

    Args:
        curves: of `certified`.

    Returns:
        Markdown, a row per curve: the most data first, pre-trainings in the paper's order.
    """
    order = pd.CategoricalDtype(list(get_args(Pretraining)), ordered=True)
    rows = curves.astype({"pretraining": order}).sort_values(
        ["dataset", "fraction", "method", "pretraining"], ascending=[True, False, True, True]
    )
    lines = ["| theta_p | masks | data | double-win sparsity |", "|---|---|---|---|"]
    for row in rows.to_dict("records"):
        data = f"{100 * row['fraction']:g} % of {row['dataset']}"
        lines.append(f"| {row['pretraining']} | {row['method']} | {data} | {row['text']} |")
    return "\n".join(lines)
