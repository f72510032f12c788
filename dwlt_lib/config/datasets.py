"""The catalogue of data sets.

One row each in catalogue.yaml, plain facts, no loading (that is `data`) and no torch.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

Fraction01 = Annotated[float, Field(gt=0, le=1)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Frozen(BaseModel):
    """A description that never changes: unknown keys, wrong types, NaN and infinity are refused."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,  # a line under a field describes it, in the docs, too
    )


class DataSet(Frozen, frozen=True):  # pyright: ignore[reportGeneralTypeIssues]  # says it hashes
    """One row of the catalogue.

    train_sha256 and test_sha256 say which images the splits have (`data.fingerprints`). A record's
    identity has them for the splits that it reads; path, licence and the numbers of images are no
    part of it. A share of `scale` above 1 only makes small windows rarer.
    """

    name: Name
    """What grids call it: small letters, digits and _; under `data:` the key is the name, leave
    this out."""
    loader: Literal[
        "embedded",
        "torchvision",
        "npz",
        "folder",
        "imagenet",
        "tiny_imagenet",
        "gtsrb",
        "cub",
        "visda",
    ]
    """What reads its images: npz, a file of arrays; folder, train/ and test/ with a folder per
    class; imagenet, tiny_imagenet, gtsrb, cub and visda, laid out as their own archives are;
    torchvision and embedded, for rows of the catalogue only."""
    classes: Annotated[int, Field(ge=2)]
    """Number of classes; what lies on the disk must have as many."""
    size: Annotated[int, Field(ge=4, le=1024)]
    """Side in pixels of the square image that the network sees, on which eps is measured."""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """What is subtracted from each channel inside the network, in [0,1] pixels."""
    std: tuple[Fraction01, Fraction01, Fraction01] = (0.229, 0.224, 0.225)
    """What each channel is divided by then, in [0,1] pixels."""
    eps: Annotated[float, Field(ge=0, le=1)] = 8 / 255
    """The adversary's radius (l-infinity), in [0,1] pixels of the image the network sees; 8/255."""
    alpha: Annotated[float, Field(gt=0, le=1)] = 2 / 255
    """The adversary's step, in [0,1] pixels; 2/255."""
    augment: tuple[Literal["crop", "flip", "resized_crop"], ...] = ()
    """Of training images: shifts by up to an eighth of the side (crop), mirroring (flip),
    random windows (resized_crop)."""
    crop: Fraction01 = 1.0
    """The central part of a test image that is resized to `size`: 0.875 is the ImageNet habit,
    1 the whole image."""
    resize: Literal["shorter", "both"] = "shorter"
    """Which sides of a test picture are brought to round(size / crop) pixels: the shorter, of
    which the middle is cut, or both, whatever its shape."""
    scale: tuple[Fraction01, Annotated[float, Field(gt=0, le=4)]] = (0.08, 1.0)
    """A resized_crop's share of the picture's area, uniform between these two; windows that do
    not fit are drawn again."""
    distinct: bool = False
    """Leaves out training images that are test images, too, by the SHA-256 of their pixels or, of
    picture files, of the files; they are still counted under train_images."""
    path: str | None = None
    """Where the images lie, absolute or beneath DWLT_DATA; in an npz file's name {split}
    becomes train or test."""
    licence: str = "unknown"
    """The terms of its images, for people to read."""
    train_images: Annotated[int, Field(ge=1)] = 50_000
    """How many training images there are; for folders and packs they are counted."""
    test_images: Annotated[int, Field(ge=1)] = 10_000
    """How many test images there are; for folders and packs they are counted."""
    train_sha256: Sha256 | None = None
    """Demands these very training images; else they are hashed as they are found."""
    test_sha256: Sha256 | None = None
    """Demands these very test images; else they are hashed as they are found."""

    def fingerprint(self, split: str) -> str | None:
        """Which images a split has.

        Args:
            split: "train" or "test".

        Returns:
            The sha256 of the split; None while nobody has seen its images.
        """
        return self.train_sha256 if split == "train" else self.test_sha256

    @model_validator(mode="after")
    def _scale_rises(self) -> DataSet:
        if self.scale[0] > self.scale[1]:
            raise ValueError(
                f"scale={list(self.scale)}: want the smaller share of the area first, "
                "as in [0.08, 1.0]"
            )
        return self


def data_root() -> Path:
    """The folder of downloaded and user data.

    Returns:
        DWLT_DATA, or dwlt in the user's cache folder; it need not exist.
    """
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dwlt"
    return Path(os.environ.get("DWLT_DATA") or default)


# loaders of picture files, which can be streamed
LISTED = ("folder", "imagenet", "tiny_imagenet", "gtsrb", "cub", "visda")

NOT_IDENTITY = frozenset(
    {"path", "licence", "train_images", "test_images", "train_sha256", "test_sha256"}
)


def _catalogue() -> dict[str, DataSet]:
    """The rows of catalogue.yaml by name."""
    text = (Path(__file__).parent / "catalogue.yaml").read_text(encoding="utf-8")
    rows = yaml.safe_load(text)
    return {
        name: DataSet.model_validate_json(json.dumps({"name": name, **row}))
        for name, row in rows.items()
    }


CATALOGUE = _catalogue()
