"""Images: loading a row of the catalogue, splits, 100/10/1 % subsets, batches on the device and
augmentation.

Images live on the device as uint8 (N,3,H,W); a batch becomes float in [0,1] only when it is used.
Picture files that do not fit there, or of which each epoch wants other crops, are streamed: the
same interface, and the same images.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from numbers import Real
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dwlt_lib.config.datasets import CATALOGUE, LISTED, DataSet, data_root
from dwlt_lib.data import decoding, folders, packs
from dwlt_lib.data.bundled import EMBEDDED, Arrays, rgb
from dwlt_lib.data.folders import source

RESIDENT = (
    2**31
)  # bytes of a split of picture files that may stay on the device; larger ones are streamed


# ----------------------------------------------------------------------------------------------
# loaders


def _torchvision(row: DataSet, split: str, root: Path) -> Arrays:
    """CIFAR and SVHN by torchvision's readers, which check the files against its md5 sums before
    they open them.
    """
    from torchvision import datasets

    if row.name == "svhn":
        found = datasets.SVHN(root, split=split)
        return found.data.transpose(0, 2, 3, 1), found.labels.astype(np.int64)
    found = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[row.name](
        root, train=split == "train"
    )
    return found.data, np.asarray(found.targets, dtype=np.int64)


def row_of(name: str | DataSet) -> DataSet:
    """The row itself, or the catalogue's row of that name."""
    if isinstance(name, DataSet):
        return name
    if name not in CATALOGUE:
        raise ValueError(
            f"data set {name!r}: want one of {', '.join(CATALOGUE)}, or a row of your own in the"
            " study"
        )
    return CATALOGUE[name]


def load(name: str | DataSet, split: str, root: str | Path | None = None) -> tuple[Tensor, Tensor]:
    """Images uint8 (N,3,H,W) and labels int64 (N,) of `split` ("train" or "test"), in file order.

    Arrays larger than the row's size are reduced to it here, by area, smaller ones are enlarged
    batch by batch; picture files are shown as evaluated, round(size / crop) pixels square.
    Everything is read from `root`, or DWLT_DATA; nothing is downloaded. Raises ValueError, one
    line, for whatever is missing or wrong.
    """
    row = row_of(name)
    if (
        row.loader == "embedded"
    ):  # the packages do not change under a process: read once, whatever is known of it
        row = row.model_copy(update={"train_sha256": None, "test_sha256": None})
    return _load(row, _known(split), Path(root) if root else data_root())


def listing(name: str | DataSet, split: str, root: str | Path | None = None) -> folders.Listing:
    """The picture files of `split` of a row whose loader lists them (catalogue.LISTED), in file
    order.
    """
    return _listing(row_of(name), _known(split), Path(root) if root else data_root())


def _known(split: str) -> str:
    if split not in ("train", "test"):
        raise ValueError(f"split={split!r}: want 'train' or 'test'")
    return split


@lru_cache(maxsize=8)
def _listing(row: DataSet, split: str, root: Path) -> folders.Listing:
    try:
        return folders.read(row, source(row, split, root), split)
    except OSError as error:
        raise ValueError(f"data set {row.name}: {error}; mend the folder's permissions") from error


@lru_cache(maxsize=8)
def _load(row: DataSet, split: str, root: Path) -> tuple[Tensor, Tensor]:
    if row.loader in LISTED:
        return _decode(row, _listing(row, split, root))
    if row.loader == "embedded":
        x, y = EMBEDDED[row.name](split)
    elif row.loader == "npz":
        x, y = packs.load(source(row, split, root))
        x = x if x.ndim == 4 else rgb(x)
    else:
        path = source(row, split, root)
        try:
            x, y = _torchvision(row, split, path.parent)
        except Exception as error:  # unpickling and MATLAB's format fail in many ways
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ValueError(
                f"data set {row.name}: {path}: a file is missing, or not what was published"
                f" ({reason}); remove it and bring it anew with dwlt data fetch {row.name}"
            ) from error
    folders.check_labels(row, y)
    images = torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))
    side = round(row.size / row.crop)
    if images.shape[-1] > side:
        images = _resize(images.float(), side).round().clamp(0, 255).to(torch.uint8)
    return images, torch.from_numpy(y)


def _decode(row: DataSet, found: folders.Listing) -> tuple[Tensor, Tensor]:
    import psutil

    side = round(row.size / row.crop)
    need, free = 3 * side * side * len(found), psutil.virtual_memory().available
    if need > free:
        raise ValueError(
            f"data set {row.name}: {len(found):,} images of {side} x {side} are {need / 1e9:,.0f}"
            f" GB, and {free / 1e9:,.0f} GB of memory are free; use data.images, which streams them"
        )
    whole = next(decoding.stream(found.root, found.names, [len(found)], side, resize=row.resize))
    return whole, torch.from_numpy(found.labels)


def _resize(x: Tensor, side: int) -> Tensor:
    """Bilinear, antialiased: (B,3,H,W) -> (B,3,side,side)."""
    return F.interpolate(x, (side, side), mode="bilinear", antialias=True)


# ----------------------------------------------------------------------------------------------
# subsets


def subset(
    labels: Tensor | Sequence[int] | np.ndarray,
    fraction: float,
    seed: int,
    rule: str = "stratified",
) -> Tensor:
    """Indices, ascending, of int(fraction * N) images; those of a smaller fraction lie within those
    of a larger one.

    labels: (N,), a tensor, an array or a list. seed: 0 or more. stratified: a seeded order in which
    every class keeps its share, so per-class counts of any prefix differ from their share by about
    one at most. first_n: the first images in file order (the authors' way). Raises ValueError, one
    line.
    """
    if not isinstance(fraction, Real) or not 0 < fraction <= 1:
        raise ValueError(
            f"fraction={fraction!r}: want 0 < fraction <= 1 (the paper uses 1.0, 0.1 and 0.01)"
        )
    if rule not in ("stratified", "first_n"):
        raise ValueError(f"rule={rule!r}: want 'stratified' or 'first_n'")
    if not isinstance(seed, int | np.integer) or seed < 0:
        raise ValueError(f"seed={seed!r}: want an integer, 0 or more")
    try:
        y = labels.cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"labels, a {type(labels).__name__}: want a class an image, (N,)"
        ) from error
    if y.ndim != 1 or len(y) == 0 or y.dtype.kind not in "iuf" or not np.isfinite(y).all():
        raise ValueError(f"labels {y.shape} {y.dtype}: want a class an image, (N,), N at least 1")
    n = max(1, int(round(len(y) * fraction, 6)))
    if rule == "first_n":
        return torch.arange(n)
    rng = np.random.RandomState(np.random.MT19937(np.random.SeedSequence((seed, 0x5AB5E7))))
    key = np.empty(len(y))
    for label in np.unique(y):
        where = np.flatnonzero(y == label)
        key[rng.permutation(where)] = (np.arange(len(where)) + 0.5) / len(where)
    order = np.lexsort((rng.random_sample(len(y)), key))
    return torch.from_numpy(np.sort(order[:n]))


# ---------------------------------------------------------------------------------------------- on
# the device


@dataclass(frozen=True)
class Images:
    """A split on its device. x: uint8 (N,3,H,W); y: int64 (N,); row.

    How they are shown to the network.
    """

    x: Tensor
    y: Tensor
    row: DataSet

    def __len__(self) -> int:
        return len(self.y)

    @property
    def device(self) -> torch.device:
        return self.y.device

    def take(self, index: Tensor) -> Images:
        """Those of `index` (K,), in its order."""
        index = index.to(self.x.device)
        return Images(self.x[index], self.y[index], self.row)

    def parts(
        self, indices: Sequence[Tensor], rng: torch.Generator | None = None
    ) -> Iterator[Images]:
        """take(index) for each of `indices`, on the device; rng is not drawn from."""
        return (self.take(index) for index in indices)

    def floats(self) -> Tensor:
        """As evaluated.

        Float (N,3,size,size) in [0,1], the central `crop` enlarged where the row asks for it.
        """
        size, crop = self.row.size, self.row.crop
        x = self.x.float() / 255
        side = round(size / crop)
        if x.shape[-1] != side:
            x = _resize(x, side)
        cut = (side - size) // 2
        return x[..., cut : cut + size, cut : cut + size].contiguous()

    def pages(self) -> Pages:
        """floats(), a part at a time: what evaluation takes of a split that is large as floats."""
        return Pages(self)


@dataclass(frozen=True)
class Streamed:
    """A split that stays in its picture files, which are decoded when they are wanted; used like
    Images.

    root/names: (N,) bytes; y: int64 (N,) on the device that parts of it are brought to.
    """

    root: Path
    names: np.ndarray
    y: Tensor
    row: DataSet

    __len__, device, pages = Images.__len__, Images.device, Images.pages

    def take(self, index: Tensor) -> Streamed:
        """Those of `index` (K,), in its order; nothing is decoded yet."""
        return Streamed(
            self.root, self.names[index.cpu().numpy()], self.y[index.to(self.device)], self.row
        )

    def parts(
        self, indices: Sequence[Tensor], rng: torch.Generator | None = None
    ) -> Iterator[Images]:
        """take(index) for each of `indices`, decoded, on the device, while later ones are decoded
        beside.

        With rng, of a row that asks for resized_crop: as training sees them, every picture cropped
        at random by a seed of its own, drawn in the order of `indices`; else as evaluated.
        """
        whole, row, side, seeds = self.take(torch.cat(list(indices))), self.row, None, None
        if rng is not None and "resized_crop" in row.augment:
            seeds, side = torch.randint(2**62, (len(whole),), generator=rng), row.size
            rest = tuple(name for name in row.augment if name != "resized_crop")
            row = row.model_copy(update={"augment": rest, "crop": 1.0})
        labels = whole.y.split([len(index) for index in indices])
        decoded = decoding.stream(
            self.root,
            whole.names,
            [len(index) for index in indices],
            side or round(row.size / row.crop),
            seeds,
            self.device.type == "cuda",
            row.resize,
            row.scale,
        )
        for x, y in zip(decoded, labels, strict=True):
            yield Images(x.to(self.device, non_blocking=True), y, row)

    def floats(self) -> Tensor:
        """As evaluated: float (N,3,size,size) in [0,1], all at once."""
        return next(self.parts([torch.arange(len(self))])).floats()


@dataclass(frozen=True)
class Pages:
    """What is evaluated, in the place of a tensor (N,3,size,size).

    Split(n) makes n images at a time, in order.
    """

    of: Images | Streamed

    @property
    def shape(self) -> torch.Size:
        return torch.Size((len(self.of), 3, self.of.row.size, self.of.row.size))

    @property
    def device(self) -> torch.device:
        return self.of.device

    def split(self, size: int) -> Iterator[Tensor]:
        """float (B,3,size,size) in [0,1], B = size but for the last."""
        return (part.floats() for part in self.of.parts(torch.arange(len(self.of)).split(size)))


def images(
    name: str | DataSet, split: str, device: torch.device | str = "cpu"
) -> Images | Streamed:
    """A whole split: resident on `device`, or, if it is training pictures to be cropped anew each
    epoch or more of them than RESIDENT bytes, streamed to it."""
    row = row_of(name)
    if row.loader in LISTED:
        found, side = listing(row, split), round(row.size / row.crop)
        if (split == "train" and "resized_crop" in row.augment) or len(
            found
        ) * 3 * side * side > RESIDENT:
            return Streamed(found.root, found.names, torch.from_numpy(found.labels).to(device), row)
    x, y = load(row, split)
    return Images(x.to(device), y.to(device), row)


def batches(
    source: Images | Streamed, batch: int, order_rng: torch.Generator, augment_rng: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch of training batches: x (B,3,size,size) in [0,1], augmented as the row says, and y
    (B,).

    Generators live on the CPU, so that an order does not depend on the device. The last batch may
    be smaller; one lone image joins the batch before it (BatchNorm cannot train on one value).
    """
    order = torch.randperm(len(source), generator=order_rng)
    cuts = list(range(0, len(order), batch)) + [len(order)]
    if len(cuts) > 2 and cuts[-1] - cuts[-2] == 1:
        del cuts[-2]
    indices = [order[start:stop] for start, stop in zip(cuts[:-1], cuts[1:], strict=True)]
    for part in source.parts(indices, augment_rng):
        yield _augment(part, augment_rng), part.y


TRIES = 10  # windows that torchvision's RandomResizedCrop draws before it takes the middle
# random numbers that an image takes, in this order
_CHANCES = {"resized_crop": 2 * TRIES + 2, "crop": 2, "flip": 1}


def _augment(part: Images, rng: torch.Generator) -> Tensor:
    """A batch of uint8 images as training sees them: (B,3,size,size) float in [0,1].

    Every image has a row of random numbers of its own, so that batching changes none of them.
    """
    names, row = [name for name in _CHANCES if name in part.row.augment], part.row
    widths = [_CHANCES[name] for name in names]
    drawn = torch.rand(len(part), sum(widths), generator=rng).double()  # of doubles u * n < n
    chances = dict(zip(names, drawn.split(widths, 1), strict=True)) if names else {}
    if "resized_crop" in chances:
        window = windows(chances["resized_crop"], part.x.shape[-2], part.x.shape[-1], row.scale)
        x = resized(part.x.float() / 255, window, row.size)
    else:
        x = part.floats()
    if "crop" in chances:
        x = _shift(x, max(1, row.size // 8), chances["crop"])
    if "flip" in chances:
        flip = (chances["flip"][:, 0] < 0.5).to(x.device)
        x = torch.where(flip[:, None, None, None], x.flip(-1), x)
    return x


def _shift(x: Tensor, pad: int, chances: Tensor) -> Tensor:
    """Zero-pad by `pad` and cut a window of the old size at a random place, one an image.

    chances: (B,2), float64, uniform in [0,1).
    """
    b, _, h, w = x.shape
    at = (chances.T * (2 * pad + 1)).long().to(x.device)
    rows = (at[0, :, None] + torch.arange(h, device=x.device))[:, None, :, None]
    cols = (at[1, :, None] + torch.arange(w, device=x.device))[:, None, None, :]
    image = torch.arange(b, device=x.device)[:, None, None, None]
    channel = torch.arange(x.shape[1], device=x.device)[None, :, None, None]
    return F.pad(x, (pad,) * 4)[image, channel, rows, cols]


def windows(
    chances: Tensor, high: int, wide: int, scale: tuple[float, float] = (0.08, 1.0)
) -> Tensor:
    """Windows as torchvision's RandomResizedCrop draws them, in whole pixels of (high, wide) ones.

    Area uniform in `scale` times the picture's, aspect log-uniform in 3/4 to 4/3; of TRIES windows
    the first that fits, at a uniform place; if none does, the largest central one of an allowed
    aspect. chances: (B, 2 TRIES + 2), float64, uniform in [0,1). Returns int64 (B,4): top, left,
    height, width.
    """
    narrow, broad = 3 / 4, 4 / 3
    area = high * wide * (scale[0] + (scale[1] - scale[0]) * chances[:, :TRIES])
    aspect = torch.exp(math.log(narrow) + math.log(broad / narrow) * chances[:, TRIES:-2])
    h, w = (area / aspect).sqrt().round().long(), (area * aspect).sqrt().round().long()
    fits = (h > 0) & (h <= high) & (w > 0) & (w <= wide)
    first = fits.int().argmax(1, keepdim=True)
    middle_h, middle_w = min(high, round(wide / narrow)), min(wide, round(high * broad))
    some = fits.any(1)
    h = torch.where(some, h.gather(1, first)[:, 0], middle_h)
    w = torch.where(some, w.gather(1, first)[:, 0], middle_w)
    room = torch.stack([high - h, wide - w], 1)
    at = torch.where(some[:, None], (chances[:, -2:] * (room + 1)).long(), room // 2)
    return torch.cat([at, h[:, None], w[:, None]], 1)


def resized(x: Tensor, window: Tensor, size: int) -> Tensor:
    """Each image's window resampled to (size, size) as torchvision's resize does: bilinear,
    antialiased, no pixel from outside the window.

    What differs from torchvision on bytes or PIL pictures: the result is not rounded to bytes, nor
    is what lies between its two passes (a step or two of 1/255 at most).

    x: (B,C,H,W) in [0,1]; window: int64 (B,4), of `windows`. Returns (B,C,size,size) in [0,1].
    """
    top, left, high, wide = window.to(x.device, torch.float32).T
    rows, cols = _triangles(top, high, x.shape[-2], size), _triangles(left, wide, x.shape[-1], size)
    return (rows[:, None] @ x @ cols[:, None].mT).clamp(0, 1)


def _triangles(start: Tensor, length: Tensor, full: int, size: int) -> Tensor:
    """Weights (B,size,full) of `full` pixels in `size` new ones, which divide start to start +
    length, (B,) each, evenly: a triangle as wide as the coarser of both grids; rows sum to 1."""
    start, length = start[:, None, None], length[:, None, None]
    end, step = start + length, length / size
    centre = start + step * (torch.arange(size, device=start.device)[:, None] + 0.5)
    pixel = torch.arange(full, device=start.device) + 0.5
    weight = (1 - (pixel - centre).abs() / step.clamp(min=1)).clamp(min=0)
    weight = weight * ((pixel > start) & (pixel < end))
    return weight / weight.sum(-1, keepdim=True)
