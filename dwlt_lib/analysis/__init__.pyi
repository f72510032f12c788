from . import (
    claims,
    contrasts,
    double_win,
    loss_landscape,
    mask_patterns,
    masked_gradients,
    noninferiority,
    paper_results,
    power,
    robust_overfitting,
    simulation,
    statistics,
    tables,
)
from .double_win import alternatives, criteria, verdict
from .loss_landscape import direction, surface, trajectory
from .mask_patterns import chance_similarity, kernel_map, relative_similarity, zero_kernels
from .statistics import spread

__all__ = [
    "alternatives",
    "chance_similarity",
    "claims",
    "contrasts",
    "criteria",
    "direction",
    "double_win",
    "kernel_map",
    "loss_landscape",
    "mask_patterns",
    "masked_gradients",
    "noninferiority",
    "paper_results",
    "power",
    "relative_similarity",
    "robust_overfitting",
    "simulation",
    "spread",
    "statistics",
    "surface",
    "tables",
    "trajectory",
    "verdict",
    "zero_kernels",
]
