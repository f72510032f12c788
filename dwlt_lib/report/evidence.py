"""What a study's records decide: verdicts, the paper's claims, signs of masked gradients."""

from dataclasses import dataclass, replace

import pandas as pd

from dwlt_lib import pruning
from dwlt_lib.analysis import (
    claims,
    contrasts,
    mask_patterns,
    masked_gradients,
    noninferiority,
    paper_results,
    tables,
)
from dwlt_lib.config.specs import CONTROLS, OTHER_METHODS, PAPER_METHODS
from dwlt_lib.config.studies import Margins
from dwlt_lib.plotting import landscapes, verdicts
from dwlt_lib.records import store


@dataclass(frozen=True)
class Findings:
    """What a study decides: the one source of the sentences under its figures."""

    study: str
    """Its name."""
    margins: Margins
    """How much worse than dense a ticket still matches."""
    levels: pd.DataFrame
    """The verdict, of `noninferiority.noninferiority`."""
    claims: pd.DataFrame
    """Of `claims.claims`."""
    other: "Findings | None" = None
    """Of the study that it is compared with."""

    def both(self, name: str) -> pd.DataFrame:
        """A table of this study and of the one that it is compared with.

        Args:
            name: levels or claims.

        Returns:
            The rows of both, told apart by a column study.
        """
        found = [self, self.other] if self.other else [self]
        return tables.join_studies({each.study: getattr(each, name) for each in found})

    def of_figure(self, figure: str) -> str:
        """The finding that stands under a figure.

        Args:
            figure: as `claims.Claim.figure` has it, "controls" or "other methods".

        Returns:
            What is certified of the curves that it draws, if it draws accuracies, and what its
            claims say: a line each; of two studies, first the one's and then the other's.
        """
        if self.other:
            own = replace(self, other=None).of_figure(figure)
            return f"{self.study}:\n{own}\n{self.other.study}:\n{self.other.of_figure(figure)}"
        levels = self.levels
        whole = levels["fraction"] == levels["fraction"].max()
        by_imp, from_at = levels["method"] == "IMP-ST", levels["pretraining"] == "AT"
        paper, control, other = (
            levels["method"].isin(names) for names in (PAPER_METHODS, CONTROLS, OTHER_METHODS)
        )
        further = ~levels["dataset"].isin(paper_results.main_datasets(levels))
        drawn = {
            "3": whole & (by_imp | from_at & (levels["method"] == "RP")),
            "4": whole & from_at & paper,
            "controls": whole & from_at & (by_imp | control),
            "other methods": whole & from_at & (by_imp | other),
            "5": by_imp,
            "A10": whole & by_imp & further,
        }
        lines = [claims.of_figure(self.claims, figure)]
        if figure in drawn:
            lines.insert(0, verdicts.in_words(levels[drawn[figure]], self.margins))
        return "\n".join(filter(None, lines))


def findings(study: str, other: str = "") -> Findings:
    """What the records of a study decide.

    Args:
        study: its name.
        other: another study, to be compared with it.

    Returns:
        The verdict and the claims.

    Raises:
        KeyError, ValueError: one line, as `records.read`, or as `tables.replicates`.

    Example:
        >>> print(findings("tour_full").of_figure("3"))
    """
    params = store.study(study)["params"]
    margins = Margins(**params.get("margins", {}))
    confidence = noninferiority.confidence_of(params.get("search", "grid"))
    table = store.table(study=study)
    transfers = table[table["kind"] == "transfer"]
    outcomes = store.outcomes_of(transfers)
    levels = noninferiority.noninferiority(transfers, outcomes, margins, confidence)
    claims = judge_claims(table, margins)
    return Findings(study, margins, levels, claims, findings(other) if other else None)


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
