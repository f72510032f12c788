"""The paper's numbered claims, each a declared contrast over a study's records.

A claim says what the paper found, which contrast of means would show it, and on which side of which
threshold the contrast has to lie. It *holds* where the contrast's interval lies on that side, *does
not hold* where it lies on the other, and *cannot be told from these records* in between or where
records are missing. The intervals are those of Holm's procedure over all contrasts of the list that
are uncertain, so that with a chance of `confidence` none of the verdicts is wrong.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import yaml

from dwlt_lib.analysis import contrasts
from dwlt_lib.analysis.contrasts import Estimate, Evidence
from dwlt_lib.analysis.statistics import Outcomes
from dwlt_lib.config.studies import Margins

HOLDS, FAILS, OPEN = "holds", "does not hold", "cannot be told"
VERDICTS = (HOLDS, FAILS, OPEN)

COUNTED = {
    contrasts.SEEDS: "{n} seeds",
    contrasts.THETAS: "{n} theta_p",
    contrasts.THESE_IMAGES: "{n} seeds, these images",
    contrasts.NETWORKS: "{n} networks",
    contrasts.MASKS: "these masks",
}
"""The units of replication in words, by the population that they speak for."""

CONFIDENCE = 0.95
"""That no verdict of the list is wrong."""


@dataclass(frozen=True)
class Claim:
    """What the paper says, and what would show it."""

    section: str
    """Of the paper: "4.1", "A2"."""
    number: str
    """The claim's number there, with a letter where it takes several contrasts: "2a"."""
    figure: str
    """The figure, or Table A2, that shows it: "3", "A8 top", "A2"."""
    about: Literal["ticket", "pre-training", "method", "sparsity", "attack", "landscape", "mask"]
    """What the contrast compares."""
    text: str
    """What the paper says, in our words."""
    needs: str
    """The records without which it cannot be told."""
    contrast: str
    """The function of `contrasts` that yields one estimate for each share of each data set that has
    these records."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """What it takes besides the evidence."""
    side: Literal["above", "below", "alike"] = "above"
    """Where the contrast lies if the claim holds: beyond the threshold, or within +- of it."""
    threshold: float = 0.0
    """The least effect that counts or, for alike, the largest that does not."""
    unit: Literal["points", "points of sparsity", "%"] = "points"
    """In which effects are told: differences in points, shares in percent."""
    provided: str = ""
    """The name of the claim that has to hold on the same data before this one can. Two means look
    alike in records that cannot tell anything apart, too."""

    @property
    def name(self) -> str:
        """Section and number, as they are cited: "4.1 (2a)"."""
        return f"{self.section} ({self.number})"


_LIST = Path(__file__).with_name("claims.yaml")
CLAIMS = [Claim(**row) for row in yaml.safe_load(_LIST.read_text(encoding="utf-8"))]
"""All of them, in the paper's order."""


def claims(
    table: pd.DataFrame,
    outcomes: Outcomes | None = None,
    confidence: float = CONFIDENCE,
    margins: Margins | None = None,
    **tables: pd.DataFrame | None,
) -> pd.DataFrame:
    """What a study's records say of every claim of the paper.

    Args:
        table: records (`records.table`); without a column kind, transfers.
        outcomes: the correctness per test image (`records.outcomes`); without it the images' part
            of an error is that of networks tested on different images, which is larger.
        confidence: that no verdict of the list is wrong on its side.
        margins: how much worse than dense a ticket still matches; None: the default of a study.
        **tables: pairs, kernels and areas, as `contrasts.Evidence` has them.

    Returns:
        A row per claim and task, those first that are decided: number, section, figure, about,
        claim (its text), unit, side and threshold (fraction); where (the data),
        what (the contrast); effect, low and high (fractions; Holm-adjusted, one-sided on each side;
        NaN where not known); n (units of replication), speaks_for, verdict, measured (effect and
        interval in words) and sentence.

    Raises:
        ValueError: one line, as `tables.replicates`.
    """
    kinds = table["kind"] if "kind" in table.columns else pd.Series("transfer", table.index)
    transfers, attacks = table[kinds == "transfer"], table[kinds == "attack"]
    evidence = Evidence(transfers, outcomes or {}, margins, attacks, **tables)
    found: list[tuple[Claim, Estimate]] = []
    for claim in CLAIMS:
        contrast = getattr(contrasts, claim.contrast)
        estimates = list(contrast(evidence, **claim.arguments)) or [contrasts.NOTHING]
        found += [(claim, estimate) for estimate in estimates]
    decisions = _judge(found, 1 - confidence)
    rows = []
    for (claim, estimate), (verdict, alpha) in zip(found, decisions, strict=True):
        row = {"number": claim.name, "section": claim.section, "figure": claim.figure}
        row |= {"about": claim.about, "claim": claim.text}
        row |= {"where": estimate.where, "what": estimate.what}
        row |= {"effect": estimate.effect, "unit": claim.unit}
        row |= {"side": claim.side, "threshold": claim.threshold}
        row |= {"low": estimate.low(alpha), "high": estimate.high(alpha)}
        row |= {"n": estimate.n, "speaks_for": estimate.speaks_for, "verdict": verdict}
        row["measured"] = _measured(claim, row) if estimate.n else ""
        rows.append(row | {"sentence": _sentence(claim, row)})
    order = [VERDICTS.index(row["verdict"]) for row in rows]
    return pd.DataFrame(rows).iloc[np.argsort(order, kind="stable")].reset_index(drop=True)


def _judge(found: list[tuple[Claim, Estimate]], alpha: float) -> list[tuple[str, float]]:
    """The verdict of each claim, and the one-sided error at which its interval is taken.

    Holm's procedure: every interval is taken at alpha over the number of claims that are left;
    those that it decides leave, until it decides none. What is exact is not a test.
    """
    verdicts = [_verdict(claim, estimate, alpha) for claim, estimate in found]
    levels = [alpha] * len(found)
    left = [i for i, (_, each) in enumerate(found) if each.error > 0]
    decided = left
    while left and decided:
        current = alpha / len(left)
        for i in left:
            verdicts[i], levels[i] = _verdict(*found[i], current), current
        decided = [i for i in left if verdicts[i] != OPEN]
        left = [i for i in left if verdicts[i] == OPEN]
    places = [(claim.name, estimate.where) for claim, estimate in found]
    holding = {place for place, verdict in zip(places, verdicts, strict=True) if verdict == HOLDS}
    for i, (claim, estimate) in enumerate(found):
        is_told = not claim.provided or (claim.provided, estimate.where) in holding
        if verdicts[i] == HOLDS and not is_told:
            verdicts[i] = OPEN
    return list(zip(verdicts, levels, strict=True))


def _verdict(claim: Claim, estimate: Estimate, alpha: float) -> str:
    """On which side of a claim's threshold the interval at a one-sided error of alpha lies."""
    low, high, threshold = estimate.low(alpha), estimate.high(alpha), claim.threshold
    holds, fails = {
        "above": (low > threshold, high < threshold),
        "below": (high < threshold, low > threshold),
        "alike": (-threshold < low and high < threshold, low > threshold or high < -threshold),
    }[claim.side]
    if holds:
        return HOLDS
    return FAILS if fails or estimate.error == 0 else OPEN


def _sentence(claim: Claim, row: Mapping[str, Any]) -> str:
    """A claim's verdict, what it says and the number that decides it."""
    said = f"{claim.name} {row['verdict']}: {claim.text}"
    if not row["what"]:
        return f"{said}; it takes {claim.needs}."
    where = f"on {row['where']}, " if row["where"] else ""
    return f"{said}; {where}{row['what']}: {row['measured']}."


def _measured(claim: Claim, row: Mapping[str, Any]) -> str:
    """An effect with its interval and what it is held against, in words."""
    effect, low, high = (_shown(row[key], claim.unit) for key in ("effect", "low", "high"))
    threshold = f"{100 * claim.threshold:g}"
    bound = f"within +-{threshold}" if claim.side == "alike" else f"{claim.side} {threshold}"
    if np.isnan(row["low"]):
        return f"{effect} {claim.unit}, of one unit, so that its noise is not known"
    interval = f" [{low}, {high}]" if row["low"] < row["high"] else ""
    unit = COUNTED[row["speaks_for"]].format(n=row["n"])
    return f"{effect}{interval} {claim.unit} ({unit}), to be {bound}"


def _shown(fraction: float, unit: str) -> str:
    """A fraction in points, with its sign, or in percent; a rounded -0.0 is a 0.0."""
    value = round(100 * fraction, 1) + 0.0
    return f"{value:.1f}" if unit == "%" else f"{value:+.1f}"


def of_figure(table: pd.DataFrame, figure: str) -> str:
    """What the claims say of one figure: the finding that stands under it.

    Args:
        table: of `claims`.
        figure: as `Claim.figure` has it; one that no claim speaks of has no finding.

    Returns:
        The sentence of each claim that is decided, and a line that counts and names the others.
    """
    own = table[table["figure"] == figure]
    is_open = own["verdict"] == OPEN
    lines = list(own.loc[~is_open, "sentence"])
    if is_open.any():
        names = ", ".join(dict.fromkeys(own.loc[is_open, "number"]))
        lines.append(f"{is_open.sum()} of {len(own)} cannot be told from these records: {names}.")
    return "\n".join(lines)


def as_text(table: pd.DataFrame) -> str:
    """What a study decides of the paper's claims, to be read.

    Args:
        table: of `claims`.

    Returns:
        A sentence per line, first of the claims that are decided, then of those that are not.
    """
    is_open = table["verdict"] == OPEN
    decided, undecided = table[~is_open], table[is_open]
    lines = [f"Decided: {len(decided)} of {len(table)}", *decided["sentence"]]
    lines += ["", f"Cannot be told from these records: {len(undecided)}", *undecided["sentence"]]
    spoken_for = [name for name in COUNTED if name in set(table["speaks_for"])]
    if spoken_for:
        lines += ["", "Intervals are Holm's over all contrasts and speak for"]
        lines += [f"  {COUNTED[name].format(n='n')}: {name}" for name in spoken_for]
    return "\n".join(lines)


def as_markdown(table: pd.DataFrame) -> str:
    """The same as a table for a page.

    Args:
        table: of `claims`; what lacks records is left out.

    Returns:
        Markdown, a row per claim and task.
    """
    lines = ["| the paper says | here | effect [interval] |", "|---|---|---|"]
    for row in table[table["what"] != ""].to_dict("records"):
        where = f", on {row['where']}" if row["where"] else ""
        said = f"{row['number']} {row['claim']}{where}"
        lines.append(f"| {said} | {row['verdict']} | {row['measured']} |")
    return "\n".join(lines)
