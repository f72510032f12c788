"""Which images a split has: one sha256 a split, so that other images make other records.

No torch.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dwlt_lib import files
from dwlt_lib.config.datasets import LISTED, DataSet, data_root
from dwlt_lib.data import bundled, folders, packs

if TYPE_CHECKING:
    from dwlt_lib.config.studies import Study

WHOLE = (
    2**28
)  # bytes of picture files of a split that are read whole; of larger splits SAMPLE files
SAMPLE = 1024
_TORCHVISION = {
    ("cifar10", "train"): [f"data_batch_{i}" for i in range(1, 6)],
    ("cifar10", "test"): ["test_batch"],
    ("cifar100", "train"): ["train"],
    ("cifar100", "test"): ["test"],
}


def of(row: DataSet, split: str, root: Path | None = None) -> str | None:
    """The sha256 of `split` ("train" or "test") as it lies on this disk now; None if it is not
    there.

    Arrays: of images and labels, however the file packs them. Files of a package or of
    torchvision's readers: of their bytes. Picture folders: of names, labels and sizes, and of the
    files' bytes, all of them up to WHOLE together, else of SAMPLE files at even distances. Raises
    ValueError, one line, where something is there that cannot be read.
    """
    if row.loader == "embedded":
        return _of_files(row, split, bundled.files(row.name))
    path = (root or data_root()) / (row.path or "").replace("{split}", split)
    if not (folders.needed(row, path, split) if row.loader in LISTED else path).exists():
        return None
    try:
        if row.loader in LISTED:
            return _of_listing(folders.read(row, path, split))
        if row.loader == "npz":
            return _of_arrays(path, files.stamp(path))
        names = _TORCHVISION.get((row.name, split))
        those = [path / name for name in names] if names else [path]
        return _of_files(row, split, those) if all(file.exists() for file in those) else None
    except OSError as error:
        raise ValueError(f"data set {row.name}: {error}; mend the folder's permissions") from error


def known(study: Study, noted: Mapping[str, Any]) -> Study:
    """The study with the fingerprints of every split that it may read: what is on the disk, else
    what the study states, else what was `noted` of the same path ({name: row} of study.json) when
    it was planned before, else None.

    Raises ValueError, one line, where a split is not the one that the study states.
    """
    rows = {}
    for row in study.rows():
        before = noted.get(row.name) or {}
        rows[row.name] = row.model_copy(
            update={
                f"{split}_sha256": _known(
                    row, split, before if before.get("path") == row.path else {}
                )
                for split in ("train", "test")
            }
        )
    return study.model_copy(update={"data": {**study.data, **rows}})


def _known(row: DataSet, split: str, before: Mapping[str, Any]) -> str | None:
    found, stated = of(row, split), row.fingerprint(split)
    if found and stated and found != stated:
        raise ValueError(
            f"data.{row.name}.{split}_sha256={stated}: the images there have {found}; bring the"
            " ones that the study states, or take the line out"
        )
    return found or stated or before.get(f"{split}_sha256")


def unknown(study: Study) -> list[str]:
    """A line for every split of which nobody knows the images.

    Ids that depend on it are provisional.
    """
    return [
        f"data.{row.name}: the {split} images are not there yet; ids that depend on them are"
        " provisional"
        for row in study.rows()
        for split in ("train", "test")
        if row.fingerprint(split) is None
    ]


def changed(row: DataSet, split: str) -> str | None:
    """One line if the images on the disk are not those that the row was read with; else None."""
    found, wanted = of(row, split), row.fingerprint(split)
    if found == wanted is not None:
        return None
    if wanted is None:
        return (
            f"data set {row.name}: which {split} images it has was never looked at; read the study"
            " with records.read_study, or put its rows through fingerprints.known"
        )
    return (
        f"data set {row.name}: its {split} images have changed since the study was read"
        f" ({wanted[:12]}, now {str(found)[:12]}); run the same command again, which makes records"
        " of the new ones"
    )


# ---------------------------------------------------------------------------------------------- by
# what lies there


def _of_files(row: DataSet, split: str, those: Iterable[Path]) -> str:
    digest = hashlib.sha256(f"{row.loader} {row.name} {split};".encode())
    for file in those:
        digest.update(f"{file.name} {_sha256(file, files.stamp(file))};".encode())
    return digest.hexdigest()


@lru_cache(maxsize=4096)
def _sha256(path: Path, stamp: tuple[int, ...]) -> str:
    return files.sha256(path)


@lru_cache(maxsize=64)
def _of_arrays(path: Path, stamp: tuple[int, ...]) -> str:
    return packs.digest(path)


def _of_listing(found: folders.Listing) -> str:
    root = os.fspath(found.root)
    sizes = np.array([_size(os.path.join(root, os.fsdecode(name))) for name in found.names])
    digest = hashlib.sha256(
        b"\n".join(found.names.tolist()) + found.labels.tobytes() + sizes.tobytes()
    )
    digest.update("\n".join(found.classes).encode())
    some = np.arange(len(sizes))
    if sizes.sum() > WHOLE:
        some = np.unique(np.linspace(0, len(sizes) - 1, SAMPLE).round().astype(int))
    for i in some:
        picture = found.root / os.fsdecode(found.names[i])
        digest.update(_sha256(picture, files.stamp(picture)).encode())
    return digest.hexdigest()


def _size(path: str) -> int:
    found = os.stat(path)  # a million times: no Path
    if not stat.S_ISREG(found.st_mode):
        files.regular(path)
    return found.st_size
