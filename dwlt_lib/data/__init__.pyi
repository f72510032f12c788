from . import (
    augmentation,
    batches,
    bundled,
    checks,
    decoding,
    downloads,
    fingerprints,
    folders,
    loading,
    npz,
    sources,
    subsets,
)
from .batches import Images, LazyBatches, load_images, training_batches
from .loading import load
from .subsets import subset

__all__ = [
    "Images",
    "LazyBatches",
    "augmentation",
    "batches",
    "bundled",
    "checks",
    "decoding",
    "downloads",
    "fingerprints",
    "folders",
    "load",
    "load_images",
    "loading",
    "npz",
    "sources",
    "subset",
    "subsets",
    "training_batches",
]
