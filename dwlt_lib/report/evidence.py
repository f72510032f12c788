"""What a study's records say of the paper's claims and of masked gradients."""

import pandas as pd

from dwlt_lib import pruning
from dwlt_lib.analysis import claims, contrasts, mask_patterns, masked_gradients, tables
from dwlt_lib.config.studies import Margins
from dwlt_lib.plotting import landscapes
from dwlt_lib.records import store


def judge_claims(table: pd.DataFrame, margins: Margins | None = None) -> pd.DataFrame:
    """Every claim of the paper, judged by the records of a study.

    Args:
        table: all of them, of `records.table`.
        margins: the study's; None: the default of a study.

    Returns:
        The table of `claims.claims`.

    Raises:
        KeyError, ValueError: one line, as `records.read`, or as `tables.replicates`.

    Example:
        >>> judge_claims(records.table(study="tour_full"))[["number", "verdict"]]
    """
    masks = tables.base_seeds(table[(table["kind"] == "mask") & (table["method"] == "IMP-ST")])
    low, high = contrasts.EXAMPLE
    is_example = (masks["sparsity"] > low) & (masks["sparsity"] <= high)
    masks = masks[is_example | (masks["rounds"] == masks["rounds"].max())]
    surfaces, areas = table[table["kind"] == "surface"], []
    if len(surfaces):  # a table without any has no column images
        areas = [
            landscapes.basin_area(landscapes.panels(own, store.read)).assign(images=images)
            for images, own in surfaces.groupby("images")
        ]
    return claims.claims(
        table,
        store.outcomes_of(table[table["kind"] == "transfer"]),
        pairs=mask_patterns.similarity_table(masks, pruning.read_mask),
        kernels=mask_patterns.zero_kernel_table(masks, pruning.read_mask),
        areas=pd.concat(areas) if areas else None,
        margins=margins,
    )


def attacked_networks(table: pd.DataFrame) -> pd.DataFrame:
    """The networks of a study that strong attacks were tried on, with signs of masked gradients.

    Args:
        table: all of its records, of `records.table`.

    Returns:
        The table of `masked_gradients.of_networks`.

    Raises:
        KeyError, ValueError: one line, as `records.read` and `records.outcomes`.
    """
    attacked, transferred = table[table["kind"] == "robustness"], table[table["kind"] == "attack"]
    return masked_gradients.of_networks(attacked, transferred, store.read, store.outcomes)
