from . import (
    archives,
    bundled,
    checks,
    decoding,
    downloads,
    fingerprints,
    folders,
    loading,
    packs,
    sources,
)
from .loading import load, subset

__all__ = [
    "archives",
    "bundled",
    "checks",
    "decoding",
    "downloads",
    "fingerprints",
    "folders",
    "load",
    "loading",
    "packs",
    "sources",
    "subset",
]
