from . import (
    archives,
    augmentation,
    batches,
    bundled,
    checks,
    decoding,
    downloads,
    duplicates,
    fingerprints,
    folders,
    loading,
    npz,
    sources,
    subsets,
)
from .batches import Images, LazyBatches, StreamedImages, load_images, training_batches
from .loading import load
from .subsets import subset

__all__ = [
    "Images",
    "LazyBatches",
    "StreamedImages",
    "archives",
    "augmentation",
    "batches",
    "bundled",
    "checks",
    "decoding",
    "downloads",
    "duplicates",
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
