"""The loss of attacked images along its gradient, and along random directions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dwlt_lib.attacks.pgd import eval_mode, image_gradient
from dwlt_lib.data.batches import LazyBatches
from dwlt_lib.evaluation.accuracy import batches


def gradient_above_random(
    model: nn.Module,
    x: Tensor | LazyBatches,
    y: Tensor,
    eps: float,
    rng: torch.Generator,
    directions: int = 10,
) -> Tensor:
    """For which images the loss at x + eps sign(gradient) is above that of random directions.

    Those are x + eps s with random signs s; their mean loss counts. A tie is not above.

    Args:
        model: the network; it is measured in eval mode, and its mode is put back.
        x: images (N,C,H,W), float in [0,1], whole or made batch by batch.
        y: their classes (N,), int64.
        eps: length of the step, in [0,1] pixels; the images are clipped to [0,1].
        rng: where the random signs are drawn from.
        directions: how many for each image.

    Returns:
        (N,) bool.
    """
    above = []
    with eval_mode(model):
        for x_batch, y_batch in batches(x, y):
            gradient = image_gradient(model, x_batch, y_batch)
            along = _loss(model, x_batch + eps * gradient.sign(), y_batch)
            random = torch.zeros_like(along)
            for _ in range(directions):
                noise = torch.rand(x_batch.shape, generator=rng, device=rng.device)
                signs = (noise.to(x_batch) - 0.5).sign()
                random += _loss(model, x_batch + eps * signs, y_batch) / directions
            above.append(along > random)
    return torch.cat(above)


@torch.no_grad()
def _loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(model(x.clamp(0, 1)), y, reduction="none")
