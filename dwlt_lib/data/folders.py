"""Layouts of image folders: which files a split consists of, and their labels.

No image is opened here, and no torch is imported. Every error is a ValueError of one line: the
place, what is wrong, the remedy.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np

from dwlt_lib import files
from dwlt_lib.config.datasets import CATALOGUE, LISTED, DataSet, data_root
from dwlt_lib.data import npz

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".ppm")

_REQUIRED = {  # loader: what the training and the test split cannot be without
    "folder": ("train", "test"),
    "imagenet": ("train", "val"),
    "tiny_imagenet": ("train", "val/val_annotations.txt"),
    "gtsrb": ("GTSRB/Training", "GT-final_test.csv"),
    "cub": ("images.txt", "images.txt"),
    "visda": ("train/image_list.txt", "validation/image_list.txt"),
}


@dataclass(frozen=True)
class Listing:
    """The image files of a split and their labels, in file order."""

    root: Path
    """The folder that the files lie in"""
    names: np.ndarray
    """(N,) bytes, the files' paths relative to `root`; as str a million would fill the memory"""
    labels: np.ndarray
    """int64 (N,)"""
    classes: tuple[str, ...]
    """The name of each class; a label is a place in it"""
    groups: np.ndarray | None = None
    """int64 (N,): pictures of one thing have one number; None where none is known"""

    def __len__(self) -> int:
        """The number of files N."""
        return len(self.names)

    def file(self, index: int) -> Path:
        """The path of one file.

        Args:
            index: its place, in 0..N-1.

        Returns:
            `root` and the file's name.
        """
        return self.root / os.fsdecode(self.names[index])

    def take(self, chosen: np.ndarray) -> Listing:
        """Some of the files.

        Args:
            chosen: bool (N,).

        Returns:
            Those that are chosen, in their order.
        """
        groups = None if self.groups is None else self.groups[chosen]
        return replace(self, names=self.names[chosen], labels=self.labels[chosen], groups=groups)


def list_images(row: DataSet, path: Path, split: str) -> Listing:
    """The image files of a split of a row whose loader is one of `LAYOUTS`.

    Args:
        row: the data set.
        path: the row's folder.
        split: "train" or "test".

    Returns:
        Its files, at least one, of as many classes as the row has.

    Raises:
        ValueError: one line, if the folder is not laid out as the loader wants it.
    """
    listing = LAYOUTS[row.loader](path, split)
    _check_classes(row, listing.root, listing.classes)
    if len(listing) == 0:
        raise ValueError(
            f"{listing.root}: no images of the {split} split; want {', '.join(SUFFIXES)} files"
        )
    return listing


def split_path(row: DataSet, split: str, root: Path | None = None) -> Path:
    """Where a row that is not embedded keeps a split.

    Args:
        row: the data set.
        split: "train" or "test".
        root: the folder that the row's path lies in; default DWLT_DATA.

    Returns:
        The file or folder that its loader reads.

    Raises:
        ValueError: one line, if it is missing.
    """
    path = unchecked_path(row, split, root)
    missing = required_path(row, path, split)
    if not missing.exists():
        remedy = f"run dwlt data fetch {row.name}" if row.name in CATALOGUE else "set its path"
        raise ValueError(
            f"data set {row.name}: {missing} is missing; {remedy}, or set DWLT_DATA to where data"
            " lie"
        )
    return path


def unchecked_path(row: DataSet, split: str, root: Path | None = None) -> Path:
    """What `split_path` gives, whether it exists or not.

    Args:
        row: the data set.
        split: "train" or "test".
        root: the folder that the row's path lies in; default DWLT_DATA.

    Returns:
        The file or folder.
    """
    return (root or data_root()) / (row.path or "").replace("{split}", split)


def required_path(row: DataSet, path: Path, split: str) -> Path:
    """The file or folder that a split cannot be without.

    Args:
        row: the data set; its loader decides.
        path: of `unchecked_path`.
        split: "train" or "test".

    Returns:
        `path` itself, or something in that folder.
    """
    if row.loader not in LISTED:
        return path
    return path / _REQUIRED[row.loader][split == "test"]


def count_images(row: DataSet) -> dict[str, int]:
    """The number of images of each split that is on the disk.

    Folders are listed once; of an npz file the headers and labels are read.

    Args:
        row: the data set.

    Returns:
        {"train_images": N, "test_images": N}, without the splits that are missing; empty for
        loaders whose numbers of images are fixed.

    Raises:
        ValueError: one line, if what is there cannot be read, or has other classes than the row.
    """
    counts: dict[str, int] = {}
    if row.loader not in (*LISTED, "npz"):
        return counts
    for split in ("train", "test"):
        try:
            path = unchecked_path(row, split)
            if required_path(row, path, split).exists():
                counts[f"{split}_images"] = _count(row, path, split)
        except OSError as error:
            raise ValueError(f"data set {row.name}: {error}; mend the folder") from error
    return counts


def _count(row: DataSet, path: Path, split: str) -> int:
    if row.loader == "npz":
        labels = npz.load_labels(path)
        check_labels(row, labels)
        return len(labels)
    if row.loader not in ("folder", "imagenet"):
        return len(list_images(row, path, split))
    root, classes = _class_folders(path, split, row.loader)
    _check_classes(row, root, classes)
    return sum(len(names) for name in classes for _, names in _walk_class(root, name))


def check_labels(row: DataSet, labels: np.ndarray) -> None:
    """Refuse labels that are not classes of a data set.

    Args:
        row: the data set.
        labels: integers (N,).

    Raises:
        ValueError: one line, if any is outside 0..classes-1.
    """
    if len(labels) and (labels.min() < 0 or labels.max() >= row.classes):
        raise ValueError(
            f"data set {row.name}: labels {labels.min()}..{labels.max()}; want"
            f" 0..{row.classes - 1}; mend the labels, or classes in the study"
        )


def _check_classes(row: DataSet, root: Path, classes: Sequence[str]) -> None:
    if len(classes) != row.classes:
        raise ValueError(
            f"{root}: {len(classes):,} classes; data set {row.name} has {row.classes:,}; mend the"
            " folder, or classes in the study"
        )


# ----------------------------------------------------------------------------------------------
# layouts


def _folder(path: Path, split: str, loader: str = "folder") -> Listing:
    """SPLIT/CLASS/**/*.jpg, classes and files in the order of their names, as ImageFolder."""
    root, classes = _class_folders(path, split, loader)
    names, labels = [], []
    for label, name in enumerate(classes):
        for folder, images in _walk_class(root, name):
            relative = PurePosixPath(folder.relative_to(root))
            names += [str(relative / image) for image in sorted(images)]
            labels += [label] * len(images)
    return _listing(root, names, labels, classes)


def _class_folders(path: Path, split: str, loader: str) -> tuple[Path, tuple[str, ...]]:
    """A split's folder and its classes, which must be those of the training split."""
    train, test = (path / name for name in _REQUIRED[loader])
    root = test if split == "test" else train
    classes = _class_names(root)
    if split == "test" and train.is_dir() and classes != _class_names(train):
        different = sorted(set(classes) ^ set(_class_names(train)))
        raise ValueError(
            f"{root}: class folders differ from {train}'s, as in {different[0]!r}; want the same in"
            " both, since a label is a folder's place"
        )
    return root, classes


def _walk_class(root: Path, name: str) -> Iterator[tuple[Path, list[str]]]:
    """Each folder of a class with the names of its images; ValueError if no folder has any."""
    is_empty = True
    for folder, subfolders, names in os.walk(root / name):
        subfolders.sort()
        images = [name for name in names if name.lower().endswith(SUFFIXES)]
        is_empty = is_empty and not images
        yield Path(folder), images
    if is_empty:
        raise ValueError(
            f"{root / name}: no images; want a folder per class, with {', '.join(SUFFIXES)} files"
        )


def _class_names(root: Path) -> tuple[str, ...]:
    try:
        entries = [entry for entry in os.scandir(root) if not entry.name.startswith(".")]
    except OSError as error:
        raise ValueError(
            f"{root}: {error.strerror}; want a folder per class, with images in it"
        ) from error
    classes = tuple(sorted(entry.name for entry in entries if entry.is_dir()))
    if not classes:
        num_images = sum(entry.name.lower().endswith(SUFFIXES) for entry in entries)
        raise ValueError(
            f"{root}: {num_images:,} images, but no class folders; want a folder per class, with"
            " images in it"
        )
    return classes


def _imagenet(path: Path, split: str) -> Listing:
    """ILSVRC 2012, train/WNID/*.JPEG and val/WNID/*.JPEG; the validation images are the test."""
    return _folder(path, split, "imagenet")


def _tiny_imagenet(path: Path, split: str) -> Listing:
    """Tiny-ImageNet, train/WNID/images/*.JPEG; the test split is val/images/*.JPEG.

    A line of val_annotations.txt has, between tabs, file, WNID and a box.
    """
    if split == "train":
        return _folder(path, split, "tiny_imagenet")
    file = path / _REQUIRED["tiny_imagenet"][1]
    table = [line.split("\t") for line in _read_lines(file)]
    pairs = [(row[0], row[1] if len(row) > 1 else "") for row in table]
    return _by_class_name(file, pairs, file.parent / "images", _class_names(path / "train"))


def _gtsrb(path: Path, split: str) -> Listing:
    """GTSRB as torchvision has it: GTSRB/Training/CLASS/TRACK_FRAME.ppm, GTSRB/Final_Test/Images.

    A track is 30 pictures of one sign, and a group. A line of GT-final_test.csv begins with a file
    and ends with its class's number; the first line names the columns.
    """
    train, file = (path / name for name in _REQUIRED["gtsrb"])
    if split == "train":
        listing = _folder(path, split, "gtsrb")
        tracks = [name.rpartition(b"_")[0] for name in listing.names]
        return replace(listing, groups=np.unique(tracks, return_inverse=True)[1])
    table = [line.split(";") for line in _read_lines(file)[1:]]
    pairs = [(row[0], row[-1].strip().zfill(5)) for row in table]
    return _by_class_name(file, pairs, path / "GTSRB/Final_Test/Images", _class_names(train))


def _by_class_name(
    file: Path, pairs: Sequence[tuple[str, str]], root: Path, classes: tuple[str, ...]
) -> Listing:
    """The pictures in `root` that a file lists as (name, class)."""
    labels = {name: label for label, name in enumerate(classes)}
    for name, label in pairs:
        if label not in labels:
            raise ValueError(
                f"{file}: {name[:60]!r} has class {label[:60]!r}; want a folder of the training"
                f" split, as {classes[0]}; unpack the archive anew"
            )
    names = [name for name, _ in pairs]
    listing = _listing(root, names, [labels[label] for _, label in pairs], classes)
    _check_files(listing)
    return listing


def _cub(path: Path, split: str) -> Listing:
    """CUB-200-2011, by the lists of its archive.

    A line of images.txt has "id file", of image_class_labels.txt "id label" (from 1), of
    train_test_split.txt "id flag" (1 to train), of classes.txt "label name".
    """
    names, classes = _read_table(path / "images.txt"), _read_table(path / "classes.txt")
    labels = _read_numbers(path / "image_class_labels.txt", names)
    training = _read_numbers(path / "train_test_split.txt", names)
    if not set(training.values()) <= {0, 1}:
        raise ValueError(
            f"{path / 'train_test_split.txt'}: holds other flags than 0 and 1; unpack the archive"
            " anew"
        )
    numbers = [str(number) for number in range(1, len(classes) + 1)]
    if list(classes) != numbers or not {str(label) for label in labels.values()} <= set(numbers):
        raise ValueError(
            f"{path / 'classes.txt'}: classes are not 1 to {len(classes)} as in"
            " image_class_labels.txt; unpack the archive anew"
        )
    chosen = [key for key in names if training[key] == (split == "train")]
    listing = _listing(
        path / "images",
        [names[key] for key in chosen],
        [labels[key] - 1 for key in chosen],
        tuple(classes.values()),
    )
    _check_files(listing)
    return listing


def _visda(path: Path, split: str) -> Listing:
    """VisDA-17 classification, by train/ and validation/image_list.txt, "CLASS/file label" a line.

    The test split is `validation`, as in the authors' code: photographs with labels in their
    archive. The challenge's own `test` folder comes without labels.
    """
    file = path / _REQUIRED["visda"][split == "test"]
    lines = _read_pairs(file)
    for number, (_, label) in enumerate(lines, 1):
        if not label.isdecimal():
            raise ValueError(f"{file}:{number}: {label!r}; want a class's number after its file")
    names, labels = [name for name, _ in lines], [int(label) for _, label in lines]
    pairs = sorted({(int(label), PurePosixPath(name).parts[0]) for name, label in lines})
    classes = tuple(name for _, name in pairs)
    if [label for label, _ in pairs] != list(range(len(pairs))) or len(set(classes)) < len(pairs):
        raise ValueError(
            f"{file}: classes and folders do not go together one by one from 0; want the list of"
            " the archive"
        )
    listing = _listing(file.parent, names, labels, classes)
    _check_files(listing)
    return listing


LAYOUTS: dict[str, Callable[[Path, str], Listing]] = {
    "folder": _folder,
    "imagenet": _imagenet,
    "tiny_imagenet": _tiny_imagenet,
    "gtsrb": _gtsrb,
    "cub": _cub,
    "visda": _visda,
}


# ----------------------------------------------------------------------------------------------
# lists


def _read_lines(file: Path) -> list[str]:
    try:
        return files.regular(file).read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{file}: {error}; want it as its archive unpacks; unpack that anew"
        ) from error
    except (OSError, ValueError) as error:
        raise ValueError(f"{error} as its archive unpacks; unpack that anew") from error


def _read_pairs(file: Path) -> list[tuple[str, str]]:
    """Two words of each line, which its last blank separates; empty lines are skipped."""
    pairs = []
    for number, line in enumerate(_read_lines(file), 1):
        if not line.strip():
            continue
        first, blank, second = line.strip().rpartition(" ")
        if not blank:
            raise ValueError(
                f"{file}:{number}: {line[:60]!r}; want two words a line; unpack the archive anew"
            )
        pairs.append((first, second))
    return pairs


def _read_table(file: Path) -> dict[str, str]:
    """{first word: second word} of each line."""
    pairs = _read_pairs(file)
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError(f"{file}: an id stands twice; unpack the archive anew")
    return table


def _read_numbers(file: Path, names: dict[str, str]) -> dict[str, int]:
    """{id: number} of each line; the ids must be those of `names`, which images.txt has."""
    table = _read_table(file)
    different = sorted(set(table) ^ set(names))
    if different:
        raise ValueError(
            f"{file}: image {different[0]} is in only one of it and images.txt; unpack the archive"
            " anew"
        )
    if not all(value.isdecimal() for value in table.values()):
        raise ValueError(f"{file}: holds other values than numbers; unpack the archive anew")
    return {key: int(value) for key, value in table.items()}


def _listing(root: Path, names: list[str], labels: list[int], classes: tuple[str, ...]) -> Listing:
    packed = np.array([os.fsencode(name) for name in names], dtype=np.bytes_)
    return Listing(root, packed, np.array(labels, dtype=np.int64), classes)


def _check_files(listing: Listing) -> None:
    """Raise a ValueError of one line unless every file is there, inside the listing's root.

    Each folder is listed once, which is faster than to ask for each file.
    """
    contents: dict[PurePosixPath, set[str]] = {}
    missing = []
    for name in map(os.fsdecode, listing.names):
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(
                f"{listing.root}: its list names {name[:60]!r}, outside it; unpack the archive anew"
            )
        if path.parent not in contents:
            folder = listing.root / path.parent
            contents[path.parent] = set(os.listdir(folder)) if folder.is_dir() else set()
        if path.name not in contents[path.parent]:
            missing.append(name)
    if missing:
        raise ValueError(
            f"{listing.root}: {len(missing):,} of {len(listing):,} images are missing, the first "
            f"{missing[0]}; unpack the archive anew"
        )
