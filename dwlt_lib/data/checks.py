"""Checking a data set: where it was looked for, and whether it is what the catalogue says."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dwlt_lib.config.datasets import LISTED, DataSet, data_root
from dwlt_lib.data import decoding, duplicates, loading, sources
from dwlt_lib.data.batches import load_images

NUM_OPENED = 200  # image files of a split that are decoded whole
MAX_REPORTED = 3  # of those that fail


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
        whole = row.model_copy(update={"distinct": False})
        try:
            labels, unreadable = _read(whole, split, root)
            left_out = len(labels) - len(_read(row, split, root)[0])
        except ValueError as error:
            if str(error) not in problems:
                problems.append(str(error))
            continue
        counts = np.bincount(labels, minlength=row.classes)
        facts.append(
            f"{split}: {len(labels):,} images, {(counts > 0).sum():,} classes of"
            f" {counts.min():,} to {counts.max():,}"
        )
        if left_out:
            facts[-1] += f", {left_out:,} of them left out, which are test images"
        problems += unreadable
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


def _read(row: DataSet, split: str, root: Path) -> tuple[np.ndarray, list[str]]:
    """The labels (N,) of a split; a line for each of the first image files that are not whole."""
    if row.loader not in LISTED:
        return loading.load(row, split, root)[1].numpy(), []
    listing = loading.listing(row, split, root)
    decoder = decoding.ImageDecoder(listing.root, listing.names, row.size)
    problems = []
    for index in np.linspace(0, len(listing) - 1, min(len(listing), NUM_OPENED)).round():
        try:
            decoder[int(index)]
        except ValueError as error:
            problems.append(str(error))
    return listing.labels, problems[:MAX_REPORTED]
