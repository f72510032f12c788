"""Checking a data set: where it was looked for, what was found, and whether it is what the
catalogue says.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np

from dwlt_lib.config.datasets import LISTED, DataSet
from dwlt_lib.data import decoding, loading, sources

LOOKED_AT = 200  # pictures of a split whose headers are opened


def check(row: DataSet, root: Path | None = None) -> tuple[list[str], list[str]]:
    """(lines of what was found, lines of what is missing or wrong).

    All is as the catalogue says where nothing is wrong.
    """
    root = root or loading.data_root()
    where = "the installed packages" if row.loader == "embedded" else root / (row.path or "")
    found = [
        f"{row.name}: {row.classes:,} classes at {row.size} x {row.size}, licence: {row.licence}",
        f"looked in {where}" + ("" if row.loader == "embedded" else f" (DWLT_DATA is {root})"),
    ]
    wrong: list[str] = []
    for split in ("train", "test"):
        try:
            labels, line, odd = (
                _listed(row, split, root) if row.loader in LISTED else _loaded(row, split, root)
            )
        except ValueError as error:
            wrong += [str(error)] if str(error) not in wrong else []
            continue
        found.append(f"{split}: {len(labels):,} images, {_classes(labels, row)}, {line}")
        wrong += odd
        expected = getattr(row, f"{split}_images")
        if len(labels) != expected:
            wrong.append(
                f"{split}: {len(labels):,} images; the catalogue says {expected:,}; bring the rest,"
                f" or set {split}_images in the study"
            )
    if wrong and row.loader != "embedded":
        wrong.append(sources.advice(row.name, root))
    return found, wrong


def _classes(labels: np.ndarray, row: DataSet) -> str:
    counts = np.bincount(labels, minlength=row.classes)
    return f"{(counts > 0).sum():,} classes of {counts.min():,} to {counts.max():,}"


Split = tuple[np.ndarray, str, list[str]]  # labels, what else is to be said, what is wrong


def _loaded(row: DataSet, split: str, root: Path) -> Split:
    x, y = loading.load(row, split, root)
    sums = {"torchvision": "md5 as published", "embedded": "as installed"}.get(
        row.loader, "no checksum known"
    )
    return y.numpy(), f"{x.shape[-2]} x {x.shape[-1]} pixels, {sums}", []


def _listed(row: DataSet, split: str, root: Path) -> Split:
    found = loading.listing(row, split, root)
    digest = hashlib.sha256(b"\n".join(found.names.tolist()) + found.labels.tobytes()).hexdigest()[
        :16
    ]
    some = np.unique(np.linspace(0, len(found) - 1, min(len(found), LOOKED_AT)).round().astype(int))
    files = [found.root / os.fsdecode(found.names[i]) for i in some]
    sizes, odd = [], []
    for file in files:
        try:
            sizes.append(_size(file))
        except ValueError as error:
            odd.append(str(error))
    spans = (
        f"{min(size[axis] for size in sizes):,} to {max(size[axis] for size in sizes):,}"
        for axis in (0, 1)
    )
    pixels = " x ".join(spans) if sizes else "unknown"
    return (
        found.labels,
        f"{pixels} pixels ({len(files):,} looked at), sha256 of the list {digest}",
        odd[:3],
    )


def _size(file: Path) -> tuple[int, int]:
    """Width and height of a picture, decoded whole; ValueError, one line, where that fails."""
    from PIL import Image

    found = decoding.measure(file)
    try:
        with Image.open(file) as picture:
            picture.load()
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{file}: no whole picture; bring it anew") from error
    return found
