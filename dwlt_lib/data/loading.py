"""Whole splits in memory: the images and labels of a data set, read from its files.

A data set is a row of `config.datasets`; its `loader` says which reader it takes.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dwlt_lib.config.datasets import CATALOGUE, LISTED, DataSet, data_root
from dwlt_lib.data import decoding, folders, npz
from dwlt_lib.data.augmentation import resize, side_before_crop
from dwlt_lib.data.bundled import EMBEDDED, Arrays, grey_to_rgb


def load(name: str | DataSet, split: str, root: str | Path | None = None) -> tuple[Tensor, Tensor]:
    """The images and labels of a split, in file order, as bytes.

    Images larger than the network's are resized here, once; smaller ones are enlarged in each
    batch. Image files are resized as evaluation sees them, to round(size / crop) pixels. Nothing is
    downloaded.

    Example:
        >>> x, y = load("digits", "test")
        >>> x.shape, y.shape
        (torch.Size([640, 3, 8, 8]), torch.Size([640]))

    Args:
        name: a data set of the catalogue, or a row of a study.
        split: "train" or "test".
        root: the folder that the row's path lies in; default DWLT_DATA.

    Returns:
        x, uint8 (N,3,H,W), and y, int64 (N,); they are shared with later calls, so never change
        them.

    Raises:
        ValueError: one line, for a data set that is unknown, and files that are missing or wrong.
    """
    row = dataset_row(name)
    if row.loader == "embedded":  # installed packages do not change while a process runs
        row = row.model_copy(update={"train_sha256": None, "test_sha256": None})
    return _load(row, _check_split(split), Path(root or data_root()))[:2]


def listing(name: str | DataSet, split: str, root: str | Path | None = None) -> folders.Listing:
    """The image files of a split, for a row whose loader lists them (`config.datasets.LISTED`).

    Args:
        name: a data set of the catalogue, or a row of a study.
        split: "train" or "test".
        root: the folder that the row's path lies in; default DWLT_DATA.

    Returns:
        The files and labels, in file order.

    Raises:
        ValueError: one line, for files that are missing or wrong.
    """
    return _listing(dataset_row(name), _check_split(split), Path(root or data_root()))


def groups(name: str | DataSet, split: str, root: str | Path | None = None) -> Tensor | None:
    """Which images of a split show the same thing, as GTSRB's tracks of one sign do.

    Args:
        name: a data set of the catalogue, or a row of a study.
        split: "train" or "test".
        root: the folder that the row's path lies in; default DWLT_DATA.

    Returns:
        int64 (N,), in file order; None where none is known.

    Raises:
        ValueError: one line, for files that are missing or wrong.
    """
    row, root = dataset_row(name), Path(root or data_root())
    if row.loader not in LISTED:
        return _load(row, _check_split(split), root)[2]
    found = _listing(row, _check_split(split), root).groups
    return None if found is None else torch.from_numpy(found)


def dataset_row(name: str | DataSet) -> DataSet:
    """The catalogue's row of that name, or the row itself.

    Args:
        name: a name of the catalogue, or a row.

    Returns:
        The row.

    Raises:
        ValueError: one line, for a name that the catalogue does not have.
    """
    if isinstance(name, DataSet):
        return name
    if name not in CATALOGUE:
        raise ValueError(
            f"data set {name!r}: want one of {', '.join(CATALOGUE)}, or a row of your own in the"
            " study"
        )
    return CATALOGUE[name]


def _check_split(split: str) -> str:
    if split not in ("train", "test"):
        raise ValueError(f"split={split!r}: want 'train' or 'test'")
    return split


@lru_cache(maxsize=8)
def _listing(row: DataSet, split: str, root: Path) -> folders.Listing:
    listing = folders.list_images(row, folders.split_path(row, split, root), split)
    if row.distinct and split == "train":
        test = _listing(row, "test", root)
        listing = listing.take(_is_none_of(row, _contents(listing), _contents(test)))
    return listing


def _contents(listing: folders.Listing) -> Iterable[bytes]:
    return (listing.file(i).read_bytes() for i in range(len(listing)))


@lru_cache(maxsize=8)
def _load(row: DataSet, split: str, root: Path) -> tuple[Tensor, Tensor, Tensor | None]:
    """Images, labels and, of arrays, groups."""
    if row.loader in LISTED:
        return *_decode_all(row, _listing(row, split, root)), None
    x, y, groups = _read_arrays(row, split, root)
    if row.distinct and split == "train":
        test = _read_arrays(row, "test", root)[0]
        kept = _is_none_of(row, map(np.ndarray.tobytes, x), map(np.ndarray.tobytes, test))
        x, y = x[kept], y[kept]
        groups = None if groups is None else groups[kept]
    folders.check_labels(row, y)
    images = torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))
    side = side_before_crop(row)
    if images.shape[-1] > side:
        images = resize(images.float(), side).round().clamp(0, 255).to(torch.uint8)
    return images, torch.from_numpy(y), None if groups is None else torch.from_numpy(groups)


def _read_arrays(
    row: DataSet, split: str, root: Path
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    if row.loader == "embedded":
        return *EMBEDDED[row.name](split), None
    if row.loader == "torchvision":
        return *_read_torchvision(row, split, root), None
    arrays = npz.load(folders.split_path(row, split, root))
    x = arrays["images"]
    return (x if x.ndim == 4 else grey_to_rgb(x)), arrays["labels"], arrays.get("groups")


def _is_none_of(row: DataSet, images: Iterable[bytes], others: Iterable[bytes]) -> np.ndarray:
    """Which images are none of the others, compared by SHA-256; bool (N,)."""
    seen = {hashlib.sha256(other).digest() for other in others}
    kept = np.array([hashlib.sha256(image).digest() not in seen for image in images])
    if not kept.any():
        raise ValueError(
            f"data set {row.name}: distinct, but every training image is a test image; bring other"
            " images for one of the splits"
        )
    return kept


def _read_torchvision(row: DataSet, split: str, root: Path) -> Arrays:
    """By torchvision's readers and md5 sums, which are checked before a file is opened."""
    from torchvision import datasets

    path = folders.split_path(row, split, root)
    try:
        if row.name == "fashion_mnist":
            return _read_fashion_mnist(path, split)
        if row.name == "svhn":
            svhn = datasets.SVHN(path.parent, split=split)
            return svhn.data.transpose(0, 2, 3, 1), svhn.labels.astype(np.int64)
        reader = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[row.name]
        cifar = reader(path.parent, train=split == "train")
        return cifar.data, np.asarray(cifar.targets, dtype=np.int64)
    except Exception as error:  # unpickling and MATLAB's format fail in many ways
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"data set {row.name}: {path}: a file is missing, or not what was published ({reason});"
            f" remove it and bring it anew with dwlt data fetch {row.name}"
        ) from error


def _read_fashion_mnist(folder: Path, split: str) -> Arrays:
    """The packed files as they are published; torchvision's reader wants them unpacked."""
    from torchvision.datasets import FashionMNIST
    from torchvision.datasets.utils import check_integrity

    prefix, arrays = {"train": "train", "test": "t10k"}[split], {}
    for name, md5 in FashionMNIST.resources:
        if name.startswith(prefix):
            if not check_integrity(folder / name, md5):
                raise ValueError(f"{name} is missing or corrupted")
            arrays[name] = np.frombuffer(gzip.decompress((folder / name).read_bytes()), np.uint8)
    images, labels = arrays.values()  # each after its header: 16 and 8 bytes
    return grey_to_rgb(images[16:].reshape(-1, 28, 28)), labels[8:].astype(np.int64)


def _decode_all(row: DataSet, files: folders.Listing) -> tuple[Tensor, Tensor]:
    import psutil

    side = side_before_crop(row)
    needed, free = 3 * side * side * len(files), psutil.virtual_memory().available
    if needed > free:
        raise ValueError(
            f"data set {row.name}: {len(files):,} images of {side} x {side} are"
            f" {needed / 1e9:,.0f} GB, and {free / 1e9:,.0f} GB of memory are free; use"
            " data.load_images, which streams them"
        )
    decoder = decoding.ImageDecoder(files.root, files.names, side, row.resize)
    return next(decoding.decode_batches(decoder, [len(files)])), torch.from_numpy(files.labels)
