from . import double_win, loss_landscape, mask_patterns
from .double_win import alternatives, criteria, spread, verdict
from .loss_landscape import direction, surface, trajectory
from .mask_patterns import chance_similarity, kernel_map, relative_similarity, zero_kernels

__all__ = [
    "alternatives",
    "chance_similarity",
    "criteria",
    "direction",
    "double_win",
    "kernel_map",
    "loss_landscape",
    "mask_patterns",
    "relative_similarity",
    "spread",
    "surface",
    "trajectory",
    "verdict",
    "zero_kernels",
]
