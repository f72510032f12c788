"""Layouts of image folders: which files a split consists of, and their labels.

No image is opened here, and no torch is imported. Every error is a ValueError of one line: the
place, what is wrong, the remedy.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
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
    try:
        listing = LAYOUTS[row.loader](path, split)
    except OSError as error:
        raise ValueError(f"data set {row.name}: {error}; mend the folder") from error
    if len(listing.classes) != row.classes:
        raise ValueError(
            f"{listing.root}: {len(listing.classes):,} classes; data set {row.name} has"
            f" {row.classes:,}; mend the folder, or classes in the study"
        )
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
    path, required = _paths(row, split, root)
    if not required.exists():
        remedy = f"run dwlt data fetch {row.name}" if row.name in CATALOGUE else "set its path"
        raise ValueError(
            f"data set {row.name}: {required} is missing; {remedy}, or set DWLT_DATA to where data"
            " lie"
        )
    return path


def existing_path(row: DataSet, split: str, root: Path | None = None) -> Path | None:
    """What `split_path` gives, or None where it is missing.

    Args:
        row: the data set.
        split: "train" or "test".
        root: the folder that the row's path lies in; default DWLT_DATA.

    Returns:
        The file or folder that its loader reads.
    """
    path, required = _paths(row, split, root)
    return path if required.exists() else None


def _paths(row: DataSet, split: str, root: Path | None) -> tuple[Path, Path]:
    """What a row's loader reads, and the file or folder in it that it cannot be without."""
    path = (root or data_root()) / (row.path or "").replace("{split}", split)
    if row.loader not in LISTED:
        return path, path
    return path, path / _REQUIRED[row.loader][split == "test"]


def count_images(row: DataSet) -> dict[str, int]:
    """The number of images of each split that is on the disk.

    Folders are listed; of an npz file the headers and labels are read.

    Args:
        row: the data set.

    Returns:
        {"train_images": N, "test_images": N}, without the splits that are missing; empty for
        loaders whose numbers of images are fixed.

    Raises:
        ValueError: one line, if what is there cannot be read, or has other classes than the row.
    """
    counts: dict[str, int] = {}
    for split in ("train", "test"):
        path = existing_path(row, split)
        if path is not None and row.loader in LISTED:
            counts[f"{split}_images"] = len(list_images(row, path, split))
        elif path is not None and row.loader == "npz":
            labels = npz.load(path, ["labels"])["labels"]
            check_labels(row, labels)
            counts[f"{split}_images"] = len(labels)
    return counts


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


# ----------------------------------------------------------------------------------------------
# layouts


def _folder(path: Path, split: str, loader: str = "folder") -> Listing:
    """SPLIT/CLASS/**/*.jpg, classes and files in the order of their names, as ImageFolder."""
    train, test = (path / name for name in _REQUIRED[loader])
    root = test if split == "test" else train
    classes = _class_names(root)
    if split == "test" and train.is_dir() and classes != _class_names(train):
        different = sorted(set(classes) ^ set(_class_names(train)))
        raise ValueError(
            f"{root}: class folders differ from {train}'s, as in {different[0]!r}; want the same in"
            " both, since a label is a folder's place"
        )
    names, labels = [], []
    for label, name in enumerate(classes):
        images = _class_images(root, name)
        names += images
        labels += [label] * len(images)
    return _listing(root, names, labels, classes)


def _class_names(root: Path) -> tuple[str, ...]:
    entries = [entry for entry in os.scandir(root) if not entry.name.startswith(".")]
    classes = tuple(sorted(entry.name for entry in entries if entry.is_dir()))
    if not classes:
        raise ValueError(f"{root}: no class folders; want a folder per class, with images in it")
    return classes


def _class_images(root: Path, name: str) -> list[str]:
    """The images of a class relative to the root, folder by folder, each in order."""
    images = []
    for folder, subfolders, names in os.walk(root / name):
        subfolders.sort()
        relative = Path(folder).relative_to(root).as_posix()
        images += [f"{relative}/{n}" for n in sorted(names) if n.lower().endswith(SUFFIXES)]
    if not images:
        raise ValueError(
            f"{root / name}: no images; want a folder per class, with {', '.join(SUFFIXES)} files"
        )
    return images


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
    pairs = [(row[0], row[1]) for row in _read_table(file, "\t", 6)]
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
    pairs = [(row[0], row[-1].zfill(5)) for row in _read_table(file, ";", 8)[1:]]
    return _by_class_name(file, pairs, path / "GTSRB/Final_Test/Images", _class_names(train))


def _cub(path: Path, split: str) -> Listing:
    """CUB-200-2011, by the lists of its archive.

    A line of images.txt has "id file", of image_class_labels.txt "id label", of
    train_test_split.txt "id flag" (1 to train), of classes.txt "label name".
    """
    lists = ("images", "image_class_labels", "train_test_split", "classes")
    names, labels, flags, classes = (dict(_read_table(path / f"{n}.txt", " ", 2)) for n in lists)
    different = sorted(names.keys() ^ labels.keys() | names.keys() ^ flags.keys())
    if different or not set(flags.values()) <= {"0", "1"}:
        raise ValueError(
            f"{path}: images.txt, image_class_labels.txt and train_test_split.txt (of flags 0 and"
            f" 1) do not go together, as image {''.join(different[:1])}; unpack the archive anew"
        )
    wanted = "1" if split == "train" else "0"
    pairs = [(names[i], classes.get(labels[i], labels[i])) for i in names if flags[i] == wanted]
    return _by_class_name(path / "classes.txt", pairs, path / "images", tuple(classes.values()))


def _visda(path: Path, split: str) -> Listing:
    """VisDA-17 classification, by train/ and validation/image_list.txt, "CLASS/file label" a line.

    The test split is `validation`, as in the authors' code: photographs with labels in their
    archive. The challenge's own `test` folder comes without labels.
    """
    file = path / _REQUIRED["visda"][split == "test"]
    table = _read_table(file, " ", 2)
    labelled = {(label, name.partition("/")[0]) for name, label in table}
    classes = dict(labelled)
    numbers = [str(number) for number in range(len(labelled))]
    if classes.keys() != set(numbers) or len(set(classes.values())) < len(labelled):
        raise ValueError(
            f"{file}: classes and folders do not go together one by one from 0; want the list of"
            " the archive"
        )
    pairs = [(name, classes[label]) for name, label in table]
    return _by_class_name(file, pairs, file.parent, tuple(classes[number] for number in numbers))


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


def _read_table(file: Path, separator: str, width: int) -> list[list[str]]:
    """The words of each line that is not empty, `width` of them; no first word stands twice."""
    try:
        lines = files.regular(file).read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: {error}; unpack its archive anew") from error
    table = [line.split(separator) for line in lines if line.strip()]
    for words in table:
        if len(words) != width:
            raise ValueError(
                f"{file}: {separator.join(words)[:60]!r}; want {width} words a line; unpack its"
                " archive anew"
            )
    if len({words[0] for words in table}) < len(table):
        raise ValueError(f"{file}: a line's first word stands twice; unpack its archive anew")
    return table


def _by_class_name(
    file: Path, pairs: Sequence[tuple[str, str]], root: Path, classes: tuple[str, ...]
) -> Listing:
    """The pictures in `root` that a file lists as (name, class); all must be there."""
    labels = {name: label for label, name in enumerate(classes)}
    for name, label in pairs:
        if label not in labels:
            raise ValueError(
                f"{file}: {name[:60]!r} has class {label[:60]!r}; want one of the training split,"
                f" as {classes[0]}; unpack the archive anew"
            )
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise ValueError(f"{file}: names {name[:60]!r}, outside {root}; unpack it anew")
    missing = [name for name, _ in pairs if not os.path.isfile(root / name)]
    if missing:
        raise ValueError(
            f"{root}: {len(missing):,} of {len(pairs):,} images are missing, the first"
            f" {missing[0]}; unpack the archive anew"
        )
    return _listing(
        root, [name for name, _ in pairs], [labels[label] for _, label in pairs], classes
    )


def _listing(
    root: Path, names: Sequence[str], labels: Sequence[int], classes: tuple[str, ...]
) -> Listing:
    packed = np.array([os.fsencode(name) for name in names], dtype=np.bytes_)
    return Listing(root, packed, np.array(labels, dtype=np.int64), classes)
