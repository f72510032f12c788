"""Layouts: which picture files or arrays a split consists of, and their labels, read off a data set's own files.

No picture is opened here. Every error is a ValueError of one line: the place, what is wrong, the remedy.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from zipfile import BadZipFile
from zlib import error as BadStream

import numpy as np

from dwlt_lib.catalogue import DataSet

PICTURES = (".jpg", ".jpeg", ".png", ".webp")


@dataclass(frozen=True)
class Listing:
    """root: a folder; names: (N,) bytes, the files beneath it; labels: (N,) int64; classes: their names, by label."""

    root: Path
    names: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)


def read(row: DataSet, path: Path, split: str) -> Listing:
    """The files of `split` ("train" or "test") of a row whose loader is one of LAYOUTS; path: the row's folder."""
    found = LAYOUTS[row.loader](path, split)
    if len(found.classes) != row.classes:
        raise ValueError(f"{found.root}: {len(found.classes):,} classes; data set {row.name} has {row.classes:,}; mend "
                         "the folder, or classes in the study")
    if len(found) == 0:
        raise ValueError(f"{found.root}: no pictures of the {split} split; want {', '.join(PICTURES)} files")
    return found


def packed(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """images, uint8 (N,S,S) or (N,S,S,3), and labels, int64 (N,), of an .npz; ValueError, one line, if it has none."""
    want = "want an .npz with images uint8 (N,S,S) or (N,S,S,3) and labels, integers (N,)"
    try:
        with np.load(path, allow_pickle=False) as packed:
            x, y = packed["images"], packed["labels"]
    except (ValueError, KeyError, TypeError, AttributeError, OSError, EOFError, BadZipFile, BadStream) as error:
        raise ValueError(f"{path}: {error}; {want}") from error
    square = x.ndim in (3, 4) and x.shape[1] == x.shape[2] and x.shape[3:] in ((), (3,))
    if x.dtype != np.uint8 or not square or len(x) == 0 or y.shape != x.shape[:1] or y.dtype.kind not in "iu":
        raise ValueError(f"{path}: images {x.dtype} {x.shape}, labels {y.dtype} {y.shape}; {want}")
    return x, y.astype(np.int64)


def needed(row: DataSet, path: Path, split: str) -> Path:
    """The file or folder without which the split cannot be there."""
    return path / _NEEDED[row.loader][split == "test"]


_NEEDED = {"folder": ("train", "test"), "imagenet": ("train", "val"), "cub": ("images.txt", "images.txt"),
           "visda": ("train/image_list.txt", "validation/image_list.txt")}


def _folder(path: Path, split: str, loader: str = "folder") -> Listing:
    """SPLIT/CLASS/**/*.jpg...: classes in the order of their names, files likewise (torchvision's ImageFolder)."""
    train, root = path / _NEEDED[loader][0], path / _NEEDED[loader][split == "test"]
    classes = _classes(root)
    if split == "test" and train.is_dir() and classes != _classes(train):
        odd = sorted(set(classes) ^ set(_classes(train)))
        raise ValueError(f"{root}: class folders differ from {train}'s, as in {odd[0]!r}; want the same in both, since "
                         "a label is a folder's place")
    names, labels = [], []
    for label, name in enumerate(classes):
        before = len(names)
        for folder, inner, files in os.walk(root / name):
            inner.sort()
            beneath = PurePosixPath(Path(folder).relative_to(root))
            names += [str(beneath / file) for file in sorted(files) if file.lower().endswith(PICTURES)]
        if len(names) == before:
            raise ValueError(f"{root / name}: no pictures; want a folder a class, with {', '.join(PICTURES)} files")
        labels += [label] * (len(names) - before)
    return _listing(root, names, labels, classes)


def _classes(root: Path) -> tuple[str, ...]:
    try:
        entries = [entry for entry in os.scandir(root) if not entry.name.startswith(".")]
    except OSError as error:
        raise ValueError(f"{root}: {error.strerror}; want a folder a class, with pictures in it") from error
    classes = tuple(sorted(entry.name for entry in entries if entry.is_dir()))
    if not classes:
        flat = sum(entry.name.lower().endswith(PICTURES) for entry in entries)
        raise ValueError(f"{root}: {f'{flat:,} pictures, but ' if flat else ''}no class folders; want a folder a "
                         "class, with pictures in it")
    return classes


def _imagenet(path: Path, split: str) -> Listing:
    """ILSVRC 2012: train/WNID/*.JPEG and val/WNID/*.JPEG; the labelled validation images are the test split."""
    return _folder(path, split, "imagenet")


def _cub(path: Path, split: str) -> Listing:
    """CUB-200-2011: images.txt "id name", image_class_labels.txt "id label" (from 1), train_test_split.txt "id 0|1"."""
    names = _pairs(path / "images.txt")
    labels, training = (_numbers(path / file, names) for file in ("image_class_labels.txt", "train_test_split.txt"))
    classes = _pairs(path / "classes.txt")
    if any(flag not in (0, 1) for flag in training.values()):
        raise ValueError(f"{path / 'train_test_split.txt'}: holds other flags than 0 and 1; unpack the archive anew")
    wanted = {str(label) for label in labels.values()} - set(classes)
    if wanted or list(classes) != [str(i + 1) for i in range(len(classes))]:
        raise ValueError(f"{path / 'classes.txt'}: classes are not 1 to {len(classes)} as in image_class_labels.txt; "
                         "unpack the archive anew")
    chosen = [i for i in names if training[i] == (split == "train")]
    found = _listing(path / "images", [names[i] for i in chosen], [labels[i] - 1 for i in chosen],
                     tuple(classes.values()))
    return _present(found)


def _visda(path: Path, split: str) -> Listing:
    """VisDA-17 classification: train/image_list.txt and validation/image_list.txt, "CLASS/file label" a line.

    The test split is `validation`, as in the authors' code: photographs with labels in their
    archive. The challenge's own `test` folder comes without labels.
    """
    root = (path / _NEEDED["visda"][split == "test"]).parent
    rows = _lines(root / "image_list.txt")
    names, labels = [name for name, _ in rows], [label for _, label in rows]
    if not all(label.isdecimal() for label in labels):
        bad = next(i for i, label in enumerate(labels) if not label.isdecimal())
        raise ValueError(f"{root / 'image_list.txt'}:{bad + 1}: {labels[bad]!r}; want a class's number after its file")
    of = {(int(label), PurePosixPath(name).parts[0]) for name, label in rows}
    classes = tuple(name for _, name in sorted(of))
    if [label for label, _ in sorted(of)] != list(range(len(of))) or len(set(classes)) != len(of):
        raise ValueError(f"{root / 'image_list.txt'}: classes and folders do not go together one by one from 0; want "
                         "the list of the archive")
    return _present(_listing(root, names, [int(label) for label in labels], classes))


LAYOUTS: dict[str, Callable[[Path, str], Listing]] = {"folder": _folder, "imagenet": _imagenet, "cub": _cub,
                                                      "visda": _visda}


# ---------------------------------------------------------------------------------------------- lists


def _lines(file: Path) -> list[tuple[str, str]]:
    """Two words a line; the last blank parts them."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: {getattr(error, 'strerror', None) or error}; want it as its archive unpacks; unpack "
                         "that anew") from error
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            words = line.strip().rsplit(" ", 1)
            if len(words) != 2:
                raise ValueError(f"{file}:{number}: {line[:60]!r}; want two words a line; unpack the archive anew")
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
        raise ValueError(f"{file}: image {odd[0]} is in only one of it and images.txt; unpack the archive anew")
    if not all(value.isdecimal() for value in found.values()):
        raise ValueError(f"{file}: holds other values than numbers; unpack the archive anew")
    return {key: int(value) for key, value in found.items()}


def _listing(root: Path, names: list[str], labels: list[int], classes: tuple[str, ...]) -> Listing:
    packed = np.array([os.fsencode(name) for name in names], dtype=np.bytes_)  # a million str would fill the memory
    return Listing(root, packed, np.array(labels, dtype=np.int64), classes)


def _present(found: Listing) -> Listing:
    """The listing, if every file is there beneath its root; folders are listed, not each file asked for."""
    there: dict[PurePosixPath, set[str]] = {}
    missing = []
    for name in map(os.fsdecode, found.names):
        at = PurePosixPath(name)
        if at.is_absolute() or ".." in at.parts:
            raise ValueError(f"{found.root}: its list names {name[:60]!r}, outside it; unpack the archive anew")
        if at.parent not in there:
            folder = found.root / at.parent
            there[at.parent] = set(os.listdir(folder)) if folder.is_dir() else set()
        if at.name not in there[at.parent]:
            missing.append(name)
    if missing:
        raise ValueError(f"{found.root}: {len(missing):,} of {len(found):,} pictures are missing, the first "
                         f"{missing[0]}; unpack the archive anew")
    return found
