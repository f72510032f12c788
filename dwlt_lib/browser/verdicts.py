"""What is certified of a study's curves, for tabs that show several studies."""

from functools import lru_cache

import pandas as pd

from dwlt_lib.analysis import noninferiority
from dwlt_lib.analysis.tables import GROUP
from dwlt_lib.config.studies import Margins
from dwlt_lib.records import store


def of_study(study: str, transfers: pd.DataFrame) -> pd.DataFrame:
    """What is certified of each curve's double-win sparsity, by the study's margins.

    Args:
        study: its name.
        transfers: its table of them.

    Returns:
        The columns of `noninferiority.certified`, and study; no rows where nothing is judged.
    """
    if transfers.empty:
        columns = [*GROUP, "at_least_rounds", "at_least_sparsity", "below_sparsity", "text"]
        return pd.DataFrame(columns=[*columns, "study"])
    return _of_ids(study, tuple(transfers["id"]))


@lru_cache(64)
def _of_ids(study: str, ids: tuple[str, ...]) -> pd.DataFrame:
    """As `of_study`: by the ids, since records of one id are the same."""
    transfers = store.table("transfer", study=study)
    transfers = transfers[transfers["id"].isin(ids)]
    params = store.study(study)["params"]
    margins = Margins(**params.get("margins", {}))
    confidence = noninferiority.confidence_of(params.get("search", "grid"))
    outcomes = store.outcomes_of(transfers)
    levels = noninferiority.noninferiority(transfers, outcomes, margins, confidence)
    return noninferiority.certified(levels).assign(study=study)
