"""Numbers that the paper states, to stand beside a study's own."""

import pandas as pd

PAPER_EXTREMES = {
    ("STD", "IMP-ST", "cifar10"): 0.8926,
    ("FAT", "IMP-ST", "cifar10"): 0.8926,
    ("AT", "IMP-ST", "cifar10"): 0.9141,
    ("STD", "IMP-ST", "cifar100"): 0.7379,
    ("FAT", "IMP-ST", "cifar100"): 0.7903,
    ("AT", "IMP-ST", "cifar100"): 0.8322,
    ("STD", "IMP-ST", "svhn"): 0.0,
    ("FAT", "IMP-ST", "svhn"): 0.7903,
    ("AT", "IMP-ST", "svhn"): 0.9648,
    ("AT", "IMP-AT", "cifar10"): 0.9141,
    ("AT", "IMP-AT", "cifar100"): 0.8322,
    ("AT", "OMP", "cifar10"): 0.8926,
    ("AT", "OMP", "cifar100"): 0.7903,
    ("AT", "RP", "cifar10"): 0.2,
    ("AT", "RP", "cifar100"): 0.0,
}
"""{(pretraining, method, dataset): extreme double-win sparsity in [0, 1]} at full data (sections
4.1 and 4.2). Section 4.1 contradicts itself on FAT, SVHN: 79.03 % in its first observation, 20.00 %
in the range of its second."""

PAPER_TABLE_A2 = {
    0.0: (0.5554, 0.4711),
    0.8926: (0.6279, 0.5600),
    0.9313: (0.6009, 0.6005),
    0.9560: (0.5649, 0.5085),
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
