"""delta, the adversary's perturbation: FGSM and PGD in the l-infinity ball and pixel box (paper, equations 1, 2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class PGD:
    """delta <- proj(delta + alpha * sgn(grad L)) in |delta| <= eps, `steps` times; one step is FGSM.

    eps, alpha in [0,1] pixels; random_start: uniform in the ball; restarts: the strongest of so many starts counts.
    """

    eps: float
    alpha: float
    steps: int
    random_start: bool = True
    restarts: int = 1

    def __post_init__(self) -> None:
        for name, value in (("eps", self.eps), ("alpha", self.alpha)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name}={value}: want 0..1, in [0,1] pixels (8/255 = 0.0314, not 8)")
        if self.steps < 0 or self.restarts < 1:
            raise ValueError(f"steps={self.steps}, restarts={self.restarts}: want steps >= 0 and restarts >= 1")


def perturb(model: nn.Module, x: Tensor, y: Tensor, attack: PGD, rng: torch.Generator | None,
            start: Tensor | None = None) -> Tensor:
    """x + delta, the last iterate of PGD against mean cross-entropy (equation 2).

    x: (B,C,H,W) in [0,1]; y: (B,); start: a first delta of x's shape, in place of the random one; rng: where the
    random one comes from (on the CPU or on x's device). Returns (B,C,H,W) within eps of x and within [0,1].
    The model's mode, gradients and, in eval mode, buffers are left as found; in train mode BatchNorm's statistics move
    once a step, as in the authors' adversarial training. With several restarts, each image keeps its largest loss.
    """
    low, high = (x - attack.eps).clamp_(min=0), (x + attack.eps).clamp_(max=1)
    best, best_loss = None, None
    for _ in range(attack.restarts):
        adversarial = _one_start(model, x, y, attack, rng, start, low, high)
        if attack.restarts == 1:
            return adversarial
        with torch.no_grad():
            loss = F.cross_entropy(model(adversarial), y, reduction="none")
        if best is None:
            best, best_loss = adversarial, loss
        else:
            worse = loss > best_loss
            best = torch.where(worse[:, None, None, None], adversarial, best)
            best_loss = torch.where(worse, loss, best_loss)
    return best


def _one_start(model: nn.Module, x: Tensor, y: Tensor, attack: PGD, rng: torch.Generator | None,
               start: Tensor | None, low: Tensor, high: Tensor) -> Tensor:
    adversarial = x.detach().clone()
    if start is not None:
        if start.shape != x.shape:
            raise ValueError(f"start {tuple(start.shape)}: want the shape of x, {tuple(x.shape)}")
        adversarial += start.detach()
    elif attack.random_start:
        if rng is None:
            raise ValueError("rng=None: want a torch.Generator for the random start, or random_start=False")
        noise = torch.rand(x.shape, generator=rng, device=rng.device, dtype=x.dtype).to(x.device)
        adversarial += (2 * noise - 1) * attack.eps
    adversarial = adversarial.clamp(low, high)
    for _ in range(attack.steps):
        adversarial.requires_grad_(True)
        with torch.enable_grad():
            # the sum, not the mean: the same signs, and no gradient flushed to zero by a small factor
            loss = F.cross_entropy(model(adversarial), y, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, adversarial)
        with torch.no_grad():
            adversarial = torch.clamp(adversarial + attack.alpha * gradient.sign(), low, high)
    return adversarial.detach()
