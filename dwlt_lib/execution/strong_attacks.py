"""Which of a study's tickets strong attacks are for."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable

import pandas as pd

from dwlt_lib.analysis import double_win
from dwlt_lib.analysis.noninferiority import (
    UNDECIDED,
    certified,
    confidence_of,
    noninferiority,
)
from dwlt_lib.analysis.tables import GROUP, base_seeds
from dwlt_lib.config.planning import plan, robustness
from dwlt_lib.config.specs import RobustnessSpec, TransferSpec, label
from dwlt_lib.config.studies import DENSE, Study
from dwlt_lib.records import store

EXTREME = "extreme"
KEYWORDS = {EXTREME, UNDECIDED}
"""What stands for tickets besides their ids."""


def robustness_specs(study: Study, tickets: Iterable[str]) -> list[RobustnessSpec]:
    """The study's strong attacks on some of its tickets, whose weights are there.

    Args:
        study: the study.
        tickets: ids of its transfers; "extreme": what AT made of the tickets at each curve's
            extreme sparsity, by the paper's rule and as it is certified, and of the dense networks
            that they are compared with; "undecided": the same of the levels that are undecided.

    Returns:
        Descriptions of records, there or not, in the order of the plan.

    Raises:
        ValueError: an id is none of the study's transfers, or a ticket was not made yet or without
            keeping its weights; one line.
    """
    asked = list(dict.fromkeys(tickets))
    planned = {id: spec for id, spec in plan(study).items() if isinstance(spec, TransferSpec)}
    unknown = [id for id in asked if id not in planned and id not in KEYWORDS]
    if unknown:
        raise ValueError(
            f"--tickets {unknown[0]}: no transfer of {study.name}; want {EXTREME}, {UNDECIDED}, or"
            " ids as dwlt results prints them"
        )
    chosen = {*asked, *_ids(study, asked)}
    found = {id: spec for id, spec in planned.items() if id in chosen}
    if lost := [spec for spec in found.values() if spec.keep == "none"]:
        raise ValueError(
            f"{len(lost)} of {len(found)} tickets keep no weights, such as {label(lost[0])}; write"
            f" keep_weights: true into the parameters of {study.name}, or name them under"
            " robustness:, and run it again"
        )
    if missing := [spec for spec in found.values() if not store.exists(spec)]:
        raise ValueError(
            f"{len(missing)} of {len(found)} tickets are not there yet, such as"
            f" {label(missing[0])}; run {study.name} first"
        )
    return [robustness(study, spec) for spec in found.values()]


def _ids(study: Study, asked: Collection[str]) -> set[str]:
    """Ids of AT's transfers at the levels that are named by words, and of their dense networks."""
    if not KEYWORDS.intersection(asked):
        return set()
    table = store.table("transfer", study=study.name)
    confidence = confidence_of(study.search)
    levels = noninferiority(table, store.outcomes_of(table), study.margins, confidence)
    named = []
    if EXTREME in asked:
        with warnings.catch_warnings(action="ignore"):
            named.append(double_win.verdict(table).rename(columns={"extreme_rounds": "level"}))
        named.append(certified(levels).rename(columns={"at_least_rounds": "level"}))
    if UNDECIDED in asked:
        named.append(levels[levels["status"] == UNDECIDED].rename(columns={"rounds": "level"}))
    wanted = pd.concat([rows[[*GROUP, "level"]].dropna() for rows in named]).drop_duplicates()
    same = [column for column in GROUP if column != "method"]
    pairs = base_seeds(table[table["regime"] == "AT"]).merge(
        wanted, on=same, suffixes=("", "_of_curve")
    )
    own = pairs["method"] == pairs["method_of_curve"]
    at_level = own & (pairs["rounds"] == pairs["level"])
    return set(pairs.loc[at_level | (pairs["rounds"] == DENSE), "id"])
