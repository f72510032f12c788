"""Checking a data set: whether it is what the catalogue says, and which pictures stand twice.

Twice are the same bytes, or nearly the same picture, which an 8 x 8 grey thumbnail tells. Two whose
thumbnails correlate above `NEAR` are mostly one photograph in other colours, of another sharpness
or moved by a pixel: of the pairs between CIFAR-10's training and test images, looked at one by one,
nearly all are.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dwlt_lib.config.datasets import LISTED, DataSet, data_root
from dwlt_lib.data import decoding, loading, sources
from dwlt_lib.data.batches import Images, load_images

NUM_OPENED = 200  # image files of a split that are decoded whole
MAX_REPORTED = 3  # of those that fail
SIDE = 8  # of a thumbnail, in pixels
NEAR = 0.99  # correlation of two thumbnails above which two pictures are nearly the same
FLAT = 1.0  # grey levels (of 255): a thumbnail's std counts as this where it is smaller
BLOCK = 64  # thumbnails that are compared with all others at a time: 26 MB for 100,000


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
        same, near = count_same(train, found)
        lines.append(
            f"train of {row.name} has {same:,} of the {len(found):,} {split} images of {other.name}"
            f" and nearly {near:,} others (grey {SIDE} x {SIDE} thumbnails"
            f" correlate above {NEAR})"
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
            decoder.decode(int(index))
        except ValueError as error:
            problems.append(str(error))
    return listing.labels, problems[:MAX_REPORTED]


def thumbnails(x: Tensor) -> Tensor:
    """Grey 8 x 8 means of pictures, shifted and scaled such that products are correlations.

    Args:
        x: uint8 (N,3,H,W).

    Returns:
        float32 (N,64), of mean 0 and norm 1; of a smaller norm where a picture is flat.
    """
    grey = F.adaptive_avg_pool2d(x.float().mean(1, keepdim=True), SIDE).flatten(1)
    grey = grey - grey.mean(1, keepdim=True)
    return grey / grey.norm(dim=1, keepdim=True).clamp(min=FLAT * SIDE)


def count_same(images: Images, others: Images) -> tuple[int, int]:
    """How many of the other pictures are among the images.

    Args:
        images: N pictures, as a training split.
        others: M pictures, as a test split; 50,000 x 10,000 take about 5 s of one core.

    Returns:
        (the same, nearly the same but not the same), each of 0..M.
    """
    known, known_thumbnails = _describe(images)
    found, found_thumbnails = _describe(others)
    seen = set(known)
    same = torch.tensor([digest in seen for digest in found])
    parts = found_thumbnails.split(BLOCK)
    near = torch.cat([(part @ known_thumbnails.T > NEAR).any(1) for part in parts])
    return int(same.sum()), int((near & ~same).sum())


def _describe(images: Images) -> tuple[list[bytes], Tensor]:
    """The digest and the thumbnail of each picture."""
    indices = torch.arange(len(images)).split(1000)
    hashes, small = [], []
    for x, _, _ in images.batches(indices):
        hashes += [hashlib.sha256(picture.tobytes()).digest() for picture in x.numpy()]
        small.append(thumbnails(x))
    return hashes, torch.cat(small)
