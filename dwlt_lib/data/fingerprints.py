"""Which images a split has, as one SHA-256: other images make other records. No torch."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dwlt_lib import files
from dwlt_lib.config.datasets import LISTED, DataSet
from dwlt_lib.data import bundled, folders, npz

if TYPE_CHECKING:
    from dwlt_lib.config.studies import Study

MAX_WHOLE_BYTES = 2**28  # of the image files of a split, all of which are then read
NUM_SAMPLED = 1024  # files that are read of a larger split
_FILES = {
    ("cifar10", "train"): [f"data_batch_{i}" for i in range(1, 6)],
    ("cifar10", "test"): ["test_batch"],
    ("cifar100", "train"): ["train"],
    ("cifar100", "test"): ["test"],
    ("fashion_mnist", "train"): ["train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"],
    ("fashion_mnist", "test"): ["t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"],
}


def fingerprint(row: DataSet, split: str, root: Path | None = None) -> str | None:
    """The SHA-256 of a split as it is on this disk now.

    It covers, of an npz file, the images and labels, however they are packed; of a package's files
    and those that torchvision reads, their bytes; of image folders, names, labels and sizes, and
    the bytes of all files, or of `NUM_SAMPLED` at even distances where all together have more than
    `MAX_WHOLE_BYTES`. The training split of a row that is `distinct` depends on the test images,
    and its fingerprint has theirs in it.

    Args:
        row: the data set.
        split: "train" or "test".
        root: the folder that the row's path lies in; default DWLT_DATA.

    Returns:
        64 hexadecimal digits; None if the split is not there.

    Raises:
        ValueError: one line, if it is there and cannot be read.
    """
    found = _fingerprint(row, split, root)
    if not (found and row.distinct and split == "train"):
        return found
    test = _fingerprint(row, "test", root)
    return test and hashlib.sha256(f"{found} without {test}".encode()).hexdigest()


def _fingerprint(row: DataSet, split: str, root: Path | None) -> str | None:
    if row.loader == "embedded":
        return _hash_files(row, split, [bundled.package_file(row.name)])
    path = folders.existing_path(row, split, root)
    if path is None:
        return None
    try:
        if row.loader in LISTED:
            return _hash_listing(folders.list_images(row, path, split))
        if row.loader == "npz":
            return _sha256(path, files.stamp(path), is_npz=True)
        names = _FILES.get((row.name, split))
        paths = [path / name for name in names] if names else [path]
        return _hash_files(row, split, paths) if all(file.exists() for file in paths) else None
    except OSError as error:
        raise ValueError(f"data set {row.name}: {error}; mend the folder's permissions") from error


def resolve_fingerprints(study: Study, recorded: Mapping[str, Any]) -> Study:
    """The study with the fingerprint of every split that it may read.

    A split has the fingerprint of what is on the disk; else the one that the study states; else
    the one that was recorded when the study was planned before with the same path; else None.

    Args:
        study: the study as its parameter file says.
        recorded: {name: row} of an earlier plan, of study.json; may be empty.

    Returns:
        The study, with train_sha256 and test_sha256 filled in.

    Raises:
        ValueError: one line, if a split on the disk is not the one that the study states.
    """
    rows = {}
    for row in study.rows():
        earlier = recorded.get(row.name) or {}
        if earlier.get("path") != row.path:
            earlier = {}
        found = {
            f"{split}_sha256": _resolve(row, split, earlier.get(f"{split}_sha256"))
            for split in ("train", "test")
        }
        rows[row.name] = row.model_copy(update=found)
    return study.model_copy(update={"data": {**study.data, **rows}})


def _resolve(row: DataSet, split: str, recorded: str | None) -> str | None:
    found, stated = fingerprint(row, split), row.fingerprint(split)
    if found and stated and found != stated:
        raise ValueError(
            f"data.{row.name}.{split}_sha256={stated}: the images there have {found}; bring the"
            " ones that the study states, or take the line out"
        )
    return found or stated or recorded


def unresolved(study: Study) -> list[str]:
    """A line for every split whose images nobody has seen: ids that depend on it are provisional.

    Args:
        study: what `resolve_fingerprints` returned.

    Returns:
        The lines; empty if all is known.
    """
    return [
        f"data.{row.name}: the {split} images are not there yet; ids that depend on them are"
        " provisional"
        for row in study.rows()
        for split in ("train", "test")
        if row.fingerprint(split) is None
    ]


def mismatch(row: DataSet, split: str) -> str | None:
    """One line if the images on the disk are not those that the row was resolved with, else None.

    Args:
        row: a row of a study that `resolve_fingerprints` returned.
        split: "train" or "test".

    Returns:
        The line, or None.

    Raises:
        ValueError: one line, if the images cannot be read.
    """
    found, wanted = fingerprint(row, split), row.fingerprint(split)
    if wanted is None:
        return (
            f"data set {row.name}: which {split} images it has was never looked at; read the study"
            " with records.read_study, or put it through fingerprints.resolve_fingerprints"
        )
    if found == wanted:
        return None
    return (
        f"data set {row.name}: its {split} images have changed since the study was read"
        f" ({wanted[:12]}, now {str(found)[:12]}); run the same command again, which makes records"
        " of the new ones"
    )


def _hash_files(row: DataSet, split: str, paths: Iterable[Path]) -> str:
    digest = hashlib.sha256(f"{row.loader} {row.name} {split};".encode())
    for path in paths:
        digest.update(f"{path.name} {_sha256(path, files.stamp(path))};".encode())
    return digest.hexdigest()


@lru_cache(maxsize=4096)
def _sha256(path: Path, stamp: tuple[int, ...], is_npz: bool = False) -> str:
    """The stamp is a part of the cache's key: a file that changes is read again."""
    return npz.sha256(path) if is_npz else files.sha256(path)


def _hash_listing(listing: folders.Listing) -> str:
    root = os.fsencode(listing.root)
    sizes = np.array([os.path.getsize(os.path.join(root, name)) for name in listing.names])
    digest = hashlib.sha256(
        b"\n".join(listing.names.tolist()) + listing.labels.tobytes() + sizes.tobytes()
    )
    digest.update("\n".join(listing.classes).encode())
    chosen = np.arange(len(sizes))
    if sizes.sum() > MAX_WHOLE_BYTES:
        chosen = np.unique(np.linspace(0, len(sizes) - 1, NUM_SAMPLED).round().astype(int))
    for index in chosen:
        image = listing.file(int(index))
        digest.update(_sha256(image, files.stamp(image)).encode())
    return digest.hexdigest()
