"""Image files into uint8 tensors: decoded, resized and cropped by torchvision on CPU cores.

Other processes do it while the GPU trains, and only bytes reach the device. On the CPU the result
is the same on every machine (a GPU's JPEG decoder rounds otherwise), and a random crop is drawn
from the image's own seed, so that the number of processes changes nothing.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from dwlt_lib import files

MAX_PIXELS = 64_000_000  # of an image: 192 MB decoded
MAX_ASPECT = 50  # of the longer side to the shorter, which a resize of the shorter side enlarges
FORMATS = ("JPEG", "PNG", "WEBP", "PPM")
CHUNK = 32  # images that a process decodes at a time: 5 MB of shared memory at 224 x 224
PREFETCH = 4  # chunks that each process may be ahead
MAX_PROCESSES = 16


def decode_center_crop(file: str, side: int, resize: str = "shorter") -> Tensor:
    """An image file as evaluation sees it, resized bilinear and antialiased.

    Args:
        file: its path.
        side: of the result, in pixels.
        resize: "shorter", that side becomes `side` and the centre is cropped; or "both", the whole
            image is squeezed into the square.

    Returns:
        uint8 (3,side,side).

    Raises:
        ValueError: one line, for what is not a whole image or is too large.
    """
    from torchvision.transforms.v2 import functional

    size = [side] if resize == "shorter" else [side, side]
    image = functional.resize(_decode(file), size, antialias=True)
    return functional.center_crop(image, [side, side])


def decode_random_crop(
    file: str, side: int, seed: int, scale: tuple[float, float] = (0.08, 1.0)
) -> Tensor:
    """An image file as training sees it: torchvision's RandomResizedCrop (aspect 3/4 to 4/3).

    Args:
        file: its path.
        side: of the result, in pixels.
        seed: decides the crop; torch's global generator is left as it was.
        scale: the window's share of the image's area is uniform between these two, before windows
            that do not fit are drawn again.

    Returns:
        uint8 (3,side,side).

    Raises:
        ValueError: one line, for what is not a whole image or is too large.
    """
    from torchvision.transforms.v2 import RandomResizedCrop

    image = _decode(file)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return RandomResizedCrop(side, scale=scale, antialias=True)(image)


def check_size(width: int, height: int) -> None:
    """Refuse an image that would take too much memory, as its header says.

    Args:
        width: in pixels.
        height: in pixels.

    Raises:
        ValueError: the image is beyond `MAX_PIXELS` or `MAX_ASPECT`.
    """
    if width * height > MAX_PIXELS or max(width, height) > MAX_ASPECT * min(width, height):
        raise ValueError(
            f"{width:,} x {height:,} pixels, beyond {MAX_PIXELS:,} or a side of {MAX_ASPECT} times"
            " the other"
        )


def _decode(file: str) -> Tensor:
    """uint8 (3,H,W)."""
    from PIL import Image
    from torchvision.io import ImageReadMode, decode_image

    try:
        path = files.regular(file)
        with warnings.catch_warnings(action="ignore"), Image.open(path, formats=FORMATS) as image:
            check_size(*image.size)
            if image.format == "PPM":  # which torchvision does not decode
                return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
        return decode_image(file, ImageReadMode.RGB)
    except Exception as error:  # damaged images fail in many ways
        reason = re.sub(r"^.*\.cpp:\d+, ", "", f"{error}\n".splitlines()[0])[:160]
        raise ValueError(
            f"{file}: {reason}; want a whole JPEG, PNG, WebP or PPM; bring another"
        ) from error


@dataclass(frozen=True)
class ImageDecoder(Dataset):
    """The image files of a list, decoded by index: what torch's DataLoader hands to processes."""

    root: Path
    """Folder of the files"""
    names: np.ndarray
    """(N,) bytes, the files' paths relative to the folder"""
    side: int
    """Side of the decoded images, in pixels"""
    resize: str = "shorter"
    """As in `decode_center_crop`"""
    scale: tuple[float, float] = (0.08, 1.0)
    """As in `decode_random_crop`"""
    seeds: Tensor | None = None
    """int64 (N,), of a random crop each; None: images as evaluation sees them"""

    def __len__(self) -> int:
        """The number of files N."""
        return len(self.names)

    def decode(self, index: int) -> Tensor:
        """One image.

        Args:
            index: of its file, in 0..N-1.

        Returns:
            uint8 (3,side,side).

        Raises:
            ValueError: as `decode_center_crop`.
        """
        file = os.path.join(self.root, os.fsdecode(self.names[index]))
        if self.seeds is None:
            return decode_center_crop(file, self.side, self.resize)
        return decode_random_crop(file, self.side, int(self.seeds[index]), self.scale)

    def __getitem__(self, indices: Sequence[int]) -> Tensor | str:
        """The images of those files, uint8 (B,3,side,side), or the line of the first error.

        An exception that leaves a process arrives with its traceback in many lines.
        """
        try:
            return torch.stack([self.decode(index) for index in indices])
        except ValueError as error:
            return str(error)


def num_processes() -> int:
    """How many processes decode beside this one; 0: this one decodes.

    It is what DWLT_LOADERS says, or else the cores of one worker less one, at most `MAX_PROCESSES`.

    Returns:
        A number from 0 on; 0 in a process that may not have children.

    Raises:
        ValueError: one line, if DWLT_LOADERS is not a number.
    """
    requested = os.environ.get("DWLT_LOADERS", "")
    if requested and not requested.isdecimal():
        raise ValueError(f"DWLT_LOADERS={requested!r}: want a number of processes, 0 or more")
    if multiprocessing.current_process().daemon:  # may not have children
        return 0
    if requested:
        return int(requested)
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    return min(MAX_PROCESSES, (cores - 1) // int(os.environ.get("DWLT_WORKERS", 1)))


def decode_batches(
    decoder: ImageDecoder, sizes: Sequence[int], pin_memory: bool = False
) -> Iterator[Tensor]:
    """All images of a decoder in order, in batches, decoded by `num_processes()` processes.

    Args:
        decoder: the files.
        sizes: the number of images of each batch; their sum is len(decoder).
        pin_memory: whether batches lie in page-locked memory, for a GPU.

    Yields:
        uint8 (B,3,side,side) for each B of sizes.

    Raises:
        ValueError: one line, for a file that is missing, not a whole image, or too large.
    """
    # before processes are forked, so that they have it
    import torchvision.transforms.v2  # noqa: F401
    from torch.utils.data import DataLoader

    batches = torch.arange(len(decoder)).split(list(sizes))
    chunks = [chunk.tolist() for batch in batches for chunk in batch.split(CHUNK)]
    workers = min(num_processes(), len(chunks) // 2)
    loader: DataLoader[Any] = DataLoader(
        decoder,
        batch_size=None,  # a chunk is one item
        sampler=chunks,
        num_workers=workers,
        prefetch_factor=PREFETCH if workers else None,
        worker_init_fn=_ignore_interrupts,
        generator=torch.Generator(),  # its own, so that the global one is not drawn from
    )
    decoded = iter(loader)
    side = decoder.side
    for size in sizes:
        batch = torch.empty(size, 3, side, side, dtype=torch.uint8, pin_memory=pin_memory)
        for part in batch.split(CHUNK):
            chunk = next(decoded)
            if isinstance(chunk, str):
                raise ValueError(chunk)
            part.copy_(chunk)
        yield batch


def _ignore_interrupts(_: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the training process says what happened
