from . import imp, masks, packed_masks, scores, tickets
from .masks import (
    Mask,
    Weights,
    apply_,
    channel_prune,
    dense_mask,
    magnitude_prune,
    num_kept,
    random_prune,
    sparsity,
    two_of_four_prune,
)
from .packed_masks import pack, unpack
from .tickets import cifar_state, export_ticket, load_ticket, read_mask, read_ticket

__all__ = [
    "Mask",
    "Weights",
    "apply_",
    "channel_prune",
    "cifar_state",
    "dense_mask",
    "export_ticket",
    "imp",
    "load_ticket",
    "magnitude_prune",
    "masks",
    "num_kept",
    "pack",
    "packed_masks",
    "random_prune",
    "read_mask",
    "read_ticket",
    "scores",
    "sparsity",
    "tickets",
    "two_of_four_prune",
    "unpack",
]
