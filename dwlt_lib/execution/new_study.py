"""A parameter file for one's own pictures: counted, split where they are not, and commented."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import jinja2

from dwlt_lib import files
from dwlt_lib.config.datasets import CATALOGUE, DataSet, data_root
from dwlt_lib.data import folders
from dwlt_lib.records import store

TEST_SHARE = 4
"""One picture in so many of a class is a test image, where a folder has no split of its own."""
STEPS = 150
"""How many steps a transfer takes, about; AT of 500 pictures overfits beyond."""
BATCH = 32


def theta_folder() -> Path:
    """Where the checkout has theta_STD and theta_AT, pre-trained on photographs.

    Returns:
        The folder of std.safetensors and at.safetensors.
    """
    return store.checkout() / "outputs" / "reference" / "theta_p"


def write(name: str, images: Path, source: str | None, size: int, target: Path) -> DataSet:
    """Write a parameter file for a folder of pictures.

    A folder without train/ and test/ or val/ is split by links: every fourth picture of a class, by
    name, becomes a test image. The pictures stay where they are.

    Args:
        name: of the study and of the data set: small letters, digits and _.
        images: a folder with a folder per class, or with train/ and test/ or val/ that hold them.
        source: the data set of the catalogue on which theta_p is pre-trained; None: theta_STD and
            theta_AT are those of `theta_folder`, and nothing is pre-trained.
        size: the side of the image that the network sees, in pixels.
        target: the parameter file; it must not exist.

    Returns:
        The row of the pictures, counted.

    Raises:
        ValueError: one line: a name is taken or unknown, the file exists, or there are no pictures.
    """
    if source is None and not theta_folder().is_dir():
        raise ValueError(f"{theta_folder()}: is missing; name a --source to pre-train on")
    if source is not None and source not in CATALOGUE:
        raise ValueError(f"source {source!r}: want one of {', '.join(CATALOGUE)}")
    if name in CATALOGUE or not re.fullmatch("[a-z][a-z0-9_]{0,63}", name):
        raise ValueError(
            f"name {name!r}: want small letters, digits and _, and none of {', '.join(CATALOGUE)}"
        )
    if target.exists():
        raise ValueError(f"{target}: is there already; want another --out, or delete it")
    images = images.resolve()
    is_split = (images / "train").is_dir()
    split = images if is_split else data_root() / name
    classes = sorted(path.name for path in _folder(images / "train" if is_split else images))
    loader = "folder"
    if is_split and not (images / "test").is_dir():
        loader = "imagenet"  # whose test images lie in val/
        if not (images / "val").is_dir():
            raise ValueError(f"{images}: has train/ and neither test/ nor val/; want one beside it")
    row = DataSet(
        name=name, loader=loader, path=str(split), classes=max(len(classes), 2), size=size
    )
    if not is_split:
        _link(images, split)
    try:
        counts = folders.count_images(row)
    except ValueError:
        if not is_split:
            shutil.rmtree(split)  # the links
        raise
    train, test = counts["train_images"], counts["test_images"]
    epochs = min(60, max(10, round(STEPS * BATCH / train)))
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("dwlt_lib.execution"),
        keep_trailing_newline=True,
        trim_blocks=True,
    )
    text = environment.get_template("new_study.yaml.j2").render(
        name=name,
        folder=images,
        file=target,
        source=source,
        path=split,
        classes=len(classes),
        size=size,
        train=train,
        test=test,
        loader=loader,
        theta=theta_folder(),
        epochs=epochs,
        batch=BATCH,
        steps=epochs * -(-train // BATCH),
    )
    files.write(target, text)
    return row.model_copy(update=counts)


def _folder(path: Path) -> list[Path]:
    """The folders of classes in a folder."""
    if not path.is_dir():
        raise ValueError(f"{path}: is no folder; want one with a folder of pictures per class")
    found = [one for one in path.iterdir() if one.is_dir() and not one.name.startswith(".")]
    if len(found) < 2:
        raise ValueError(
            f"{path}: holds {len(found)} folders; want a folder of pictures per class, two or more"
        )
    return found


def _link(images: Path, target: Path) -> None:
    """Links every picture into train/CLASS or test/CLASS."""
    if target.exists():
        raise ValueError(f"{target}: is there already; want another name, or delete it")
    for folder in _folder(images):
        pictures = sorted(
            path for path in folder.iterdir() if path.suffix.lower() in folders.SUFFIXES
        )
        for number, picture in enumerate(pictures):
            part = "test" if number % TEST_SHARE == TEST_SHARE - 1 else "train"
            link = target / part / folder.name / picture.name
            link.parent.mkdir(parents=True, exist_ok=True)
            os.symlink(picture, link)
