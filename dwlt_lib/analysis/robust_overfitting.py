"""Robust overfitting: how far RA falls from its best epoch to the last (Rice et al., ICML 2020)."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from dwlt_lib.analysis.tables import GROUP, base_seeds


def overfitting_table(table: pd.DataFrame, load: Callable[[str], Any]) -> pd.DataFrame:
    """RA of the best epoch less RA of the last, of every transfer by AT of the base seeds.

    Records hold two things that tell of it. `validation` is max(RA) - RA of the last epoch, over
    the epochs that were validated; being a maximum it is never negative, and noise alone lifts it.
    `test` is RA - RA_last on the test images, of the epoch that validation has selected and of the
    last one: it is fair to both, may be negative, and is there only where the recipe selects the
    best epoch.

    Args:
        table: transfers: id, pretraining, method, dataset, fraction, regime, rounds, seed, perhaps
            sparsity and validation_images.
        load: gives the record of an id (`records.read`).

    Returns:
        One row per transfer by AT with RA validated in two epochs or more: pretraining, method,
        dataset, fraction, rounds, seed, sparsity, validation and test (differences of fractions;
        test NaN where there is none), error (one standard error of the last validation RA,
        sqrt(RA (1 - RA) / N) over N images).
    """
    columns = [*GROUP, "rounds", "seed", "sparsity"]
    rows = []
    for row in base_seeds(table[table["regime"] == "AT"]).to_dict("records"):
        record = load(row["id"])
        validated = [epoch["RA"] for epoch in record.history if "RA" in epoch]
        if len(validated) < 2:
            continue
        last, metrics = validated[-1], record.metrics
        selects = record.spec["recipe"]["selection"] == "best"
        rows.append(
            {
                **{name: row.get(name, np.nan) for name in columns},
                "validation": max(validated) - last,
                "test": metrics["RA"] - metrics["RA_last"] if selects else np.nan,
                "error": (last * (1 - last) / metrics["validation_images"]) ** 0.5,
            }
        )
    return pd.DataFrame(rows, columns=[*columns, "validation", "test", "error"])
