"""Layouts: which picture files a split consists of, and their labels, read off a data set's own
files.

No picture is opened here, and counting them needs no torch. Every error is a ValueError of one
line: the place, what is wrong, the remedy.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from dwlt_lib import files
from dwlt_lib.config.datasets import CATALOGUE, LISTED, DataSet, data_root
from dwlt_lib.data import packs

PICTURES = (".jpg", ".jpeg", ".png", ".webp")


@dataclass(frozen=True)
class Listing:
    """root: a folder; names: (N,) bytes, the files beneath it; labels: (N,) int64; classes.

    Their names, by label.
    """

    root: Path
    names: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)


def read(row: DataSet, path: Path, split: str) -> Listing:
    """The files of `split` ("train" or "test") of a row whose loader is one of LAYOUTS; path.

    The row's folder.
    """
    found = LAYOUTS[row.loader](path, split)
    _check_classes(row, found.root, found.classes)
    if len(found) == 0:
        raise ValueError(
            f"{found.root}: no pictures of the {split} split; want {', '.join(PICTURES)} files"
        )
    return found


def _check_classes(row: DataSet, root: Path, classes: tuple[str, ...]) -> None:
    if len(classes) != row.classes:
        raise ValueError(
            f"{root}: {len(classes):,} classes; data set {row.name} has {row.classes:,}; mend the"
            " folder, or classes in the study"
        )


def source(row: DataSet, split: str, root: Path | None = None) -> Path:
    """Where a row that does not come with a package keeps a split.

    ValueError, one line, if nothing is there.
    """
    path = (root or data_root()) / (row.path or "").replace("{split}", split)
    missing = needed(row, path, split) if row.loader in LISTED else path
    if not missing.exists():
        remedy = f"run dwlt data fetch {row.name}" if row.name in CATALOGUE else "set its path"
        raise ValueError(
            f"data set {row.name}: {missing} is missing; {remedy}, or set DWLT_DATA to where"
            " data lie"
        )
    return path


def counts(row: DataSet, root: Path | None = None) -> dict[str, int]:
    """{"train_images": N, "test_images": N} as they lie on the disk, of the splits that are there:
    folders are listed once, of a pack headers and labels are read. ValueError, one line, if the
    classes are not the row's."""
    found = {}
    for split in ("train", "test"):
        if row.loader not in (*LISTED, "npz"):
            continue
        try:
            try:
                path = source(row, split, root)
            except ValueError:  # not there: nothing to count
                continue
            found[f"{split}_images"] = _count(row, path, split)
        except OSError as error:
            raise ValueError(f"data set {row.name}: {error}; mend the folder") from error
    return found


def _count(row: DataSet, path: Path, split: str) -> int:
    if row.loader == "npz":
        y = packs.labels(path)
        check_labels(row, y)
        return len(y)
    if row.loader not in ("folder", "imagenet"):
        return len(read(row, path, split))
    root, classes = _class_folders(path, split, row.loader)
    _check_classes(row, root, classes)
    return sum(len(files) for name in classes for _, files in _pictures(root, name))


def check_labels(row: DataSet, y: np.ndarray) -> None:
    """ValueError unless labels (N,) are all of the row's classes."""
    if len(y) and (y.min() < 0 or y.max() >= row.classes):
        raise ValueError(
            f"data set {row.name}: labels {y.min()}..{y.max()}; want 0..{row.classes - 1}; mend the"
            " labels, or classes in the study"
        )


def needed(row: DataSet, path: Path, split: str) -> Path:
    """The file or folder without which the split cannot be there."""
    return path / _NEEDED[row.loader][split == "test"]


_NEEDED = {
    "folder": ("train", "test"),
    "imagenet": ("train", "val"),
    "cub": ("images.txt", "images.txt"),
    "visda": ("train/image_list.txt", "validation/image_list.txt"),
}


def _folder(path: Path, split: str, loader: str = "folder") -> Listing:
    """SPLIT/CLASS/**/*.jpg....

    Classes in the order of their names, files likewise (torchvision's ImageFolder).
    """
    root, classes = _class_folders(path, split, loader)
    names, labels = [], []
    for label, name in enumerate(classes):
        before = len(names)
        for folder, found in _pictures(root, name):
            beneath = PurePosixPath(folder.relative_to(root))
            names += [str(beneath / file) for file in sorted(found)]
        labels += [label] * (len(names) - before)
    return _listing(root, names, labels, classes)


def _class_folders(path: Path, split: str, loader: str) -> tuple[Path, tuple[str, ...]]:
    """A split's folder and its classes, the same as the training split's."""
    train, root = path / _NEEDED[loader][0], path / _NEEDED[loader][split == "test"]
    classes = _classes(root)
    if split == "test" and train.is_dir() and classes != _classes(train):
        odd = sorted(set(classes) ^ set(_classes(train)))
        raise ValueError(
            f"{root}: class folders differ from {train}'s, as in {odd[0]!r}; want the same in both,"
            " since a label is a folder's place"
        )
    return root, classes


def _pictures(root: Path, name: str) -> Iterator[tuple[Path, list[str]]]:
    """The folders of a class, each with its pictures' names; ValueError if there is none in any."""
    some = False
    for folder, inner, every in os.walk(root / name):
        inner.sort()
        found = [file for file in every if file.lower().endswith(PICTURES)]
        some = some or bool(found)
        yield Path(folder), found
    if not some:
        raise ValueError(
            f"{root / name}: no pictures; want a folder a class, with {', '.join(PICTURES)} files"
        )


def _classes(root: Path) -> tuple[str, ...]:
    try:
        entries = [entry for entry in os.scandir(root) if not entry.name.startswith(".")]
    except OSError as error:
        raise ValueError(
            f"{root}: {error.strerror}; want a folder a class, with pictures in it"
        ) from error
    classes = tuple(sorted(entry.name for entry in entries if entry.is_dir()))
    if not classes:
        flat = sum(entry.name.lower().endswith(PICTURES) for entry in entries)
        raise ValueError(
            f"{root}: {f'{flat:,} pictures, but ' if flat else ''}no class folders; want a folder a"
            " class, with pictures in it"
        )
    return classes


def _imagenet(path: Path, split: str) -> Listing:
    """ILSVRC 2012: train/WNID/*.JPEG and val/WNID/*.JPEG.

    The labelled validation images are the test split.
    """
    return _folder(path, split, "imagenet")


def _cub(path: Path, split: str) -> Listing:
    """CUB-200-2011.

    Images.txt "id name", image_class_labels.txt "id label" (from 1), train_test_split.txt "id 0|1".
    """
    names = _pairs(path / "images.txt")
    labels, training = (
        _numbers(path / file, names) for file in ("image_class_labels.txt", "train_test_split.txt")
    )
    classes = _pairs(path / "classes.txt")
    if any(flag not in (0, 1) for flag in training.values()):
        raise ValueError(
            f"{path / 'train_test_split.txt'}: holds other flags than 0 and 1; unpack the archive"
            " anew"
        )
    wanted = {str(label) for label in labels.values()} - set(classes)
    if wanted or list(classes) != [str(i + 1) for i in range(len(classes))]:
        raise ValueError(
            f"{path / 'classes.txt'}: classes are not 1 to {len(classes)} as in"
            " image_class_labels.txt; unpack the archive anew"
        )
    chosen = [i for i in names if training[i] == (split == "train")]
    found = _listing(
        path / "images",
        [names[i] for i in chosen],
        [labels[i] - 1 for i in chosen],
        tuple(classes.values()),
    )
    return _present(found)


def _visda(path: Path, split: str) -> Listing:
    """VisDA-17 classification: train/image_list.txt and validation/image_list.txt, "CLASS/file
    label" a line.

    The test split is `validation`, as in the authors' code: photographs with labels in their
    archive. The challenge's own `test` folder comes without labels.
    """
    root = (path / _NEEDED["visda"][split == "test"]).parent
    rows = _lines(root / "image_list.txt")
    names, labels = [name for name, _ in rows], [label for _, label in rows]
    if not all(label.isdecimal() for label in labels):
        bad = next(i for i, label in enumerate(labels) if not label.isdecimal())
        raise ValueError(
            f"{root / 'image_list.txt'}:{bad + 1}: {labels[bad]!r}; want a class's number after its"
            " file"
        )
    of = {(int(label), PurePosixPath(name).parts[0]) for name, label in rows}
    classes = tuple(name for _, name in sorted(of))
    if [label for label, _ in sorted(of)] != list(range(len(of))) or len(set(classes)) != len(of):
        raise ValueError(
            f"{root / 'image_list.txt'}: classes and folders do not go together one by one from 0;"
            " want the list of the archive"
        )
    return _present(_listing(root, names, [int(label) for label in labels], classes))


LAYOUTS: dict[str, Callable[[Path, str], Listing]] = {
    "folder": _folder,
    "imagenet": _imagenet,
    "cub": _cub,
    "visda": _visda,
}


# ----------------------------------------------------------------------------------------------
# lists


def _lines(file: Path) -> list[tuple[str, str]]:
    """Two words a line; the last blank parts them."""
    try:
        text = files.regular(file).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{file}: {error}; want it as its archive unpacks; unpack that anew"
        ) from error
    except (OSError, ValueError) as error:
        raise ValueError(f"{error} as its archive unpacks; unpack that anew") from error
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            words = line.strip().rsplit(" ", 1)
            if len(words) != 2:
                raise ValueError(
                    f"{file}:{number}: {line[:60]!r}; want two words a line; unpack the archive"
                    " anew"
                )
            found.append((words[0], words[1]))
    return found


def _pairs(file: Path) -> dict[str, str]:
    found = _lines(file)
    if len(dict(found)) != len(found):
        raise ValueError(f"{file}: an id stands twice; unpack the archive anew")
    return dict(found)


def _numbers(file: Path, ids: dict[str, str]) -> dict[str, int]:
    found = _pairs(file)
    odd = sorted(set(found) ^ set(ids))
    if odd:
        raise ValueError(
            f"{file}: image {odd[0]} is in only one of it and images.txt; unpack the archive anew"
        )
    if not all(value.isdecimal() for value in found.values()):
        raise ValueError(f"{file}: holds other values than numbers; unpack the archive anew")
    return {key: int(value) for key, value in found.items()}


def _listing(root: Path, names: list[str], labels: list[int], classes: tuple[str, ...]) -> Listing:
    packed = np.array(
        [os.fsencode(name) for name in names], dtype=np.bytes_
    )  # a million str would fill the memory
    return Listing(root, packed, np.array(labels, dtype=np.int64), classes)


def _present(found: Listing) -> Listing:
    """The listing, if every file is there beneath its root.

    Folders are listed, not each file asked for.
    """
    there: dict[PurePosixPath, set[str]] = {}
    missing = []
    for name in map(os.fsdecode, found.names):
        at = PurePosixPath(name)
        if at.is_absolute() or ".." in at.parts:
            raise ValueError(
                f"{found.root}: its list names {name[:60]!r}, outside it; unpack the archive anew"
            )
        if at.parent not in there:
            folder = found.root / at.parent
            there[at.parent] = set(os.listdir(folder)) if folder.is_dir() else set()
        if at.name not in there[at.parent]:
            missing.append(name)
    if missing:
        raise ValueError(
            f"{found.root}: {len(missing):,} of {len(found):,} pictures are missing, the first "
            f"{missing[0]}; unpack the archive anew"
        )
    return found
