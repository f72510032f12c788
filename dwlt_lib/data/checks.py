"""Checking a data set: where it was looked for, and whether it is what the catalogue says."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from dwlt_lib.config.datasets import LISTED, DataSet, data_root
from dwlt_lib.data import decoding, duplicates, loading, sources
from dwlt_lib.data.batches import load_images

NUM_OPENED = 200  # image files of a split that are decoded whole
MAX_REPORTED = 3  # of those that fail
_CHECKSUMS = {"torchvision": "md5 as published", "embedded": "as installed"}

SplitCheck = tuple[np.ndarray, str, list[str]]  # labels (N,), a description, problems


def check(row: DataSet, root: Path | None = None) -> tuple[list[str], list[str]]:
    """Read both splits of a data set and compare them with its row.

    Args:
        row: the data set.
        root: the folder that the row's path lies in; default DWLT_DATA.

    Returns:
        Lines about what was found, and lines about what is missing or wrong; the latter are empty
        if all is as the row says.
    """
    root = root or data_root()
    place = f"{root / (row.path or '')} (DWLT_DATA is {root})"
    if row.loader == "embedded":
        place = "the installed packages"
    facts = [
        f"{row.name}: {row.classes:,} classes at {row.size} x {row.size}, licence: {row.licence}",
        f"looked in {place}",
    ]
    problems: list[str] = []
    for split in ("train", "test"):
        try:
            check_split = _check_files if row.loader in LISTED else _check_arrays
            whole = row.model_copy(update={"distinct": False})
            labels, description, split_problems = check_split(whole, split, root)
            if row.distinct and split == "train":
                num_out = len(labels) - len(check_split(row, split, root)[0])
                description += f", {num_out:,} of them left out, which are test images"
        except ValueError as error:
            if str(error) not in problems:
                problems.append(str(error))
            continue
        facts.append(f"{split}: {len(labels):,} images, {_classes(labels, row)}, {description}")
        problems += split_problems
        expected = row.train_images if split == "train" else row.test_images
        if len(labels) != expected:
            problems.append(
                f"{split}: {len(labels):,} images; the catalogue says {expected:,}; bring the rest,"
                f" or set {split}_images in the study"
            )
    if problems and row.loader != "embedded":
        problems.append(sources.advice(row.name, root))
    return facts, problems


def count_duplicates(row: DataSet, other: DataSet) -> list[str]:
    """Count the pictures of a data set that are among another's training images, or nearly are.

    Args:
        row: the data set whose training images count, those that `distinct` leaves out, too.
        other: the data set whose test and training images are looked for; of `row` itself its test
            images.

    Returns:
        A line for each split of `other`.

    Raises:
        ValueError: one line, if images are missing or wrong.
    """
    train = load_images(row.model_copy(update={"distinct": False}), "train")
    lines = []
    for split in ("test", "train"):
        if (split, row.name) == ("train", other.name):
            continue
        found = load_images(other.model_copy(update={"distinct": False}), split)
        same, near = duplicates.count(train, found)
        lines.append(
            f"train of {row.name} has {same:,} of the {len(found):,} {split} images of {other.name}"
            f" and nearly {near:,} others (grey {duplicates.SIDE} x {duplicates.SIDE} thumbnails"
            f" correlate above {duplicates.NEAR})"
        )
    return lines


def _classes(labels: np.ndarray, row: DataSet) -> str:
    counts = np.bincount(labels, minlength=row.classes)
    return f"{(counts > 0).sum():,} classes of {counts.min():,} to {counts.max():,}"


def _check_arrays(row: DataSet, split: str, root: Path) -> SplitCheck:
    x, y = loading.load(row, split, root)
    checksum = _CHECKSUMS.get(row.loader, "no checksum known")
    return y.numpy(), f"{x.shape[-2]} x {x.shape[-1]} pixels, {checksum}", []


def _check_files(row: DataSet, split: str, root: Path) -> SplitCheck:
    listing = loading.listing(row, split, root)
    digest = hashlib.sha256(b"\n".join(listing.names.tolist()) + listing.labels.tobytes())
    last = len(listing) - 1
    chosen = np.unique(np.linspace(0, last, min(len(listing), NUM_OPENED)).round().astype(int))
    sizes, problems = [], []
    for index in chosen:
        try:
            sizes.append(_check_image(listing.file(index)))
        except ValueError as error:
            problems.append(str(error))
    ranges = [f"{min(sides):,} to {max(sides):,}" for sides in zip(*sizes, strict=True)]
    pixels = " x ".join(ranges) or "unknown"
    description = (
        f"{pixels} pixels ({len(chosen):,} looked at), sha256 of the list {digest.hexdigest()[:16]}"
    )
    return listing.labels, description, problems[:MAX_REPORTED]


def _check_image(file: Path) -> tuple[int, int]:
    """Width and height of an image that can be decoded whole; else a ValueError of one line."""
    from PIL import Image

    size = decoding.image_size(file)
    try:
        with Image.open(file) as image:
            image.load()
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{file}: not a whole image; bring it anew") from error
    return size
