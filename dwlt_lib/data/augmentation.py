"""How the network sees images: the fixed view of evaluation, the random ones of training.

A random crop here acts on a batch on its device, where torchvision's transforms act on one image at
a time; tests compare the two. Image files that are streamed are cropped when they are decoded.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from dwlt_lib.config.datasets import DataSet

MAX_TRIES = 10  # windows that torchvision's RandomResizedCrop draws before it takes the central one
NUM_RANDOM = {"resized_crop": 2 * MAX_TRIES + 2, "crop": 2, "flip": 1}
"""Random numbers that one image takes for each augmentation, in the order that they are drawn in"""


def side_before_crop(row: DataSet) -> int:
    """Side to which evaluation resizes an image before it crops the centre.

    Args:
        row: the data set; its `size`, in pixels, and `crop`, in (0,1], are used.

    Returns:
        round(size / crop), in pixels.
    """
    return round(row.size / row.crop)


def resize(x: Tensor, side: int) -> Tensor:
    """Resize images, bilinear and antialiased.

    Args:
        x: floats (B,C,H,W).
        side: of the result, in pixels.

    Returns:
        (B,C,side,side), in the range of x.
    """
    return F.interpolate(x, (side, side), mode="bilinear", antialias=True)


def evaluation_view(x: Tensor, row: DataSet) -> Tensor:
    """Images as evaluation sees them: resized where they have another size, then centre-cropped.

    Args:
        x: uint8 (B,3,H,W), square.
        row: the data set; its `size` and `crop` are used.

    Returns:
        float32 (B,3,size,size) in [0,1], on the device of x.
    """
    side = side_before_crop(row)
    x = x.float() / 255
    if x.shape[-1] != side:
        x = resize(x, side)
    margin = (side - row.size) // 2
    return x[..., margin : margin + row.size, margin : margin + row.size].contiguous()


def augment(x: Tensor, row: DataSet, rng: torch.Generator) -> Tensor:
    """Images as training sees them, with the row's augmentations in the order of `NUM_RANDOM`.

    Each image has random numbers of its own, a row of one draw, so that how images are grouped
    into batches changes none of them.

    Args:
        x: uint8 (B,3,H,W), square.
        row: the data set; its `augment`, `size`, `crop` and `scale` are used.
        rng: a generator on the CPU.

    Returns:
        float32 (B,3,size,size) in [0,1], on the device of x.
    """
    names = [name for name in NUM_RANDOM if name in row.augment]
    if not names:
        return evaluation_view(x, row)
    widths = [NUM_RANDOM[name] for name in names]
    # in double precision, since a float32 u < 1 can round to u * n = n
    drawn = torch.rand(len(x), sum(widths), generator=rng).double()
    random = dict(zip(names, drawn.split(widths, 1), strict=True))
    if "resized_crop" in random:
        windows = random_windows(random["resized_crop"], x.shape[-2], x.shape[-1], row.scale)
        x = crop_and_resize(x.float() / 255, windows, row.size)
    else:
        x = evaluation_view(x, row)
    if "crop" in random:
        x = _random_shift(x, max(1, row.size // 8), random["crop"])
    if "flip" in random:
        is_flipped = (random["flip"][:, 0] < 0.5).to(x.device)
        x = torch.where(is_flipped[:, None, None, None], x.flip(-1), x)
    return x


def _random_shift(x: Tensor, padding: int, random: Tensor) -> Tensor:
    """Pad with zeros and crop each image to its old size at a random place (CIFAR's "crop").

    Args:
        x: (B,C,H,W).
        padding: pixels added on each side.
        random: (B,2), float64, uniform in [0,1).

    Returns:
        (B,C,H,W).
    """
    batch, channels, height, width = x.shape
    offset = (random.T * (2 * padding + 1)).long().to(x.device)
    rows = (offset[0, :, None] + torch.arange(height, device=x.device))[:, None, :, None]
    columns = (offset[1, :, None] + torch.arange(width, device=x.device))[:, None, None, :]
    image = torch.arange(batch, device=x.device)[:, None, None, None]
    channel = torch.arange(channels, device=x.device)[None, :, None, None]
    return F.pad(x, (padding,) * 4)[image, channel, rows, columns]


def random_windows(
    random: Tensor, height: int, width: int, scale: tuple[float, float] = (0.08, 1.0)
) -> Tensor:
    """Windows as torchvision's RandomResizedCrop draws them, one per image, in whole pixels.

    The area is uniform in `scale` times the image's, the aspect log-uniform in 3/4 to 4/3. Of
    `MAX_TRIES` windows the first that fits counts, at a uniform place; where none fits, the
    largest central one of an allowed aspect.

    Args:
        random: (B, 2 MAX_TRIES + 2), float64, uniform in [0,1).
        height: of the images, in pixels.
        width: of the images, in pixels.
        scale: the smallest and the largest share of the area.

    Returns:
        int64 (B,4): top, left, height, width.
    """
    min_aspect, max_aspect = 3 / 4, 4 / 3
    area = height * width * (scale[0] + (scale[1] - scale[0]) * random[:, :MAX_TRIES])
    log_range = math.log(max_aspect / min_aspect)
    aspect = torch.exp(math.log(min_aspect) + log_range * random[:, MAX_TRIES:-2])
    heights, widths = (area / aspect).sqrt().round().long(), (area * aspect).sqrt().round().long()
    fits = (heights > 0) & (heights <= height) & (widths > 0) & (widths <= width)
    first = fits.int().argmax(1, keepdim=True)
    any_fits = fits.any(1)
    central_height = min(height, round(width / min_aspect))
    central_width = min(width, round(height * max_aspect))
    h = torch.where(any_fits, heights.gather(1, first)[:, 0], central_height)
    w = torch.where(any_fits, widths.gather(1, first)[:, 0], central_width)
    room = torch.stack([height - h, width - w], 1)
    corner = torch.where(any_fits[:, None], (random[:, -2:] * (room + 1)).long(), room // 2)
    return torch.cat([corner, h[:, None], w[:, None]], 1)


def crop_and_resize(x: Tensor, windows: Tensor, size: int) -> Tensor:
    """Resize the window of each image as torchvision does: bilinear, antialiased, no other pixels.

    Torchvision on bytes or PIL images differs in that it rounds the result to bytes, and what lies
    between its two passes (a step or two of 1/255 at most).

    Args:
        x: (B,C,H,W) in [0,1].
        windows: int64 (B,4), of `random_windows`.
        size: side of the result, in pixels.

    Returns:
        (B,C,size,size) in [0,1].
    """
    top, left, height, width = windows.to(x.device, torch.float32).T
    rows = _resampling_weights(top, height, x.shape[-2], size)
    columns = _resampling_weights(left, width, x.shape[-1], size)
    return (rows[:, None] @ x @ columns[:, None].mT).clamp(0, 1)


def _resampling_weights(start: Tensor, length: Tensor, num_pixels: int, size: int) -> Tensor:
    """Weights (B,size,num_pixels) that resample [start, start + length) to `size` new pixels.

    A weight is a triangle around the new pixel's centre, as wide as the coarser of both grids, and
    0 outside the window; rows sum to 1. start and length: (B,).
    """
    start, length = start[:, None, None], length[:, None, None]
    end, step = start + length, length / size
    centre = start + step * (torch.arange(size, device=start.device)[:, None] + 0.5)
    pixel = torch.arange(num_pixels, device=start.device) + 0.5
    weight = (1 - (pixel - centre).abs() / step.clamp(min=1)).clamp(min=0)
    weight = weight * ((pixel > start) & (pixel < end))
    return weight / weight.sum(-1, keepdim=True)
