"""SA and RA: accuracy on test images as they are, and on images that an adversary has moved."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dwlt_lib.attacks.adversaries import perturb_unchecked
from dwlt_lib.attacks.pgd import PGD, check, correct_at_every_step, eval_mode
from dwlt_lib.config.recipes import Attack
from dwlt_lib.data.batches import LazyBatches

BATCH = 512
"""Images of at most 64 x 64 pixels in a batch, fewer of larger ones.

Fixed, so that the random starts of an evaluation do not depend on who calls it."""


def correct(
    model: nn.Module,
    x: Tensor | LazyBatches,
    y: Tensor,
    attack: Attack | None = None,
    rng: torch.Generator | None = None,
    source: nn.Module | None = None,
) -> Tensor:
    """Which images are classified rightly, BatchNorm in eval mode; the model's mode is put back.

    Args:
        model: the network.
        x: images (N,C,H,W), float in [0,1], whole or made batch by batch.
        y: their classes (N,), int64.
        attack: moves the images first; of PGD the last iterate counts. None: images as they are.
        rng: where the attack draws from.
        source: the network whose gradients the attack follows (a transfer attack); None: the model.

    Returns:
        (N,) bool.

    Raises:
        ValueError: one line, if these are no images and labels for the network (`attacks.check`).
    """
    source = source or model
    _check(x, y, model, source)
    hits = []
    with eval_mode(model, source):
        for images, labels in batches(x, y):
            if attack is not None:
                images = perturb_unchecked(source, images, labels, attack, rng)
            with torch.no_grad():
                hits.append(model(images).argmax(1) == labels)
    return torch.cat(hits)


def standard_accuracy(model: nn.Module, x: Tensor | LazyBatches, y: Tensor) -> float:
    """SA: the share of test images that the network classifies rightly.

    Args:
        model: the network.
        x: images (N,C,H,W), float in [0,1], whole or made batch by batch.
        y: their classes (N,), int64.

    Returns:
        A fraction in [0,1].
    """
    return correct(model, x, y).double().mean().item()


def robust_accuracy(
    model: nn.Module, x: Tensor | LazyBatches, y: Tensor, attack: PGD, rng: torch.Generator
) -> float:
    """RA: accuracy on the last iterate of `attack` (the paper: PGD-20).

    Args:
        model: the network.
        x: images (N,C,H,W), float in [0,1], whole or made batch by batch.
        y: their classes (N,), int64.
        attack: the adversary.
        rng: where its random start is drawn from.

    Returns:
        A fraction in [0,1].
    """
    return correct(model, x, y, attack, rng).double().mean().item()


def correct_throughout(
    model: nn.Module, x: Tensor | LazyBatches, y: Tensor, attack: PGD, rng: torch.Generator
) -> Tensor:
    """Which images are classified rightly at the start and after every step of `attack`.

    Their share is RA_any, a stronger statement than the paper's RA, and never mixed with it.

    Args:
        model: the network.
        x: images (N,C,H,W), float in [0,1], whole or made batch by batch.
        y: their classes (N,), int64.
        attack: the adversary.
        rng: where its random start is drawn from.

    Returns:
        (N,) bool; none but those that are right after the last step, too.
    """
    _check(x, y, model)
    with eval_mode(model):
        return torch.cat(
            [correct_at_every_step(model, *batch, attack, rng) for batch in batches(x, y)]
        )


def attacked(
    model: nn.Module, x: Tensor | LazyBatches, y: Tensor, attack: PGD, rng: torch.Generator
) -> Tensor:
    """The adversarial images themselves, made in eval mode.

    Args:
        model: the network.
        x: images (N,C,H,W), float in [0,1], whole or made batch by batch.
        y: their classes (N,), int64.
        attack: the adversary.
        rng: where its random start is drawn from.

    Returns:
        (N,C,H,W) in [0,1].
    """
    _check(x, y, model)
    with eval_mode(model):
        return torch.cat([perturb_unchecked(model, *batch, attack, rng) for batch in batches(x, y)])


@torch.no_grad()
def mean_loss(model: nn.Module, x: Tensor | LazyBatches, y: Tensor) -> float:
    """The mean cross-entropy, summed in float64; the model's mode is left as it is.

    Args:
        model: the network.
        x: images (N,C,H,W), float in [0,1], whole or made batch by batch.
        y: their classes (N,), int64.

    Returns:
        The loss in nats.
    """
    _check(x, y, model)
    total = 0.0
    for images, labels in batches(x, y):
        total += F.cross_entropy(model(images), labels, reduction="none").double().sum().item()
    return total / len(y)


def _check(x: Tensor | LazyBatches, y: Tensor, *models: nn.Module) -> None:
    """Once for all of an evaluation's images; lazy batches of a split are not decoded for it."""
    if not isinstance(x, LazyBatches):
        for model in dict.fromkeys(models):  # the model and the attack's may be the same
            check(model, x, y)


def batches(x: Tensor | LazyBatches, y: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Images and labels in batches whose size depends on the images alone.

    Args:
        x: images (N,C,H,W), whole or made batch by batch.
        y: their classes (N,).

    Returns:
        Images (B,C,H,W) and their classes (B,), batch by batch.
    """
    size = max(32, min(BATCH, BATCH * 64 * 64 // (x.shape[-1] * x.shape[-2])))
    return zip(x.split(size), y.split(size), strict=True)
