"""Pictures that stand twice: the same bytes, or nearly the same picture.

The near ones are found by an 8 x 8 grey thumbnail of each picture. Two whose thumbnails correlate
above `NEAR` are mostly one photograph in other colours, of another sharpness or moved by a pixel:
of the pairs between CIFAR-10's training and test images, looked at one by one, nearly all are.
"""

from __future__ import annotations

import hashlib

import torch
import torch.nn.functional as F
from torch import Tensor

from dwlt_lib.data.batches import Images, StreamedImages

SIDE = 8  # of a thumbnail, in pixels
NEAR = 0.99  # correlation of two thumbnails above which two pictures are nearly the same
FLAT = 1.0  # grey levels (of 255): a thumbnail's std counts as this where it is smaller
BLOCK = 512, 2**16  # thumbnails that are compared at a time: 128 MB


def thumbnails(x: Tensor) -> Tensor:
    """Grey 8 x 8 means of pictures, shifted and scaled such that products are correlations.

    Args:
        x: uint8 (N,3,H,W).

    Returns:
        float32 (N,64), of mean 0 and norm 1; of a smaller norm where a picture is flat.
    """
    grey = F.adaptive_avg_pool2d(x.float().mean(1, keepdim=True), SIDE).flatten(1)
    grey = grey - grey.mean(1, keepdim=True)
    return grey / grey.norm(dim=1, keepdim=True).clamp(min=FLAT * SIDE)


def count(images: Images | StreamedImages, others: Images | StreamedImages) -> tuple[int, int]:
    """How many of the other pictures are among the images.

    Args:
        images: N pictures, as a training split.
        others: M pictures, as a test split; 50,000 x 10,000 take about 5 s of one core.

    Returns:
        (the same, nearly the same but not the same), each of 0..M.
    """
    known, known_thumbnails = _describe(images)
    found, found_thumbnails = _describe(others)
    seen = set(known)
    same = torch.tensor([digest in seen for digest in found])
    near = torch.cat(
        [_is_near(part, known_thumbnails) for part in found_thumbnails.split(BLOCK[0])]
    )
    return int(same.sum()), int((near & ~same).sum())


def _is_near(some: Tensor, known: Tensor) -> Tensor:
    """Whether each of some thumbnails correlates with a known one; bool, one for each."""
    parts = [((some @ part.T) > NEAR).any(1) for part in known.split(BLOCK[1])]
    return torch.stack(parts).any(0)


def _describe(images: Images | StreamedImages) -> tuple[list[bytes], Tensor]:
    """The digest and the thumbnail of each picture."""
    indices = torch.arange(len(images)).split(1000)
    hashes, small = [], []
    for batch in images.batches(indices):
        hashes += [hashlib.sha256(picture.tobytes()).digest() for picture in batch.x.numpy()]
        small.append(thumbnails(batch.x))
    return hashes, torch.cat(small)
