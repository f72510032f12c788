"""Rows, splits and archives that several of these tests build."""

import io
import tarfile

import numpy as np
import torch
from layout_files import cub, gtsrb, imagenet, tiny_imagenet, visda
from seeds import numpy_rng

from dwlt_lib.config.datasets import DataSet
from dwlt_lib.data import batches, loading

MAKERS = {
    "imagenet": imagenet,
    "tiny_imagenet": tiny_imagenet,
    "gtsrb": gtsrb,
    "cub200": cub,
    "visda17": visda,
}


def row(**settings):
    """A row of three classes of 8 x 8 pixels, read from an npz file."""
    return DataSet(**{"name": "mine", "loader": "npz", "classes": 3, "size": 8, **settings})


def write(path, **arrays):
    """The row of an npz file with these arrays, which is written."""
    np.savez(path, **arrays)
    return row(path=str(path))


def pixels(n, *shape, seed=0):
    """n random images of that shape, uint8."""
    return numpy_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)


def one_line(error, *words):
    """The error is one short line with all these words."""
    text = str(error.value)
    assert "\n" not in text and len(text) < 400 and all(word in text for word in words), text


def streamed(row, split):
    """A split of image files, streamed whatever its size."""
    found = loading.listing(row, split)
    labels, groups = torch.from_numpy(found.labels), loading.groups(row, split)
    return batches.Images(found, labels, row, groups)


def resident(row, split):
    """A split of image files, resident whatever its size."""
    return batches.Images(*loading.load(row, split), row)


def member(name, kind=tarfile.REGTYPE, size=5, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, size if kind == tarfile.REGTYPE else 0
    return info


def tar(path, *members, mode="w:gz"):
    with tarfile.open(path, mode) as archive:
        for info in members:
            archive.addfile(info, io.BytesIO(b"x" * info.size) if info.isreg() else None)
    return path
