"""Numbers that the paper states, to stand beside a study's own."""

from pathlib import Path

import pandas as pd
import yaml

_PAPER = yaml.safe_load(Path(__file__).with_name("paper_results.yaml").read_text(encoding="utf-8"))

PAPER_EXTREMES: dict[tuple[str, str, str], float] = {
    (pretraining, method, dataset): sparsity
    for pretraining, method, dataset, sparsity in _PAPER["extremes"]
}
"""{(pretraining, method, dataset): extreme double-win sparsity in [0, 1]} at full data (sections
4.1 and 4.2)."""

PAPER_TABLE_A2: dict[float, tuple[float, float]] = {
    sparsity: (transferred, own) for sparsity, transferred, own in _PAPER["table_A2"]
}
"""{sparsity: (transfer-attack accuracy, robust accuracy)}, all in [0, 1], of (theta_AT, IMP-ST) on
CIFAR-10 (Table A2, section A2)."""


def main_datasets(table: pd.DataFrame) -> list[str]:
    """The tasks of Figure 3: the paper's three; of a study without them, that of most records.

    Args:
        table: transfers.

    Returns:
        Names of data sets; the others are further tasks (Figure A10).
    """
    figure_3 = {dataset for _, _, dataset in PAPER_EXTREMES}
    names = list(table["dataset"].value_counts().index)
    return [name for name in names if name in figure_3] or names[:1]
