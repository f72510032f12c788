"""The paper's numbered claims, each a declared contrast over a study's records.

A claim says what the paper found, which contrast of means would show it, and on which side of which
threshold the contrast has to lie. It *holds* where the contrast's interval lies on that side, *does
not hold* where it lies on the other, and *cannot be told from these records* in between or where
records are missing. The intervals are those of Holm's procedure over all contrasts of the list that
are uncertain, so that with a chance of `confidence` none of the verdicts is wrong.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from dwlt_lib.analysis import contrasts
from dwlt_lib.analysis.contrasts import (
    DENSE,
    Contrast,
    Estimate,
    Evidence,
    best_over_dense,
    between,
    within,
)
from dwlt_lib.analysis.statistics import CRITERIA, Outcomes
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

SAME_SA, SAME_RA = 0.02, 0.03
"""Differences of SA and RA up to which two means are alike."""

RELEVANT_KERNELS = 0.01
"""The least difference in shares of zero kernels that makes one mask more clustered."""

MIDDLE, LARGE = (0.4, 0.9), (0.9, 1.0)
"""Section 5's middle and larger sparsities; the paper gives no bounds but 73.79 %."""

RISING, LAST = (0.0, 0.957), (0.957, 1.0)
"""Up to and beyond 95.60 %, where section 4.1 sees RA decline."""


@dataclass(frozen=True)
class Claim:
    """What the paper says, and what would show it."""

    section: str
    """Of the paper: "4.1", "A2"."""
    number: str
    """The claim's number there, with a letter where it takes several contrasts: "2a"."""
    about: Literal["ticket", "pre-training", "method", "sparsity", "attack", "landscape", "mask"]
    """What the contrast compares."""
    text: str
    """What the paper says, in our words."""
    needs: str
    """The records without which it cannot be told."""
    contrast: Contrast
    """Yields one estimate for each share of each data set that has these records."""
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


# ------------------------------------------------------------------------------------------
# the list

_ST_SA, _AT_SA, _AT_RA = CRITERIA
_IMP, _IMP_AT, _OMP, _RP = (("AT", method) for method in ("IMP-ST", "IMP-AT", "OMP", "RP"))
_STD, _FAT, _AT = ((pretraining, "IMP-ST") for pretraining in ("STD", "FAT", "AT"))
_BY_IMP = "by IMP-ST from theta_"
_PAIRS = "masks by IMP-ST from two theta_p at 73.8 % sparsity"
_KERNELS = "masks by IMP-ST from theta_STD, theta_FAT and theta_AT"
_ATTACKS = "transfer attacks on theta_AT by IMP-ST"

CLAIMS = (
    *(
        Claim(
            "4.1",
            number,
            "ticket",
            f"double-win tickets of {pretraining} exist at 73.8 % sparsity",
            f"transfers by ST and AT {_BY_IMP}{pretraining} at 73.8 % sparsity, and dense",
            contrasts.beyond_margin(pretraining),
            "below",
        )
        for number, pretraining in (("1a", "STD"), ("1b", "FAT"), ("1c", "AT"))
    ),
    *(
        Claim(
            "4.1",
            number,
            "method",
            f"tickets of {pretraining} surpass random masks by far in RA",
            f"transfers by AT from theta_{pretraining} by IMP-ST and RP",
            between((pretraining, "IMP-ST"), (pretraining, "RP"), _AT_RA),
        )
        for number, pretraining in (("1d", "AT"), ("1e", "STD"), ("1f", "FAT"))
    ),
    Claim(
        "4.1",
        "2a",
        "pre-training",
        "tickets of AT outperform those of STD in RA",
        f"transfers by AT {_BY_IMP}AT and STD",
        between(_AT, _STD, _AT_RA),
    ),
    Claim(
        "4.1",
        "2b",
        "pre-training",
        "tickets of AT outperform those of FAT in RA",
        f"transfers by AT {_BY_IMP}AT and FAT",
        between(_AT, _FAT, _AT_RA),
    ),
    Claim(
        "4.1",
        "2c",
        "pre-training",
        "tickets of AT outperform those of STD in SA after ST",
        f"transfers by ST {_BY_IMP}AT and STD",
        between(_AT, _STD, _ST_SA),
    ),
    Claim(
        "4.1",
        "2d",
        "pre-training",
        "tickets of AT outperform those of FAT in SA after ST",
        f"transfers by ST {_BY_IMP}AT and FAT",
        between(_AT, _FAT, _ST_SA),
    ),
    *(
        Claim(
            "4.1",
            number,
            "pre-training",
            f"double-win tickets of {high[0]} reach sparser extremes than those of {low[0]}",
            f"transfers by ST and AT {_BY_IMP}{high[0]} and {low[0]}, and dense",
            contrasts.extremes(high, low),
            unit="points of sparsity",
        )
        for number, high, low in (("2e", _AT, _STD), ("2f", _AT, _FAT), ("2g", _FAT, _STD))
    ),
    Claim(
        "4.1",
        "3a",
        "sparsity",
        "SA after ST of AT's tickets stays that of dense at extreme sparsity",
        f"transfers by ST {_BY_IMP}AT beyond 95.6 % sparsity, and dense",
        within(_AT, _ST_SA, LAST, DENSE),
        "alike",
        SAME_SA,
    ),
    Claim(
        "4.1",
        "3b",
        "sparsity",
        "RA of AT's tickets first rises above that of dense",
        f"transfers by AT {_BY_IMP}AT up to 95.6 % sparsity, and dense",
        within(_AT, _AT_RA, RISING, DENSE),
    ),
    Claim(
        "4.1",
        "3c",
        "sparsity",
        "RA of AT's tickets falls beyond 95.6 % sparsity",
        f"transfers by AT {_BY_IMP}AT up to and beyond 95.6 % sparsity",
        within(_AT, _AT_RA, RISING, LAST),
    ),
    Claim(
        "4.1",
        "4a",
        "pre-training",
        "tickets of FAT outperform those of STD in RA",
        f"transfers by AT {_BY_IMP}FAT and STD",
        between(_FAT, _STD, _AT_RA),
    ),
    Claim(
        "4.1",
        "4b",
        "pre-training",
        "tickets of FAT and STD are alike in SA after ST up to 95.6 % sparsity",
        f"transfers by ST {_BY_IMP}FAT and STD, and claim 4.1 (4a)",
        between(_FAT, _STD, _ST_SA, RISING),
        "alike",
        SAME_SA,
        provided="4.1 (4a)",
    ),
    Claim(
        "4.2",
        "a",
        "method",
        "standard and adversarial retraining find tickets that are alike in RA",
        "transfers by AT from theta_AT by IMP-AT and IMP-ST, and claim 4.1 (1d)",
        between(_IMP_AT, _IMP, _AT_RA),
        "alike",
        SAME_RA,
        provided="4.1 (1d)",
    ),
    Claim(
        "4.2",
        "b",
        "method",
        "tickets of IMP-ST outperform one-shot pruning in RA",
        "transfers by AT from theta_AT by IMP-ST and OMP",
        between(_IMP, _OMP, _AT_RA),
    ),
    Claim(
        "4.2",
        "c",
        "method",
        "tickets of IMP-AT outperform one-shot pruning in RA",
        "transfers by AT from theta_AT by IMP-AT and OMP",
        between(_IMP_AT, _OMP, _AT_RA),
    ),
    Claim(
        "4.2",
        "d",
        "method",
        "tickets of IMP-AT surpass random masks in RA",
        "transfers by AT from theta_AT by IMP-AT and RP",
        between(_IMP_AT, _RP, _AT_RA),
    ),
    Claim(
        "4.2",
        "e",
        "method",
        "adversarial retraining finds no tickets that are better in RA than those of standard",
        "transfers by AT from theta_AT by IMP-AT and IMP-ST, and claim 4.1 (1d)",
        between(_IMP_AT, _IMP, _AT_RA),
        "below",
        SAME_RA,
        provided="4.1 (1d)",
    ),
    *(
        Claim(
            "4.2",
            number,
            "method",
            f"double-win tickets of IMP-ST reach sparser extremes than those of {low[1]}",
            f"transfers by ST and AT from theta_AT by IMP-ST and {low[1]}, and dense",
            contrasts.extremes(_IMP, low),
            unit="points of sparsity",
        )
        for number, low in (("f", _OMP), ("g", _RP))
    ),
    Claim(
        "5",
        "1a",
        "pre-training",
        "with little data tickets of FAT outperform those of STD in RA",
        f"transfers by AT of a part of the data {_BY_IMP}FAT and STD",
        between(_FAT, _STD, _AT_RA, data="limited"),
    ),
    Claim(
        "5",
        "1b",
        "pre-training",
        "with little data tickets of AT outperform those of STD in RA",
        f"transfers by AT of a part of the data {_BY_IMP}AT and STD",
        between(_AT, _STD, _AT_RA, data="limited"),
    ),
    Claim(
        "5",
        "2",
        "ticket",
        "with little data some sparse ticket of FAT or AT exceeds its dense network in RA",
        f"transfers by AT of a part of the data {_BY_IMP}FAT or AT, and dense",
        best_over_dense(["FAT", "AT"], _AT_RA, "limited"),
    ),
    Claim(
        "5",
        "3a",
        "pre-training",
        "with little data FAT outperforms AT in RA at middle sparsity",
        f"transfers by AT of a part of the data {_BY_IMP}FAT and AT, 40 to 90 % sparse",
        between(_FAT, _AT, _AT_RA, MIDDLE, "limited"),
    ),
    Claim(
        "5",
        "3b",
        "pre-training",
        "with little data AT overtakes FAT in RA at larger sparsity",
        f"transfers by AT of a part of the data {_BY_IMP}AT and FAT, beyond 90 % sparsity",
        between(_AT, _FAT, _AT_RA, LARGE, "limited"),
    ),
    Claim(
        "5",
        "Fig. 6",
        "landscape",
        "FAT's basin is the widest",
        "surfaces on clean images of theta_FAT and another theta_p, of two networks each",
        contrasts.widest_over_fat("clean"),
        "below",
    ),
    Claim(
        "5",
        "Fig. A9",
        "landscape",
        "FAT's basin is the widest on attacked images, too",
        "surfaces on attacked images of theta_FAT and another theta_p, of two networks each",
        contrasts.widest_over_fat("attacked"),
        "below",
    ),
    Claim(
        "6",
        "a",
        "mask",
        "masks of different pre-trainings overlap by less than 20 % at 73.8 % sparsity",
        _PAIRS,
        contrasts.similarity_at_example,
        "below",
        0.2,
        "%",
    ),
    Claim(
        "6",
        "b",
        "mask",
        "the sparser, the less masks of different pre-trainings overlap",
        f"{_PAIRS} and beyond",
        contrasts.similarity_gained,
        "below",
    ),
    Claim(
        "6",
        "c",
        "mask",
        "masks of STD have the most zero kernels",
        _KERNELS,
        contrasts.zero_kernels_over("STD", 1),
        "below",
        -RELEVANT_KERNELS,
    ),
    Claim(
        "6",
        "d",
        "mask",
        "masks of FAT have the fewest zero kernels",
        _KERNELS,
        contrasts.zero_kernels_over("FAT", -1),
        "below",
        -RELEVANT_KERNELS,
    ),
    Claim(
        "6",
        "e",
        "mask",
        "zero kernels of AT's masks are mainly in the front blocks",
        "masks by IMP-ST from theta_AT",
        contrasts.zero_kernels_in("AT", "front", "later"),
        threshold=RELEVANT_KERNELS,
    ),
    Claim(
        "6",
        "f",
        "mask",
        "zero kernels of FAT's masks are mainly in the later blocks",
        "masks by IMP-ST from theta_FAT",
        contrasts.zero_kernels_in("FAT", "later", "front"),
        threshold=RELEVANT_KERNELS,
    ),
    Claim(
        "A2",
        "a",
        "attack",
        "sparse tickets exceed dense under transfer attack at every level",
        f"{_ATTACKS} and its dense network, of two seeds",
        contrasts.dense_over_sparse_attacked,
        "below",
    ),
    Claim(
        "A2",
        "b",
        "attack",
        "networks withstand an unseen model's images better than their own PGD's",
        f"{_ATTACKS}, of two seeds",
        contrasts.own_over_transfer_attack,
        "below",
    ),
    Claim(
        "A10",
        "a",
        "pre-training",
        "on further tasks tickets of FAT outperform those of STD in RA",
        f"transfers by AT to a further data set {_BY_IMP}FAT and STD",
        between(_FAT, _STD, _AT_RA, data="further"),
    ),
    Claim(
        "A10",
        "b",
        "pre-training",
        "on further tasks tickets of AT outperform those of STD in RA",
        f"transfers by AT to a further data set {_BY_IMP}AT and STD",
        between(_AT, _STD, _AT_RA, data="further"),
    ),
)
"""The paper's numbered claims, in its order. The introduction's points are among them: the first is
4.1 (1), the second 4.1 (2), the third 5 (3), the fourth 4.2."""


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
        A row per claim and task, those first that are decided: number, section, about, claim (its
        text), unit, side and threshold (fraction); where (the data), what (the contrast); effect,
        low and high (fractions; Holm-adjusted, one-sided on each side; NaN where not known); n
        (units of replication), speaks_for, verdict, measured (effect and interval in words) and
        sentence.

    Raises:
        ValueError: one line, as `tables.replicates`.
    """
    kinds = table["kind"] if "kind" in table.columns else pd.Series("transfer", table.index)
    transfers, attacks = table[kinds == "transfer"], table[kinds == "attack"]
    evidence = Evidence(transfers, outcomes or {}, margins, attacks, **tables)
    found: list[tuple[Claim, Estimate | None]] = []
    for claim in CLAIMS:
        estimates: list[Estimate | None] = list(claim.contrast(evidence))
        found += [(claim, estimate) for estimate in estimates or [None]]
    decisions = _judge(found, 1 - confidence)
    rows = []
    for (claim, estimate), (verdict, alpha) in zip(found, decisions, strict=True):
        row = {"number": claim.name, "section": claim.section, "about": claim.about}
        row |= {"claim": claim.text, "where": "", "what": "", "effect": np.nan}
        row |= {"unit": claim.unit}
        row |= {"side": claim.side, "threshold": claim.threshold}
        row |= {"low": np.nan, "high": np.nan, "n": 0, "speaks_for": "", "verdict": verdict}
        row |= {"measured": ""}
        if estimate:
            row |= {"where": estimate.where, "what": estimate.what, "effect": estimate.effect}
            row |= {"low": estimate.low(alpha), "high": estimate.high(alpha)}
            row |= {"n": estimate.n, "speaks_for": estimate.speaks_for}
            row["measured"] = _measured(claim, row)
        rows.append(row | {"sentence": _sentence(claim, row)})
    order = [VERDICTS.index(row["verdict"]) for row in rows]
    return pd.DataFrame(rows).iloc[np.argsort(order, kind="stable")].reset_index(drop=True)


def _judge(found: list[tuple[Claim, Estimate | None]], alpha: float) -> list[tuple[str, float]]:
    """The verdict of each claim, and the one-sided error at which its interval is taken.

    Holm's procedure: every interval is taken at alpha over the number of claims that are left;
    those that it decides leave, until it decides none. What is exact is not a test.
    """
    verdicts = [_verdict(claim, estimate, alpha) for claim, estimate in found]
    levels = [alpha] * len(found)
    left = [i for i, (_, each) in enumerate(found) if each and each.error > 0]
    decided = left
    while left and decided:
        current = alpha / len(left)
        for i in left:
            verdicts[i], levels[i] = _verdict(*found[i], current), current
        decided = [i for i in left if verdicts[i] != OPEN]
        left = [i for i in left if verdicts[i] == OPEN]
    places = [(claim.name, estimate.where if estimate else "") for claim, estimate in found]
    holding = {place for place, verdict in zip(places, verdicts, strict=True) if verdict == HOLDS}
    for i, (claim, _) in enumerate(found):
        if (
            claim.provided
            and verdicts[i] == HOLDS
            and (claim.provided, places[i][1]) not in holding
        ):
            verdicts[i] = OPEN
    return list(zip(verdicts, levels, strict=True))


def _verdict(claim: Claim, estimate: Estimate | None, alpha: float) -> str:
    """On which side of a claim's threshold the interval at a one-sided error of alpha lies."""
    if estimate is None:
        return OPEN
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
