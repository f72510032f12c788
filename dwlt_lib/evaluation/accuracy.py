"""SA and RA.

Accuracy on test images as they are, and on images an adversary has moved (paper, section 3).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dwlt_lib.attacks.pgd import PGD, check, eval_mode, perturb_unchecked, stands

# of images of 64 x 64 pixels at most, fewer of larger ones; fixed, so that the random starts of an
BATCH = 512
# evaluation do not depend on who calls it


def correct(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    attack: PGD | None = None,
    rng: torch.Generator | None = None,
    source: nn.Module | None = None,
) -> Tensor:
    """Which images are classified rightly: (N,) bool. BatchNorm in eval mode; the model's mode is
    put back.

    x: (N,C,H,W) in [0,1]; y: (N,). attack: perturb the images first, with gradients of `source` (a
    transfer attack) or of the model itself; the last iterate counts. Raises ValueError, one line,
    for anything else (`attacks.check`).
    """
    _check(x, y, model, source)
    with eval_mode(model, source):
        hits = []
        for part, labels in _parts(x, y):
            if attack is not None:
                part = perturb_unchecked(source or model, part, labels, attack, rng)
            with torch.no_grad():
                hits.append(model(part).argmax(1) == labels)
    return torch.cat(hits)


def standard_accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """SA, 0..1. x: (N,C,H,W) in [0,1]; y: (N,)."""
    return correct(model, x, y).double().mean().item()


def robust_accuracy(
    model: nn.Module, x: Tensor, y: Tensor, attack: PGD, rng: torch.Generator
) -> float:
    """RA, 0..1: accuracy on the last iterate of `attack` (the paper: PGD-20). x.

    (N,C,H,W) in [0,1]; y: (N,).
    """
    return correct(model, x, y, attack, rng).double().mean().item()


def robust_accuracy_any(
    model: nn.Module, x: Tensor, y: Tensor, attack: PGD, rng: torch.Generator
) -> float:
    """RA_any, 0..1: an image counts only if it is right at the start and after every step of
    `attack`.

    A stronger statement than the paper's RA, and never mixed with it. x: (N,C,H,W) in [0,1]; y:
    (N,).
    """
    _check(x, y, model)
    with eval_mode(model):
        hits = torch.cat(
            [stands(model, part, labels, attack, rng) for part, labels in _parts(x, y)]
        )
    return hits.double().mean().item()


def attacked(model: nn.Module, x: Tensor, y: Tensor, attack: PGD, rng: torch.Generator) -> Tensor:
    """The adversarial images themselves, (N,C,H,W), made in eval mode."""
    _check(x, y, model)
    with eval_mode(model):
        return torch.cat(
            [perturb_unchecked(model, part, labels, attack, rng) for part, labels in _parts(x, y)]
        )


@torch.no_grad()
def mean_loss(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Mean cross-entropy in nats over x (N,C,H,W), summed in float64.

    The model's mode is left as it is.
    """
    _check(x, y, model)
    total = 0.0
    for part, labels in _parts(x, y):
        total += F.cross_entropy(model(part), labels, reduction="none").double().sum().item()
    return total / len(y)


def _check(x: Tensor, y: Tensor, *models: nn.Module | None) -> None:
    """Once for all of an evaluation's images. A split's own pages are not decoded for it."""
    if not isinstance(x, Tensor) and hasattr(x, "split"):
        return
    for model in models:
        if model is not None:
            check(model, x, y)


def _parts(x: Tensor, y: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    size = max(32, min(BATCH, BATCH * 64 * 64 // (x.shape[-1] * x.shape[-2])))
    return zip(x.split(size), y.split(size), strict=True)
