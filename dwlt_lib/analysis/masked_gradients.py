"""Signs that a network looks robust because its gradients mislead the attacker.

From Athalye, Carlini & Wagner (Obfuscated Gradients, ICML 2018), section 3.1, each as a test. Where
none is found that is less than a proof.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from dwlt_lib.analysis.tables import TASK

LEVEL = 0.01
"""A sign is one at this level of a one-sided exact test."""
BY_GRADIENTS = ("RA", "PGD-", "APGD-")
"""How the names of the attacks that follow a network's own gradients begin."""
WARNINGS = "warnings.txt"
"""The file of a record that holds what AutoAttack warned of, a line each."""
GREY = 0.5
"""The radius at which every image of [0,1] pixels can be made the same grey."""

Outcomes = Mapping[str, np.ndarray]
"""Which images are classified rightly, (N,) bool by the name of the attack."""


def compare(right: Outcomes, other: np.ndarray) -> tuple[int, int]:
    """How many images an attack breaks that no attack by gradients does, and the other way round.

    Args:
        right: bool (N,) by name: SA, and attacks by gradients among others; the first images of
            the test set, so many as the shortest of these has.
        other: bool (N,), which images are right under the other attack.

    Returns:
        (broken by the other attack alone, broken by some attack by gradients but not by the other),
        of the images that are right as they are.
    """
    known = [bits for name, bits in right.items() if name.startswith(BY_GRADIENTS)]
    n = min(map(len, (right["SA"], other, *known)))
    clean, other = right["SA"][:n], other[:n]
    withstood = np.logical_and.reduce([clean, *(bits[:n] for bits in known)])
    return int((withstood & ~other).sum()), int((clean & other & ~withstood).sum())


def numbers(
    right: Outcomes, fgsm: np.ndarray, many: np.ndarray, grey: np.ndarray
) -> dict[str, float]:
    """What the signs of one network are read from, as its record stores it.

    Args:
        right: bool (N,) by name: SA, RA and each strong attack.
        fgsm: under one step of eps from the image itself, bool (N,).
        many: under PGD of the most steps.
        grey: under RA's attack of the radius `GREY`.

    Returns:
        Counts of images by name: square_only and gradients_only (`compare`, where Square was run),
        fgsm_only and many_steps_only. RA_fgsm: the share that is right as it is and under FGSM;
        RA_grey: the share that is right under `grey`.
    """
    clean = right["SA"]
    found: dict[str, float] = {
        "fgsm_only": int((clean & many & ~fgsm).sum()),
        "many_steps_only": int((clean & fgsm & ~many).sum()),
        "RA_fgsm": float((clean & fgsm).mean()),
        "RA_grey": float(grey.mean()),
    }
    if "Square" in right:
        found["square_only"], found["gradients_only"] = compare(right, right["Square"])
    return found


def signs(row: Mapping[Any, float], transfer: tuple[int, int] | None = None) -> list[str]:
    """The signs of masked gradients of one network.

    Args:
        row: of a table of robustness records, or a record's metrics: SA, images_used, chance,
            `numbers` and gradient_above_random, the share of images whose loss is higher along its
            gradient than along random directions. Square may be missing or NaN.
        transfer: `compare` of an attack through an unseen model, where there is one.

    Returns:
        Sentences "sign of ..." without a full stop; none where there is no sign.
    """
    n, found = int(row["images_used"]), []
    square = row.get("square_only", np.nan), row.get("gradients_only", np.nan)
    for one, other, (alone, rest) in (
        ("a transfer attack", "attacks by gradients", transfer or (0, 0)),
        ("Square", "attacks by gradients", square),
        ("one step", "many steps", (row["fgsm_only"], row["many_steps_only"])),
    ):
        if _more(alone, alone + rest, 0.5):
            found.append(
                f"sign of useless gradients ({one} breaks {alone:,.0f} images that {other} do not,"
                f" against {rest:,.0f} the other way round)"
            )
    fgsm, broken = row["RA_fgsm"], row["many_steps_only"]
    if fgsm > row["SA"] / 2 and _more(broken, fgsm * n, 0.5):
        found.append(
            f"sign of catastrophic overfitting (one step leaves {100 * fgsm:.1f} % of the images,"
            f" and of these many steps break {100 * broken / (fgsm * n):.0f} %)"
        )
    grey, above = row["RA_grey"], row["gradient_above_random"]
    if _more(grey * n, n, row["chance"]):
        found.append(
            f"sign of an attack that fails (RA is {100 * grey:.1f} % at radius {GREY}, where all"
            f" images can be made the same grey and a constant answer has"
            f" {100 * row['chance']:.1f} %)"
        )
    if not _more(above * n, n, 0.5):
        found.append(
            "sign of gradients that point nowhere (the loss along them is above that along random"
            f" directions for {100 * above:.0f} % of the images)"
        )
    return found


def of_networks(
    table: pd.DataFrame,
    attacks: pd.DataFrame,
    read: Callable[[str], Any],
    outcomes: Callable[[str], Any],
) -> pd.DataFrame:
    """The signs of each network that strong attacks were tried on.

    Args:
        table: robustness records.
        attacks: transfer attacks, of which those on the same networks count.
        read: gives the record of an id (`records.read`).
        outcomes: gives which images are right by the id of a record (`records.outcomes`).

    Returns:
        The rows of `table`, without those of former versions that hold no `numbers`, and the
        columns signs (a list of sentences, of `signs` and of AutoAttack's warnings) and
        through_unseen (whether a transfer attack is among the tests).
    """
    if "gradient_above_random" not in table:
        return table.iloc[:0].assign(signs=[], through_unseen=[])
    table = table.dropna(subset="gradient_above_random")
    records = [read(id) for id in table["id"]]
    tickets = [record.upstream[0] for record in records]
    through_unseen = {}
    for id in attacks.get("id", []):
        attack = read(id)
        ticket = attack.upstream[0]
        if ticket in tickets and attack.has("outcomes.safetensors"):
            through_unseen[ticket] = compare(outcomes(ticket), outcomes(id)["transfer"])
    found = []
    for row, record, ticket in zip(table.to_dict("records"), records, tickets, strict=True):
        own = signs(row, through_unseen.get(ticket))
        said = record.read(WARNINGS).decode().splitlines() if record.has(WARNINGS) else []
        own += [f"sign of an evaluation to doubt (AutoAttack: {line.rstrip('.')})" for line in said]
        found.append(own)
    borrowed = [ticket in through_unseen for ticket in tickets]
    return table.assign(signs=pd.Series(found, table.index), through_unseen=borrowed)


def by_curve(curves: pd.DataFrame, networks: pd.DataFrame) -> list[str]:
    """What was seen on the networks of each curve, in words, to be shown beside its verdict.

    Args:
        curves: has the columns pretraining, method, dataset and fraction.
        networks: of `of_networks`.

    Returns:
        For each row of `curves` "not tested", "no sign (3 networks)", or which signs there are;
        where a ticket of a curve was tested, its dense network counts, too.
    """
    found = []
    for curve in curves.to_dict("records"):
        same_task = (networks[TASK] == [curve[column] for column in TASK]).all(axis="columns")
        own = networks[same_task & networks["method"].isin(["dense", curve["method"]])]
        if (own["method"] == "dense").all():  # no ticket of the curve, or none at all
            found.append("not tested")
            continue
        count = f"{len(own)} network" + ("s" if len(own) > 1 else "")
        shown = [one for one in own["signs"] if one]
        kinds = dict.fromkeys(
            sign.partition(" (")[0].removeprefix("sign of ") for one in shown for sign in one
        )
        text = f"no sign ({count})"
        if shown:
            text = f"sign of {', '.join(kinds)} ({len(shown)} of {count})"
        found.append(text)
    return found


def _more(count: float, total: float, share: float) -> bool:
    """Whether `count` of `total` is more than that share, beyond chance; of NaN it is not known."""
    if not total > 0:
        return False
    return bool(binomtest(round(count), round(total), share, "greater").pvalue < LEVEL)
