from . import imp, masks, ticket_files
from .masks import (
    Mask,
    Weights,
    apply_,
    dense_mask,
    magnitude_prune,
    pack,
    random_prune,
    sparsity,
    unpack,
)
from .ticket_files import export_ticket, import_checkpoint, load_ticket, mask_of

__all__ = [
    "Mask",
    "Weights",
    "apply_",
    "dense_mask",
    "export_ticket",
    "imp",
    "import_checkpoint",
    "load_ticket",
    "magnitude_prune",
    "mask_of",
    "masks",
    "pack",
    "random_prune",
    "sparsity",
    "ticket_files",
    "unpack",
]
