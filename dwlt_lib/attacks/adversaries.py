"""One batch of images under any attack, as its description says."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dwlt_lib.attacks import apgd, auto, pgd, square
from dwlt_lib.config.recipes import APGD, PGD, Attack, AutoAttack


def perturb(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    attack: Attack,
    rng: torch.Generator | None,
    start: Tensor | None = None,
) -> Tensor:
    """The images x + delta that an adversary makes of x within the l-infinity ball (equation 2).

    The model's mode, its gradients and, in eval mode, its buffers are left as found. PGD attacks
    the network in the mode that it is in (`pgd.perturb_unchecked`), the others in eval mode; they
    attack no image further that is misclassified once.

        moved = perturb(model, x, y, PGD(8 / 255, 2 / 255, 20), torch.Generator().manual_seed(0))

    Args:
        model: a network that normalises its input by itself.
        x: images (B,C,H,W), float in [0,1].
        y: their classes (B,), int64.
        attack: the adversary: a `PGD`, `APGD`, `Square` or `AutoAttack`.
        rng: where random starts and squares are drawn from, on the CPU or on x's device; None for a
            PGD without a random start.
        start: a first delta of x's shape, in place of the random one; for PGD.

    Returns:
        Images (B,C,H,W) within eps of x and within [0,1].

    Raises:
        ValueError: one line, before anything is attacked (see `pgd.check`). The check reads values,
            for which it waits for a GPU.
    """
    pgd.check(model, x, y)
    if start is not None:
        if not isinstance(attack, PGD):
            raise ValueError(f"start with {attack}: want it for PGD alone")
        if start.shape != x.shape:
            raise ValueError(f"start {tuple(start.shape)}: want the shape of x, {tuple(x.shape)}")
        if not bool(start.isfinite().all()):
            raise ValueError("start holds a NaN or an infinity: want a finite first delta")
        return pgd.perturb_unchecked(model, x, y, attack, rng, start)
    return perturb_unchecked(model, x, y, attack, rng)


def perturb_unchecked(
    model: nn.Module, x: Tensor, y: Tensor, attack: Attack, rng: torch.Generator | None
) -> Tensor:
    """What `perturb` computes, of images and labels that are known to be good.

    Args:
        model: the network.
        x: images (B,C,H,W), float in [0,1].
        y: their classes (B,), int64.
        attack: the adversary.
        rng: where it draws from.

    Returns:
        Images (B,C,H,W) within eps of x and within [0,1].

    Raises:
        ValueError: the attack draws at random and there is no rng.
    """
    if isinstance(attack, PGD):
        return pgd.perturb_unchecked(model, x, y, attack, rng)
    if rng is None:
        raise ValueError(f"rng=None with {attack}: want a torch.Generator that it draws from")
    with pgd.eval_mode(model):
        if isinstance(attack, APGD):
            return apgd.perturb(model, x.detach(), y, attack, rng)
        if isinstance(attack, AutoAttack):
            return auto.perturb(model, x.detach(), y, attack, rng)
        return square.perturb(model, x.detach(), y, attack, rng)
