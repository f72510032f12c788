"""How many seeds decide: the noise of a study's records, and what it asks for."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

import numpy as np
import pandas as pd

from dwlt_lib.analysis.noninferiority import chances_of, margin_of
from dwlt_lib.analysis.statistics import (
    CRITERIA,
    Outcomes,
    differences,
    fit_noise,
    runs_by_cell,
    seeds_needed,
)
from dwlt_lib.analysis.tables import TASK
from dwlt_lib.config.studies import Margins

ASSUMED_SD = 0.015
"""Standard deviation over seeds where a study has no replicates yet, in [0, 1]."""
ASSUMED_LEVELS = 6
"""Levels of a ladder where a study has none yet."""


def proposals(
    table: pd.DataFrame, outcomes: Outcomes | None = None, margins: Margins | None = None
) -> Iterator[str]:
    """How many seeds a level and dense want, so that an equal ticket matches in 80 % of studies.

    Args:
        table: transfers that are there already, as `tables.replicates` takes them, or none.
        outcomes: their correctness per image.
        margins: of the verdict; None: the default of a study.

    Yields:
        A line per theta_p, data set and fraction, with the noise it stands on; where there are no
        replicates, one line on an assumed noise or, for relative margins, that they are missing.

    Raises:
        ValueError: one line, as `tables.replicates`.
    """
    margins = margins or Margins()
    chances, found = chances_of(table), 0
    images = differences(table, outcomes).groupby([*TASK, "criterion"])["image_se"].median()
    for group, parts in groupby(runs_by_cell(table), key=lambda part: part[0]):
        cells = {criterion: cells for _, criterion, cells in parts}
        if not cells.keys() >= CRITERIA.keys():
            continue
        limits, sds, image_ses, levels = [], [], [], 1
        for criterion, (_, metric) in CRITERIA.items():
            own = cells[criterion]
            noise = fit_noise([runs.values for runs in own.values()])
            # both parts: new seeds bring common luck, too
            sds.append(float(np.sqrt(noise.residual / max(1 - noise.rho, 1e-9))))
            dense = own["dense", 0].values if ("dense", 0) in own else {0: np.nan}
            mean, chance = float(np.mean(list(dense.values()))), chances.get(group[1], 0.0)
            limits.append(margin_of(margins, metric, mean, chance))
            image_ses.append(images.get((*group, criterion), 0.0))
            levels = max(1, len({cell for cell in own if cell[1] > 0}))
        if np.isnan([*sds, *limits]).any():
            continue
        name = f"theta_{group[0]}, {group[1]} {100 * group[2]:g} %"
        yield f"{name}: {_proposal(levels, limits, sds, image_ses)}"
        found += 1
    if not found and margins.relative:
        yield "no replicates yet; relative margins need the accuracies of dense networks: run those"
    elif not found:
        sds, nothing = [ASSUMED_SD] * len(CRITERIA), [0.0] * len(CRITERIA)
        assumed = [margin_of(margins, metric, 1.0, 0.0) for _, metric in CRITERIA.values()]
        text = _proposal(ASSUMED_LEVELS, assumed, sds, nothing)
        yield f"no replicates yet; with an assumed noise: {text}"


def _proposal(levels: int, limits: list[float], sds: list[float], image_ses: list[float]) -> str:
    """What `seeds_needed` says, and what it stands on, in words."""
    noise = "/".join(f"{100 * sd:.1f}" for sd in sds)
    images = "/".join(f"{100 * se:.1f}" for se in image_ses)
    basis = (
        f"over seeds {noise} and over test images {images} points of {'/'.join(CRITERIA)},"
        f" {levels} level{'s' if levels > 1 else ''}"
    )
    needed = seeds_needed(levels, limits, sds, image_ses)
    if needed is None:
        return f"no number of seeds up to 50 will do: more test images or wider margins ({basis})"
    return f"{needed[0]} seeds for each level and {needed[1]} for dense ({basis})"
