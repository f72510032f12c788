"""Picture files into uint8 tensors, decoded and cropped by torchvision in processes beside the
training one.

The work of a picture: libjpeg-turbo through torchvision.io, then torchvision.transforms.v2 on
bytes, both on CPU cores, so that the outcome is the same on every machine (a GPU's JPEG decoder
rounds otherwise) and the GPU is left to train. Only bytes reach the device. A random crop is drawn
from the picture's own seed: what comes out does not depend on how many processes work.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import struct
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dwlt_lib import files

MOST_PIXELS = 64_000_000  # of a picture: 192 MB decoded
# the longer side to the shorter: the shorter is resized to what the network sees, the longer with
# it
MOST_ASPECT = 50
MOST_BYTES = 2**28  # of its file
FORMATS = ("JPEG", "PNG", "WEBP")
CHUNK = 32  # pictures a process decodes at a time: 5 MB of shared memory at 224 x 224
AHEAD = 4  # chunks that each process may be ahead


def central(file: str, side: int, resize: str = "shorter") -> Tensor:
    """As evaluated: uint8 (3,side,side), resized bilinear and antialiased.

    resize: "shorter", that side becomes `side` and the middle is cut; "both", the whole picture,
    whatever its shape.
    """
    from torchvision.transforms.v2 import functional as f

    sides = [side] if resize == "shorter" else [side, side]
    return f.center_crop(f.resize(_decode(file), sides, antialias=True), [side, side])


def cropped(file: str, side: int, seed: int, scale: tuple[float, float] = (0.08, 1.0)) -> Tensor:
    """As trained on: torchvision's RandomResizedCrop (aspect 3/4 to 4/3): uint8 (3,side,side).

    scale: the window's share of the picture's area, uniform between these before windows that do
    not fit are drawn again. seed decides the crop; torch's global generator is left as it is found.
    """
    from torchvision.transforms.v2 import RandomResizedCrop

    picture = _decode(file)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return RandomResizedCrop(side, scale=scale, antialias=True)(picture)


def measure(file: str | os.PathLike) -> tuple[int, int]:
    """Width and height in pixels, read off the file's header; nothing is decoded. Raises
    ValueError, one line, if the file is no picture, or beyond MOST_PIXELS, MOST_ASPECT or
    MOST_BYTES."""
    from PIL import Image

    size = os.path.getsize(files.regular(file))
    if size > MOST_BYTES:
        raise ValueError(
            f"{file}: {size:,} bytes; want a picture of {MOST_BYTES:,} at most; put a smaller one"
            " there"
        )
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(file, formats=FORMATS) as picture:
            wide, high = picture.size
    except Image.DecompressionBombError as error:
        raise ValueError(
            f"{file}: more than 178,956,970 pixels; want {MOST_PIXELS:,} at most; put a smaller one"
            " there"
        ) from error
    except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
        raise ValueError(
            f"{file}: no whole picture; want a whole JPEG, PNG or WebP; put the file there anew"
        ) from error
    if wide * high > MOST_PIXELS or max(wide, high) > MOST_ASPECT * min(wide, high):
        raise ValueError(
            f"{file}: {wide:,} x {high:,} pixels; want {MOST_PIXELS:,} at most, and no side more"
            f" than {MOST_ASPECT} times the other; put a smaller one there"
        )
    return wide, high


def _decode(file: str) -> Tensor:
    from torchvision.io import ImageReadMode, decode_image

    measure(file)
    try:
        return decode_image(file, ImageReadMode.RGB)
    except RuntimeError as error:
        reason = (
            str(error).splitlines()[0].rsplit(".cpp:", 1)[-1].partition(", ")[2] or "cannot be read"
        )
        raise ValueError(
            f"{file}: {reason.rstrip('.')}; want a whole JPEG, PNG or WebP; put the file there anew"
        ) from error


@dataclass(frozen=True)
class _Decoder:
    """The pictures root/names[i], each cropped by its seed or as evaluated.

    What is wrong comes back as text.
    """

    root: str
    names: np.ndarray
    side: int
    seeds: Tensor | None
    resize: str
    scale: tuple[float, float]

    def __len__(self) -> int:
        return len(self.names)

    def __getitems__(self, index: Sequence[int]) -> Tensor | str:
        try:
            return torch.stack([self._one(i) for i in index])
        except ValueError as error:
            return str(error)

    def _one(self, i: int) -> Tensor:
        file = os.path.join(self.root, os.fsdecode(self.names[i]))
        if self.seeds is None:
            return central(file, self.side, self.resize)
        return cropped(file, self.side, int(self.seeds[i]), self.scale)


def loaders() -> int:
    """How many processes decode.

    DWLT_LOADERS, or a worker's share of the cores less one, 16 at most; 0: this one.
    """
    asked = os.environ.get("DWLT_LOADERS", "")
    if asked and not asked.isdecimal():
        raise ValueError(f"DWLT_LOADERS={asked!r}: want a number of processes, 0 or more")
    if multiprocessing.current_process().daemon:  # may not have children
        return 0
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return int(asked) if asked else min(16, (cores - 1) // int(os.environ.get("DWLT_WORKERS", 1)))


def stream(
    root: str | os.PathLike,
    names: np.ndarray,
    sizes: Sequence[int],
    side: int,
    seeds: Tensor | None = None,
    pin: bool = False,
    resize: str = "shorter",
    scale: tuple[float, float] = (0.08, 1.0),
) -> Iterator[Tensor]:
    """The pictures root/names (N,) in this order as uint8 (B,3,side,side), one B out of sizes a
    time (sum(sizes) = N).

    seeds: (N,) int64, a random crop each, of `scale`; None: as evaluated, by `resize`
    (catalogue.DataSet says what both are). pin: in page-locked memory, for a GPU. Raises
    ValueError, one line, for a file that is missing or no whole picture.
    """
    import torchvision.transforms.v2  # noqa: F401 - before processes are forked, so that they have it
    from torch.utils.data import DataLoader

    ends = np.cumsum(sizes).tolist()
    chunks = [
        range(at, min(at + CHUNK, end))
        for begin, end in zip([0, *ends], ends, strict=False)
        for at in range(begin, end, CHUNK)
    ]
    workers = min(loaders(), len(chunks) // 2)
    decoded = iter(
        DataLoader(
            _Decoder(os.fspath(root), names, side, seeds, resize, scale),
            batch_sampler=chunks,
            num_workers=workers,
            collate_fn=_as_it_is,
            prefetch_factor=AHEAD if workers else None,
            worker_init_fn=_ignore_interrupts,
            generator=torch.Generator(),
        )
    )  # its own: the global one is not drawn from
    for size in sizes:
        whole, at = torch.empty(size, 3, side, side, dtype=torch.uint8, pin_memory=pin), 0
        while at < size:
            part = next(decoded)
            if isinstance(part, str):
                raise ValueError(part)
            whole[at : at + len(part)] = part
            at += len(part)
        yield whole


def _as_it_is(chunk: Tensor | str) -> Tensor | str:
    return chunk


def _ignore_interrupts(_: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the training process says what happened
