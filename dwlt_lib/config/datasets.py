"""The catalogue of data sets.

One row each, plain facts, no loading (that is `data`) and no torch.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

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


# Sections 3 and A1 for the paper's data sets; the statistics of CIFAR, SVHN and VisDA-17 (which are
# ImageNet's) are those of its authors' code. It has no CUB-200 (Figure A10): ImageNet's, too, as
# the pre-trained networks do. Of VisDA-17 the paper states no transforms, and this row has
# ImageNet's.
# The code differs (preset as_code): it trains on windows of 75 to 133 % of the area instead of 8 to
# 100, shows whole test pictures squeezed to 224 x 224 instead of the middle of 256, and has ST
# alone, which trains on every training image and selects on the test images (the folder
# `validation`), where as_paper holds out a tenth of the training images.
_AT_224 = {"size": 224, "crop": 0.875, "augment": ("resized_crop", "flip")}

CATALOGUE: dict[str, DataSet] = {
    row.name: row
    for row in (
        DataSet(
            name="mnist5k",
            loader="embedded",
            classes=10,
            size=8,
            mean=(0.252, 0.252, 0.252),
            std=(0.289, 0.289, 0.289),
            eps=0.15,
            alpha=0.0375,
            licence="CC BY-SA 3.0 (MNIST)",
            train_images=4000,
            test_images=1000,
        ),
        DataSet(
            name="digits",
            loader="embedded",
            classes=10,
            size=8,
            mean=(0.305, 0.305, 0.305),
            std=(0.376, 0.376, 0.376),
            eps=0.15,
            alpha=0.0375,
            licence="CC BY 4.0 (UCI optical digits)",
            train_images=1157,
            test_images=640,
        ),
        DataSet(
            name="tiles",
            loader="embedded",
            classes=12,
            size=16,
            mean=(0.440, 0.392, 0.366),
            std=(0.288, 0.249, 0.257),
            augment=("flip",),
            licence="public domain, CC0 and CC BY (pictures of scikit-image and scikit-learn)",
            train_images=1498,
            test_images=476,
        ),
        DataSet(
            name="cifar10",
            loader="torchvision",
            classes=10,
            size=32,
            mean=(0.4914, 0.4822, 0.4465),
            std=(0.2470, 0.2435, 0.2616),
            augment=("crop", "flip"),
            path="cifar-10-batches-py",
            licence="unstated; research use",
        ),
        DataSet(
            name="cifar100",
            loader="torchvision",
            classes=100,
            size=32,
            mean=(0.5071, 0.4867, 0.4408),
            std=(0.2675, 0.2565, 0.2761),
            augment=("crop", "flip"),
            distinct=True,  # ten of its training images are test images
            path="cifar-100-python",
            licence="unstated; research use",
        ),
        DataSet(
            name="svhn",
            loader="torchvision",
            classes=10,
            size=32,
            mean=(0.4377, 0.4438, 0.4728),
            std=(0.1201, 0.1231, 0.1052),
            augment=("crop",),
            path="{split}_32x32.mat",
            licence="non-commercial use",
            train_images=73_257,
            test_images=26_032,
        ),
        DataSet(
            name="tiny_imagenet",
            loader="tiny_imagenet",
            classes=200,
            size=64,
            mean=(0.4802, 0.4481, 0.3975),
            std=(0.2770, 0.2691, 0.2821),
            augment=("crop", "flip"),
            path="tiny-imagenet-200",
            licence="non-commercial research (ImageNet's)",
            train_images=100_000,
            test_images=10_000,
        ),
        DataSet(
            name="gtsrb",
            loader="gtsrb",
            classes=43,
            size=32,
            mean=(0.3403, 0.3121, 0.3214),
            std=(0.2724, 0.2608, 0.2669),
            augment=("crop",),  # a mirrored sign is another sign
            resize="both",
            path="gtsrb",
            licence="free to use, with citation",
            train_images=26_640,
            test_images=12_630,
        ),
        DataSet(
            name="fashion_mnist",
            loader="torchvision",
            classes=10,
            size=28,
            mean=(0.2860, 0.2860, 0.2860),
            std=(0.3530, 0.3530, 0.3530),
            eps=0.1,
            alpha=0.025,
            augment=("crop", "flip"),
            path="FashionMNIST/raw",
            licence="MIT",
            train_images=60_000,
        ),
        DataSet(
            name="imagenet",
            loader="imagenet",
            classes=1000,
            path="imagenet",
            **_AT_224,
            licence="non-commercial research, by agreement",
            train_images=1_281_167,
            test_images=50_000,
        ),
        DataSet(
            name="cub200",
            loader="cub",
            classes=200,
            path="CUB_200_2011",
            **_AT_224,
            licence="non-commercial research and education",
            train_images=5994,
            test_images=5794,
        ),
        DataSet(
            name="visda17",
            loader="visda",
            classes=12,
            path="visda17",
            **_AT_224,
            licence="fair use and non-commercial research",
            train_images=152_397,
            test_images=55_388,
        ),
    )
}
